"""HBI: token interactions as a cooperative game (Banzhaf interaction)."""

from typing import Unpack

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from counterpoint.common.losses.base import Objective
from counterpoint.common.losses.blocks import block_stats, symmetric_cross_entropy
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.draws import uniform
from counterpoint.common.losses.scale import Temperature, as_scale
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["HBI", "banzhaf_interaction", "coalition_value"]


def coalition_value(
    similarity: Float[Tensor, "*batch n m"], present: Bool[Tensor, "coalitions players"]
) -> Float[Tensor, "coalitions *batch"]:
    """Value of a coalition of tokens: (mean over all n of the best present partner, 0 where absent, and back) / 2.

    `present` marks, per coalition, the n tokens of one side, then the m of the other. An absent token, or one without a
    present partner, contributes nothing.
    """
    n, m = similarity.shape[-2:]
    shape = present.shape[:-1] + (1,) * (similarity.dim() - 2)
    left = present[..., :n].reshape(*shape, n, 1)
    right = present[..., n:].reshape(*shape, 1, m)
    pairs = torch.where(left & right, similarity, -torch.inf)
    rows, columns = pairs.amax(-1), pairs.amax(-2)
    rows = torch.where(torch.isinf(rows), 0.0, rows)
    columns = torch.where(torch.isinf(columns), 0.0, columns)
    return (rows.mean(-1) + columns.mean(-1)) / 2


@torch.no_grad()
def banzhaf_interaction(
    similarity: Float[Tensor, "*batch n m"],
    *,
    samples: int | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*batch n m"]:
    """Banzhaf interaction of every token pair (t, u) across the two sides.

        I(t, u) = mean over coalitions S without t, u of  v(S + t + u) - v(S + t) - v(S + u) + v(S)
                = 4 mean over all coalitions S of  sign_t(S) sign_u(S) v(S),     sign = +1 if present, -1 if absent

    `samples=None` enumerates all 2^(n + m) coalitions (n + m <= 16); otherwise coalitions are drawn with every token
    present with probability one half: an unbiased estimate, whatever their number. (The released teacher overwrites
    instead of accumulating and masks fixed columns; it estimates something else.)

    >>> import torch
    >>> banzhaf_interaction(torch.ones(1, 1)).item()      # two tokens, worth 1 together and nothing alone
    1.0
    """
    n, m = similarity.shape[-2:]
    players = n + m
    if samples is None:
        if players > 16:
            raise ValueError(f"exact enumeration takes at most 16 tokens, got {players}; give `samples`")
        codes = torch.arange(2**players, device=similarity.device)
        present = (codes[:, None] >> torch.arange(players, device=similarity.device) & 1).bool()
    else:
        present = uniform(samples, players, generator=generator, like=similarity) < 0.5
    total = torch.zeros_like(similarity)
    for part in present.split(1024):
        sign = part.to(similarity.dtype) * 2 - 1
        values = coalition_value(similarity, part)
        total += torch.einsum("sn,sm,s...->...nm", sign[:, :n], sign[:, n:], values)
    return 4 * total / len(present)


class HBI(Objective):
    """Weighted token-wise contrast whose token interactions imitate a Banzhaf teacher (HBI).

        sim(x, y) = ( sum_t w_t max_u x_t.y_u + sum_u w_u max_t x_t.y_u ) / 2
        L = (CE(scale sim) + CE(transposed)) / 2  +  weight/2 [ KL over t + KL over u of (teacher || student) ]

    The teacher is `banzhaf_interaction` of the matching pair's own token similarities (exact up to `exact` tokens, else
    sampled); the student is a map [batch, n, m] that the model predicts. One level of the paper's three; merge tokens
    and call again for the others.

    Call with x [batch, n, dim], y [batch, m, dim], token weights (summing to one; default uniform) and optionally
    `student`, the interaction logits of the matching pairs.

    Args:
        weight: of the interaction term (1).
        exact, samples, generator: how the teacher is computed.
        block: rows whose token similarities are in memory at a time.

    Source: Jin et al. 2023; the teacher is a correct estimator instead of the released one.

    >>> import torch
    >>> x = torch.eye(6).view(3, 2, 6)
    >>> round(HBI(temperature=1.0)(x, x).item(), 4)      # token maxima 1 for matches, 0 otherwise: log(e + 2) - 1
    0.5514
    """

    card = ObjectiveCard(
        paper="HBI 2023",
        needs="tokens of both sides; optional student map",
        engine="none: rows in blocks (late interaction)",
        status="equation",
        checked="written-out equation; sampled interaction against exact enumeration",
    )

    def __init__(
        self,
        temperature: Temperature = 0.01,
        *,
        weight: float = 1.0,
        exact: int = 12,
        samples: int = 64,
        block: int = 32,
        generator: torch.Generator | None = None,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        self.logit_scale, self.weight, self.block = as_scale(temperature), weight, block
        self.exact, self.samples, self.generator = exact, samples, generator

    def forward(
        self,
        x: Float[Tensor, "batch n dim"],
        y: Float[Tensor, "batch m dim"],
        *,
        x_weight: Float[Tensor, "batch n"] | None = None,
        y_weight: Float[Tensor, "batch m"] | None = None,
        student: Float[Tensor, "batch n m"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean over rows and both directions, plus the interaction term when `student` is given."""
        x, y = self.embed(x, y)
        w_x = x.new_full(x.shape[:2], 1 / x.shape[1]) if x_weight is None else x_weight
        w_y = y.new_full(y.shape[:2], 1 / y.shape[1]) if y_weight is None else y_weight
        scale, all_y, all_w = self.logit_scale(), self.union(y), self.union(w_y)

        def score(start: int, stop: int) -> Tensor:
            tokens = torch.einsum("itd,jud->ijtu", x[start:stop], all_y)
            forth = (tokens.amax(-1) * w_x[start:stop, None]).sum(-1)
            return scale * (forth + (tokens.amax(-2) * all_w[None]).sum(-1)) / 2

        stats = block_stats(score, x, block=self.block, over=self)
        loss = symmetric_cross_entropy(stats, over=self)
        if student is not None:
            own = (x @ y.mT).detach()
            samples = None if own.shape[1] + own.shape[2] <= self.exact else self.samples
            teacher = banzhaf_interaction(own, samples=samples, generator=self.generator)
            interaction = sum(
                self.mean(F.kl_div(student.log_softmax(axis), teacher.softmax(axis), reduction="none").sum(axis))
                for axis in (1, 2)
            )
            self.monitors["interaction"] = interaction.detach()
            loss = loss + self.weight / 2 * interaction
        return loss
