"""Row statistics for scores that are no inner product: rows in blocks, each recomputed in the backward pass.

The contrast engine serves logits that are affine in q_i . k_j. A volume (GRAM), a gated cosine (SimLAP) or a late
interaction over tokens (Norton, HBI) is not. Here such a score is evaluated for a block of rows at a time; memory is
`block` x columns (times whatever the score needs inside), recomputed under autograd's checkpointing.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from counterpoint.common.losses.base import Objective, row_mean

__all__ = ["BlockStats", "block_stats", "symmetric_cross_entropy"]


@dataclass
class BlockStats:
    """Per row: log-sum-exp, mean and positive of the logits; `columns` holds the same down the columns."""

    lse: Float[Tensor, "rows"]
    mean: Float[Tensor, "rows"]
    positive: Float[Tensor, "rows"]
    columns: "BlockStats | None" = None


def block_stats(
    score: Callable[[int, int], Float[Tensor, "block columns"]],
    rows: Float[Tensor, "rows *features"],
    *,
    positive: Float[Tensor, "rows"] | None = None,
    block: int = 256,
    over: Objective | None = None,
) -> BlockStats:
    """Statistics of the logits `score(start, stop)` returns for rows start:stop against all columns.

    `rows` are the rows' features (only their number matters). Row i's positive is column i, read from the logits unless
    `positive` brings a more precise value (which then replaces the diagonal everywhere, so that both sides of the
    cross-entropy see one number). With an objective `over` ranks the columns are those of all of them, in rank order
    (`score` closes over gathered keys), and `columns` are this rank's, over the rows of all.
    """

    count, first = len(rows), 0 if over is None else over.own(rows).start

    def one(start: int, stop: int) -> tuple[Tensor, ...]:
        logits = score(start, stop)
        here = torch.arange(stop - start, device=logits.device)
        paired = here + start + first
        if positive is None:
            diagonal = logits[here, paired]
        else:
            diagonal = positive[start:stop].to(logits.dtype)
            logits = logits.index_put((here, paired), diagonal)
        return logits.logsumexp(1), logits.mean(1), diagonal, logits.logsumexp(0), logits.sum(0)

    parts = [
        checkpoint(one, start, min(start + block, count), use_reentrant=False)
        for start in range(0, max(count, 1), block)
    ]
    lse, mean, diagonal = (torch.cat([p[i] for p in parts]) for i in range(3))
    column_lse = torch.stack([p[3] for p in parts]).logsumexp(0)
    column_sum = torch.stack([p[4] for p in parts]).sum(0)
    everyone = len(column_sum)  # as many rows as columns: they are paired
    if over is not None:  # every rank knows its rows' part of every column
        own = slice(first, first + count)
        column_lse = over.union(column_lse[None]).logsumexp(0)[own]
        column_sum = over.union(column_sum[None]).sum(0)[own]
    return BlockStats(lse, mean, diagonal, BlockStats(column_lse, column_sum / max(everyone, 1), diagonal))


def symmetric_cross_entropy(
    stats: BlockStats, label_smoothing: float = 0.0, *, over: Objective | None = None
) -> Float[Tensor, ""]:
    """The mean over rows and over columns of lse - (1 - e) positive - e mean, averaged."""
    sides = [s.lse - (1 - label_smoothing) * s.positive - label_smoothing * s.mean for s in (stats, stats.columns)]
    mean = row_mean if over is None else over.mean
    return (mean(sides[0]) + mean(sides[1])) / 2
