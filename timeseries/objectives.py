"""Contrastive objectives over time-resolved representations: TS2Vec's two losses and COMET's four levels.

All logits come from the contrast engine with the time step (or the sample) as a leading batch dimension, so that the
[2B, 2B] and [2T, 2T] score matrices of every scale need not exist.

Yue et al., "TS2Vec: Towards Universal Representation of Time Series", AAAI 2022.
Wang et al., "Contrast Everything: A Hierarchical Contrastive Framework for Medical Time-Series" (COMET), NeurIPS 2023.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from counterpoint.common.kernels import Index, Self, contrast_stats


def _two_views(z: Float[Tensor, "batch twice dim"], backend: str) -> Float[Tensor, ""]:
    """Cross-entropy of each row against its twin half a length away, among all other rows of its batch entry."""
    rows = z.shape[1]
    twin = (torch.arange(rows, device=z.device) + rows // 2) % rows
    stats = contrast_stats(z, z, positive=Index(twin), exclude=Self(), backend=backend)
    return (stats.lse - stats.positive).mean()


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
    if z1.shape[0] == 1:
        return (z1.sum() + z2.sum()) * 0.0
    return _two_views(torch.cat([z1, z2], 0).transpose(0, 1), backend)


def temporal_loss(
    z1: Float[Tensor, "batch time dim"], z2: Float[Tensor, "batch time dim"], backend: str = "auto"
) -> Float[Tensor, ""]:
    """In each sample, tell a time step's other view from the 2T - 2 other steps (COMET's observation level).

    Same form as `instance_loss` with time and sample exchanged; one time step has loss 0.
    """
    if z1.shape[1] == 1:
        return (z1.sum() + z2.sum()) * 0.0
    return _two_views(torch.cat([z1, z2], 1), backend)


def _halve(z: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch half dim"]:
    return F.max_pool1d(z.transpose(1, 2), 2).transpose(1, 2)


def ts2vec_loss(
    z1: Float[Tensor, "batch time dim"],
    z2: Float[Tensor, "batch time dim"],
    alpha: float = 0.5,
    temporal_unit: int = 0,
    backend: str = "auto",
) -> Float[Tensor, ""]:
    """TS2Vec's hierarchical loss: alpha instance + (1 - alpha) temporal, averaged over max-pooled scales down to T = 1.

    The temporal term starts at scale `temporal_unit`; the last scale (one step) has the instance term alone. The sum
    stands at full precision (the official code accumulates in float32 whatever the input).
    """
    total, scales = (z1.sum() + z2.sum()) * 0.0, 0
    while z1.shape[1] > 1:
        total = total + alpha * instance_loss(z1, z2, backend)
        if scales >= temporal_unit:
            total = total + (1 - alpha) * temporal_loss(z1, z2, backend)
        scales += 1
        z1, z2 = _halve(z1), _halve(z2)
    return (total + alpha * instance_loss(z1, z2, backend)) / (scales + 1)


def hierarchical(
    loss, z1: Float[Tensor, "batch time dim"], z2: Float[Tensor, "batch time dim"], backend: str = "auto"
) -> Float[Tensor, ""]:
    """COMET's averaging of `loss` over max-pooled scales while more than one step is left (T = 1 is left out)."""
    total, scales = (z1.sum() + z2.sum()) * 0.0, 0
    while z1.shape[1] > 1:
        total, scales = total + loss(z1, z2, backend), scales + 1
        z1, z2 = _halve(z1), _halve(z2)
    return total / max(scales, 1)


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

    The score sums over pairs are computed from running sums within each id, linear in the batch: no pair list.
    """
    a = F.normalize(F.normalize(z1, dim=1).flatten(1), dim=-1)
    b = F.normalize(F.normalize(z2, dim=1).flatten(1), dim=-1)
    stats = contrast_stats(a, b, scale=1 / temperature, columns=True, backend=backend)
    order = torch.argsort(ids, stable=True)
    _, sizes = torch.unique_consecutive(ids[order], return_counts=True)
    place = torch.arange(len(ids), device=ids.device) - torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
    size = torch.repeat_interleave(sizes, sizes)
    # In sorted order, `place` earlier and `size - 1 - place` later samples share the id (the sort is stable).
    later = (size - 1 - place).to(a.dtype)
    pairs = later.sum()
    if pairs == 0:
        return (z1.sum() + z2.sum()) * 0.0
    a, b = a[order], b[order]
    upper = (later * stats.lse[order]).sum() - _earlier_scores(a, b, sizes) / temperature
    lower = (later * stats.columns.lse[order]).sum() - _earlier_scores(b, a, sizes) / temperature
    return (upper + lower) / (2 * pairs)


def _earlier_scores(
    x: Float[Tensor, "batch dim"], y: Float[Tensor, "batch dim"], sizes: Int[Tensor, " ids"]
) -> Float[Tensor, ""]:
    """sum over i before j with one id of x_i . y_j, rows sorted by id: each y_j meets the running sum of earlier x."""
    total = x.new_zeros(())
    for xs, ys in zip(x.split(sizes.tolist()), y.split(sizes.tolist())):
        if len(xs) > 1:
            total = total + (xs.cumsum(0)[:-1] * ys[1:]).sum()
    return total
