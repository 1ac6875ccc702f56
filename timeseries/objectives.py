"""Contrastive objectives over time-resolved representations: TS2Vec's two losses and COMET's four levels.

All logits come from the contrast engine with the time step (or the sample) as a leading batch dimension, so that the
[2B, 2B] and [2T, 2T] score matrices of every scale need not exist. Where ranks share the batch (`engine_settings`),
samples are told from those of all ranks, and means are over all.

Yue et al., "TS2Vec: Towards Universal Representation of Time Series", AAAI 2022.
Wang et al., "Contrast Everything: A Hierarchical Contrastive Framework for Medical Time-Series" (COMET), NeurIPS 2023.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from counterpoint.common.kernels import Index, SameLabel, Self, contrast_stats, target_scores
from counterpoint.common.kernels.twins import twin_loss
from counterpoint.common.losses import Shared


def instance_loss(
    z1: Float[Tensor, "batch time dim"], z2: Float[Tensor, "batch time dim"], backend: str = "auto"
) -> Float[Tensor, ""]:
    """At each time step, tell a sample's other view from the 2B - 2 other rows (COMET's sample level).

        l_{i,t} = -log exp(r_{i,t} . r'_{i,t}) / sum_{j != self} exp(r_{i,t} . [r; r']_{j,t})

    Raw dot products, no temperature; mean over both views, samples and time, in nats. One sample has loss 0.

    >>> z = 10 * torch.eye(3)[:, None, :]
    >>> bool(instance_loss(z, z) < 1e-6)
    True
    """
    return _instance(torch.stack([z1, z2], 1), Shared(backend=backend))


def temporal_loss(
    z1: Float[Tensor, "batch time dim"], z2: Float[Tensor, "batch time dim"], backend: str = "auto"
) -> Float[Tensor, ""]:
    """In each sample, tell a time step's other view from the 2T - 2 other steps (COMET's observation level).

    Same form as `instance_loss` with time and sample exchanged; one time step has loss 0.
    """
    return _temporal(torch.stack([z1, z2], 1), Shared(backend=backend))


def _instance(z: Float[Tensor, "batch 2 time dim"], over: Shared) -> Float[Tensor, ""]:
    rows = z.flatten(0, 1)
    z = rows.transpose(0, 1)
    if over.distributed == "none":
        return twin_loss(z, neighbors=True, backend=over.backend)
    twin = (torch.arange(len(rows), device=z.device) ^ 1) + over.own(rows).start
    across = {"distributed": over.distributed, "backend": over.backend}
    stats = contrast_stats(z, z, positive=Index(twin), exclude=Self(), **across)
    return over.mean(stats.lse - stats.positive)


def _temporal(z: Float[Tensor, "batch 2 time dim"], over: Shared) -> Float[Tensor, ""]:
    total = twin_loss(z.flatten(1, 2), backend=over.backend) * len(z) if len(z) else z.sum()
    return over.mean_over(total, len(z))


class _Halve(torch.autograd.Function):
    """Maximum of neighbouring steps; the gradient goes to the first of two equal ones, as pooling does it."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        steps = z.shape[-2] // 2 * 2
        first, second = z[..., 0:steps:2, :], z[..., 1:steps:2, :]
        ctx.save_for_backward(second > first)
        ctx.shape = z.shape
        return torch.maximum(first, second)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (later,) = ctx.saved_tensors
        steps = ctx.shape[-2] // 2 * 2
        out = gradient.new_empty(ctx.shape)
        out[..., steps:, :] = 0
        second = out[..., 1:steps:2, :]
        torch.mul(gradient, later, out=second)
        torch.sub(gradient, second, out=out[..., 0:steps:2, :])
        return out


def hierarchical(
    z1: Float[Tensor, "batch time dim"],
    z2: Float[Tensor, "batch time dim"],
    instance: float = 0.0,
    temporal: float = 0.0,
    temporal_unit: int = 0,
    last: bool = False,
    backend: str = "auto",
) -> Float[Tensor, ""]:
    """Weighted instance and temporal terms, averaged over time scales max-pooled by 2 while more than one step is left.

    `instance=1` is COMET's sample level, `temporal=1` its observation level. The temporal term starts at scale
    `temporal_unit`. `last` adds the scale of one step, which has the instance term alone.
    """
    z, total, scales, over = torch.stack([z1, z2], 1), 0.0, 0, Shared(backend=backend)
    while z.shape[2] > 1 or (last and not scales) or (last and z.shape[2] == 1):
        if instance:
            total = total + instance * _instance(z, over)
        if temporal and scales >= temporal_unit and z.shape[2] > 1:
            total = total + temporal * _temporal(z, over)
        scales += 1
        if z.shape[2] == 1:
            break
        z = _Halve.apply(z)
    return total / scales if isinstance(total, Tensor) else z.sum() * 0.0


def ts2vec_loss(
    z1: Float[Tensor, "batch time dim"],
    z2: Float[Tensor, "batch time dim"],
    alpha: float = 0.5,
    temporal_unit: int = 0,
    backend: str = "auto",
) -> Float[Tensor, ""]:
    """TS2Vec's hierarchical loss: alpha instance + (1 - alpha) temporal, averaged over max-pooled scales down to T = 1.

    The last scale (one step) has the instance term alone. The sum stands at full precision (the official code
    accumulates in float32 whatever the input).
    """
    return hierarchical(z1, z2, alpha, 1 - alpha, temporal_unit, last=True, backend=backend)


class _UnitFeatures(torch.autograd.Function):
    """z / (norm over time * sqrt(features)), sample by sample: each stays in the processor's cache.

    After the first division every feature that is not zero throughout has norm 1, so the norm of the flattened sample
    is the square root of their number, a constant: dividing by it needs no gradient of its own.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(z, dim=1, keepdim=True)
        features = (norm > 0).sum(2, keepdim=True).clamp(min=1).to(z.dtype)
        norm = norm.clamp_min(1e-12)
        unit = z / (norm * features.sqrt())
        ctx.save_for_backward(unit, norm, features)
        return unit.flatten(1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        unit, norm, features = ctx.saved_tensors
        out = torch.empty_like(unit)
        for g, u, n, count, o in zip(gradient.view_as(unit), unit, norm, features, out):
            radial = (g * u).sum(0, keepdim=True).mul_(count)
            torch.addcmul(g, u, radial, value=-1, out=o).div_(n * count.sqrt())
        return out


def id_loss(
    z1: Float[Tensor, "batch time dim"],
    z2: Float[Tensor, "batch time dim"],
    ids: Int[Tensor, " batch"],
    temperature: float = 0.1,
    backend: str = "auto",
) -> Float[Tensor, ""]:
    """COMET's patient and trial levels: other samples with one's own id are positives, in the other view.

        s_ij = cos(z1_i, z2_j) / temperature           over the flattened [time * dim] representation
        L = 1/2 mean_{i<j, same id} -log softmax_row(s)_ij  +  1/2 mean_{i>j, same id} -log softmax_column(s)_ij

    The denominators run over the whole row (column), one's own diagonal included. Each feature is first divided by its
    norm over TIME, as the official code does (its normalization runs over dimension 1). Without any pair of equal ids
    the loss is 0.

    Both triangles hold equally many pairs, so the scores enter as one sum over all pairs of equal ids, which is linear
    in the batch; the log-sum-exp of a row counts once for every later sample with its id.
    """
    over = Shared(backend=backend)
    later = _later(over.union(ids))
    if not bool(later.any()):
        return (z1.sum() + z2.sum()) * 0.0
    later = later[over.own(ids)]
    a, b = _UnitFeatures.apply(z1), _UnitFeatures.apply(z2)
    stats = contrast_stats(
        a, b, scale=1 / temperature, columns=True, distributed=over.distributed, backend=over.backend
    )
    score, _ = target_scores(a, b, SameLabel(ids, exclude_self=True), distributed=over.distributed)
    lse = (later * (stats.lse + stats.columns.lse)).sum()
    return over.mean_over((lse - score.sum() / temperature) / 2, later.sum())


def _later(ids: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """How many later samples have the same id, for each sample."""
    order = torch.argsort(ids, stable=True)
    _, sizes = torch.unique_consecutive(ids[order], return_counts=True)
    # In sorted order, `place` earlier and `size - 1 - place` later samples share the id (the sort is stable).
    place = torch.arange(len(ids), device=ids.device) - torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
    return torch.empty_like(order).scatter(0, order, torch.repeat_interleave(sizes, sizes) - 1 - place)
