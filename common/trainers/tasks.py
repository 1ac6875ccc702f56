"""What a finetuned head predicts. A `Task` goes all the way from labels to loss, predictions and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, interpolate, mse_loss

from counterpoint.common.data.samples import BadSample, facts
from counterpoint.common.errors import InputError
from counterpoint.common.lazy import resolve
from counterpoint.common.losses import BMC, BalancedSoftmax
from counterpoint.common.metrics.calibration import calibration, fit_temperature
from counterpoint.common.metrics.classification import score_classes, score_multilabel, score_regression
from counterpoint.common.metrics.labels import LabelSet
from counterpoint.common.metrics.segmentation import mean_iou, score_dense
from counterpoint.common.trainers.configs import RARE, TASKS, FinetuneConfig

Digest = dict[str, Tensor]


class Task(nn.Module):
    """The base of all tasks; a team's own is a subclass, named in `task: mypackage.tasks:Depth`.

    A head maps the last dimension of `features` to `outputs` numbers. A task says which features it stands on, how
    labels become targets, the loss, and the figures. What it learns about the training labels (class counts, a mean)
    lives in buffers, so that it travels with the checkpoints.

    Figures are computed from digests: what one batch leaves behind, tensors with one row per sample.
    """

    several: ClassVar[bool] = False
    """Whether `labels` may name several columns."""
    imbalances: ClassVar[tuple[str, ...]] = ("none",)
    """The values of `imbalance` it knows."""

    def __init__(self, config: FinetuneConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def outputs(self) -> int:
        """Width of the head's output."""
        return len(self.config.classes)

    def classes(self, dataset: Any) -> tuple[str, ...]:
        """Names of the outputs, from the configuration or the training labels."""
        return tuple(self.config.labels)

    def targets(self, dataset: Any) -> tuple[np.ndarray | None, np.ndarray]:
        """One target per sample, and which samples carry one; None where `target` reads it from the sample."""
        raise TypeError(f"{type(self).__name__} does not define targets()")

    def target(self, sample: Mapping[str, Any]) -> Tensor:
        """The target that lies in the sample itself."""
        raise TypeError(f"{type(self).__name__} does not define target()")

    def observe(self, dataset: Any) -> None:
        """Learn what is needed about the training targets (`dataset.targets`, or the samples)."""

    def imbalance_of(self, dataset: Any) -> tuple[str, str]:
        """What `imbalance: auto` means for these training samples, and why if not `none`."""
        return "none", ""

    def strata(self, targets: np.ndarray | None, positions: np.ndarray) -> np.ndarray:
        """What a label fraction keeps in proportion."""
        return np.zeros(len(positions), dtype=np.int64)

    def features(self, system: Any, batch: Any) -> dict[str, Tensor]:
        """The representations the head stands on; their last dimension is the width."""
        return system.features(batch)

    def loss(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Scalar terms, means over rows."""
        raise TypeError(f"{type(self).__name__} does not define loss()")

    def predict(self, logits: Tensor) -> Tensor:
        """Head output to predictions."""
        return logits

    def digest(self, logits: Tensor, target: Tensor) -> Digest:
        """What the figures need of a batch."""
        return {"logits": logits.float(), "target": target}

    def quick(self, digest: Digest) -> dict[str, float]:
        """Figures during validation."""
        raise TypeError(f"{type(self).__name__} does not define quick()")

    def calibrate(self, digest: Digest) -> dict[str, float]:
        """Fit what is fitted after training, on the validation split; returns what to report."""
        return {}

    def scores(self, digest: Digest, groups: Sequence[str]) -> dict[str, Any]:
        """Figures with chance levels and intervals over groups, as plain data."""
        raise TypeError(f"{type(self).__name__} does not define scores()")


class Classification(Task):
    """One class per sample: cross-entropy, its inverse-frequency weights, or balanced softmax; temperature scaling."""

    imbalances = ("none", "weights", "balanced-softmax")

    def __init__(self, config: FinetuneConfig) -> None:
        super().__init__(config)
        self.register_buffer("counts", torch.ones(self.outputs))
        self.register_buffer("temperature", torch.ones(()))

    def classes(self, dataset: Any) -> tuple[str, ...]:
        name = self.config.labels[0]
        found = {v for v in facts(dataset, name) if v is not None}
        classes = tuple(map(str, sorted(found, key=lambda v: (isinstance(v, str), v))))
        if len(classes) < 2:
            raise InputError(f"label {name!r} has {len(classes)} class(es) in the training split; two are least")
        return classes

    def targets(self, dataset: Any) -> tuple[np.ndarray, np.ndarray]:
        code = {c: i for i, c in enumerate(self.config.classes)}
        column = facts(dataset, self.config.labels[0])
        table = np.array([-1 if v is None else code.get(str(v), -1) for v in column])
        return table, table >= 0

    def observe(self, dataset: Any) -> None:
        self.counts.copy_(torch.from_numpy(np.bincount(dataset.targets, minlength=self.outputs).clip(1)))

    def imbalance_of(self, dataset: Any) -> tuple[str, str]:
        table, keep = self.targets(dataset)
        counts = np.bincount(table[keep], minlength=self.outputs)
        rare = int(counts.argmin())
        if counts[rare] >= RARE * counts.sum():
            return "none", ""
        return "balanced-softmax", f"class {self.config.classes[rare]} has {counts[rare]} of {counts.sum()} samples"

    def strata(self, targets: np.ndarray | None, positions: np.ndarray) -> np.ndarray:
        assert targets is not None
        return targets[positions]

    def loss(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        if self.config.imbalance == "balanced-softmax":
            return {"balanced_softmax": BalancedSoftmax(self.counts)(logits, target)}
        weights = self.counts.sum() / (self.outputs * self.counts) if self.config.imbalance == "weights" else None
        return {"cross_entropy": cross_entropy(logits, target, weights)}

    def predict(self, logits: Tensor) -> Tensor:
        """Class probabilities, calibrated."""
        return torch.softmax(logits / self.temperature, -1)

    def quick(self, digest: Digest) -> dict[str, float]:
        hit, target = digest["logits"].argmax(-1) == digest["target"], digest["target"]
        recalls = [hit[target == c].double().mean() for c in target.unique()]
        return {"accuracy": float(hit.double().mean()), "balanced_accuracy": float(torch.stack(recalls).mean())}

    def calibrate(self, digest: Digest) -> dict[str, float]:
        self.temperature.fill_(fit_temperature(digest["logits"].numpy(), digest["target"].numpy()))
        return {"temperature": float(self.temperature)}

    def scores(self, digest: Digest, groups: Sequence[str]) -> dict[str, Any]:
        codes = digest["target"].numpy()
        raw, scaled = (torch.softmax(digest["logits"] / t, -1).numpy() for t in (1.0, float(self.temperature)))
        found = score_classes(scaled, LabelSet(codes, self.config.classes), groups=np.asarray(groups)).as_dict()
        found["ece"] = {"uncalibrated": calibration(raw, codes).ece, "calibrated": calibration(scaled, codes).ece}
        return found


class MultiLabel(Task):
    """Several columns of 0 and 1, any of them missing: binary cross-entropy over what is known."""

    several = True
    imbalances = ("none", "weights")

    def __init__(self, config: FinetuneConfig) -> None:
        super().__init__(config)
        self.register_buffer("counts", torch.ones(self.outputs))
        self.register_buffer("known", torch.ones(self.outputs))

    def targets(self, dataset: Any) -> tuple[np.ndarray, np.ndarray]:
        columns = [facts(dataset, name) for name in self.config.labels]
        table = np.array([[np.nan if v is None else float(v) for v in row] for row in zip(*columns)], dtype=np.float32)
        if not np.isin(table[np.isfinite(table)], (0, 1)).all():
            raise InputError(f"labels {', '.join(self.config.labels)}: a multi-label column holds 0, 1 or nothing")
        return table, np.isfinite(table).any(1)

    def imbalance_of(self, dataset: Any) -> tuple[str, str]:
        table, _ = self.targets(dataset)
        known = np.isfinite(table).sum(0)
        share = np.nansum(table, 0) / known.clip(1)
        rare = int(share.argmin())
        if share[rare] >= RARE:
            return "none", ""
        hits = int(np.nansum(table, 0)[rare])
        return "weights", f"label {self.config.classes[rare]} is true of {hits} of {known[rare]} samples"

    def observe(self, dataset: Any) -> None:
        self.counts.copy_(torch.from_numpy(np.nansum(dataset.targets, 0).clip(1)))
        self.known.copy_(torch.from_numpy(np.isfinite(dataset.targets).sum(0)))

    def loss(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        present = torch.isfinite(target)
        weighted = self.config.imbalance == "weights"
        positive = (self.known - self.counts).clamp_min(1) / self.counts if weighted else None
        filled = target.nan_to_num(0.0).to(logits.dtype)
        each = binary_cross_entropy_with_logits(logits, filled, reduction="none", pos_weight=positive)
        return {"cross_entropy": (each * present).sum() / present.sum().clamp_min(1)}

    def predict(self, logits: Tensor) -> Tensor:
        """Probability of each label."""
        return torch.sigmoid(logits)

    def quick(self, digest: Digest) -> dict[str, float]:
        present = torch.isfinite(digest["target"])
        return {"accuracy": float(((digest["logits"] > 0) == digest["target"].bool())[present].double().mean())}

    def scores(self, digest: Digest, groups: Sequence[str]) -> dict[str, Any]:
        table = digest["target"].double().numpy()
        labels = LabelSet(np.full(len(table), -1), self.config.classes, table)
        return score_multilabel(self.predict(digest["logits"]).numpy(), labels, groups=np.asarray(groups)).as_dict()


class Regression(Task):
    r"""One number per sample, standardised for the head; mean squared error or balanced MSE with a learnt noise.

    Balanced MSE undoes the pull towards frequent values; it does not minimise the error on data like the training
    data. Where a linear head explains a share :math:`\rho^2` of a Gaussian target, its predictions spread
    :math:`1/\rho^2` as wide as least squares', the learnt noise variance is :math:`(1-\rho^2)/\rho^2` of the target's,
    and :math:`R^2 = 2 - 1/\rho^2`, negative below one half. Judge it by errors per range of the target, or by rank.
    """

    imbalances = ("none", "balanced-mse")

    def __init__(self, config: FinetuneConfig) -> None:
        super().__init__(config)
        self.balanced = BMC(noise=1.0) if config.imbalance == "balanced-mse" else None
        self.register_buffer("center", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    @property
    def outputs(self) -> int:
        return 1

    def targets(self, dataset: Any) -> tuple[np.ndarray, np.ndarray]:
        column = facts(dataset, self.config.labels[0])
        table = np.array([np.nan if v is None else float(v) for v in column], dtype=np.float32)
        return table, np.isfinite(table)

    def observe(self, dataset: Any) -> None:
        self.center.fill_(float(dataset.targets.mean()))
        self.spread.fill_(float(dataset.targets.std()) or 1.0)

    def loss(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        wanted = ((target - self.center) / self.spread).to(logits.dtype)
        if self.balanced is not None:
            return {"balanced_mse": self.balanced(logits[:, 0], wanted)}
        return {"mse": mse_loss(logits[:, 0], wanted)}

    def predict(self, logits: Tensor) -> Tensor:
        """Values in the target's unit."""
        return logits[:, 0] * self.spread + self.center

    def quick(self, digest: Digest) -> dict[str, float]:
        predicted, target = self.cpu_predict(digest), digest["target"].double()
        error, variance = predicted - target, target.var(correction=0).clamp_min(1e-12)
        return {"mae": float(error.abs().mean()), "r2": float(1 - error.square().mean() / variance)}

    def cpu_predict(self, digest: Digest) -> Tensor:
        """The predictions of a digest, on the CPU in double precision."""
        return digest["logits"][:, 0].double().cpu() * float(self.spread) + float(self.center)

    def scores(self, digest: Digest, groups: Sequence[str]) -> dict[str, Any]:
        predicted, target = self.cpu_predict(digest).numpy(), digest["target"].double().numpy()
        return score_regression(predicted, target, train_mean=float(self.center), groups=np.asarray(groups)).as_dict()


class Dense(Task):
    """A class at every place of a sample: time step, token, pixel, voxel.

    The label is a key of the sample, an integer tensor [*places] with -1 where nothing is known; the system brings
    `dense_features`, [batch, *places, width]. A coarser grid of features (patches) is interpolated up to the labels'.
    """

    imbalances = ("none", "weights", "balanced-softmax")

    def __init__(self, config: FinetuneConfig) -> None:
        super().__init__(config)
        self.register_buffer("counts", torch.ones(self.outputs))

    def classes(self, dataset: Any) -> tuple[str, ...]:
        if self.config.classes:
            return self.config.classes
        largest = max((int(t.max()) for t in self._every(dataset) if t.numel()), default=-1)
        if largest < 1:
            raise InputError(f"label {self.config.labels[0]!r} has {largest + 1} class(es) in the training split")
        return tuple(map(str, range(largest + 1)))

    def targets(self, dataset: Any) -> tuple[None, np.ndarray]:
        """Every sample is asked for its own; where the label is a column of files, those that name none have none."""
        name = self.config.labels[0]
        if name in dataset.columns:
            return None, np.array([v is not None for v in facts(dataset, name)], dtype=bool)
        return None, np.ones(len(dataset), dtype=bool)

    def target(self, sample: Mapping[str, Any]) -> Tensor:
        name = self.config.labels[0]
        if name not in sample:
            raise InputError(f"no label {name!r} in the samples; there are: {', '.join(sample)}")
        try:
            target = torch.as_tensor(sample[name])
        except (TypeError, ValueError) as error:
            raise InputError(
                f"sample {sample.get('id', '?')}: label {name!r} is {sample[name]!r}; a dense task needs "
                "a class number at every place (-1: unknown)"
            ) from error
        if self.config.classes and target.numel() and int(target.max()) >= self.outputs:
            where, worst = sample.get("id", "?"), int(target.max())
            raise InputError(f"sample {where}: {name} holds class {worst}, beyond the {self.outputs} known")
        return target.long()

    def _every(self, dataset: Any) -> list[Tensor]:
        samples = (dataset[i] for i in range(len(dataset)))
        return [self.target(s) for s in samples if not isinstance(s, BadSample)]

    def observe(self, dataset: Any) -> None:
        if self.config.imbalance != "none":
            found = [torch.bincount(t[t >= 0], minlength=self.outputs) for t in self._every(dataset)]
            self.counts.copy_(torch.stack(found).sum(0).clamp_min(1))

    def features(self, system: Any, batch: Any) -> dict[str, Tensor]:
        return system.dense_features(batch)

    def loss(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        logits, known = at_places(logits, target.shape[1:]), target >= 0
        if not known.any():
            return {"cross_entropy": logits.sum() * 0.0}
        rows, codes = logits[known], target[known]
        if self.config.imbalance == "balanced-softmax":
            return {"balanced_softmax": BalancedSoftmax(self.counts)(rows, codes)}
        weights = self.counts.sum() / (self.outputs * self.counts) if self.config.imbalance == "weights" else None
        return {"cross_entropy": cross_entropy(rows, codes, weights)}

    def predict(self, logits: Tensor) -> Tensor:
        """Class probabilities at every place of the features."""
        return torch.softmax(logits, -1)

    def digest(self, logits: Tensor, target: Tensor) -> Digest:
        """A confusion matrix per sample: memory does not grow with the places."""
        said, n = at_places(logits, target.shape[1:]).argmax(-1), self.outputs
        row = torch.arange(len(target), device=target.device).view(-1, *[1] * (target.ndim - 1))
        cell = ((row * n + target) * n + said)[target >= 0]
        return {"confusion": torch.bincount(cell, minlength=len(target) * n * n).view(len(target), n, n)}

    def quick(self, digest: Digest) -> dict[str, float]:
        matrix = digest["confusion"].sum(0).double()
        return {"accuracy": float(matrix.trace() / matrix.sum()), "mean_iou": mean_iou(matrix.cpu().numpy())}

    def scores(self, digest: Digest, groups: Sequence[str]) -> dict[str, Any]:
        return score_dense(digest["confusion"].numpy(), self.config.classes, groups=np.asarray(groups)).as_dict()


def at_places(logits: Float[Tensor, "batch *coarse classes"], places: Sequence[int]) -> Tensor:
    """Logits on the labels' grid: as they are, or interpolated linearly from a coarser one.

    >>> at_places(torch.zeros(2, 4, 4, 3), (8, 8)).shape
    torch.Size([2, 8, 8, 3])
    """
    coarse = logits.shape[1:-1]
    if tuple(coarse) == tuple(places):
        return logits
    modes = {1: "linear", 2: "bilinear", 3: "trilinear"}
    if len(coarse) != len(places) or len(coarse) not in modes:
        raise InputError(f"features at {tuple(coarse)} places cannot carry labels at {tuple(places)}")
    grown = interpolate(logits.movedim(-1, 1), size=tuple(places), mode=modes[len(coarse)], align_corners=False)
    return grown.movedim(1, -1)


_TASKS = dict(zip(TASKS, (Classification, MultiLabel, Regression, Dense), strict=True))


def task_class(name: str) -> type[Task]:
    """The task behind `FinetuneConfig.task`: one of ours, or `module:Class`.

    >>> task_class("dense").__name__
    'Dense'
    """
    if name in _TASKS:
        return _TASKS[name]
    if ":" not in name:
        raise InputError(f"task {name!r} is not one of {', '.join(TASKS)}, nor module:Class of your own")
    try:
        found: Any = resolve(name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"task {name!r} cannot be imported ({error})") from error
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise InputError(f"task {name!r} is not a Task")
    return found
