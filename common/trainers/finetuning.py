"""`finetune`: a head, and as much of the encoder as one likes, trained on labels; same run folder, resume, checks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

from counterpoint.common.data.dataset import BadSample
from counterpoint.common.errors import InputError
from counterpoint.common.lazy import resolve
from counterpoint.common.losses import BMC, BalancedSoftmax
from counterpoint.common.metrics.calibration import calibration, fit_temperature
from counterpoint.common.metrics.classification import score_classes, score_multilabel, score_regression
from counterpoint.common.metrics.fewshot import nested_subset
from counterpoint.common.metrics.labels import LabelSet
from counterpoint.common.trainers.adapt import freeze, inject_lora, layerwise_groups
from counterpoint.common.trainers.config import from_dict, load_yaml, override, to_dict
from counterpoint.common.trainers.finetune_config import IMBALANCE, MODES, TASKS, FinetuneConfig
from counterpoint.common.trainers.fitting import fit
from counterpoint.common.trainers.loader import Datasets
from counterpoint.common.trainers.run import (
    CONFIG,
    RunResult,
    checkpoint_dir,
    empty_system,
    load_run,
    load_weights,
)
from counterpoint.common.trainers.state import (
    find_checkpoint,
    preserved_rng,
    read_state,
    seed_all,
    write_checkpoint,
)
from counterpoint.common.trainers.system import ContrastiveSystem


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
    if best.config.task == "classification" and best.config.calibrate and datasets.val is not None:
        logits, target, _ = best.predictions(datasets.val, datasets.collate)
        best.temperature.fill_(fit_temperature(logits.numpy(), target.numpy()))
        folder = find_checkpoint(checkpoint_dir(result.run_dir, "best"))
        write_checkpoint(folder, best.state_dict(), read_state(folder))
        report["temperature"] = float(best.temperature)
    for split in ("val", "test"):
        dataset = getattr(datasets, split)
        if dataset is not None:
            report[split] = best.scores(dataset, datasets.collate)
    text = json.dumps(report, indent=2, default=float) + "\n"
    (result.run_dir / "finetune.json").write_text(text, encoding="utf-8")
    figures = {f"test/{k}": v for k, v in report.get("test", {}).get("metrics", {}).items()}
    return replace(result, metrics={**result.metrics, **figures})


def create_finetune(config: FinetuneConfig) -> FinetuneSystem:
    """The system to finetune: pretrained weights, a new head, facts about the labels recorded in its config."""
    for name, value, known in (
        ("task", config.task, TASKS),
        ("mode", config.mode, MODES),
        ("imbalance", config.imbalance, IMBALANCE),
    ):
        if value not in known:
            raise InputError(f"{name} {value!r} is not one of {', '.join(known)}")
    if not config.labels or (config.task != "multilabel" and len(config.labels) != 1):
        raise InputError(f"labels: {config.task} needs {'columns' if config.task == 'multilabel' else 'one column'}")
    if not 0 < config.fraction <= 1:
        raise InputError(f"fraction is in (0, 1], got {config.fraction}")
    run = Path(config.run)
    base = empty_system(run)
    load_weights(base, find_checkpoint(checkpoint_dir(run, config.checkpoint)))
    record = load_yaml(run / CONFIG)
    record["config"] = to_dict(override(from_dict(type(base).Config, record["config"]), config.data))
    base.config = from_dict(type(base).Config, record["config"])
    base.stage = list(base.stages())[-1]
    datasets = base.datasets()
    classes = tuple(config.labels)
    if config.task == "classification":
        found = {v for v in labels_of(datasets.train, config.labels[0]) if v is not None}
        classes = tuple(map(str, sorted(found, key=lambda v: (isinstance(v, str), v))))
        if len(classes) < 2:
            raise InputError(
                f"label {config.labels[0]!r} has {len(classes)} class(es) in the training split; two are least"
            )
    modality = config.modality or base.modalities[0]
    sample = next(
        s for s in map(datasets.train.__getitem__, range(len(datasets.train))) if not isinstance(s, BadSample)
    )
    with torch.no_grad(), preserved_rng():
        features = base.eval().features(datasets.collate([sample]))
    if modality not in features:
        raise InputError(f"modality {modality!r} is not one of {', '.join(features)}")
    width = features[modality].shape[-1]
    config = replace(config, base=record, classes=classes, modality=modality, width=width)
    with preserved_rng():
        seed_all(config.train.seed)
        system = FinetuneSystem(config, base.state_dict())
    system.record_labels()
    return system


def labels_of(dataset: Any, name: str) -> list[Any]:
    """The label of every sample: a column of the dataset's manifest, else a key of its samples; missing is None."""
    manifest = getattr(dataset, "manifest", None)
    if manifest is not None and name in manifest.frame:
        return [_clean(v) for v in manifest.frame[name].tolist()]
    samples = (dataset[i] for i in range(len(dataset)))
    values = []
    for sample in samples:
        if not isinstance(sample, BadSample) and name not in sample:
            known = ", ".join(manifest.frame.columns) if manifest is not None else ", ".join(sample)
            raise InputError(f"no label {name!r}; there are: {known}")
        values.append(None if isinstance(sample, BadSample) else _clean(sample[name]))
    return values


def _clean(value: Any) -> Any:
    value = value.item() if isinstance(value, (Tensor, np.generic)) else value
    return None if value is None or value == "" or value != value else value


class Labelled(torch.utils.data.Dataset):
    """The samples that carry a label, with it as `target`."""

    def __init__(self, dataset: Any, positions: Sequence[int], targets: np.ndarray) -> None:
        self.dataset, self.positions, self.targets = dataset, list(positions), targets
        groups = getattr(dataset, "groups", None)
        self.groups = list(map(str, positions)) if groups is None else [str(groups[p]) for p in positions]
        self.manifest = getattr(dataset, "manifest", None)

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, i: int) -> Any:
        sample = self.dataset[self.positions[i]]
        if isinstance(sample, BadSample):
            return sample
        return {**sample, "target": torch.as_tensor(self.targets[i])}


class FinetuneSystem(ContrastiveSystem):
    """A pretrained system's representation under a head of one's own labels."""

    Config = FinetuneConfig
    modalities = ()

    def __init__(self, config: FinetuneConfig, weights: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(config)
        cls: Any = resolve(config.base["system"])
        self.base = cls(from_dict(cls.Config, config.base["config"]))
        if weights is not None:
            self.base.load_state_dict(weights)
        if config.mode == "frozen":
            freeze(self.base)
        elif config.mode == "lora":
            inject_lora(self.base, config.lora_rank, config.lora_alpha)
        outputs = 1 if config.task == "regression" else len(config.classes)
        layers: list[nn.Module] = [nn.Dropout(config.dropout)]
        if config.hidden_dim:
            layers += [nn.Linear(config.width, config.hidden_dim), nn.GELU()]
        self.head = nn.Sequential(*layers, nn.Linear(config.hidden_dim or config.width, outputs))
        self.balanced = BMC(noise=0.1) if config.imbalance == "balanced-mse" else None
        # The noise starts small against the standardised target's spread of 1, as in the paper's label units.
        self.register_buffer("counts", torch.ones(outputs))
        self.register_buffer("known", torch.ones(outputs))
        self.register_buffer("center", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))
        self.register_buffer("temperature", torch.ones(()))
        if (
            (config.imbalance == "balanced-softmax" and config.task != "classification")
            or (config.imbalance == "balanced-mse" and config.task != "regression")
            or (config.imbalance == "weights" and config.task == "regression")
        ):
            raise InputError(f"imbalance {config.imbalance!r} does not fit the task {config.task!r}")

    # Data ------------------------------------------------------------------------------------------------------------

    def datasets(self) -> Datasets:
        self.base.stage = list(self.base.stages())[-1]
        found = self.base.datasets()
        parts = {s: self._labelled(getattr(found, s), s) for s in ("train", "val", "test")}
        return Datasets(**parts, collate=_Collate(found.collate))

    def _labelled(self, dataset: Any, split: str) -> Labelled | None:
        if dataset is None:
            return None
        columns = [labels_of(dataset, name) for name in self.config.labels]
        if self.config.task == "multilabel":
            table = np.array(
                [[np.nan if v is None else float(v) for v in row] for row in zip(*columns)], dtype=np.float32
            )
            if not np.isin(table[np.isfinite(table)], (0, 1)).all():
                raise InputError(f"labels {', '.join(self.config.labels)}: a multi-label column holds 0, 1 or nothing")
            keep = np.isfinite(table).any(1)
        elif self.config.task == "regression":
            table = np.array([math.nan if v is None else float(v) for v in columns[0]], dtype=np.float32)
            keep = np.isfinite(table)
        else:
            code = {c: i for i, c in enumerate(self.config.classes)}
            table = np.array([-1 if v is None else code.get(str(v), -1) for v in columns[0]])
            keep = table >= 0
        positions = np.flatnonzero(keep)
        if split == "train" and self.config.fraction < 1:
            positions = positions[self._subset(dataset, table, positions)]
        if len(positions) == 0:
            if split == "test":
                return None
            raise InputError(f"no sample of the {split} split carries the label {', '.join(self.config.labels)}")
        return Labelled(dataset, positions.tolist(), table[positions])

    def _subset(self, dataset: Any, table: np.ndarray, positions: np.ndarray) -> np.ndarray:
        codes = table[positions] if self.config.task == "classification" else np.zeros(len(positions), dtype=np.int64)
        groups = getattr(dataset, "groups", None)
        units = np.asarray([str(p if groups is None else groups[p]) for p in positions])
        return nested_subset(codes, units, (self.config.fraction,), self.config.train.seed)[self.config.fraction]

    def record_labels(self) -> None:
        """Class counts, or mean and spread of the target, of the training labels."""
        targets = self.datasets().train.targets
        if self.config.task == "classification":
            self.counts.copy_(torch.from_numpy(np.bincount(targets, minlength=len(self.counts)).clip(1)))
        elif self.config.task == "multilabel":
            self.counts.copy_(torch.from_numpy(np.nansum(targets, 0).clip(1)))
            self.known.copy_(torch.from_numpy(np.isfinite(targets).sum(0)))
        else:
            self.center.fill_(float(targets.mean()))
            self.spread.fill_(float(targets.std()) or 1.0)

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

    def update_teachers(self) -> None:
        """The pretraining's teachers stay as they are."""

    def features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        return self.base.features(batch)

    def encode(self, batch: Mapping[str, Any], modality: str | None = None) -> dict[str, Tensor]:
        found = {self.config.modality: self.features(batch)[self.config.modality]}
        return found if modality is None else {modality: found[modality]}

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        if self.config.mode == "frozen":
            with torch.no_grad():
                features = self.features(batch)[self.config.modality]
        else:
            features = self.features(batch)[self.config.modality]
        return {"logits": self.head(features)}

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        logits, target, config = embeddings["logits"], batch["target"], self.config
        if config.task == "classification":
            if config.imbalance == "balanced-softmax":
                return {"balanced_softmax": BalancedSoftmax(self.counts)(logits, target)}
            weights = self.counts.sum() / (len(self.counts) * self.counts) if config.imbalance == "weights" else None
            return {"cross_entropy": cross_entropy(logits, target, weights)}
        if config.task == "multilabel":
            present = torch.isfinite(target)
            positive = (self.known - self.counts).clamp_min(1) / self.counts if config.imbalance == "weights" else None
            filled = target.nan_to_num(0.0).to(logits.dtype)
            each = binary_cross_entropy_with_logits(logits, filled, reduction="none", pos_weight=positive)
            return {"cross_entropy": (each * present).sum() / present.sum().clamp_min(1)}
        wanted = (target - self.center) / self.spread
        if self.balanced is not None:
            return {"balanced_mse": self.balanced(logits[:, 0], wanted.to(logits.dtype))}
        return {"mse": mse_loss(logits[:, 0], wanted.to(logits.dtype))}

    # Prediction ------------------------------------------------------------------------------------------------------

    def predict(self, batch: Mapping[str, Any]) -> Tensor:
        """Class probabilities (calibrated), label probabilities, or values in the target's unit."""
        return self.outputs(self.embed(batch)["logits"])

    def outputs(self, logits: Tensor) -> Tensor:
        """What `predict` makes of the head's output."""
        if self.config.task == "classification":
            return torch.softmax(logits / self.temperature, -1)
        if self.config.task == "multilabel":
            return torch.sigmoid(logits)
        return logits[:, 0] * self.spread + self.center

    @torch.no_grad()
    def predictions(self, dataset: Labelled, collate: Callable) -> tuple[Tensor, Tensor, list[str]]:
        """Head outputs, targets and groups of a split, in order; unreadable samples are left out."""
        with preserved_rng():
            seed_all(self.config.train.seed)  # datasets that draw views give the same ones every time
            return self._predictions(dataset, collate)

    def _predictions(self, dataset: Labelled, collate: Callable) -> tuple[Tensor, Tensor, list[str]]:
        self.eval()
        logits, targets, groups = [], [], []
        size = self.config.train.batch_size
        for start in range(0, len(dataset), size):
            chosen = range(start, min(start + size, len(dataset)))
            samples = [(i, dataset[i]) for i in chosen]
            good = [(i, s) for i, s in samples if not isinstance(s, BadSample)]
            if good:
                batch = {
                    k: v.to(self.device) if isinstance(v, Tensor) else v
                    for k, v in collate([s for _, s in good]).items()
                }
                logits.append(self.embed(batch)["logits"].float().cpu())
                targets.append(batch["target"].cpu())
                groups += [dataset.groups[i] for i, _ in good]
        return torch.cat(logits), torch.cat(targets), groups

    def scores(self, dataset: Labelled, collate: Callable) -> dict[str, Any]:
        """Figures with chance levels and intervals over groups, as plain data."""
        logits, target, groups = self.predictions(dataset, collate)
        predicted, names = self.outputs(logits).numpy(), tuple(self.config.classes)
        units = np.asarray(groups)
        if self.config.task == "classification":
            codes = target.numpy()
            found = score_classes(predicted, LabelSet(codes, names), groups=units).as_dict()
            raw = torch.softmax(logits, -1).numpy()
            found["ece"] = {
                "uncalibrated": calibration(raw, codes).ece,
                "calibrated": calibration(predicted, codes).ece,
            }
            return found
        if self.config.task == "multilabel":
            table = target.double().numpy()
            return score_multilabel(predicted, LabelSet(np.full(len(table), -1), names, table), groups=units).as_dict()
        return score_regression(predicted, target.numpy(), train_mean=float(self.center), groups=units).as_dict()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        target = batch["target"].float().cpu()
        self._validation["embeddings"].setdefault("target", []).append(target.view(len(target), -1))

    def validation_metrics(self, embeddings: Mapping[str, Tensor]) -> dict[str, float]:
        predicted, target = self.outputs(embeddings["logits"].to(self.device)).cpu(), embeddings["target"]
        if self.config.task == "classification":
            hit = predicted.argmax(-1) == target[:, 0]
            recalls = [hit[target[:, 0] == c].double().mean() for c in target[:, 0].unique()]
            return {
                "val/accuracy": float(hit.double().mean()),
                "val/balanced_accuracy": float(torch.stack(recalls).mean()),
            }
        if self.config.task == "multilabel":
            present = torch.isfinite(target)
            return {"val/accuracy": float(((predicted > 0.5) == target.bool())[present].double().mean())}
        error = predicted.double() - target[:, 0].double()
        variance = target.double().var(correction=0).clamp_min(1e-12)
        return {"val/mae": float(error.abs().mean()), "val/r2": float(1 - error.square().mean() / variance)}


class _Collate:
    """The system's own collate, and the targets."""

    def __init__(self, collate: Callable) -> None:
        self.collate = collate

    def __call__(self, samples: Sequence[dict]) -> dict[str, Any]:
        batch = self.collate([{k: v for k, v in s.items() if k != "target"} for s in samples])
        return {**batch, "target": torch.stack([s["target"] for s in samples])}
