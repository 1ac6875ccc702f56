"""One direction of a contrast, with its gradient formed in the forward pass.

A row of an InfoNCE loss needs its own logits and nothing else, so a block of whole rows has everything for value and
gradient while its logits are in the cache: three matrix products in all where a forward and a backward pass of
`contrast_stats` take four. It needs a row of logits to be short enough for a block to hold a few.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.kernels.api import contrast_stats
from counterpoint.common.kernels.eager import transformed
from counterpoint.common.kernels.spec import Diagonal

__all__ = ["one_way_loss"]

BLOCK = 1 << 19  # logits held at a time: two megabytes
LONGEST = 1 << 13  # columns of a row; longer rows go through the tiles of `contrast_stats`


def one_way_loss(
    q: Float[Tensor, "rows dim"], k: Float[Tensor, "columns dim"], *, backend: str = "auto"
) -> Float[Tensor, ""]:
    """Mean cross-entropy of each row of `q` with the same row of `k` among all rows of `k`, in nats.

        L = mean_i [ log sum_j exp(q_i . k_j) - q_i . k_i ]

    Raw dot products: the caller scales and normalizes. Memory is linear in rows + columns. On CPU the gradient is
    computed with the value and can be taken once (a second derivative needs `backend="dense"`).

    Args:
        q, k: `k` has at least as many rows as `q`.
        backend: "auto", or one of `contrast_stats`.

    >>> round(one_way_loss(torch.zeros(3, 2), torch.zeros(5, 2)).item(), 4)  # five equal candidates
    1.6094
    """
    if not 0 < len(q) <= len(k):
        raise ValueError(f"one_way_loss: k holds each row's own and more, got {len(q)} rows and {len(k)} columns")
    if backend == "auto" and q.device.type == "cpu" and len(k) <= LONGEST and not transformed(q, k):
        return _OneWayLoss.apply(q, k)
    stats = contrast_stats(q, k, positive=Diagonal(), backend=backend)
    return (stats.lse - stats.positive).mean()


class _OneWayLoss(torch.autograd.Function):
    """Value and gradient, a block of rows at a time: with P the row softmax and E the pairing,
    d L / d q = (P - E) k / rows and d L / d k = (P - E)' q / rows."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor) -> Tensor:
        rows, columns = len(q), len(k)
        dtype = torch.float64 if torch.float64 in (q.dtype, k.dtype) else torch.float32
        wide_q, wide_k = q.detach().to(dtype), k.detach().to(dtype)
        grad_q = torch.empty_like(wide_q) if ctx.needs_input_grad[0] else None
        grad_k = torch.zeros_like(wide_k) if ctx.needs_input_grad[1] else None
        step = min(rows, max(1, BLOCK // columns))
        logits = torch.empty(step, columns, dtype=dtype)
        total = torch.zeros((), dtype=torch.float64)
        with torch.autocast("cpu", enabled=False):
            for first in range(0, rows, step):
                part = wide_q[first : first + step]
                weight = torch.mm(part, wide_k.T, out=logits[: len(part)])
                own = weight.diagonal(first)[: len(part)]
                total += (weight.amax(1) - own).sum(dtype=torch.float64)
                torch.softmax(weight, 1, out=weight)
                # The largest logit less the logarithm of its share, at least 1 / columns, is the log-sum-exp.
                total -= weight.amax(1).log().sum(dtype=torch.float64)
                own.sub_(1.0)
                if grad_q is not None:
                    torch.mm(weight, wide_k, out=grad_q[first : first + step])
                if grad_k is not None:
                    grad_k.addmm_(weight.T, part)
        grads = (None if g is None else g.div_(rows).to(x.dtype) for g, x in ((grad_q, q), (grad_k, k)))
        ctx.save_for_backward(*grads)
        return (total / rows).to(dtype)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None]:
        if torch.is_grad_enabled():
            raise RuntimeError("one_way_loss: a second derivative (create_graph=True) needs backend='dense'")
        grad_q, grad_k = ctx.saved_tensors
        return tuple(None if g is None else g * upstream for g in (grad_q, grad_k))
