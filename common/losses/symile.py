"""Symile: contrast through the multilinear inner product of all modalities at once."""

from itertools import product
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from counterpoint.common.kernels import Diagonal, Self
from counterpoint.common.losses.base import Objective, softplus_gap
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.draws import permutation
from counterpoint.common.losses.scale import LogitScale, Temperature, as_scale
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["Symile", "multilinear"]


def multilinear(*views: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows"]:
    """sum_d x_d y_d z_d ..., row by row."""
    result = views[0]
    for view in views[1:]:
        result = result * view
    return result.sum(-1)


class Symile(Objective):
    """Which triple (or tuple) belongs together? Captures what no pair of modalities shows alone (Symile).

        score(x_i, y_j, z_k) = sum_d x_id y_jd z_kd,   L = mean over anchor modalities of CE(scale * score, true tuple)

    `negatives="n"`: the other modalities' rows are permuted independently; the B products (true tuple on the diagonal)
    are the columns. `negatives="n_squared"`: all B^(M - 1) products are columns, generated `chunk` shifts at a time and
    recomputed backwards. As in the official code a permutation may bring the true tuple to another place, where it
    stays.

    The product shrinks like dim^(-(M - 2) / 2) with the number of modalities M, so the scale must be free to grow: the
    default is learnable without an upper bound.

    Samples that lack modalities take part with what `counterpoint.common.models.MissingIndicator` makes of them: a
    placeholder and an indicator at the encoder's input, the loss unchanged. The score is the metric "multilinear" of
    retrieval.

    Args:
        temperature: T or a `LogitScale`.
        negatives: "n" or "n_squared".
        generator: source of the permutations in "n" mode.

    Raises `ValueError` for fewer than two modalities or another word for `negatives`.

    Source: Saporta et al. 2024; rajesh-lab/symile.

    >>> import torch
    >>> x = torch.tensor([[1., 1.], [1., -1.]]); y = torch.tensor([[1., -1.], [1., 1.]])
    >>> loss = Symile(1.0, negatives="n_squared", normalize=False)
    >>> round(loss(x, y, x * y).item(), 4)     # scores 2, 0, 0, 2 of the four products: the toy x o y = z
    0.8201
    """

    card = ObjectiveCard(
        paper="Symile 2024",
        needs="M >= 2 modalities of the same samples",
        engine="contrast_stats on generated keys",
        status="official numbers",
        checked="official numbers (n_squared); XOR toy learnt where CLIP stays at chance",
    )

    def __init__(
        self,
        temperature: Temperature | None = None,
        *,
        negatives: str = "n",
        generator: torch.Generator | None = None,
        chunk: int = 8,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        if negatives not in ("n", "n_squared"):
            raise ValueError(f'negatives must be "n" or "n_squared", got {negatives!r}')
        free = LogitScale(0.07, max_scale=float("inf"), min_scale=0.0) if temperature is None else temperature
        self.logit_scale = as_scale(free)
        self.negatives, self.generator, self.chunk = negatives, generator, chunk

    def forward(self, *views: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
        """Mean over anchors and rows."""
        if len(views) < 2:
            raise ValueError(f"Symile needs at least two modalities, got {len(views)}")
        z = self.embed(*views)
        scale, positive = self.logit_scale(), multilinear(*z)
        everyone, own = [self.union(v) for v in z], self.own(z[0])
        rows = self._permuted if self.negatives == "n" else self._all_products
        terms = [rows(v, everyone[:i] + everyone[i + 1 :], own, scale, scale * positive) for i, v in enumerate(z)]
        return torch.stack([self.mean(term) for term in terms]).mean()

    def _permuted(
        self, anchor: Tensor, others: list[Tensor], own: slice, scale: float | Tensor, positive: Tensor
    ) -> Float[Tensor, "batch"]:
        keys = torch.ones_like(anchor)
        for other in others:
            order = self.agreed(permutation(len(other), self.generator, other.device))
            keys = keys * other[order[own]]
        return softplus_gap(self.stats(anchor, keys, scale=scale, exclude=Self()).lse, positive)

    def _all_products(
        self, anchor: Tensor, others: list[Tensor], own: slice, scale: float | Tensor, positive: Tensor
    ) -> Float[Tensor, "batch"]:
        shifts = list(product(range(max(len(others[0]), 1)), repeat=len(others) - 1))

        def lse(anchor: Tensor, scale: float | Tensor, start: int, *others: Tensor) -> Tensor:
            keys = []
            for shift in shifts[start : start + self.chunk]:
                key = others[0]
                for other, by in zip(others[1:], shift, strict=True):
                    key = key * other.roll(by, 0)
                keys.append(key)
            # The unshifted products come first: the true tuple of row i is the column at its place among all ranks',
            # named so that the 1 of the cross-entropy is subtracted inside the tile.
            where = Diagonal(own.start) if start == 0 else None
            stats = self.local_stats(anchor, torch.cat(keys), scale=scale, positive=where)
            return stats.lse

        parts = [
            checkpoint(lse, anchor, scale, start, *others, use_reentrant=False)
            for start in range(0, len(shifts), self.chunk)
        ]
        return torch.stack(parts).logsumexp(0) - positive
