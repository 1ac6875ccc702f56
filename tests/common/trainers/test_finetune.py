"""Labels on top of a pretrained encoder: what moves, what is recorded, what is measured."""

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_system import Pairs, Tiny, TinyConfig

from counterpoint.common.data import ListSamples
from counterpoint.common.errors import InputError
from counterpoint.common.trainers import (
    Datasets,
    FinetuneConfig,
    OptimConfig,
    ScheduleConfig,
    TrainConfig,
    create_finetune,
    create_system,
    export,
    finetune,
    fit,
    from_pretrained,
    load_run,
    override,
    save_pretrained,
)
from counterpoint.common.trainers.tasks import Regression, task_class


class LabelledPairs(Pairs):
    def __init__(self, n, seed):
        super().__init__(n, seed)
        self.kind = ["low" if x < 0.4 else "high" for x in self.latent[:, 0].tolist()]

    def __getitem__(self, i):
        kind = None if i == 5 else self.kind[i]
        flags = {"up": float(self.latent[i, 1] > 0), "left": float("nan") if i == 7 else float(self.latent[i, 2] > 0)}
        return {**super().__getitem__(i), "kind": kind, "height": 100 + 10 * self.latent[i, 0], **flags}


class LabelledTiny(Tiny):
    def datasets(self):
        return Datasets(LabelledPairs(96, 0), LabelledPairs(40, 1), LabelledPairs(41, 2))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    config = override(TinyConfig(), {"samples": 96, "train.out": str(tmp_path_factory.mktemp("base") / "run")})
    return fit(create_system(LabelledTiny, config)).run_dir


def config_for(run, out, **changes):
    train = TrainConfig(
        out=str(out), max_epochs=4, batch_size=16, monitor_every=0, tensorboard=False, accelerator="cpu"
    )
    return replace(FinetuneConfig(run=str(run), train=train, optim=OptimConfig(lr=0.1), labels=("kind",)), **changes)


def moved(system, before):
    return {n for n, p in system.named_parameters() if n in before and not torch.equal(p, before[n])}


@pytest.mark.parametrize("mode", ["frozen", "full", "layerwise", "lora"])
def test_what_moves_in_each_mode(pretrained, tmp_path, mode):
    config = config_for(pretrained, tmp_path / "run", mode=mode)
    system = create_finetune(config)
    before = {n: p.detach().clone() for n, p in system.named_parameters()}
    base = load_run(pretrained).state_dict()
    assert torch.equal(
        before["base.tower_a.0.weight" if mode != "lora" else "base.tower_a.0.base_layer.weight"],
        base["tower_a.0.weight"],
    )
    result = finetune(config)
    after = load_run(result.run_dir)
    changed = moved(after, before)
    assert {"head.1.weight", "head.1.bias"} <= changed
    encoder = {n for n in changed if n.startswith("base.")}
    if mode == "frozen":
        assert not encoder
    elif mode == "lora":
        assert encoder
        assert all("lora_" in n for n in encoder)
    else:
        assert "base.tower_a.0.weight" in encoder
        assert not any("teacher" in n for n in encoder)
    (file,) = (result.run_dir / "frozen").iterdir()  # what no mode moves is written once, and no checkpoint holds it
    once = set(load_file(file))
    assert not once & (changed | set(load_file(result.best / "model.safetensors")))
    assert once == {n for n, p in system.named_parameters() if not p.requires_grad and p.ndim}
    report = json.loads((result.run_dir / "finetune.json").read_text())
    assert report["test"]["n"] == 41 - 1  # one sample has no label
    assert report["test"]["metrics"]["balanced_accuracy"] > report["test"]["chance"]["balanced_accuracy"] + 0.15
    assert set(report["test"]["ece"]) == {"uncalibrated", "calibrated"}


def test_a_frozen_encoder_has_no_dropout_while_its_head_is_trained(pretrained, tmp_path):
    system = create_finetune(config_for(pretrained, tmp_path / "run", dropout=0.5)).train()
    batch = system.datasets().train.collate([system.datasets().train[i] for i in range(8)])
    assert torch.equal(system.features(batch)["a"], system.features(batch)["a"])
    assert not torch.equal(system.embed(batch)["logits"], system.embed(batch)["logits"])  # the head's own
    moving = create_finetune(config_for(pretrained, tmp_path / "run", mode="full")).train()
    assert not torch.equal(moving.features(batch)["a"], moving.features(batch)["a"])


def test_early_stopping_goes_by_the_validation_and_the_best_is_tested(pretrained, tmp_path):
    config = config_for(pretrained, tmp_path / "run", mode="full", optim=OptimConfig(lr=0.5))
    train = replace(config.train, max_epochs=30, patience=2, monitor="val/balanced_accuracy", monitor_mode="max")
    result = finetune(replace(config, train=train))
    with (result.run_dir / "metrics.csv").open() as handle:
        rows = csv.DictReader(handle)
        scores = [float(r["val/balanced_accuracy"]) for r in rows if r["val/balanced_accuracy"]]
    assert len(scores) < 30
    best = int(np.argmax(scores))
    assert len(scores) == best + 1 + 2
    report = json.loads((result.run_dir / "finetune.json").read_text())
    assert report["val"]["metrics"]["balanced_accuracy"] == pytest.approx(scores[best], abs=0.1)  # views are redrawn


def test_layerwise_rates_fall_with_depth(pretrained, tmp_path):
    system = create_finetune(config_for(pretrained, tmp_path / "run", mode="layerwise", layer_decay=0.5))
    system.begin_stage(system.stages()[0], 10)
    (optimizer,) = system.configure_optimizers()
    rates = {n: g["lr"] for g in optimizer.param_groups for n in g["names"]}
    assert rates["head.1.weight"] == 0.1
    assert rates["base.tower_a.3.weight"] == pytest.approx(2 * rates["base.tower_a.0.weight"])


def test_temperature_minimises_the_validation_loss(pretrained, tmp_path):
    result = finetune(config_for(pretrained, tmp_path / "run"))
    system = load_run(result.run_dir)
    datasets = system.datasets()
    found, _ = system.predictions(datasets.val)
    logits, target = found["logits"], found["target"]
    nll = lambda t: float(torch.nn.functional.cross_entropy(logits / t, target))  # noqa: E731
    best = float(system.task.temperature)
    assert best != 1.0
    assert nll(best) <= min(nll(best * 1.05), nll(best / 1.05), nll(1.0)) + 1e-7


def test_regression_and_multilabel(pretrained, tmp_path):
    regression = config_for(pretrained, tmp_path / "r", task="regression", labels=("height",), mode="full")
    report = json.loads((finetune(regression).run_dir / "finetune.json").read_text())
    assert report["test"]["metrics"]["R2"] > 0.3
    multilabel = config_for(pretrained, tmp_path / "m", task="multilabel", labels=("up", "left"), imbalance="weights")
    report = json.loads((finetune(multilabel).run_dir / "finetune.json").read_text())
    assert report["test"]["metrics"]["auroc"] > 0.6


def test_balanced_mse_undoes_the_shrinkage_of_least_squares():
    """Gaussian x and y, share rho2 explained: slope 1 / rho2, noise variance (1 - rho2) / rho2, R2 = 2 - 1 / rho2."""
    generator = torch.Generator().manual_seed(0)
    for rho2 in (0.5, 0.8):
        x = torch.randn(2048, generator=generator, dtype=torch.float64) * rho2**0.5
        y = x + torch.randn(2048, generator=generator, dtype=torch.float64) * (1 - rho2) ** 0.5
        labels = SimpleNamespace(targets=(7 + 3 * y).numpy())
        task = Regression(FinetuneConfig(task="regression", imbalance="balanced-mse")).double()
        task.observe(labels)
        head = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([head, *task.parameters()], max_iter=100, line_search_fn="strong_wolfe")

        def closure(head=head, task=task, x=x, y=y, optimizer=optimizer):
            optimizer.zero_grad()
            logits = (head[0] * x + head[1])[:, None]
            scale = 2 * task.balanced.noise.detach().square()  # the equation's stopped factor, not part of its minimum
            loss = task.loss(logits, 7 + 3 * y)["balanced_mse"] / scale
            loss.backward()
            return loss

        optimizer.step(closure)
        with torch.no_grad():
            predicted = task.predict((head[0] * x + head[1])[:, None])
        assert float(head[0].detach()) == pytest.approx(1 / rho2, rel=0.1)
        assert float(task.balanced.noise.detach() ** 2) == pytest.approx((1 - rho2) / rho2, rel=0.1)
        error, spread = (predicted - 7 - 3 * y).square().mean(), (3 * y).var()
        assert float(1 - error / spread) == pytest.approx(2 - 1 / rho2, abs=0.08)


def test_balanced_softmax_raises_the_recall_of_the_rare_class(pretrained, tmp_path):
    recalls = {}
    for imbalance in ("none", "balanced-softmax", "weights"):
        config = config_for(pretrained, tmp_path / imbalance, imbalance=imbalance)
        system = load_run(finetune(config).run_dir, "last")
        datasets = system.datasets()
        found, _ = system.predictions(datasets.train)
        logits, target = found["logits"], found["target"]
        rare = int(system.task.counts.argmin())
        recalls[imbalance] = float((logits.argmax(-1) == target)[target == rare].double().mean())
    assert recalls["balanced-softmax"] >= recalls["none"]
    assert recalls["weights"] >= recalls["none"]


def test_a_rare_class_is_balanced_unless_one_says_otherwise():
    def chosen(task, labels, columns):
        rows = [dict(zip(labels, values)) for values in zip(*columns)]
        config = FinetuneConfig(task=task, labels=labels, classes=("0", "1") if task == "classification" else labels)
        return task_class(task)(config).imbalance_of(ListSamples(rows))

    rare, even = [1] * 5 + [0] * 95, [1] * 40 + [0] * 60
    assert chosen("classification", ("toxic",), [rare]) == ("balanced-softmax", "class 1 has 5 of 100 samples")
    assert chosen("classification", ("toxic",), [even]) == ("none", "")
    assert chosen("multilabel", ("a", "b"), [even, rare]) == ("weights", "label b is true of 5 of 100 samples")
    assert chosen("regression", ("a",), [rare]) == ("none", "")


def test_smaller_fractions_are_subsets_of_whole_groups(pretrained, tmp_path):
    sets = []
    for fraction in (0.2, 0.5, 1.0):
        train = create_finetune(config_for(pretrained, tmp_path / "run", fraction=fraction)).datasets().train
        assert len(train) == pytest.approx(95 * fraction, abs=4)
        sets.append(set(train.positions.tolist()))
        inside = {train.whole.groups[p] for p in train.positions}
        outside = {train.whole.groups[p] for p in set(range(96)) - sets[-1] - {5}}
        assert not inside & outside
    assert sets[0] < sets[1] < sets[2]


def test_a_number_of_groups_is_so_many_whole_groups(pretrained, tmp_path):
    train = create_finetune(config_for(pretrained, tmp_path / "run", groups=6)).datasets().train
    inside = {train.whole.groups[p] for p in train.positions}
    assert len(inside) == pytest.approx(6, abs=1)  # no class is lost, so one more may be needed
    outside = {train.whole.groups[p] for p in set(range(96)) - set(train.positions.tolist()) - {5}}
    assert not inside & outside


def test_resume_equals_the_uninterrupted_run(pretrained, tmp_path):
    flat = OptimConfig(lr=0.1, schedule=ScheduleConfig(kind="constant", warmup=0))  # does not know the number of epochs
    whole = finetune(config_for(pretrained, tmp_path / "whole", mode="lora", optim=flat))
    half = config_for(pretrained, tmp_path / "half", mode="lora", optim=flat)
    finetune(replace(half, train=replace(half.train, max_epochs=2)))
    file = tmp_path / "half" / "config.yaml"
    text = file.read_text()
    assert text.count("max_epochs: 2\n") == 1
    file.write_text(text.replace("max_epochs: 2\n", "max_epochs: 4\n"))
    again = finetune(half, resume=tmp_path / "half")
    for name in ("model.safetensors", "state.safetensors"):
        assert (whole.last / name).read_bytes() == (again.last / name).read_bytes()


def test_mistakes_are_named(pretrained, tmp_path):
    good = config_for(pretrained, tmp_path / "run")
    for changes, words in [
        ({"labels": ("composer",)}, "unknown label field .composer.; there are: .*kind"),
        ({"labels": ()}, "needs one column"),
        ({"mode": "half"}, "'half' is not one of frozen"),
        ({"modality": "c"}, "'c' is not one of a, b"),
        ({"fraction": 0.0}, "fraction"),
        ({"imbalance": "balanced-mse"}, "does not fit the task 'classification', which knows: auto, none, weights"),
        ({"task": "ranking"}, "'ranking' is not one of classification.*nor module:Class"),
        ({"task": "os:getcwd"}, "'os:getcwd' is not a Task"),
        ({"task": "dense", "labels": ("kind",)}, "LabelledTiny has no features per place|samples|class"),
        ({"run": str(tmp_path)}, "not a run folder"),
    ]:
        with pytest.raises(InputError, match=words):
            create_finetune(replace(good, **changes))


def test_saved_models_come_back_equal(pretrained, tmp_path):
    system = load_run(pretrained)
    system.run_dir = pretrained
    folder = save_pretrained(system, tmp_path / "model", {"R@1": 0.5}, "Synthetic pairs.")
    again = from_pretrained(folder)
    batch = {k: torch.randn(3, 10) for k in "ab"}
    assert torch.equal(again.encode(batch)["a"], system.encode(batch)["a"])
    card = (folder / "README.md").read_text()
    assert "| R@1 | 0.5 |" in card
    assert "| train | train | 96 |" in card
    files = {"model.safetensors", "config.json", "assets", "preprocessing.json", "README.md"}
    assert {p.name for p in folder.iterdir()} == files
    with pytest.raises(InputError, match="no such folder"):
        from_pretrained(tmp_path / "absent" / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="not a saved model"):
        from_pretrained(folder)


@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_exported_numbers_equal_the_source(pretrained, tmp_path, format):
    system = load_run(pretrained)
    name = "model.onnx" if format == "onnx" else "model.pt2"
    report = export(system, tmp_path / name)  # the ending says the format
    assert report.inputs == ("a", "b")
    assert report.largest_difference < 1e-5
    assert report.checked_batches == (4, 3)
    with pytest.raises(InputError, match="differs from the source"):
        export(system, tmp_path / "again", format, tolerance=-1.0)
    with pytest.raises(InputError, match="unknown format 'tflite'; there are: onnx, torch, folder"):
        export(system, tmp_path / "again", "tflite")
    with pytest.raises(InputError, match="end the name in .onnx or .pt2"):
        export(system, tmp_path / "again")
    with pytest.raises(InputError, match="ends as"):
        export(system, tmp_path / name, "torch" if format == "onnx" else "onnx")


def test_one_modality_needs_its_own_input_and_the_file_says_how_to_make_it(pretrained, tmp_path):
    import onnx
    import onnxruntime

    system = load_run(pretrained)
    for modality in ("a", "b"):
        report = export(system, tmp_path / f"{modality}.onnx", modality=modality)
        assert report.inputs == (modality,)
        session = onnxruntime.InferenceSession(str(report.path))
        assert [i.name for i in session.get_inputs()] == [modality]
        assert session.get_inputs()[0].shape == ["batch", 10]
        assert session.get_outputs()[0].shape[0] == "batch"
        assert session.run(None, {modality: np.zeros((7, 10), np.float32)})[0].shape[0] == 7
        assert export(system, tmp_path / f"{modality}.pt2", modality=modality).inputs == (modality,)
    record = {p.key: p.value for p in onnx.load(tmp_path / "a.onnx").metadata_props}
    assert json.loads(record["counterpoint.preprocessing"]) == system.preprocessing()
    assert record["counterpoint.modality"] == "a"


def test_predictions_are_in_the_targets_unit(pretrained, tmp_path):
    config = config_for(pretrained, tmp_path / "r", task="regression", labels=("height",))
    system = create_finetune(config).eval()
    batch = system.datasets().train.collate([system.datasets().train[i] for i in range(8)])
    assert abs(float(system.predict(batch).mean()) - 100) < 20
    assert np.isclose(float(system.task.center), 100, atol=4)
