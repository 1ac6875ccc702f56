"""How well a key answers a query: cosine, inner product, and the joint scores of more than two modalities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from counterpoint.common.suggest import no_such


@dataclass(frozen=True)
class Score:
    """A score by which keys are ranked, larger is better.

    Attributes:
        name: as `System.metric` and the option `--metric` name it.
        summary: one sentence.
        unit: whether rows are scaled to length one first.
        joint: whether a query is compared with all other modalities of a key at once; else with one of them.
        prepare: `(*keys [m, dim]) -> tensors with m rows`, computed once for a pool.
        tile: `(queries [n, dim], *prepared) -> [n, m]`; None where it is the inner product with the one prepared
            matrix, which the streaming top-k and FAISS can serve.
        shown: from the score by which keys are ranked to the value that people know.
    """

    name: str
    summary: str
    unit: bool = True
    joint: bool = False
    prepare: Callable[..., tuple[Tensor, ...]] = lambda *keys: keys
    tile: Callable[..., Tensor] | None = None
    shown: Callable[[float], float] = float

    def keys(self, *keys: Float[Tensor, "m dim"]) -> tuple[Tensor, ...]:
        """What `tile` needs of a pool; with one modality for scores of two, any number for joint ones."""
        if len(keys) != 1 and not self.joint:
            raise ValueError(f"{self.name} compares two modalities, not {1 + len(keys)}")
        if len({k.shape for k in keys}) != 1:
            shapes = " and ".join(str(tuple(k.shape)) for k in keys)
            raise ValueError(f"the modalities of a key must have rows and width in common, got {shapes}")
        return self.prepare(*(self.scaled(k) for k in keys))

    def scaled(self, z: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows dim"]:
        """Rows as they are compared."""
        return normalize(z, dim=1, eps=1e-12) if self.unit else z


def _basis(*keys: Tensor) -> tuple[Tensor, ...]:
    """The squared volume of every key, and an orthonormal basis of its modalities [m, modalities, dim].

    In double precision, since the volume of vectors that nearly align is a small difference of large numbers.
    """
    basis: list[Tensor] = []
    square = torch.ones(len(keys[0]), dtype=torch.float64, device=keys[0].device)
    for key in keys:
        rest = key.double()
        for _ in range(2):  # twice is enough for orthogonality to rounding
            for u in basis:
                rest = rest - (rest * u).sum(1, keepdim=True) * u
        length = rest.norm(dim=1)
        some = length > 1e-8
        square = square * length**2
        basis.append(torch.where(some[:, None], rest, 0.0) / torch.where(some, length, 1.0)[:, None])
    return square, torch.stack(basis, 1)


def _negative_volume(q: Tensor, square: Tensor, basis: Tensor) -> Tensor:
    inside = sum((q.double() @ basis[:, h].T) ** 2 for h in range(basis.shape[1]))
    return -square * (1 - inside).clamp_min(0)


def _product(*keys: Tensor) -> tuple[Tensor, ...]:
    product = keys[0]
    for key in keys[1:]:
        product = product * key
    return (product,)


#: Every score by name; a team's package may add its own.
SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        Score("cosine", "cosine of the angle between query and key"),
        Score("dot", "inner product of query and key, lengths included", unit=False),
        Score(
            "multilinear",
            "sum over dimensions of the product of all modalities (Symile)",
            joint=True,
            prepare=_product,
        ),
        Score(
            "volume",
            "volume spanned by all modalities, the smallest first (GRAM); ranked by minus its square",
            joint=True,
            prepare=_basis,
            tile=_negative_volume,
            shown=lambda score: max(-score, 0.0) ** 0.5,
        ),
    )
}


def within(name: str | Score) -> Score:
    """The score of two samples of one modality: that of the name, and cosine where it compares modalities jointly.

    >>> within("dot").name, within("volume").name
    ('dot', 'cosine')
    """
    score = score_named(name)
    return SCORES["cosine"] if score.joint else score


def usual_size(score: Score, q: Float[Tensor, "n dim"], k: Float[Tensor, "m dim"]) -> float:
    """What a score is divided by so that a temperature means the same in every unit of the vectors: 1 where they are
    scaled to length one, else the root mean square length of a query times that of a key."""
    if score.unit or not len(q) or not len(k):
        return 1.0
    size = float((q.double().square().sum(1).mean() * k.double().square().sum(1).mean()).sqrt())
    return size or 1.0


def score_named(name: str | Score) -> Score:
    """The score of a name; raises `InputError` with the names there are.

    >>> score_named("dot").unit
    False
    """
    if isinstance(name, Score):
        return name
    if name not in SCORES:
        raise no_such("metric", name, SCORES)
    return SCORES[name]
