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

__all__ = ["BlockStats", "block_stats", "smoothed_cross_entropy"]


@dataclass
class BlockStats:
    """Per row: log-sum-exp, mean and positive of the logits; `columns` holds the same down the columns."""

    lse: Float[Tensor, "rows"]
    mean: Float[Tensor, "rows"]
    positive: Float[Tensor, "rows"]
    columns: "BlockStats | None" = None


def block_stats(
    score: Callable[[int, int], Float[Tensor, "block columns"]],
    rows: int,
    *,
    positive: Float[Tensor, "rows"] | None = None,
    block: int = 256,
) -> BlockStats:
    """Statistics of the logits `score(start, stop)` returns for rows start:stop against all columns.

    Row i's positive is column i, read from the logits unless `positive` brings a more precise value (which then
    replaces the diagonal everywhere, so that both sides of the cross-entropy see one number).
    """

    def one(start: int, stop: int) -> tuple[Tensor, ...]:
        logits = score(start, stop)
        here = torch.arange(stop - start, device=logits.device)
        if positive is None:
            diagonal = logits[here, here + start]
        else:
            diagonal = positive[start:stop].to(logits.dtype)
            logits = logits.index_put((here, here + start), diagonal)
        return logits.logsumexp(1), logits.mean(1), diagonal, logits.logsumexp(0), logits.sum(0)

    parts = [checkpoint(one, start, min(start + block, rows), use_reentrant=False) for start in range(0, rows, block)]
    lse, mean, diagonal = (torch.cat([p[i] for p in parts]) for i in range(3))
    column_lse = torch.stack([p[3] for p in parts]).logsumexp(0)
    column_mean = torch.stack([p[4] for p in parts]).sum(0) / rows
    return BlockStats(lse, mean, diagonal, BlockStats(column_lse, column_mean, diagonal))


def smoothed_cross_entropy(stats: BlockStats, label_smoothing: float = 0.0) -> Float[Tensor, "rows"]:
    """lse - (1 - e) positive - e mean, per row."""
    return stats.lse - (1 - label_smoothing) * stats.positive - label_smoothing * stats.mean
