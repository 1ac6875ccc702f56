"""`finetune`: a head, and as much of the encoder as one likes, trained on labels; same run folder, resume, checks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from counterpoint.common.data.batch import bare, beside, entry
from counterpoint.common.data.encoding import encode_rows
from counterpoint.common.data.manifest import SPLITS
from counterpoint.common.data.samples import BadSample, Part, Samples, options_hash, values_hash
from counterpoint.common.errors import InputError
from counterpoint.common.lazy import resolve
from counterpoint.common.metrics.fewshot import nested_subset
from counterpoint.common.progress import note
from counterpoint.common.rng import preserved_rng, seed_all
from counterpoint.common.trainers.adapt import freeze, inject_lora, layerwise_groups
from counterpoint.common.trainers.assets import Assets
from counterpoint.common.trainers.checkpoints import find_checkpoint, read_state, write_checkpoint
from counterpoint.common.trainers.config_files import from_dict, load_yaml, override, to_dict
from counterpoint.common.trainers.configs import IMBALANCE, MODES, FinetuneConfig
from counterpoint.common.trainers.fitting import fit
from counterpoint.common.trainers.inputs import Input
from counterpoint.common.trainers.loader import Datasets
from counterpoint.common.trainers.run_folder import (
    CONFIG,
    RunResult,
    checkpoint_dir,
    empty_system,
    load_run,
    load_weights,
)
from counterpoint.common.trainers.system import ContrastiveSystem
from counterpoint.common.trainers.tasks import Digest, Task, task_class


def finetune(config: FinetuneConfig, resume: str | Path | None = None) -> RunResult:
    """Train, choose by validation, calibrate, test. Writes `finetune.json` beside the checkpoints.

    The figures on the test split are those of the best checkpoint, with 95 % intervals over groups; `ece` before and
    after calibration where there are classes.
    """
    if resume is not None:
        system = load_run(resume, "last")
        if not isinstance(system, FinetuneSystem):
            raise InputError(f"{resume}: a run of {type(system).__name__}, not of finetune")
    else:
        system = create_finetune(config)
    result = fit(system, resume=resume)
    best = load_run(result.run_dir, "best")
    datasets = best.datasets()
    report: dict[str, Any] = {"task": best.config.task, "mode": best.config.mode, "labels": list(best.config.labels)}
    if best.config.calibrate and datasets.val is not None:
        fitted = best.task.calibrate(best.predictions(datasets.val)[0])
        if fitted:
            folder = find_checkpoint(checkpoint_dir(result.run_dir, "best"))
            write_checkpoint(folder, best.state_dict(), read_state(folder), best.assets.hash, best.frozen_weights())
            report.update(fitted)
    for split in ("val", "test"):
        dataset = getattr(datasets, split)
        if dataset is not None:
            report[split] = best.scores(dataset)
            for said in report[split].get("notes", ()):
                note(f"{split}: {said}")
    text = json.dumps(report, indent=2, default=float) + "\n"
    (result.run_dir / "finetune.json").write_text(text, encoding="utf-8")
    figures = {f"test/{k}": v for k, v in report.get("test", {}).get("metrics", {}).items()}
    return replace(result, metrics={**result.metrics, **figures})


def create_finetune(config: FinetuneConfig) -> FinetuneSystem:
    """The system to finetune: pretrained weights, a new head, facts about the labels recorded in its config."""
    task = task_class(config.task)
    for name, value, known in (("mode", config.mode, MODES), ("imbalance", config.imbalance, IMBALANCE)):
        if value not in known:
            raise InputError(f"{name} {value!r} is not one of {', '.join(known)}")
    if config.imbalance not in ("auto", *task.imbalances):
        raise InputError(
            f"imbalance {config.imbalance!r} does not fit the task {config.task!r}, which knows: "
            f"auto, {', '.join(task.imbalances)}"
        )
    if not config.labels or (len(config.labels) != 1 and not task.several):
        raise InputError(f"labels: {config.task} needs {'columns' if task.several else 'one column'}")
    if not 0 < config.fraction <= 1:
        raise InputError(f"fraction is in (0, 1], got {config.fraction}")
    if config.groups < 0 or (config.groups and config.fraction < 1):
        raise InputError("--groups is a number of training groups, 0 or more, and takes the place of --fraction")
    run = Path(config.run)
    base = empty_system(run)
    load_weights(base, find_checkpoint(checkpoint_dir(run, config.checkpoint)))
    record = load_yaml(run / CONFIG)
    changes = dict(config.data)
    if config.train.on_error == "skip":
        changes |= {"train.on_error": "skip", "train.max_bad": config.train.max_bad}
    record["config"] = to_dict(override(from_dict(type(base).Config, record["config"]), changes))
    base.config = from_dict(type(base).Config, record["config"])
    base.stage = list(base.stages())[-1]
    datasets = base.evaluation_datasets()
    config = replace(config, classes=task(config).classes(datasets.train))
    sample = next(
        s for s in map(datasets.train.__getitem__, range(len(datasets.train))) if not isinstance(s, BadSample)
    )
    with torch.no_grad(), preserved_rng():
        features = task(config).features(base.eval(), datasets.train.collate([sample]))
    modality = config.modality or next((m for m in base.modalities if m in features), next(iter(features)))
    if modality not in features:
        raise InputError(f"modality {modality!r} is not one of {', '.join(features)}")
    width = features[modality].shape[-1]
    config = replace(config, base=record, modality=modality, width=width)
    if config.imbalance == "auto":
        chosen, why = task(config).imbalance_of(datasets.train)
        config = replace(config, imbalance=chosen)
        if why:
            note(f"{why}: trained with imbalance {chosen}; --imbalance none turns it off")
    with preserved_rng():
        seed_all(config.train.seed)
        system = FinetuneSystem(config, Assets(**base.assets.within("base")), base.state_dict())
    system.task.observe(system.datasets().train)
    return system


def majority_note(digest: Digest, classes: Sequence[str]) -> str:
    """In words, when a head of classes gives all samples one class though they carry several; else empty."""
    if "logits" not in digest:  # a dense task leaves confusion matrices
        return ""
    logits, target = digest["logits"], digest["target"]
    if target.ndim != 1 or logits.ndim != 2 or logits.shape[1] != len(classes) or len(target.unique()) < 2:
        return ""
    said = logits.argmax(1).unique()
    if len(said) > 1:
        return ""
    return f"the head calls every one of {len(target)} samples {classes[int(said[0])]}: it has learnt no more than that"


class Labelled(Part):
    """The samples that carry a label, with it as `target`."""

    def __init__(self, samples: Samples, positions: Sequence[int], targets: np.ndarray | None, task: Task) -> None:
        super().__init__(samples, positions)
        self.targets, self.target = targets, task.target
        self.pools = {}  # a head stands on one modality of the samples themselves

    def __getitem__(self, i: int) -> Any:
        sample = super().__getitem__(i)
        if isinstance(sample, BadSample):
            return sample
        target = self.target(sample) if self.targets is None else torch.as_tensor(self.targets[i])
        return {**sample, "target": target}

    @property
    def hash(self) -> str:
        return options_hash(super().hash, targets=None if self.targets is None else values_hash(self.targets))

    def collate(self, samples: Sequence[Mapping[str, Any]]) -> Any:
        """The data set's own batch, and the targets."""
        batch = super().collate([{k: v for k, v in s.items() if k != "target"} for s in samples])
        return beside(batch, target=torch.stack([s["target"] for s in samples]))


class FinetuneSystem(ContrastiveSystem):
    """A pretrained system's representation under a head of one's own labels."""

    Config = FinetuneConfig
    modalities = ()

    def __init__(
        self, config: FinetuneConfig, assets: Assets | None = None, weights: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__(config, assets)
        cls: Any = resolve(config.base["system"])
        self.base = cls(from_dict(cls.Config, config.base["config"]), self.assets.part("base"))
        if weights is not None:
            self.base.load_state_dict(weights)
        self.base.before_finetune()
        if config.mode == "frozen":
            freeze(self.base)
        elif config.mode == "lora":
            inject_lora(self.base, config.lora_rank, config.lora_alpha)
        self.task = task_class(config.task)(config)
        layers: list[nn.Module] = [nn.Dropout(config.dropout)]
        if config.hidden_dim:
            layers += [nn.Linear(config.width, config.hidden_dim), nn.GELU()]
        self.head = nn.Sequential(*layers, nn.Linear(config.hidden_dim or config.width, self.task.outputs))

    @property
    def pretrained(self) -> ContrastiveSystem:
        return self.base

    @classmethod
    def learn(cls, config: FinetuneConfig, data: Any) -> Assets:
        raise TypeError("create_finetune makes a system with a head: its assets are those of the run it stands on")

    @staticmethod
    def named_classes(config: FinetuneConfig) -> list[tuple[str, type]]:
        """What the configuration names: the base system, and a task of one's own."""
        own = [(config.task, Task)] if ":" in config.task else []
        return [(config.base["system"], ContrastiveSystem), *own]

    # Data ------------------------------------------------------------------------------------------------------------

    def datasets(self) -> Datasets:
        self.base.stage = list(self.base.stages())[-1]
        found = self.base.evaluation_datasets()
        parts = {s: self._labelled(getattr(found, s), s) for s in SPLITS}
        return Datasets(**parts)

    def _labelled(self, dataset: Any, split: str) -> Labelled | None:
        if dataset is None:
            return None
        table, keep = self.task.targets(dataset)
        positions = np.flatnonzero(keep)
        if split == "train" and (self.config.fraction < 1 or self.config.groups):
            positions = positions[self._subset(dataset, table, positions)]
        if len(positions) == 0:
            if split == "test":
                return None
            raise InputError(f"no sample of the {split} split carries the label {', '.join(self.config.labels)}")
        targets = None if table is None else table[positions]
        return Labelled(dataset, positions.tolist(), targets, self.task)

    def _subset(self, dataset: Any, table: np.ndarray | None, positions: np.ndarray) -> np.ndarray:
        groups = dataset.groups
        units = np.asarray([groups[p] for p in positions])
        codes, fraction = self.task.strata(table, positions), self.config.fraction
        if wanted := self.config.groups:
            names, first = np.unique(units, return_index=True)
            if wanted > len(names):
                raise InputError(f"--groups {wanted}: only {len(names)} groups of the training split carry a label")
            share = wanted / len(names)
            chosen = nested_subset(codes[first], names, (share,), self.config.train.seed)[share]
            return np.flatnonzero(np.isin(units, names[chosen]))
        return nested_subset(codes, units, (fraction,), self.config.train.seed)[fraction]

    # Training --------------------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> FinetuneSystem:
        super().train(mode)
        if self.config.mode == "frozen":
            self.base.eval()
        return self

    def configure_optimizers(self) -> Any:
        if self.config.mode == "layerwise":
            names = [n for n, p in self.base.named_parameters() if p.requires_grad]
            groups = layerwise_groups([f"base.{n}" for n in names], self.config.layer_decay)
            optim = replace(self.config.optim, groups=(*groups, *self.config.optim.groups))
            self.stage = replace(self.stage, optim=optim)
        return super().configure_optimizers()

    @property
    def inputs(self) -> Mapping[str, Input]:  # type: ignore[override]
        """Those of the system underneath."""
        return self.base.inputs

    def example(self) -> Any:
        return self.base.example()

    def preprocessing(self) -> dict[str, Any]:
        """That of the system underneath: the head takes what it gives."""
        return self.base.preprocessing()

    def teachers(self) -> list[nn.Module]:
        """None: the pretraining's teachers stay as they are."""
        return []

    def features(self, batch: Any) -> dict[str, Tensor]:
        return self.task.features(self.base, bare(batch))

    def encode(self, batch: Any, modality: str | None = None) -> dict[str, Tensor]:
        found = {self.config.modality: self.features(batch)[self.config.modality]}
        return found if modality is None else {modality: found[modality]}

    def embed(self, batch: Any) -> dict[str, Tensor]:
        if self.config.mode == "frozen":
            with torch.no_grad():
                features = self.features(batch)[self.config.modality]
        else:
            features = self.features(batch)[self.config.modality]
        return {"logits": self.head(features)}

    def losses(self, batch: Any, embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.task.loss(embeddings["logits"], entry(batch, "target"))

    # Prediction ------------------------------------------------------------------------------------------------------

    def predict(self, batch: Any) -> Tensor:
        """What the task makes of the head's output: probabilities, or values in the target's unit."""
        return self.task.predict(self.embed(batch)["logits"])

    def predictions(self, dataset: Labelled) -> tuple[Digest, list[str]]:
        """The task's digest and the groups of a split, in order; unreadable samples are left out."""
        train = self.config.train
        found = encode_rows(self, dataset, what=self._digest, batch_size=train.batch_size, seed=train.seed)
        return found.vectors, found.groups

    def _digest(self, batch: Any) -> Digest:
        return self.task.digest(self.embed(batch)["logits"], entry(batch, "target"))

    def scores(self, dataset: Labelled) -> dict[str, Any]:
        """Figures with chance levels and intervals over groups, as plain data."""
        digest, groups = self.predictions(dataset)
        found = self.task.scores(digest, groups)
        if said := majority_note(digest, found.get("classes") or ()):
            found["notes"] = [said, *found.get("notes", ())]
        return found

    def validation_rows(self, batch: Any, embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.task.digest(embeddings["logits"], entry(batch, "target"))

    def validation_metrics(self, embeddings: Mapping[str, Tensor]) -> dict[str, float]:
        return {f"val/{k}": v for k, v in self.task.quick(dict(embeddings)).items()}
