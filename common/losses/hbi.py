"""HBI: hierarchical Banzhaf interaction between the tokens of two modalities."""

from collections.abc import Sequence
from typing import Literal, Unpack

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from counterpoint.common.kernels.unit import unit
from counterpoint.common.losses.banzhaf import banzhaf_interaction
from counterpoint.common.losses.base import Objective
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.scale import Temperature, as_scale
from counterpoint.common.losses.sharing import EngineSettings
from counterpoint.common.models.token_merging import TokenMerging

__all__ = ["HBI", "InteractionNetwork"]


class InteractionNetwork(nn.Module):
    """Predicts the interaction of all token pairs from their similarities: convolution, self-attention, convolution.

    >>> import torch
    >>> InteractionNetwork(4)(torch.randn(2, 3, 5)).shape
    torch.Size([2, 3, 5])
    """

    def __init__(self, planes: int = 64):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, planes, 3, padding=1), nn.Conv2d(planes, 1, 3, padding=1)
        # A bare product per projection, as released; gain 1.414.
        self.query, self.key, self.value = (nn.Parameter(torch.empty(planes, planes)) for _ in range(3))
        for weight in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(weight, gain=1.414)

    def forward(self, similarity: Float[Tensor, "batch n m"]) -> Float[Tensor, "batch n m"]:
        x = torch.relu(self.first(similarity[:, None]))
        flat = x.flatten(2).mT
        attention = torch.softmax((flat @ self.query) @ (flat @ self.key).mT, -1)
        return self.last(x + (attention @ (flat @ self.value)).mT.view_as(x))[:, 0]


class _Level(nn.Module):
    """One level of the hierarchy: how much a token weighs, and the student that imitates the game."""

    def __init__(self, dim: int, planes: int):
        super().__init__()
        self.x_weight, self.y_weight = (
            nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, 1)) for _ in range(2)
        )
        self.student = InteractionNetwork(planes)


class HBI(Objective):
    """Weighted token-wise contrast at three levels of merged tokens, whose interactions imitate a game (HBI).

        s(x, y) = ( sum_t w_t max_u cos(x_t, y_u) + sum_u w_u max_t cos(x_t, y_u) ) / 2,     w = softmax of a small net
        L = sum_l [ (CE(scale s_l) + CE(transposed)) / 2 + skl ( KL_u(teacher_l || student_l) + KL_t(...) ) ]
            + kl sum_{l > 0} ( KL(s_0 || s_l) + KL(s_0^T || s_l^T) )

    Level 0 holds the tokens as given, each further one merges those before (`TokenMerging`): entities, actions, events
    in the paper. All KL are means over all entries of the maps (softmax over the axis named), those between levels are
    of unscaled similarities and reach both sides. The student predicts the matching pair's Banzhaf interactions from
    its token similarities; the teacher is `banzhaf_interaction` of these (exact up to `exact` tokens, else sampled), or
    a frozen `InteractionNetwork` trained to estimate them, as released.

    The released code transposes the maps [batch, n, m] to [m, n, batch], so that its second KL runs over the batch in
    place of the tokens t: `transposed="batch"`, on which the published numbers rest.

    Call with x [batch, n, dim], y [batch, m, dim] and masks of the real tokens. `similarity` is the score of retrieval:
    that of level 0, as in the released evaluation.

    Args:
        dim: width of the tokens.
        temperature: T or a learnt `LogitScale` (as CLIP's).
        ratios: share of the tokens that every further level keeps.
        heads, planes, neighbours: of the merging attention, the students, the density estimate.
        skl, kl: weights of students (1) and of levels (0.2; 2 for some data).
        transposed: "tokens" or "batch".
        teacher: a frozen network from similarities to interactions; default: computed.
        exact, samples, generator: how the computed teacher is.
        block: rows whose token similarities are in memory at a time.

    Raises `ValueError` for another `transposed`.

    Source: Jin et al. 2023; jpthu17/HBI at b261e9c, models/modeling.py, cluster.py, banzhaf.py.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> loss = HBI(8, temperature=0.1, heads=2, planes=4)
    >>> loss(torch.randn(3, 6, 8), torch.randn(3, 5, 8)).item() > 0
    True
    """

    card = ObjectiveCard(
        paper="HBI 2023",
        needs="tokens of both sides; optional masks",
        engine="none: rows in blocks (late interaction)",
        status="official numbers",
        checked="official numbers (jpthu17/HBI b261e9c) with transposed batch, merging included; exact enumeration",
    )

    normalizes = None

    def __init__(
        self,
        dim: int,
        temperature: Temperature = 0.01,
        *,
        ratios: Sequence[float] = (0.25, 0.5),
        heads: int = 8,
        planes: int = 64,
        neighbours: int = 3,
        skl: float = 1.0,
        kl: float = 0.2,
        transposed: Literal["tokens", "batch"] = "tokens",
        teacher: nn.Module | None = None,
        exact: int = 12,
        samples: int = 64,
        block: int = 32,
        generator: torch.Generator | None = None,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        if transposed not in ("tokens", "batch"):
            raise ValueError(f"transposed must be 'tokens' or 'batch', got {transposed!r}")
        self.logit_scale, self.dim, self.ratios, self.heads = as_scale(temperature), dim, tuple(ratios), heads
        self.planes, self.neighbours, self.skl, self.kl, self.transposed = planes, neighbours, skl, kl, transposed
        self.exact, self.samples, self.block, self.generator = exact, samples, block, generator
        self.levels = nn.ModuleList(_Level(dim, planes) for _ in range(1 + len(self.ratios)))
        self.x_merge, self.y_merge = (
            nn.ModuleList(TokenMerging(dim, r, heads, neighbours) for r in self.ratios) for _ in range(2)
        )
        self.teacher = None if teacher is None else teacher.requires_grad_(False)

    def forward(
        self,
        x: Float[Tensor, "batch n dim"],
        y: Float[Tensor, "batch m dim"],
        *,
        x_mask: Bool[Tensor, "batch n"] | None = None,
        y_mask: Bool[Tensor, "batch m"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean over rows and both directions, summed over levels; the parts lie in `monitors`."""
        x, y = (z.float() if z.dtype in (torch.float16, torch.bfloat16) else z for z in (x, y))
        contrast, student, entity, cross = 0.0, 0.0, None, x.new_zeros(())
        for place, level in enumerate(self.levels):
            masks = (x_mask, y_mask) if place == 0 else (None, None)
            if place:
                given = (x_mask, y_mask) if place == 1 else (None, None)
                x = self.x_merge[place - 1](x, given[0])
                y = self.y_merge[place - 1](y, given[1])
            scores = self._scores(level, x, y, *masks)
            contrast = contrast + self._contrast(*scores)
            student = student + self._imitation(level, x, y, *masks)
            if entity is None:
                entity = scores
            else:
                cross = cross + sum(self._kl(mine, aim) for mine, aim in zip(scores, entity, strict=True))
        self.monitors.update(contrast=contrast.detach(), student=student.detach(), cross=cross.detach())
        return contrast + self.skl * student + self.kl * cross

    def similarity(
        self,
        x: Float[Tensor, "rows n dim"],
        y: Float[Tensor, "columns m dim"],
        *,
        x_mask: Bool[Tensor, "rows n"] | None = None,
        y_mask: Bool[Tensor, "columns m"] | None = None,
    ) -> Float[Tensor, "rows columns"]:
        """The score of every row with every column, of the tokens as they are."""
        level = self.levels[0]
        return self._matrix(x, y, self._weights(level.x_weight, x, x_mask), self._weights(level.y_weight, y, y_mask))

    @staticmethod
    def _weights(network: nn.Module, tokens: Tensor, mask: Tensor | None) -> Tensor:
        logits = network(tokens)[..., 0]
        if mask is not None:
            logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
        weights = logits.softmax(-1)
        # What is padded weighs nothing; a row of padding alone has no weight at all.
        return weights if mask is None else weights * mask

    def _scores(
        self, level: _Level, x: Tensor, y: Tensor, x_mask: Tensor | None, y_mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """This rank's x against all y, and its y against all x."""
        w_x, w_y = self._weights(level.x_weight, x, x_mask), self._weights(level.y_weight, y, y_mask)
        units = ((unit(x, dim=-1), x_mask), (unit(y, dim=-1), y_mask))
        padded = [z if m is None else z * m[..., None] for z, m in units]
        if self.distributed == "none":
            forth = self._matrix(*padded, w_x, w_y, normalized=True)
            return forth, forth.T
        all_x, all_y, all_w_x, all_w_y = (self.union(t) for t in (*padded, w_x, w_y))
        forth = self._matrix(padded[0], all_y, w_x, all_w_y, normalized=True)
        return forth, self._matrix(padded[1], all_x, w_y, all_w_x, normalized=True)

    def _matrix(self, x: Tensor, y: Tensor, w_x: Tensor, w_y: Tensor, *, normalized: bool = False) -> Tensor:
        if not normalized:
            x, y = (unit(z, dim=-1) * (w[..., None] != 0) for z, w in ((x, w_x), (y, w_y)))

        def score(start: int) -> Tensor:
            rows = slice(start, start + self.block)
            tokens = torch.einsum("itd,jud->ijtu", x[rows], y)
            forth = (tokens.amax(-1) * w_x[rows, None]).sum(-1)
            return (forth + (tokens.amax(-2) * w_y[None]).sum(-1)) / 2

        parts = [checkpoint(score, start, use_reentrant=False) for start in range(0, max(len(x), 1), self.block)]
        return torch.cat(parts)

    def _contrast(self, forth: Tensor, back: Tensor) -> Float[Tensor, ""]:
        own, scale = self.own(forth), self.logit_scale()
        here = torch.arange(len(forth), device=forth.device)
        losses = [(scale * s).logsumexp(1) - scale * s[here, here + own.start] for s in (forth, back)]
        return (self.mean(losses[0]) + self.mean(losses[1])) / 2

    def _imitation(
        self, level: _Level, x: Tensor, y: Tensor, x_mask: Tensor | None, y_mask: Tensor | None
    ) -> Float[Tensor, ""]:
        own = unit(x, dim=-1) @ unit(y, dim=-1).mT
        real = None
        if x_mask is not None or y_mask is not None:
            rows = x.new_ones(x.shape[:2]) if x_mask is None else x_mask.to(x.dtype)
            columns = y.new_ones(y.shape[:2]) if y_mask is None else y_mask.to(y.dtype)
            real = rows[:, :, None] * columns[:, None, :]
            own = own * real
        with torch.no_grad():
            if self.teacher is not None:
                teacher = self.teacher(own)
            else:
                samples = None if own.shape[1] + own.shape[2] <= self.exact else self.samples
                teacher = banzhaf_interaction(own, samples=samples, generator=self.generator)
        student = level.student(own)
        if real is not None:
            student, teacher = student * real, teacher * real
        if self.transposed == "tokens":
            return self._kl(student, teacher) + self._kl(student.mT, teacher.mT)
        rows = self.own(student)
        together = [self.union(t) for t in (student, teacher)]
        batch = _divergence(*(t.movedim(0, -1) for t in together)).movedim(-1, 0)[rows]
        return self._kl(student, teacher) + self.mean(batch)

    def _kl(self, student: Tensor, teacher: Tensor) -> Float[Tensor, ""]:
        """KL(teacher || student) over the last axis, as a mean over all entries."""
        return self.mean(_divergence(student, teacher))


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Every entry's p log(p / q), p and q the softmax over the last axis of teacher and student."""
    log_p = teacher.log_softmax(-1)
    return log_p.exp() * (log_p - student.log_softmax(-1))
