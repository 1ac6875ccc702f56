"""A two-tower system of the smallest kind."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from toy_configs import HalfConfig, PairConfig

from counterpoint.common.data import Manifest, ManifestDataset
from counterpoint.common.errors import InputError
from counterpoint.common.losses import InfoNCE
from counterpoint.common.metrics import Result
from counterpoint.common.report import Media
from counterpoint.common.trainers import Assets, ContrastiveSystem, Datasets, Plugin
from counterpoint.common.trainers.contrast import contrast_of, contrast_terms
from counterpoint.common.trainers.exporting import ExportReport
from counterpoint.common.vertical import Outcome


def views(seed: int, noise: float) -> dict:
    generator = torch.Generator().manual_seed(seed)
    thing = torch.randn(6, generator=generator)
    mixing = torch.randn(2, 6, 12, generator=torch.Generator().manual_seed(12345))
    left, right = thing @ mixing + noise * torch.randn(2, 12, generator=generator)
    return {"left": left, "right": right, "side": "positive" if thing[0] > 0 else "negative"}


class Pair(ContrastiveSystem):
    """Two linear towers under InfoNCE."""

    Config = PairConfig
    modalities = ("left", "right")

    def __init__(self, config: PairConfig, assets: Assets | None = None) -> None:
        super().__init__(config, assets)
        self.towers = nn.ModuleDict({name: nn.Linear(12, config.dim) for name in self.modalities})
        self.loss = contrast_of(config, InfoNCE(0.1))

    def datasets(self) -> Datasets:
        table = Manifest.load(self.config.data.manifest)

        def load(row):
            return views(int(row["seed"]), self.config.data.noise)

        return Datasets(*(ManifestDataset(table.select(split), load) for split in ("train", "val", "test")))

    def embed(self, batch):
        return {name: tower(batch[name]) for name, tower in self.towers.items() if name in batch}

    def losses(self, batch, embeddings):
        return contrast_terms(self.loss, "pair", embeddings, batch)


class Half(Plugin):
    """Rows of the second half of a batch count `other` times."""

    Config = HalfConfig

    def weigh(self, name, rows, batch):
        self.system.record({"train/other": self.config.other})
        return torch.cat([rows[: len(rows) // 2], self.config.other * rows[len(rows) // 2 :]])


class One(Pair):
    """Another system, so that runs can be mixed up."""


@dataclass(frozen=True)
class Own(Result):
    rows: int
    modalities: list[str]


def protocols(run):
    return {"nearest is own": Own(len(run.samples()), sorted(run.encoded().vectors))}


def gallery(sample, modality, system):
    return Media(sample["id"], image=sample[modality].reshape(3, 4))


def query(file: Path, modality: str, system: Pair) -> dict:
    return {modality: torch.tensor(json.loads(file.read_text()))}


def query_text(text: str, modality: str, system: Pair) -> dict:
    numbers = torch.tensor([float(word) for word in text.split()])
    if len(numbers) != 12:
        raise InputError(f"a text holds 12 numbers, this one {len(numbers)}")
    return {modality: numbers}


def write_card(system, path, *, modality, **_):
    path.write_text(f"{type(system).__name__} {modality or 'all'}\n")
    return ExportReport(path)


def write_names(system, samples, out, *, columns, **_):
    out.write_text("".join(f"{name}\n" for name in samples.ids))
    return Outcome({"rows": len(samples)}, (f"wrote {out}",), {"embeddings": out})
