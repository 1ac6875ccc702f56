"""Many small self-contrasts at once: in every problem, each row against all others, its twin half a length away.

A stack of hundreds of problems of a few hundred rows each (time-series objectives contrast the samples at every time
step, and the steps of every sample) would spend its time on launching tiles. Here a few problems at a time fill the
cache, and since nothing but a mean comes out, the gradient is formed while their logits are there: two matrix products
in all where a forward and a backward pass take three.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.kernels.api import contrast_stats
from counterpoint.common.kernels.eager import transformed
from counterpoint.common.kernels.spec import Index, Self

__all__ = ["twin_loss"]

CHUNK = {"cpu": 1 << 18}  # logits held at a time: a megabyte, within a core's cache
CHUNK_GPU = 1 << 25
LARGEST = 1 << 20  # logits of one problem; larger ones go through the tiles of `contrast_stats`


def twin_loss(
    z: Float[Tensor, "batch rows dim"], *, neighbors: bool = False, backend: str = "auto"
) -> Float[Tensor, ""]:
    """Mean cross-entropy of each row's twin among all other rows of its problem, in nats.

        l_ni = log sum_{j != i} exp(z_ni . z_nj) - z_ni . z_ni',      i' = (i + rows / 2) mod rows

    Raw dot products: the caller scales and normalizes. Memory is linear in batch x rows; the gradient is computed with
    the value and can be taken once (a second derivative needs `backend="dense"`).

    Args:
        z: [batch, rows, dim] with an even number of rows; any strides (a transposed stack is not copied).
        neighbors: rows 2i and 2i + 1 are twins, instead of rows half the length apart.
        backend: "auto", or one of `contrast_stats`.

    >>> round(twin_loss(torch.zeros(3, 6, 2)).item(), 4)  # five equal candidates
    1.6094
    """
    rows = z.shape[1]
    if rows < 2 or rows % 2:
        raise ValueError(f"twin_loss: z must hold an even number of rows, got shape {tuple(z.shape)}")
    if backend == "auto" and rows * rows <= LARGEST and not transformed(z):
        return _TwinLoss.apply(z, neighbors)
    row = torch.arange(rows, device=z.device)
    twin = row ^ 1 if neighbors else (row + rows // 2) % rows
    stats = contrast_stats(z, z, positive=Index(twin), exclude=Self(), backend=backend)
    return (stats.lse - stats.positive).mean()


class _TwinLoss(torch.autograd.Function):
    """Value and gradient, some problems at a time.

    With P the softmax over the others and E the twins' permutation (symmetric),
    d loss / d z = (P - E + (P - E)') z / (batch rows).
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, neighbors: bool) -> Tensor:
        batch, rows, _ = z.shape
        count, wanted = batch * rows, ctx.needs_input_grad[0]
        one, other = (slice(0, None, 2), slice(1, None, 2)) if neighbors else (slice(rows // 2), slice(rows // 2, None))
        dtype = z.dtype if z.dtype == torch.float64 else torch.float32
        total = torch.zeros((), dtype=torch.float64, device=z.device)
        gradient = torch.empty_like(z, dtype=dtype) if wanted else None
        step = min(batch, max(1, CHUNK.get(z.device.type, CHUNK_GPU) // (rows * rows)))
        logits = torch.empty(step, rows, rows, dtype=dtype, device=z.device)
        both = torch.empty_like(logits) if wanted else None
        with torch.autocast(z.device.type, enabled=False):
            for first in range(0, batch, step):
                part = z[first : first + step].to(dtype)
                logit = torch.bmm(part, part.mT, out=logits[: len(part)])
                twins = [logit[:, a, b].diagonal(0, 1, 2) for a, b in ((one, other), (other, one))]
                total -= twins[0].sum(dtype=torch.float64) * 2
                logit.diagonal(0, 1, 2).fill_(-torch.inf)
                highest = logit.amax(2, keepdim=True)
                weight = logit.sub_(highest).exp_()
                mass = weight.sum(2, keepdim=True)
                total += (highest + mass.log()).sum(dtype=torch.float64)
                if both is None:
                    continue
                weight.div_(mass.mul_(count))
                for twin in twins:
                    twin.sub_(1.0 / count)
                torch.add(weight, weight.mT, out=both[: len(part)])
                torch.bmm(both[: len(part)], part, out=gradient[first : first + step])
        if gradient is not None:
            ctx.save_for_backward(gradient.to(z.dtype))
        return (total / count).to(dtype)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled():
            raise RuntimeError("twin_loss: a second derivative (create_graph=True) needs backend='dense'")
        (gradient,) = ctx.saved_tensors
        return gradient * upstream, None
