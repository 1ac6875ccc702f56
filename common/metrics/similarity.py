"""How alike two representations of the same samples are: CKA, mutual neighbours, canonical correlations.

All are linear in the number of samples: n x n kernels are never formed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.kernels import Self, topk_scores
from counterpoint.common.metrics.inputs import accepts
from counterpoint.common.metrics.result import Result, features


def _both(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if len(x) != len(y):
        raise ValueError(f"row i must be the same sample in both: got {len(x)} and {len(y)} rows")
    return features("x", x).double(), features("y", y).double()


@accepts(matrices=["x", "y"])
def cka(x: Float[Tensor, "n p"], y: Float[Tensor, "n q"], *, debiased: bool = True) -> float:
    r"""Linear centred kernel alignment; debiased by default (unbiased HSIC), so that 0 is chance at any n and dim.

    Biased: :math:`\lVert Y^\top X\rVert_F^2 / (\lVert X^\top X\rVert_F\lVert Y^\top Y\rVert_F)` of centred features,
    which tends to 1 for unrelated features when dim is near n. The debiased value can be slightly negative.

    >>> z = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    >>> round(cka(z, 3 * z), 6)
    1.0

    Source: Kornblith et al., 2019; unbiased HSIC of Song et al., 2012, as used by Nguyen et al., 2021.
    """
    x, y = _both(x, y)
    if debiased and len(x) < 4:
        raise ValueError("debiased CKA needs at least four samples")
    x, y = x - x.mean(0), y - y.mean(0)
    hsic = _unbiased_hsic if debiased else lambda a, b: (a.T @ b).square().sum()
    size = float(hsic(x, x) * hsic(y, y))
    return float(hsic(x, y)) / size**0.5 if size > 0 else 0.0


def _unbiased_hsic(x: Tensor, y: Tensor) -> Tensor:
    r"""With K, L linear kernels of zeroed diagonal: [tr KL + 1'K1 1'L1/((n-1)(n-2)) - 2/(n-2) 1'KL1] / (n(n-3))."""
    n = len(x)
    dx, dy = x.square().sum(1), y.square().sum(1)
    rows_x, rows_y = x @ x.sum(0) - dx, y @ y.sum(0) - dy
    trace = (x.T @ y).square().sum() - (dx * dy).sum()
    corner = rows_x.sum() * rows_y.sum() / ((n - 1) * (n - 2))
    return (trace + corner - 2 / (n - 2) * (rows_x * rows_y).sum()) / (n * (n - 3))


@accepts(matrices=["x", "y"])
def mutual_knn(x: Float[Tensor, "n p"], y: Float[Tensor, "n q"], *, k: int = 10) -> float:
    """Mean share of the k nearest neighbours (cosine) that two representations have in common; chance is k / (n - 1).

    Equally near samples are taken in random order (a fixed one, another for x than for y), so that two collapsed
    encoders share no more neighbours than chance has it.

    Source: Huh et al., "The Platonic representation hypothesis", 2024.
    """
    x, y = _both(x, y)
    if not 1 <= k < len(x):
        raise ValueError(f"k must lie between 1 and {len(x) - 1}, got {k}")
    a, b = (_neighbours(z, k, seed) for seed, z in enumerate((x, y)))
    shared = torch.cat([a, b], 1).sort(1).values
    return float((shared[:, 1:] == shared[:, :-1]).sum() / a.numel())


def _neighbours(z: Float[Tensor, "n p"], k: int, seed: int) -> Tensor:
    """[n, k] nearest other rows; the rows are dealt anew first, because a top-k breaks ties by position."""
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(seed)).to(z.device)
    dealt = torch.nn.functional.normalize(z[order], dim=1)
    near = topk_scores(dealt, dealt, k, exclude=Self())[1]
    return torch.empty_like(near).index_copy_(0, order, order[near])


@dataclass(frozen=True)
class CCA(Result):
    """Canonical correlations, largest first, and the maps into the shared subspace."""

    correlations: list[float]
    mean_x: Tensor
    mean_y: Tensor
    map_x: Tensor
    map_y: Tensor

    def as_dict(self) -> dict[str, object]:
        return {"correlations": self.correlations}

    def transform_x(self, x: Float[Tensor, "n p"]) -> Float[Tensor, "n c"]:
        return (x.double() - self.mean_x) @ self.map_x

    def transform_y(self, y: Float[Tensor, "n q"]) -> Float[Tensor, "n c"]:
        return (y.double() - self.mean_y) @ self.map_y


@accepts(matrices=["x", "y"])
def cca(x: Float[Tensor, "n p"], y: Float[Tensor, "n q"], *, components: int | None = None, ridge: float = 0.0) -> CCA:
    r"""Canonical correlation analysis: singular values of :math:`C_{xx}^{-1/2} C_{xy} C_{yy}^{-1/2}`.

    The leading components are the subspace in which two frozen encoders agree; retrieval in it needs only a few hundred
    anchors. `ridge` is added to both covariances as a share of their mean variance; without it, features of dimension
    near n correlate perfectly by chance.

    >>> z = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    >>> [round(c, 4) for c in cca(z, z @ torch.randn(3, 3, generator=torch.Generator().manual_seed(1))).correlations]
    [1.0, 1.0, 1.0]
    """
    x, y = _both(x, y)
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y = x - mean_x, y - mean_y
    root_x, root_y = _inverse_root(x, ridge), _inverse_root(y, ridge)
    u, s, vt = torch.linalg.svd(root_x @ (x.T @ y / len(x)) @ root_y, full_matrices=False)
    c = components or len(s)
    return CCA(s[:c].clamp(0, 1).tolist(), mean_x, mean_y, root_x @ u[:, :c], root_y @ vt[:c].T)


def _inverse_root(z: Tensor, ridge: float) -> Tensor:
    values, vectors = torch.linalg.eigh(z.T @ z / len(z))
    values = values + ridge * values.mean()
    keep = values > values[-1] * 1e-10
    return (vectors[:, keep] * values[keep].rsqrt()) @ vectors[:, keep].T


@accepts(matrices=["layers_x", "layers_y"])
def layer_grid(
    layers_x: Mapping[str, Tensor], layers_y: Mapping[str, Tensor], measure: Callable[..., float] = mutual_knn
) -> dict[str, dict[str, float]]:
    """The measure for every pair of layers; the best pair is where to align two frozen encoders.

    >>> z = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    >>> layer_grid({"last": z}, {"last": z})
    {'last': {'last': 1.0}}
    """
    return {a: {b: measure(x, y) for b, y in layers_y.items()} for a, x in layers_x.items()}


@accepts(matrices=["queries", "examples"])
def utilization(queries: Float[Tensor, "n dim"], examples: Float[Tensor, "m dim"]) -> float:
    r"""How near the test samples lie to what was trained on, :math:`\frac1n\sum_q \min_x \lVert q-x\rVert^2`.

    On unit vectors: 0 where every query has an example at its place, 2 where all are orthogonal to it; low means that
    training used the parts of the space that the test needs. `examples` are the training samples, with the mixtures of
    a method that trains on these too (Metrix). The nearest example is found without a matrix of distances.

    >>> utilization(torch.eye(3), torch.eye(3)[:2])      # two are met, the third is orthogonal
    0.6666666666666666

    Source: Venkataramanan et al., "It takes two to tango: mixup for deep metric learning", ICLR 2022.
    """
    queries, examples = features("queries", queries, normalize=True), features("examples", examples, normalize=True)
    with torch.no_grad():
        nearest = topk_scores(queries, examples, 1)[0][:, 0]
    return float((2 - 2 * nearest.double()).clamp_min(0).mean())
