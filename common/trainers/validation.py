"""The validation pass of every system: loss terms, RankMe, and retrieval between its modalities."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from torch import Tensor

from counterpoint.common.data.batch import rows
from counterpoint.common.losses import unshared
from counterpoint.common.metrics import retrieval
from counterpoint.common.metrics.label_free import rankme
from counterpoint.common.metrics.scores import score_named
from counterpoint.common.rng import rng_state, set_rng_state
from counterpoint.common.trainers.gradients import scalar
from counterpoint.common.trainers.sharding import align_statistics


class Validation(LightningModule):
    """What `ContrastiveSystem` does with a validation split; the figures go through `record_reading`.

    The random generators are put back, so that a validation changes nothing in what follows.
    """

    modalities: ClassVar[tuple[str, ...]] = ()
    loss_weights: ClassVar[dict[str, float]] = {}
    metric: ClassVar[str]
    _validation: dict[str, Any]

    def on_validation_epoch_start(self) -> None:
        align_statistics(self)
        self._validation = {"terms": {}, "rows": 0, "embeddings": {}, "rng": rng_state()}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        kept, repeated = self._validation, self.trainer.val_dataloaders.marks().repeated
        # Averaged over ranks, terms and rows are those of the whole batch, which each has a share of, or all.
        n = rows(batch) / self.trainer.world_size if repeated else rows(batch)
        with unshared() if repeated else contextlib.nullcontext():
            losses, found = self.validated(batch)
            terms = {name: float(scalar(term)) for name, term in losses.items()}
        kept["rows"] += n
        for name, term in terms.items():
            kept["terms"][name] = kept["terms"].get(name, 0.0) + term * n
        first = not repeated or self.trainer.is_global_zero
        for name, value in found.items():
            kept["embeddings"].setdefault(name, []).append((value if first else value[:0]).detach().cpu())

    def validated(self, batch: Any) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """(loss terms, rows for `validation_metrics`) of a batch. Override where validating is something else than the
        training's losses on other samples: ranking a catalogue for users."""
        embeddings = self.embed(batch)
        return self.losses(batch, embeddings), self.validation_rows(batch, embeddings)

    def validation_rows(self, batch: Any, embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What `validation_metrics` needs of a batch, one row per sample; here the embeddings that are vectors."""
        return {k: v.float() for k, v in embeddings.items() if v.ndim == 2}

    def on_validation_epoch_end(self) -> None:
        kept = self._validation
        parts = {k: torch.cat(v) for k, v in kept["embeddings"].items()}
        sums = torch.tensor([*kept["terms"].values(), float(kept["rows"])], dtype=torch.float64)
        if self.trainer.world_size > 1:
            sums = sums.to(self.device)
            parts = {k: self.gather_rows(v) for k, v in parts.items()}
            dist.all_reduce(sums)
        means = dict(zip(kept["terms"], (sums[:-1] / sums[-1]).tolist()))
        total = sum(self.loss_weights.get(k, 1.0) * v for k, v in means.items())
        results = {f"val/{k}": v for k, v in means.items()} | ({"val/loss": total} if means else {})
        results |= self.validation_metrics(parts)
        set_rng_state(kept["rng"])
        self._validation = {}
        self.record_reading(results)
        self.log_dict(results, logger=False)  # for callbacks that look there

    def validation_metrics(self, embeddings: Mapping[str, Tensor]) -> dict[str, float]:
        """Figures over all validation embeddings: RankMe, and retrieval between every two modalities, row i answering
        row i (a monitor: `evaluate` knows of several answers)."""
        results = {}
        shown = [m for m in self.modalities if m in embeddings]
        for name in shown:
            if torch.isfinite(embeddings[name]).all():
                results[f"val/rankme/{name}"] = rankme(embeddings[name])
        for i, a in enumerate(shown):
            for b in shown[i + 1 :]:
                if embeddings[a].shape == embeddings[b].shape and len(embeddings[a]) > 1:
                    metric = "cosine" if score_named(self.metric).joint else self.metric
                    found = retrieval(embeddings[a], embeddings[b], names=(a, b), ks=(1, 10), n_boot=0, metric=metric)
                    for side, (q, k) in ((found.a_to_b, (a, b)), (found.b_to_a, (b, a))):
                        for metric in ("R@1", "R@10", "median_rank"):
                            results[f"val/{q}->{k}/{metric}"] = float(side.metrics[metric])
        return results

    def gather_rows(self, rows: Tensor) -> Tensor:
        """Rows of all ranks in rank order, on the CPU; ranks may hold different numbers of them."""
        if self.trainer.world_size == 1:
            return rows.cpu()
        rows = rows.to(self.device)
        sizes = [torch.zeros((), dtype=torch.int64, device=self.device) for _ in range(self.trainer.world_size)]
        dist.all_gather(sizes, torch.tensor(len(rows), device=self.device))
        longest = int(max(sizes))
        padded = torch.cat([rows, rows.new_zeros(longest - len(rows), *rows.shape[1:])])
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([p[: int(s)] for p, s in zip(parts, sizes)]).cpu()
