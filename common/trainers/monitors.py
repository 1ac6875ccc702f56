"""Label-free health of a training: is the representation spread out, or does it collapse while the loss falls?"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.functional import normalize

from counterpoint.common.data.batch import entry, rows
from counterpoint.common.errors import CollapseWarning
from counterpoint.common.metrics.label_free import alignment, rankme, uniformity

CAUSES = (
    "the views or augmentations leave nothing to distinguish",
    "the learning rate or the warm-up",
    "a missing stop-gradient, predictor or teacher where the method needs one",
    "a temperature far from the paper's",
    "too few or duplicate negatives in a batch (see monitor/negatives)",
    "dead or saturated normalisation in the head",
)


def effective_negatives(groups: Tensor, world_groups: Tensor | None = None) -> float:
    """Mean number of samples of other groups that a sample is contrasted with.

    >>> effective_negatives(torch.tensor([1, 1, 2, 3]))
    2.5
    """
    others = groups if world_groups is None else world_groups
    values, counts = others.unique(return_counts=True)
    same = counts[torch.searchsorted(values, groups)]
    return float((len(others) - same).double().mean())


def health(embeddings: Mapping[str, Float[Tensor, "rows dim"]]) -> dict[str, float]:
    """RankMe, spread and uniformity of every embedding; alignment of every two with paired rows.

    `spread` is the mean over dimensions of the standard deviation of normalised embeddings, times sqrt(dim): about 1
    for embeddings spread over the sphere, 0 when all are equal.

    >>> z = torch.randn(4096, 8, generator=torch.Generator().manual_seed(0))
    >>> {k: round(v) for k, v in health({"z": z}).items()}
    {'rankme/z': 8, 'spread/z': 1, 'uniformity/z': -3}
    """
    result = {}
    unit = {k: normalize(v.double(), dim=-1) for k, v in embeddings.items()}
    for name, z in unit.items():
        result[f"rankme/{name}"] = rankme(embeddings[name])
        result[f"spread/{name}"] = float(z.std(0, correction=0).mean() * z.shape[1] ** 0.5)
        result[f"uniformity/{name}"] = float(uniformity(z))
    names = list(unit)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            if unit[a].shape == unit[b].shape:
                result[f"alignment/{a}-{b}"] = float(alignment(unit[a], unit[b]))
    return result


class CollapseMonitor(Callback):
    """Every `every` steps, `health` over the last `rows` training embeddings, logged as `monitor/...`.

    Warns once per embedding with a list of likely causes when its spread falls under `min_spread` or its RankMe under
    `min_rank` (of at most min(rows, dim)). The rows kept are part of the checkpoint.
    """

    def __init__(self, every: int = 100, rows: int = 1024, min_spread: float = 0.1, min_rank: float = 1.5) -> None:
        self.every, self.rows, self.min_spread, self.min_rank = every, rows, min_spread, min_rank
        self.kept: dict[str, Tensor] = {}
        self.warned: list[str] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        system: Any = pl_module
        if not isinstance(outputs, Mapping) or not outputs.get("embeddings"):
            return
        step = system.progress.step + 1
        # Only the last rows before a reading are needed.
        if (self.every - step % self.every) % self.every * rows(batch) <= self.rows:
            for name, value in outputs["embeddings"].items():
                if value.ndim == 2:
                    new = system.gather_rows(value.float())
                    self.kept[name] = torch.cat([self.kept.get(name, new[:0]), new])[-self.rows :]
        if step % self.every == 0 and self.kept:
            readings = {k: z for k, z in self.kept.items() if len(z) > 1 and torch.isfinite(z).all()}
            result = health(readings)
            if entry(batch, "group") is not None:
                result["negatives"] = self.negatives(system, batch)
            system.record_reading({f"monitor/{k}": v for k, v in result.items()})
            self.warn(result, step)
            self.kept = {}

    def negatives(self, system: Any, batch: Any) -> float:
        """Other-group samples per row in the contrast of the whole (all-rank) batch."""
        everyone = system.gather_rows(system.group_ids(batch))
        return effective_negatives(everyone, everyone)

    def warn(self, readings: Mapping[str, float], step: int) -> None:
        """Say so once when an embedding has collapsed."""
        for key, spread in readings.items():
            kind, _, name = key.partition("/")
            rank = readings.get(f"rankme/{name}", float("inf"))
            if kind == "spread" and name not in self.warned and (spread < self.min_spread or rank < self.min_rank):
                self.warned.append(name)
                causes = "; ".join(CAUSES)
                warnings.warn(
                    f"embedding {name!r} has collapsed at step {step}: spread {spread:.3f} (healthy: about 1), RankMe "
                    f"{rank:.1f}. Likely causes: {causes}",
                    CollapseWarning,
                    stacklevel=2,
                )

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.kept, "warned": self.warned}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept, self.warned = dict(state["kept"]), list(state["warned"])
