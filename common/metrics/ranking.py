"""Ranks of relevant items by comparing streamed scores: the scores themselves are never kept.

Ties take the middle rank. With the usual "count the strictly greater ones" a collapsed encoder, whose scores are all
equal, ranks everything first and looks perfect; with middle ranks it stands in the middle of the pool. Two scores count
as tied when they differ by less than the rounding error of the dot product that made them, `tie_tolerance`: below that
their order is an accident of the matrix multiplication's blocking.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

ROWS, COLS = 512, 2048  # a tile of float32 scores is 4 MB: it stays in the cache while it is compared


def tie_tolerance(q: Float[Tensor, "n dim"], k: Float[Tensor, "m dim"]) -> float:
    """Rounding error of a score: sqrt(dim) * eps * the largest |q| |k|."""
    size = float(q.norm(dim=1).max()) * float(k.norm(dim=1).max())
    return q.shape[1] ** 0.5 * torch.finfo(q.dtype).eps * size


def score_tiles(
    q: Float[Tensor, "n dim"], k: Float[Tensor, "m dim"], rows: int = ROWS, cols: int | None = COLS
) -> Iterator[tuple[slice, slice, Float[Tensor, "r c"]]]:
    """Stream Q K^T in tiles; the tile's memory is reused, so a caller keeps counts, never tiles.

    >>> [t.shape for _, _, t in score_tiles(torch.ones(3, 2), torch.ones(5, 2), rows=2, cols=4)]
    [torch.Size([2, 4]), torch.Size([2, 1]), torch.Size([1, 4]), torch.Size([1, 1])]
    """
    n, m = len(q), len(k)
    cols = min(cols or m, m)
    buffer = torch.empty(min(rows, n) * cols, dtype=q.dtype, device=q.device)
    for i in range(0, n, rows):
        r = slice(i, min(i + rows, n))
        for j in range(0, m, cols):
            c = slice(j, min(j + cols, m))
            tile = buffer[: (r.stop - i) * (c.stop - j)].view(r.stop - i, c.stop - j)
            yield r, c, torch.mm(q[r], k[c].T, out=tile)


def paired_ranks(
    q: Float[Tensor, "n dim"], k: Float[Tensor, "m dim"], target: Int[Tensor, n], *, both: bool = False
) -> tuple[Float[Tensor, n], Float[Tensor, m] | None]:
    """Middle rank of key `target[i]` for query i, and with `both` that of query i for its key, in one pass.

    rank = 1 + #{greater} + #{other ties} / 2 = (#{> t + tol} + #{>= t - tol} + 1) / 2, the target being one of the
    second set. `both` asks for a one-to-one truth: `target` must be a permutation of the keys.
    """
    tol = tie_tolerance(q, k)
    t = (q * k[target]).sum(1)
    high, low = (t + tol)[:, None], (t - tol)[:, None]
    row_count = torch.zeros(len(q), dtype=torch.float64, device=q.device)
    col_count = torch.zeros(len(k), dtype=torch.float64, device=q.device)
    if both:
        column_t = torch.empty_like(t).index_copy_(0, target, t)
        column_high, column_low = column_t + tol, column_t - tol
    flags = torch.empty(min(ROWS, len(q)) * min(COLS, len(k)), dtype=q.dtype, device=q.device)
    for r, c, s in score_tiles(q, k):
        flag = flags[: s.numel()].view_as(s)
        # Comparisons written as 0.0/1.0 into a float tile vectorise; boolean sums run five times slower on CPUs.
        row_count[r] += torch.gt(s, high[r], out=flag).sum(1)
        row_count[r] += torch.ge(s, low[r], out=flag).sum(1)
        if both:
            col_count[c] += torch.gt(s, column_high[c], out=flag).sum(0)
            col_count[c] += torch.ge(s, column_low[c], out=flag).sum(0)
    return (row_count + 1) / 2, (col_count + 1) / 2 if both else None


class SortedRanks:
    """Middle ranks of every key for a block of queries, with how many relevant ones stand above: the many-to-many case.

    Attributes (all [rows, pool], columns sorted from best to worst score; masked keys come last):
        relevant: whether the key is relevant.
        rank: middle rank of the key among the keys kept.
        hits: middle count of relevant keys at or above it (1 for the only relevant key).
        kept: [rows] how many keys were ranked; n_relevant: [rows] how many of them are relevant.
        first: [rows] expected rank of the first relevant key when ties fall at random.
    """

    def __init__(
        self,
        scores: Float[Tensor, "r m"],
        relevant: Tensor,
        keep: Tensor | None = None,
        *,
        tol: float,
    ) -> None:
        scores = scores if keep is None else scores.masked_fill(~keep, float("-inf"))
        relevant = relevant if keep is None else relevant & keep
        value, order = scores.sort(dim=1, descending=True)
        self.relevant = relevant.gather(1, order)
        m = scores.shape[1]
        self.kept = torch.full_like(value[:, 0], m) if keep is None else keep.sum(1).to(value.dtype)
        self.n_relevant = self.relevant.sum(1)
        # Keys strictly above (score > value + tol) and at or above (score >= value - tol), from the ascending negative.
        ascending = -value
        above = torch.searchsorted(ascending, ascending - tol, right=False)
        upto = torch.searchsorted(ascending, ascending + tol, right=True)
        upto = torch.minimum(upto, self.kept.long()[:, None])
        self.rank = (above + upto + 1).double() / 2
        seen = torch.nn.functional.pad(self.relevant.long().cumsum(1), (1, 0))
        relevant_above, relevant_upto = seen.gather(1, above), seen.gather(1, upto)
        self.hits = (relevant_above + relevant_upto + 1).double() / 2
        # Among b tied keys of which h are relevant the first relevant one is expected at place (b + 1) / (h + 1).
        best = self.relevant.to(torch.uint8).argmax(1, keepdim=True)
        block = (upto - above).gather(1, best).double()
        block_hits = (relevant_upto - relevant_above).gather(1, best).double()
        self.first = (above.gather(1, best).double() + (block + 1) / (block_hits + 1)).squeeze(1)
