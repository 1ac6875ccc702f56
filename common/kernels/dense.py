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
        raw = _products(problem.q.to(dtype), problem.k.to(dtype), problem.masked)
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


def _products(q: Tensor, k: Tensor, masked: bool) -> Float[Tensor, "n r c"]:
    """q.k, such that a pair left out sends nothing back, even where its features are not finite."""
    if not masked:
        return q @ k.mT
    bad_q, bad_k = (~t.isfinite().all(-1, keepdim=True) for t in (q, k))
    raw = q.masked_fill(bad_q, 0.0) @ k.masked_fill(bad_k, 0.0).mT
    return raw.masked_fill(bad_q | bad_k.mT, torch.nan)


def statistics(problem: Problem) -> Outputs:
    """Row (and column) log-sum-exp, mean, count and positive of a problem, by the definition.

    lse_i = log sum_{j kept} exp(logit_ij),  mean_i = sum_j p_ij q_i.k_j  with  p = exp(logit - lse).
    """
    raw, logits, keep = scores(problem)
    own = again = positives(problem, logits)
    named = None
    if own is not None and not problem.empty:
        columns = torch.arange(logits.shape[-1], device=logits.device)
        named = (problem.positive[..., None] == columns) & keep
        # Two nodes: derivatives of size 1 cancel in one of them, what is left of the softmax is summed in the other.
        own, again = own.clone(), own.clone()
    lse, mean, count = _along_rows(raw, logits, keep, problem.mean, named, own, again)
    col_lse = col_mean = col_count = None
    if problem.columns:
        # Seen from the columns only where no two rows can name the same one.
        there = named is not None and problem.diagonal is not None
        of_column = (None, None)
        if there:
            row = (columns - problem.diagonal).clamp(0, logits.shape[2] - 1)
            of_column = own[..., row], again[..., row]
        col_lse, col_mean, col_count = _along_rows(
            raw.mT, logits.mT, keep.mT, problem.mean, named.mT if there else None, *of_column
        )
    return Outputs(lse, own, mean, count, col_lse, col_mean, col_count)


def _along_rows(
    raw: Tensor,
    logits: Tensor,
    keep: Tensor,
    want_mean: bool,
    named: Tensor | None,
    own: Tensor | None,
    again: Tensor | None,
) -> tuple[Tensor, Tensor | None, Tensor]:
    count = keep.sum(-1)
    empty = (count == 0)[:, None]
    # An empty row is computed as if all its logits were 0 and then overwritten: no NaN, and no gradient.
    logits = logits.masked_fill(~keep[:, None], -torch.inf).masked_fill(empty[..., None], 0.0)
    lse = torch.logsumexp(logits, -1) if named is None else _with_positive(logits, named, own, again)
    mean = None
    if want_mean:
        mean = (torch.softmax(logits, -1) * raw[:, None]).sum(-1).masked_fill(empty, 0.0)
    return lse.masked_fill(empty, -torch.inf), mean, count


def _with_positive(logits: Tensor, named: Tensor, own: Tensor, again: Tensor) -> Tensor:
    """log(exp(own) + sum of the others) as own + log(1 + exp(others - own)).

    The derivative at a dominant positive is then 1 less the others' share, not 1 less a number that rounds to 1. Rows
    whose positive is left out (or that have none) take the sum as it is.
    """
    there = named.any(-1)[:, None].expand(own.shape)
    others = torch.logsumexp(logits.masked_fill(named[:, None], _LOWEST), -1)
    rise = softplus(others - torch.where(there, again, 0.0))
    return torch.where(there, torch.where(there, own, 0.0) + rise, others)


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) at any x, with the derivative sigmoid(x)."""
    return -F.logsigmoid(-x)


_LOWEST = -1e30  # as good as -inf, with a derivative of 0 instead of NaN where nothing else is left


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
