"""A system of two linear towers on random pairs: everything a training needs, in a second."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.functional import normalize

from counterpoint.common.data import GroupUniqueBatchSampler, Samples
from counterpoint.common.losses import FeatureQueue, InfoNCE, LogitScale
from counterpoint.common.models import EMATeacher
from counterpoint.common.trainers import (
    Assets,
    ContrastiveSystem,
    Datasets,
    OptimConfig,
    ScheduleConfig,
    Stage,
    TrainConfig,
    create_system,
    fit,
    load_run,
    override,
)


@dataclass(frozen=True)
class TinyConfig:
    samples: int = 48
    dim: int = 6
    dropout: float = 0.2
    queue: int = 16
    two_stages: int = 0
    nan_at: int = -1
    distributed: str | None = None
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            max_epochs=3, batch_size=8, log_every=1, monitor_every=4, tensorboard=False, accelerator="cpu"
        )
    )
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(schedule=ScheduleConfig(warmup=2)))


class Pairs(Samples):
    """Two noisy linear views of one latent; the noise is drawn anew on every visit."""

    def __init__(self, n: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.latent = torch.randn(n, 4, generator=generator)
        self.mix = torch.randn(2, 4, 10, generator=torch.Generator().manual_seed(99))
        self.seed = seed

    @property
    def ids(self) -> list[str]:
        return [f"s{i}" for i in range(len(self))]

    @property
    def groups(self) -> list[str]:
        return [f"g{i // 2}" for i in range(len(self))]

    @property
    def hash(self) -> str:
        return f"pairs {len(self)} {self.seed}"

    def __len__(self) -> int:
        return len(self.latent)

    def __getitem__(self, i: int) -> dict:
        a, b = (self.latent[i] @ m + 0.1 * torch.randn(10) for m in self.mix)
        return {"a": a, "b": b, "index": i, "id": f"s{i}", "group": self.groups[i]}


class Tiny(ContrastiveSystem):
    Config = TinyConfig
    modalities = ("a", "b")

    def __init__(self, config: TinyConfig, assets: Assets | None = None) -> None:
        super().__init__(config, assets)
        self.tower_a = nn.Sequential(
            nn.Linear(10, 16), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(16, config.dim)
        )
        self.tower_b = nn.Sequential(
            nn.Linear(10, 16), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(16, config.dim)
        )
        self.contrast = InfoNCE(LogitScale(0.3), symmetric=False, distributed=config.distributed)
        self.teacher = EMATeacher(self.tower_b, 0.9)
        self.queue = FeatureQueue(config.queue, config.dim)
        self.register_buffer("seen", torch.zeros(config.samples))
        self.fresh = None

    def datasets(self) -> Datasets:
        return Datasets(Pairs(self.config.samples, 0), Pairs(13, 1))

    def batch_sampler(self, dataset, batch_size, seed):
        return GroupUniqueBatchSampler(dataset.groups, batch_size, seed)

    def stages(self):
        if self.config.two_stages:
            return (Stage("only-a", trains=("tower_a", "contrast"), max_epochs=2), Stage("both"))
        return (Stage(),)

    def embed(self, batch):
        return {"a": self.tower_a(batch["a"]), "b": self.tower_b(batch["b"])}

    def losses(self, batch, embeddings):
        loss = self.contrast(embeddings["a"], embeddings["b"], queue=self.queue if self.training else None)
        if self.training:
            self.fresh = normalize(self.teacher(batch["b"]), dim=-1), batch["index"]
            if self.progress.total_step == self.config.nan_at:
                loss = loss * float("nan")
        return {"infonce": loss}

    def after_update(self):
        self.queue.push(*self.fresh)
        self.seen[self.gather_rows(self.fresh[1])] += 1


def main(arguments: list[str]) -> None:
    """`OUT [--resume] [--die STEP SIGNAL] [key=value ...]`"""
    out, rest = arguments[0], arguments[1:]
    changes = dict(a.split("=", 1) for a in rest if "=" in a)
    changes = {k: int(v) if v.lstrip("-").isdigit() else v for k, v in changes.items()}
    if "--die" in rest:
        step, number = (int(x) for x in rest[rest.index("--die") + 1 :][:2])
        original = Tiny.after_update

        def after_update(self):
            original(self)
            if self.progress.total_step == step:
                os.kill(os.getpid(), number)

        Tiny.after_update = after_update
    if "--resume" in rest:
        fit(load_run(out, "last"), resume=out)
    else:
        fit(create_system(Tiny, override(TinyConfig(), {"train.out": out, **changes})))
