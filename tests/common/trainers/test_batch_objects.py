"""A batch that is one object of the system's own goes where a dictionary goes, with the same bits."""

from dataclasses import dataclass, field, fields, replace

import pytest
import torch
from test_finetune import LabelledPairs
from tiny_system import Pairs, Tiny, TinyConfig
from torch import Tensor

from counterpoint.common.data import BadSample
from counterpoint.common.data.batch import bare, beside, cut, entry, rows, to_device
from counterpoint.common.data.encoding import encode_rows
from counterpoint.common.errors import InputError, NonFiniteLossError
from counterpoint.common.losses import InfoNCE
from counterpoint.common.trainers import (
    Datasets,
    FinetuneConfig,
    OptimConfig,
    TrainConfig,
    create_system,
    export,
    finetune,
    fit,
    load_run,
    override,
)


@dataclass
class PairBatch:
    """What a typed library hands over: it moves itself, knows its rows, and has no keys."""

    a: Tensor
    b: Tensor
    index: Tensor
    id: list
    group: list
    extra: dict = field(default_factory=dict)

    def __len__(self):
        return len(self.a)

    def to(self, device):
        moved = {k: getattr(self, k).to(device) for k in ("a", "b", "index")}
        return replace(self, **moved)

    def cut(self, start, stop):
        return replace(self, **{f.name: getattr(self, f.name)[start:stop] for f in fields(self) if f.name != "extra"})


def packed(batch):
    return PairBatch(**{k: batch[k] for k in ("a", "b", "index", "id", "group")})


class ObjectPairs(Pairs):
    def collate(self, samples):
        return packed(super().collate(samples))


class Rows(Tiny):
    """Rows, so that plug-ins have something to weigh; the batch by name, whatever it is."""

    def embed(self, batch):
        assert isinstance(batch, self.kind)
        return {name: tower(entry(batch, name)) for name, tower in (("a", self.tower_a), ("b", self.tower_b))}

    def losses(self, batch, embeddings):
        terms = super().losses({name: entry(batch, name) for name in ("b", "index")}, embeddings)
        rows_of = InfoNCE(0.3).row_losses(embeddings["a"], embeddings["b"], group=self.group_ids(batch))
        return {**terms, "rows": rows_of}


class OfDictionaries(Rows):
    kind = dict


class OfObjects(Rows):
    kind = PairBatch

    def datasets(self):
        return Datasets(ObjectPairs(self.config.samples, 0), ObjectPairs(13, 1))


def run(cls, out, **changes):
    plugins = {"bad_pairs": {"warmup": 1}}
    fixed = {"train.out": str(out), "train.plugins": plugins, "train.micro_batch_size": 3, "train.workers": 1}
    return fit(create_system(cls, override(TinyConfig(), {**fixed, **changes})))


def weights(result):
    return [(result.last / f"{name}.safetensors").read_bytes() for name in ("model", "state")]


def test_training_validation_monitors_and_plug_ins_are_those_of_a_dictionary(tmp_path):
    one, other = run(OfDictionaries, tmp_path / "d"), run(OfObjects, tmp_path / "o")
    assert weights(one) == weights(other)
    assert one.metrics == other.metrics
    assert any(name.startswith("val/b->a") for name in other.metrics)
    assert "monitor/negatives" in other.metrics


def test_vectors_are_those_of_a_dictionary(tmp_path):
    trained = load_run(run(OfObjects, tmp_path / "o", **{"train.max_epochs": 1}).run_dir)
    plain = create_system(OfDictionaries, trained.config)
    plain.load_state_dict(trained.state_dict())
    found, expected = (encode_rows(s, s.datasets().val, batch_size=5, workers=1) for s in (trained, plain))
    assert found.ids == expected.ids
    assert all(torch.equal(found.vectors[name], z) for name, z in expected.vectors.items())


class Torn(ObjectPairs):
    def __getitem__(self, i):
        return BadSample(i, f"s{i}", "header missing") if i in (3, 17) else super().__getitem__(i)


class OfTornObjects(OfObjects):
    def datasets(self):
        return Datasets(Torn(self.config.samples, 0), ObjectPairs(13, 1))


def test_unreadable_samples_are_counted_beside_an_object(tmp_path):
    found = run(OfTornObjects, tmp_path / "o", **{"train.max_bad": 0.1})
    listed = (found.run_dir / "bad_samples.jsonl").read_text().splitlines()
    assert sorted(line.split('"id": "')[1].split('"')[0] for line in listed) == ["s17", "s3"]
    with pytest.raises(InputError, match="2 of 48 samples cannot be read"):
        run(OfTornObjects, tmp_path / "n", **{"train.max_bad": 0.03})


def test_a_loss_that_is_no_number_names_the_objects_samples(tmp_path):
    with pytest.raises(NonFiniteLossError):
        run(OfObjects, tmp_path / "o", nan_at=2)
    assert '"s' in (tmp_path / "o" / "non_finite_batch_rank0.json").read_text()


class LabelledObjects(LabelledPairs):
    def collate(self, samples):
        return packed(super().collate(samples))


class OfLabelledObjects(OfObjects):
    def datasets(self):
        return Datasets(LabelledObjects(96, 0), LabelledObjects(40, 1), LabelledObjects(41, 2))


@pytest.mark.parametrize("mode", ["frozen", "full"])
def test_a_head_has_its_targets_beside_the_object(tmp_path, mode):
    base = run(OfLabelledObjects, tmp_path / "o", samples=96, **{"train.max_epochs": 1}).run_dir
    train = TrainConfig(out=str(tmp_path / "h"), max_epochs=4, batch_size=16, tensorboard=False, accelerator="cpu")
    train = replace(train, micro_batch_size=5, monitor_every=0)
    found = finetune(FinetuneConfig(run=str(base), mode=mode, labels=("kind",), train=train, optim=OptimConfig(lr=0.1)))
    assert found.metrics["test/balanced_accuracy"] > 0.6


def test_a_format_of_tensors_alone_is_refused_in_a_sentence(tmp_path):
    system = load_run(run(OfObjects, tmp_path / "o", **{"train.max_epochs": 1}).run_dir)
    with pytest.raises(InputError, match="a batch of OfObjects is one PairBatch, and torch models take tensors alone"):
        export(system, tmp_path / "m.pt2")


def test_entries_beside_an_object_move_and_are_cut_with_it():
    batch = PairBatch(torch.zeros(4, 2), torch.ones(4, 2), torch.arange(4), list("wxyz"), list("wxyz"))
    both = beside(batch, target=torch.tensor([5, 6, 7, 8]))
    assert rows(both) == 4
    part = cut(both, 1, 3)
    assert (entry(part, "target").tolist(), entry(part, "id"), rows(part)) == ([6, 7], ["x", "y"], 2)
    assert bare(part).index.tolist() == [1, 2]
    moved = to_device(both, "meta")
    assert moved.a.device.type == moved.target.device.type == "meta"
    assert beside({"x": 1}, target=2) == {"x": 1, "target": 2}
    assert entry(both, "absent", 3) == 3
