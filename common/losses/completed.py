"""Objectives with the parts that their methods put behind the encoders, so that a configuration can choose them.

`--objective 'AMCL(dim=64, heads=5)'`: what a system gives is one vector (or the tokens) of every view; heads,
predictors and the classes of labels, which the objective needs besides, are made and trained here.
"""

import inspect
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from counterpoint.common.losses.amcl import AMCL, AMCLBarlow, AMCLSimSiam
from counterpoint.common.losses.base import Objective
from counterpoint.common.losses.hbi import HBI
from counterpoint.common.losses.m3col import M3CoL
from counterpoint.common.losses.mlcd import MLCD
from counterpoint.common.models.projector import MultiHead, Projector

__all__ = ["COMPLETED", "ClassifiedM3CoL", "ClusteredMLCD", "HeadedAMCL", "HeadedBarlow", "HeadedSimSiam", "TokenHBI"]


class Completed(nn.Module):
    """An objective and what it stands on. `of` is its class; options are its own and those of `__init__`."""

    of: ClassVar[type[Objective]]

    @classmethod
    def options(cls) -> dict[str, inspect.Parameter]:
        """What can be said of it by name.

        >>> list(HeadedAMCL.options())[:3]
        ['dim', 'heads', 'hidden']
        """
        own = {n: p for n, p in inspect.signature(cls).parameters.items() if p.kind is not p.VAR_KEYWORD}
        return own | {name: p for name, p in cls.of.options().items() if name not in own}


class _Headed(Completed):
    """Several heads over both views: two linear layers of the embeddings' width, normalised by the batch."""

    def __init__(self, dim: int, heads: int, **settings: Any) -> None:
        super().__init__()
        self.heads = MultiHead(heads, lambda: Projector(dim, dim, dim))
        self.objective = self.of(dim=dim, **settings)


class HeadedAMCL(_Headed):
    """`AMCL` behind `heads` projection heads of width `dim`, that of the embeddings.

    >>> _ = torch.manual_seed(0)
    >>> HeadedAMCL(dim=6)(torch.randn(8, 6), torch.randn(8, 6)).shape
    torch.Size([])
    """

    of = AMCL

    def __init__(self, dim: int, heads: int = 3, **settings: Any) -> None:
        super().__init__(dim, heads, **settings)

    def forward(self, za: Float[Tensor, "batch dim"], zb: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
        return self.objective(self.heads(za), self.heads(zb))


class HeadedSimSiam(_Headed):
    """`AMCLSimSiam` behind projection heads, with a predictor behind each of these."""

    of = AMCLSimSiam

    def __init__(self, dim: int, heads: int = 3, **settings: Any) -> None:
        super().__init__(dim, heads, **settings)
        self.predictors = MultiHead(heads, lambda: Projector(dim, max(dim // 4, 1), dim))

    def forward(self, za: Float[Tensor, "batch dim"], zb: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
        a, b = self.heads(za), self.heads(zb)
        return self.objective(self.predictors(a), self.predictors(b), a, b)


class HeadedBarlow(_Headed):
    """`AMCLBarlow` behind projection heads; `batch` is the training's batch size, all ranks together.

    The last validation batch is of another size, which the objective cannot take: outside of training its rows are
    repeated in their order, or cut, to `batch`.
    """

    of = AMCLBarlow

    def __init__(self, batch: int, dim: int, heads: int = 3, **settings: Any) -> None:
        super().__init__(dim, heads, batch=batch, **settings)

    def forward(self, za: Float[Tensor, "batch dim"], zb: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
        if not self.training and self.objective.distributed == "none" and len(za):
            rows = torch.arange(self.objective.batch, device=za.device) % len(za)
            za, zb = za[rows], zb[rows]
        return self.objective(self.heads(za), self.heads(zb))


class ClassifiedM3CoL(Completed):
    """`M3CoL` for labels of any kind: classes are numbered as they are met, at most `n_classes` of them.

    The fusion and unimodal heads are trained with the encoders and belong to the objective (`objective.predict`).
    """

    of = M3CoL

    def __init__(self, dims: tuple[int, ...], n_classes: int, **settings: Any) -> None:
        super().__init__()
        self.objective = M3CoL(dims, n_classes, **settings)
        self.register_buffer("classes", torch.full((n_classes,), -1, dtype=torch.int64))

    def forward(self, *views: Float[Tensor, "batch dim"], label: Int[Tensor, "batch"]) -> Float[Tensor, ""]:
        if (widths := tuple(v.shape[-1] for v in views)) != self.objective.dims:
            raise ValueError(f"was told dims={self.objective.dims}, and the views' widths are {widths}")
        return self.objective(*views, label=self.numbers(label))

    @torch.no_grad()
    def numbers(self, label: Int[Tensor, "batch"]) -> Int[Tensor, "batch"]:
        """The class numbers of label codes; new ones take the next free number, on all ranks the same."""
        everyone = self.objective.union(label)
        if bool((everyone < 0).any()):
            raise ValueError("needs a label of every sample, and some of this batch have none")
        known = self.classes[self.classes >= 0]
        new = everyone.unique()
        new = new[~torch.isin(new, known)]
        if len(known) + len(new) > len(self.classes):
            raise ValueError(f"was told n_classes={len(self.classes)}, and the labels have more different values")
        classes = self.classes.clone()
        classes[len(known) : len(known) + len(new)] = new
        self.classes = classes
        return (label[:, None] == classes[None]).int().argmax(1)


class ClusteredMLCD(Completed):
    """`MLCD` with the labels of its first stage: `vectors` names folders that `embed` wrote with a trained encoder.

    Their samples are clustered into `n_classes` (k-means of the first folder; the others' samples, validation's, take
    their nearest centres), and every sample has the `nearest` centres as its labels. `modality` is one of the folders';
    the first unless given.
    """

    of = MLCD

    def __init__(
        self, n_classes: int, dim: int, vectors: str | tuple[str, ...], nearest: int = 8, modality: str = "", **kw: Any
    ) -> None:
        super().__init__()
        self.vectors, self.nearest, self.modality = (
            (vectors,) if isinstance(vectors, str) else vectors,
            nearest,
            modality,
        )
        if not 1 <= nearest <= n_classes:
            raise ValueError(f"nearest must lie between 1 and n_classes ({n_classes}), got {nearest}")
        self.n_classes, self.objective = n_classes, MLCD(n_classes, dim, **kw)

    def forward(self, z: Float[Tensor, "batch dim"], *, clusters: Int[Tensor, "batch positives"]) -> Float[Tensor, ""]:
        return self.objective(z, clusters)


class TokenHBI(Completed):
    """`HBI` over the tokens of two views (of a system that gives them)."""

    of = HBI

    def __init__(self, dim: int, **settings: Any) -> None:
        super().__init__()
        self.objective = HBI(dim, **settings)

    def forward(
        self, a_tokens: Float[Tensor, "batch n dim"], b_tokens: Float[Tensor, "batch m dim"]
    ) -> Float[Tensor, ""]:
        return self.objective(a_tokens, b_tokens)


#: Objective -> what a configuration makes of it.
COMPLETED: dict[str, type[Completed]] = {
    cls.of.__name__: cls for cls in (HeadedAMCL, HeadedBarlow, HeadedSimSiam, ClassifiedM3CoL, ClusteredMLCD, TokenHBI)
}
