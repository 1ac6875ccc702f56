"""MoCo's dictionary of past keys, and MoCHi's synthetic hard negatives from it."""

from typing import Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from counterpoint.common.kernels import SameLabel, topk_scores
from counterpoint.common.kernels.unit import unit
from counterpoint.common.losses.base import Objective, dots, softplus_gap
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.draws import uniform
from counterpoint.common.losses.queue import FeatureQueue
from counterpoint.common.losses.scale import Temperature, as_scale
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["MoCHi", "MoCo"]


class MoCo(Objective):
    """The key of my own sample against a queue of past keys (MoCo).

        l_i = log( exp(q_i.k_i / T) + sum_{n in queue} exp(q_i.n / T) ) - q_i.k_i / T

    `za` are queries, `zb` keys of the momentum encoder (detached here). The queue is part of the loss and of its
    checkpoint; a call in training mode pushes zb after use. With `index` or `group` the queue entries of the same
    sample (from an earlier step) are no negatives. While the queue is empty the loss is 0.
    With `distributed` the ranks share one queue.

    Args:
        dim, size: width and length of the queue (65536 in the paper).
        temperature: T; 0.07 in MoCo v1, 0.2 in v2.

    Source: He et al. 2020; facebookresearch/moco at 4397a04, moco/builder.py.

    >>> import torch
    >>> loss = MoCo(dim=4, size=8, temperature=1.0)
    >>> z = torch.eye(4)
    >>> loss(z, z).item(), round(loss(z, z).item(), 4)    # second step: 4 past keys, one equal: log(2 e + 3) - 1
    (0.0, 1.1326)
    """

    card = ObjectiveCard(
        paper="MoCo 2020",
        needs="queries and momentum keys; own queue; optional index or group",
        engine="contrast_stats on the queue",
        status="official numbers",
        checked="official numbers (facebookresearch/moco 4397a04), queue included",
    )

    def __init__(
        self,
        dim: int,
        size: int = 65536,
        temperature: Temperature = 0.07,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        self.logit_scale = as_scale(temperature)
        self.queue = FeatureQueue(size, dim, engine.get("distributed"))

    def forward(
        self,
        za: Float[Tensor, "batch dim"],
        zb: Float[Tensor, "batch dim"],
        *,
        index: Int[Tensor, "batch"] | None = None,
        group: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean over the queries."""
        q, k = self.embed(za, zb.detach())
        ids = index if group is None else group
        scale = self.logit_scale()
        positive = scale * dots(q, k)
        lse = self.negatives(q, scale, ids)
        loss = self.mean(softplus_gap(lse, positive))
        if self.training:
            self.queue.push(k, ids)
        return loss

    def negatives(self, q: Tensor, scale: float | Tensor, ids: Tensor | None) -> Float[Tensor, "batch"]:
        """log sum over the queue."""
        exclude = None if ids is None else SameLabel(ids, self.queue.ids)
        return self.local_stats(q, self.queue.keys.to(q.dtype), scale=scale, exclude=exclude).lse


class MoCHi(MoCo):
    """MoCo with synthetic negatives mixed from each query's hardest queue entries (hard negative mixing).

        h  = norm(a n_i + (1 - a) n_j),  a ~ U(0, 1)        `mixed` of them per query
        h' = norm(b q + (1 - b) n_j),    b ~ U(0, 0.5)      `mixed_with_query` of them per query
        l_i as MoCo, with all h and h' added to the denominator (detached)

    n_i, n_j are drawn from the query's `hardest` queue entries. The private negatives join the queue's log-sum-exp
    exactly. Start it after a warm-up: `mixed = mixed_with_query = 0` is MoCo.

    Args:
        hardest, mixed, mixed_with_query: N, s, s' (1024, up to 1024, 128, queue 16384).
        dim, size, temperature: as `MoCo`.
        generator: source of a, b and the pairs.

    Source: Kalantidis et al. 2020. No code of the authors is public (searched by title, name and equation); both kinds
    of mixtures were read, alike, in davidsvy/hard-negative-mixing at 2955553 and in a second independent one.

    >>> import torch
    >>> loss = MoCHi(dim=4, size=8, hardest=2, mixed=4, mixed_with_query=2, generator=torch.Generator().manual_seed(0))
    >>> z = torch.eye(4); _ = loss(z, z); loss(z, z).item() > 0
    True
    """

    card = ObjectiveCard(
        paper="MoCHi 2020",
        needs="as MoCo; a generator",
        engine="contrast_stats, topk_scores; private negatives dense",
        status="equation",
        checked="written-out equation (no code of the authors is public; two independent ones have it alike)",
    )

    def __init__(
        self,
        dim: int,
        size: int = 16384,
        temperature: Temperature = 0.2,
        *,
        hardest: int = 1024,
        mixed: int = 1024,
        mixed_with_query: int = 128,
        generator: torch.Generator | None = None,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(dim, size, temperature, **engine)
        self.hardest, self.mixed, self.mixed_with_query = hardest, mixed, mixed_with_query
        self.generator = generator

    def negatives(self, q: Tensor, scale: float | Tensor, ids: Tensor | None) -> Float[Tensor, "batch"]:
        """log sum over the queue and the synthetic negatives."""
        lse = super().negatives(q, scale, ids)
        if not len(self.queue) or not self.mixed + self.mixed_with_query:
            return lse
        private = self.synthesize(q.detach(), ids)
        # R x (s + s') numbers: private to each row, so no engine call shares them.
        return torch.logaddexp(lse, torch.logsumexp(scale * (private @ q[:, :, None])[..., 0], -1))

    @torch.no_grad()
    def synthesize(
        self, q: Float[Tensor, "batch dim"], ids: Int[Tensor, "batch"] | None
    ) -> Float[Tensor, "batch m dim"]:
        """The synthetic negatives of each query. Rows with fewer candidates than `hardest` mix those they have."""
        keys = self.queue.keys.to(q.dtype)
        exclude = None if ids is None else SameLabel(ids, self.queue.ids)
        _, hard = topk_scores(q, keys, min(self.hardest, len(keys)), exclude=exclude)
        found = (hard >= 0).sum(1, keepdim=True).clamp_min(1)

        def draw(count: int) -> Tensor:
            u = uniform(len(q), count, generator=self.generator, like=q)
            return keys[hard.gather(1, (u * found).long()).clamp_min(0)]

        def mixing(count: int, high: float) -> Tensor:
            return high * uniform(len(q), count, 1, generator=self.generator, like=q)

        a, b = mixing(self.mixed, 1.0), mixing(self.mixed_with_query, 0.5)
        between = a * draw(self.mixed) + (1 - a) * draw(self.mixed)
        towards = b * q[:, None] + (1 - b) * draw(self.mixed_with_query)
        return unit(torch.cat([between, towards], 1), dim=-1)
