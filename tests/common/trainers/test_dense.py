"""Labels at every place: TS2Vec's time steps, a coarse grid under pixels, and a task of one's own."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_system import Pairs, Tiny, TinyConfig

from counterpoint.common.data.samples import Samples, values_hash
from counterpoint.common.errors import InputError
from counterpoint.common.metrics.segmentation import score_dense
from counterpoint.common.trainers import (
    Datasets,
    FinetuneConfig,
    OptimConfig,
    Task,
    TrainConfig,
    create_finetune,
    create_system,
    finetune,
    fit,
    load_run,
    override,
)
from counterpoint.common.trainers.tasks import Dense, at_places
from counterpoint.timeseries.configs import TS2VecConfig
from counterpoint.timeseries.form import SignalForm
from counterpoint.timeseries.ts2vec import TS2Vec


class Bursts(Samples):
    """A slow wave in noise, lifted for a while; each step says whether it is lifted, 1 in 10 is unlabelled."""

    def __init__(self, n: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        t = np.arange(64)
        start, length = rng.integers(4, 30, n), rng.integers(10, 24, n)
        self.on = (t >= start[:, None]) & (t < (start + length)[:, None])
        slow = np.sin(0.25 * t + rng.uniform(0, 6.3, (n, 1)))
        self.x = (slow + 1.5 * self.on + 0.3 * rng.standard_normal((n, 64))).astype(np.float32)
        self.event = np.where(rng.random((n, 64)) < 0.1, -1, self.on)
        self.draw = None

    @property
    def ids(self):
        return [f"w{i}" for i in range(len(self))]

    @property
    def groups(self):
        return [f"p{i // 2}" for i in range(len(self))]

    @property
    def hash(self):
        return values_hash([self.x, self.event])

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        x = torch.from_numpy(self.x[i])[:, None]
        return {"x": x, "index": i, "id": f"w{i}", "group": f"p{i // 2}", "event": torch.from_numpy(self.event[i])}

    def collate(self, samples):
        batch = super().collate(samples)
        return batch if self.draw is None else self.draw(batch)


class Segmented(TS2Vec):
    @classmethod
    def learn(cls, config, data):
        return SignalForm(("burst",), ("",), 1.0).assets()

    def datasets(self):
        parts = [Bursts(48, 0), Bursts(24, 1), Bursts(25, 2)]
        for part in parts:
            part.draw = self.draw_views
        return Datasets(*parts)


TRAIN = {"tensorboard": False, "accelerator": "cpu", "monitor_every": 0, "batch_size": 16}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    out = str(tmp_path_factory.mktemp("base") / "run")
    small = {"encoder": {"dim": 16, "hidden": 8, "depth": 3}}
    config = override(TS2VecConfig(), {**small, "train": {**TRAIN, "max_steps": 10, "out": out}})
    return fit(create_system(Segmented, config)).run_dir


def config_for(run, out, **changes):
    train = TrainConfig(out=str(out), max_epochs=12, **TRAIN)
    config = FinetuneConfig(run=str(run), task="dense", labels=("event",), train=train, optim=OptimConfig(lr=0.05))
    return replace(config, **changes)


@pytest.mark.parametrize("mode", ["frozen", "full"])
def test_time_steps_are_segmented(pretrained, tmp_path, mode):
    config = config_for(pretrained, tmp_path / "run", mode=mode)
    start = create_finetune(config)
    assert start.config.classes == ("0", "1")
    before = {n: p.detach().clone() for n, p in start.named_parameters()}
    averaged = load_run(pretrained).average.module.state_dict()
    assert all(
        torch.equal(before[f"base.encoder.{n}"], v) for n, v in averaged.items() if f"base.encoder.{n}" in before
    )
    result = finetune(config)
    system = load_run(result.run_dir)
    moved = {n for n, p in system.named_parameters() if n in before and not torch.equal(p, before[n])}
    assert any(n.startswith("base.") for n in moved) == (mode == "full")
    report = json.loads((result.run_dir / "finetune.json").read_text())["test"]
    assert report["metrics"]["mean_iou"] > report["chance"]["mean_iou"] + 0.15
    assert report["n"] == 25
    assert f"{int((Bursts(25, 2).event >= 0).sum())} places" in report["notes"]
    interval = report["intervals"]["mean_iou"]
    assert interval["low"] < interval["value"] < interval["high"]
    test = system.datasets().test
    batch = test.collate([test[i] for i in range(3)])
    assert system.predict(batch).shape == (3, 64, 2)


def test_class_weights_count_places_and_more_of_the_rare_class_is_found(pretrained, tmp_path):
    recalls = {}
    for imbalance in ("none", "weights", "balanced-softmax"):
        system = load_run(finetune(config_for(pretrained, tmp_path / imbalance, imbalance=imbalance)).run_dir, "last")
        if imbalance != "none":
            event = Bursts(48, 0).event
            assert system.task.counts.tolist() == [(event == c).sum() for c in (0, 1)]
        datasets = system.datasets()
        matrix = system.predictions(datasets.train)[0]["confusion"].sum(0).double()
        rare = int(matrix.sum(1).argmin())
        recalls[imbalance] = float(matrix[rare, rare] / matrix[rare].sum())
    assert min(recalls["weights"], recalls["balanced-softmax"]) > recalls["none"]


def test_confusions_and_losses_equal_those_of_the_places_in_a_row():
    torch.manual_seed(0)
    task = Dense(FinetuneConfig(task="dense", labels=("mask",), classes=("a", "b", "c")))
    logits, target = torch.randn(3, 5, 4, 3), torch.randint(-1, 3, (3, 5, 4))
    known = target >= 0
    expected = torch.nn.functional.cross_entropy(logits.reshape(-1, 3), target.reshape(-1), ignore_index=-1)
    torch.testing.assert_close(task.loss(logits, target)["cross_entropy"], expected)
    matrix = torch.zeros(3, 3, 3, dtype=torch.int64)
    said = logits.argmax(-1)
    for i, t, p in zip(torch.nonzero(known)[:, 0], target[known], said[known]):
        matrix[i, t, p] += 1
    found = task.digest(logits, target)["confusion"]
    assert torch.equal(found, matrix)
    assert score_dense(found.numpy(), ("a", "b", "c"), n_boot=5).metrics["accuracy"] == pytest.approx(
        float((said == target)[known].double().mean())
    )
    nothing = task.loss(logits.requires_grad_(), torch.full_like(target, -1))["cross_entropy"]
    nothing.backward()
    assert float(nothing.detach()) == 0.0
    assert not logits.grad.any()
    with pytest.raises(InputError, match="sample s1: mask holds class 3, beyond the 3 known"):
        task.target({"id": "s1", "mask": torch.tensor([0, 3])})
    with pytest.raises(InputError, match="no label 'mask' in the samples"):
        task.target({"id": "s1"})


def test_a_coarse_grid_is_interpolated_to_the_labels():
    coarse = torch.arange(4.0).view(1, 4, 1)  # a ramp stays a ramp inside
    fine = at_places(coarse, (8,))[0, :, 0]
    torch.testing.assert_close(fine[1:-1].diff(), torch.full((5,), 0.5))
    assert at_places(torch.zeros(2, 2, 2, 2, 7), (4, 4, 4)).shape == (2, 4, 4, 4, 7)
    with pytest.raises(InputError, match=r"features at \(4,\) places cannot carry labels at \(8, 8\)"):
        at_places(coarse, (8, 8))


class Phase(Task):
    """A task of one's own: the direction of the latent in a plane, as a point on the circle."""

    @property
    def outputs(self):
        return 2

    def targets(self, dataset):
        latent = dataset.latent[:, :2].numpy()
        return np.arctan2(latent[:, 1], latent[:, 0]), np.ones(len(latent), dtype=bool)

    def loss(self, logits, target):
        return {"cosine": 1 - torch.cos(self.predict(logits) - target).mean()}

    def predict(self, logits):
        return torch.atan2(logits[:, 1], logits[:, 0])

    def quick(self, digest):
        return {"cosine": float(torch.cos(self.predict(digest["logits"]) - digest["target"]).mean())}

    def scores(self, digest, groups):
        return {"n": len(groups), "metrics": self.quick(digest)}


class Directed(Tiny):
    def datasets(self):
        return Datasets(Pairs(48, 0), Pairs(20, 1), Pairs(20, 2))


def test_a_task_of_ones_own_is_trained_and_measured(tmp_path):
    run = fit(create_system(Directed, override(TinyConfig(), {"train.out": str(tmp_path / "base")}))).run_dir
    task = f"{__name__}:Phase"
    config = replace(config_for(run, tmp_path / "run"), task=task, labels=("angle",), mode="full")
    result = finetune(config)
    report = json.loads((result.run_dir / "finetune.json").read_text())
    assert report["task"] == task
    assert result.metrics["test/cosine"] > 0.5
    with pytest.raises(InputError, match="Directed has no features per place: task=dense needs dense_features"):
        Dense(config).features(load_run(run), {})
