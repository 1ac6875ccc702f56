"""Tiles of additive pair statistics: sum_j fn(logit_ij) and its gradient, for `tiled`."""

import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.kernels.problem import Gradients, Problem
from counterpoint.common.kernels.sweep import Sweep, Tile, TilePlaces

__all__ = ["backward", "forward"]


def forward(problem: Problem, fn: str) -> Float[Tensor, "batch rows"]:
    batch, _, rows, _, _ = problem.shape
    total = torch.zeros(batch, rows, dtype=problem.dtype, device=problem.q.device)
    for n in range(batch):
        sweep = Sweep(problem, n, 1.0, folded=True, buffers=2)
        for t in sweep:
            x, _ = _signed(sweep, t)
            terms = _softplus(x, sweep.buffer(t, 1)) if fn == "softplus" else x.sigmoid_()
            total[n, t.i0 : t.i1] += sweep.fill(t, terms, sweep.mask(t, None), 0.0).sum(1)
    return total


def backward(problem: Problem, fn: str, upstream: Float[Tensor, "batch rows"], out: Gradients) -> Gradients:
    """Adds sum_j dlogit_ij col_scale_j k_j and its counterpart to `out`, still to be unfolded."""
    for n in range(problem.q.shape[0]):
        sweep = Sweep(problem, n, 1.0, folded=True, buffers=2)
        for t in sweep:
            x, places = _signed(sweep, t)
            slope = x.sigmoid_()  # softplus' = sigmoid
            if fn == "sigmoid":
                slope.mul_(torch.sub(1.0, slope, out=sweep.buffer(t, 1)))
            if places is not None:
                places.put(slope, -places.of(slope))
            sweep.fill(t, slope, sweep.mask(t, None), 0.0).mul_(upstream[n, t.i0 : t.i1, None])
            sweep.add_bias_gradients(t, 0, slope, out)
            out.q[n, t.i0 : t.i1].addmm_(slope, sweep.weighed("k", t.j0, t.j1))
            out.k[n, t.j0 : t.j1].addmm_(slope.t(), sweep.weighed("q", t.i0, t.i1))
    return out


def _signed(sweep: Sweep, t: Tile) -> tuple[Float[Tensor, "r c"], TilePlaces | None]:
    """The tile's logits, negated at the positives, and where these lie."""
    x = sweep.logits(t, 0, sweep.product(t))
    found = sweep.positives(t)
    if found is not None:
        found.put(x, -found.of(x))
    return x, found


def _softplus(x: Tensor, spare: Tensor) -> Tensor:
    """log(1 + exp(x)) without overflow, and without the large-x approximation of torch's softplus."""
    torch.abs(x, out=spare)
    return spare.neg_().exp_().log1p_().add_(x.clamp_(min=0.0))
