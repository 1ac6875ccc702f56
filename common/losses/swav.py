"""SwAV: swapped prediction of balanced prototype assignments."""

from collections.abc import Sequence
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn

from counterpoint.common.kernels import Gibbs, sinkhorn
from counterpoint.common.kernels.unit import unit
from counterpoint.common.losses.base import Objective
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.queue import FeatureQueue
from counterpoint.common.losses.scale import Temperature, as_scale
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["SwAV"]


class SwAV(Objective):
    """Predict, from every crop, the balanced prototype assignment of another crop (SwAV).

        Q = Sinkhorn(exp(z_t . C / eps)), columns (prototypes) balanced, rows (samples) to 1, 3 iterations, no gradient
        L = mean over assigning crops t of mean over other crops v of mean_i -sum_k Q_ik log softmax_k(z_v . C / T)

    Sinkhorn runs in the log domain: exp(1 / 0.05) leaves float16 at once. With `queue_size` the last assigned features
    of each assigning crop join the balancing (not the loss), re-scored with the current prototypes. With `distributed`
    the assignments of all ranks' samples are balanced together, and the ranks share the queues.

    Args:
        dim, prototypes: width of the embeddings (128) and number of prototypes (3000).
        temperature, epsilon, iterations: 0.1, 0.05, 3.
        assign: which crops give assignments (the two large ones).
        queue_size: 0, or about 3840; `use_queue` switches it on (the paper: from epoch 15).

    Prototypes are normalised inside the call, where the official code overwrites the weight before each step: the same
    values, without the radial gradient. The paper freezes them for the first 313 iterations:
    `loss.prototypes.requires_grad_(False)`.

    Raises `ValueError` for fewer than two crops, or when `assign` names one that is missing.

    Crops come from `counterpoint.common.models.MultiCrop`, their embeddings from `encode_crops`.

    Source: Caron et al. 2020.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> loss = SwAV(dim=8, prototypes=5)
    >>> crops = [torch.randn(6, 8) for _ in range(4)]       # two large and two small crops
    >>> loss(*crops).item() > 0
    True
    """

    card = ObjectiveCard(
        paper="SwAV 2020",
        needs="two and more crops; own prototypes",
        engine="sinkhorn, contrast_stats, target_scores(Gibbs)",
        status="official numbers",
        checked="official numbers (facebookresearch/swav 06b1b7c), queue included",
    )

    def __init__(
        self,
        dim: int = 128,
        prototypes: int = 3000,
        temperature: Temperature = 0.1,
        *,
        epsilon: float = 0.05,
        iterations: int = 3,
        assign: Sequence[int] = (0, 1),
        queue_size: int = 0,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        self.prototypes = nn.Parameter(unit(torch.randn(prototypes, dim), dim=1))
        self.logit_scale = as_scale(temperature)
        self.epsilon, self.iterations, self.assign = epsilon, iterations, tuple(assign)
        self.queues = (
            nn.ModuleList(FeatureQueue(queue_size, dim, engine.get("distributed")) for _ in self.assign)
            if queue_size
            else None
        )
        self.use_queue = bool(queue_size)

    def forward(self, *crops: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
        """Mean over assigning crops, other crops and samples."""
        if len(crops) < 2 or max(self.assign) >= len(crops):
            raise ValueError(f"SwAV needs at least two crops and those in assign={self.assign}, got {len(crops)}")
        z = self.embed(*crops)
        prototypes, scale = unit(self.prototypes.to(z[0].dtype), dim=1), self.logit_scale()
        lse = [self.local_stats(v, prototypes, scale=scale).lse for v in z]
        losses = []
        for place, t in enumerate(self.assign):
            target = self._assignment(place, z[t].detach(), prototypes.detach())
            others = []
            for v in range(len(z)):
                if v != t:
                    score, _ = self.local_target(z[v], prototypes, target)
                    others.append(self.mean(lse[v] - scale * score))
            losses.append(torch.stack(others).mean())
        return torch.stack(losses).mean()

    def _assignment(self, place: int, features: Tensor, prototypes: Tensor) -> Gibbs:
        everything = features
        if self.queues is not None and self.use_queue:
            rank = self.rank  # each rank balances its share of the queue
            everything = torch.cat([features, self.queues[place].keys[rank :: self.world].to(features.dtype)])
        _, column = sinkhorn(
            everything,
            prototypes,
            epsilon=self.epsilon,
            iterations=self.iterations,
            columns="shared",
            distributed=self.distributed,
        )
        if self.queues is not None and self.training:
            self.queues[place].push(features)
        # The last half-step makes every sample's row sum to one: a softmax with the prototypes' potentials.
        return Gibbs(features, prototypes, scale=1 / self.epsilon, col_bias=column)
