"""Stages of Multistage Contrastive Learning: where the negatives come from, and what the joined encoder is."""

import numpy as np
import pytest
import torch
import yaml
from sklearn.linear_model import LogisticRegression
from tiny_system import Tiny, TinyConfig
from torch import nn
from torch.nn.functional import normalize

from counterpoint.common.data import ShuffleSampler
from counterpoint.common.data.samples import Samples, values_hash
from counterpoint.common.losses import InfoNCE, LogitScale
from counterpoint.common.models import ConcatEncoder
from counterpoint.common.trainers import (
    ContrastiveSystem,
    Datasets,
    create_system,
    load_run,
    multistage,
    override,
)


class Plain(Tiny):
    """Batches of any samples, so that the stages' own sampler is seen at work."""

    drawn: list = []  # noqa: RUF012

    def batch_sampler(self, dataset, batch_size, seed):
        return ShuffleSampler(len(dataset), batch_size, seed)

    def losses(self, batch, embeddings):
        if self.training:
            self.drawn.append((self.config.train.out, batch["index"].tolist()))
        return super().losses(batch, embeddings)


def create(stage, out):
    options = {
        "train.out": out,
        "train.seed": stage,
        "train.max_epochs": 2,
        "train.monitor_every": 0,
        "train.batch_size": 4,
    }
    return create_system(Plain, override(TinyConfig(), options))


def test_later_stages_contrast_within_the_cells_of_the_earlier_ones(tmp_path):
    Plain.drawn.clear()
    encoder = multistage(create, tmp_path, stages=3, clusters=3)
    cells = [np.load(tmp_path / f"stage{s}" / "clusters.npy") for s in range(3)]
    assert all(c.shape == (48,) and set(c) == {0, 1, 2} for c in cells)
    for stage in (0, 1, 2):
        batches = [b for out, b in Plain.drawn if out.endswith(f"stage{stage}")]
        pure = np.mean([all(len({c[i] for i in b}) == 1 for c in cells[:stage]) for b in batches])
        of_first = np.mean([len({cells[0][i] for i in b}) == 1 for b in batches])
        # Of a cell's members at most batch_size - 1 go up to the parent cell.
        assert of_first >= (0.6 if stage else 0.0)
        assert stage or pure == 1.0
        assert stage or of_first < 0.3
    # Another call finds everything done, and the encoder holds each stage's last weights.
    drawn = len(Plain.drawn)
    again = multistage(create, tmp_path, stages=3, clusters=3)
    assert len(Plain.drawn) == drawn
    # A stage's run says by itself how it draws its batches: `--resume` needs nothing else.
    files = [f"../stage{s}/clusters.npy" for s in (0, 1)]
    record = yaml.safe_load((tmp_path / "stage2" / "config.yaml").read_text())
    assert record["config"]["train"]["plugins"] == {"within_clusters": {"files": files}}
    batch = {k: torch.randn(5, 10) for k in "ab"}
    parts = [load_run(tmp_path / f"stage{s}", "last").features(batch)["a"] for s in range(3)]
    with torch.no_grad():
        assert torch.equal(again(batch)["a"], encoder(batch)["a"])
        torch.testing.assert_close(again(batch)["a"], normalize(torch.cat(parts, 1), dim=1))
    assert not any(p.requires_grad for p in again.parameters())


class Long(torch.nn.Module):
    def __init__(self, length):
        super().__init__()
        self.length = length

    def features(self, batch):
        return {"x": self.length * batch["x"], f"own{self.length}": batch["x"]}


def test_raw_features_weigh_stages_by_their_length_and_normalised_ones_equally():
    x = torch.randn(4, 3)
    raw = ConcatEncoder([Long(1.0), Long(3.0)])({"x": x})
    equal = ConcatEncoder([Long(1.0), Long(3.0)], normalize_each=True)({"x": x})
    assert list(raw) == ["x"]
    for found, share in ((raw["x"], 0.1), (equal["x"], 0.5)):
        torch.testing.assert_close(found.norm(dim=1), torch.ones(4))
        torch.testing.assert_close(found[:, :3].square().sum(1), torch.full((4,), share))
    with pytest.raises(ValueError, match="at least one"):
        ConcatEncoder([])


class Attributes(Samples):
    """Two independent attributes of eight values; the second has half the first one's contrast."""

    def __init__(self, n, seed):
        self.label = torch.randint(0, 8, (n, 2), generator=torch.Generator().manual_seed(seed))
        generator = torch.Generator().manual_seed(7)
        self.mean = [scale * torch.randn(8, 12, generator=generator) for scale in (2.0, 1.0)]

    def __len__(self):
        return len(self.label)

    def view(self, i):
        return torch.cat([self.mean[k][self.label[i, k]] + 0.4 * torch.randn(12) for k in (0, 1)])

    def __getitem__(self, i):
        return {"a": self.view(i), "b": self.view(i), "index": i, "id": str(i), "group": str(i)}

    @property
    def ids(self):
        return list(map(str, range(len(self))))

    groups = ids

    @property
    def hash(self):
        return values_hash([self.label, self.mean])


class Narrow(ContrastiveSystem):
    """Three dimensions: too few for sixty-four combinations."""

    Config = TinyConfig
    modalities = ("a", "b")

    def __init__(self, config, assets=None):
        super().__init__(config, assets)
        self.net = nn.Sequential(nn.Linear(24, 64), nn.ReLU(), nn.Linear(64, 3))
        self.contrast = InfoNCE(LogitScale(0.2, learnable=False))

    def datasets(self):
        return Datasets(Attributes(1024, 0))

    def embed(self, batch):
        return {k: self.net(batch[k]) for k in "ab"}

    def losses(self, batch, embeddings):
        return {"infonce": self.contrast(embeddings["a"], embeddings["b"])}


@pytest.mark.slow
def test_a_suppressed_attribute_is_learnt_by_the_second_stage(tmp_path):
    options = {"train.max_epochs": 15, "train.batch_size": 32, "train.monitor_every": 0, "optim.lr": 3e-3}

    def narrow(stage, out):
        changes = {**options, "train.seed": stage, "train.out": out}
        return create_system(Narrow, override(TinyConfig(), changes))

    joined = multistage(narrow, tmp_path, stages=2, clusters=8)
    train, test = Attributes(1024, 0), Attributes(600, 1)
    views = [torch.stack([part[i]["a"] for i in range(len(part))]) for part in (train, test)]

    def probes(system):
        with torch.no_grad():
            x, y = (system.features({"a": v, "b": v})["a"].numpy() for v in views)
        fit = (LogisticRegression(max_iter=300).fit(x, train.label[:, k]) for k in (0, 1))
        return [probe.score(y, test.label[:, k]) for k, probe in enumerate(fit)]

    first, both = probes(joined.encoders[0]), probes(joined)
    assert first[0] > 0.9 > 0.6 > first[1]
    assert both[1] > first[1] + 0.1
    assert both[0] > first[0] - 0.01
