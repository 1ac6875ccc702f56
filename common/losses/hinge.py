"""The hinge over all pairs of a batch: every wrong answer shall be less alike than the right one, by a margin."""

from typing import Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from counterpoint.common.losses.base import Objective, dots
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["TripletHinge"]


class TripletHinge(Objective):
    """Mean over all wrong pairs of what they lack to a margin behind the right one, rows against columns.

        L = mean_{i != j} max(0, margin - (s_ii - s_ij)),     s_ij = cos(a_i, b_j)

    One direction only, as in the official code: rows ask, columns answer; `both` averages both directions. Pairs that
    share a `group` id are left out of the mean.

    The scores are no log-sum-exp: rows run in blocks of `block`, recomputed in the backward pass.

    Args:
        margin: 0.6 in the released configuration (0.7 in the function's signature).
        both: columns ask too.
        block: rows whose scores are in memory at a time.

    Raises `ValueError` for a margin of zero or less.

    Source: Dorfer et al. 2018; Carvalho et al. 2023, luisfvc/ucasr at 0534103, ucasr/utils/losses.py.

    >>> import torch
    >>> z = torch.eye(3)
    >>> TripletHinge()(z, z).item(), round(TripletHinge()(z, z.roll(1, 0)).item(), 4)    # (0.6 + 1.6) / 2
    (0.0, 1.1)
    """

    card = ObjectiveCard(
        paper="Audio-sheet retrieval 2018, 2023",
        needs="pairs; optional group",
        engine="none: rows in blocks",
        status="official numbers",
        checked="official numbers (luisfvc/ucasr 0534103)",
    )

    def __init__(self, margin: float = 0.6, *, both: bool = False, block: int = 1024, **engine: Unpack[EngineSettings]):
        super().__init__(**engine)
        if not margin > 0:
            raise ValueError(f"margin must be above 0, got {margin}")
        self.margin, self.both, self.block = margin, both, block

    def forward(
        self,
        za: Float[Tensor, "batch dim"],
        zb: Float[Tensor, "batch dim"],
        *,
        index: Int[Tensor, "batch"] | None = None,
        group: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean over the pairs kept."""
        a, b = self.embed(za, zb)
        own = dots(a, b)
        sides = [(a, b), (b, a)] if self.both else [(a, b)]
        return torch.stack([self._side(q, k, own, group) for q, k in sides]).mean()

    def _side(self, q: Tensor, k: Tensor, own: Tensor, group: Tensor | None) -> Float[Tensor, ""]:
        first, keys = self.own(k).start, self.union(k)
        ids = torch.arange(len(q), device=q.device) + first if group is None else group
        all_ids = torch.arange(len(keys), device=q.device) if group is None else self.union(group)

        def rows(start: int) -> Tensor:
            at = slice(start, start + self.block)
            lacking = (self.margin - own[at, None] + q[at] @ keys.T).clamp_min(0)
            return torch.where(ids[at, None] == all_ids, 0.0, lacking).sum(1)

        parts = [checkpoint(rows, start, use_reentrant=False) for start in range(0, max(len(q), 1), self.block)]
        _, counts = all_ids.unique(return_counts=True)
        places = torch.searchsorted(all_ids.unique(), ids)
        wrong = (len(all_ids) - counts[places]).sum() if len(all_ids) else torch.zeros((), dtype=torch.int64)
        return self.mean_over(torch.cat(parts).sum(), wrong)
