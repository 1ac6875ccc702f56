"""The readable oracle: every statistic from the written-out rows x columns logits, in plain differentiable PyTorch.

It serves small problems (where it is the fastest), float64 checks, and second derivatives of all other backends.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from counterpoint.common.kernels.problem import Problem

__all__ = ["Outputs", "pair_sums", "scores", "statistics"]


class Outputs(NamedTuple):
    """The differentiable statistics of a problem, flattened; None where not asked for."""

    lse: Float[Tensor, "batch scales rows"]
    positive: Float[Tensor, "batch scales rows"] | None
    mean: Float[Tensor, "batch scales rows"] | None
    count: Int[Tensor, "batch rows"]
    col_lse: Float[Tensor, "batch scales columns"] | None
    col_mean: Float[Tensor, "batch scales columns"] | None
    col_count: Int[Tensor, "batch columns"] | None


def scores(problem: Problem) -> tuple[Float[Tensor, "n r c"], Float[Tensor, "n s r c"], Bool[Tensor, "n r c"]]:
    """Raw scores q.k, logits, and which pairs are kept."""
    dtype = problem.dtype
    with torch.autocast(problem.q.device.type, enabled=False):
        raw = problem.q.to(dtype) @ problem.k.to(dtype).mT
    logits = problem.scale[..., None] * raw[:, None]
    if problem.col_scale is not None:
        logits = logits * problem.col_scale[:, None, None]
    if problem.row_bias is not None:
        logits = logits + problem.row_bias[..., None]
    if problem.col_bias is not None:
        logits = logits + problem.col_bias[:, :, None]
    batch, _, rows, columns, _ = problem.shape
    if not problem.masked:
        return raw, logits, torch.ones_like(raw, dtype=torch.bool)
    tiles = [problem.dropped(n, 0, rows, 0, columns, raw[n].detach()) for n in range(batch)]
    return raw, logits, ~torch.stack([t.expand(rows, columns) for t in tiles])


def statistics(problem: Problem) -> Outputs:
    """Row (and column) log-sum-exp, mean, count and positive of a problem, by the definition.

    lse_i = log sum_{j kept} exp(logit_ij),  mean_i = sum_j p_ij q_i.k_j  with  p = exp(logit - lse).
    """
    raw, logits, keep = scores(problem)
    lse, mean, count = _along_rows(raw, logits, keep, problem.mean)
    col_lse = col_mean = col_count = None
    if problem.columns:
        col_lse, col_mean, col_count = _along_rows(raw.mT, logits.mT, keep.mT, problem.mean)
    return Outputs(lse, positives(problem, logits), mean, count, col_lse, col_mean, col_count)


def _along_rows(raw: Tensor, logits: Tensor, keep: Tensor, want_mean: bool) -> tuple[Tensor, Tensor | None, Tensor]:
    count = keep.sum(-1)
    empty = (count == 0)[:, None]
    # An empty row is computed as if all its logits were 0 and then overwritten: no NaN, and no gradient.
    logits = logits.masked_fill(~keep[:, None], -torch.inf).masked_fill(empty[..., None], 0.0)
    lse = torch.logsumexp(logits, -1)
    mean = None
    if want_mean:
        mean = (torch.softmax(logits, -1) * raw[:, None]).sum(-1).masked_fill(empty, 0.0)
    return lse.masked_fill(empty, -torch.inf), mean, count


def positives(problem: Problem, logits: Float[Tensor, "n s r c"]) -> Float[Tensor, "n s r"] | None:
    if problem.positive is None:
        return None
    if problem.empty:
        return logits.sum(-1)
    index = problem.positive[:, None, :, None].expand(-1, logits.shape[1], -1, -1)
    return torch.gather(logits, 3, index.clamp(min=0)).masked_fill(index < 0, 0.0)[..., 0]


def pair_sums(problem: Problem, fn: str) -> Float[Tensor, "batch rows"]:
    """sum_{j kept} fn(logit_ij), with fn(-logit) at the row's positive."""
    _, logits, keep = scores(problem)
    logits = logits[:, 0]
    if problem.positive is not None:
        columns = torch.arange(logits.shape[-1], device=logits.device)
        logits = torch.where(problem.positive[..., None] == columns, -logits, logits)
    terms = -F.logsigmoid(-logits) if fn == "softplus" else torch.sigmoid(logits)
    return terms.masked_fill(~keep, 0.0).sum(-1)
