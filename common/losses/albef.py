"""ALBEF: image-text contrast with momentum distillation, matching with hard negatives, masked language modelling."""

from typing import NamedTuple, Unpack

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from counterpoint.common.kernels import Diagonal, Gibbs, SameLabel, Self, topk_scores
from counterpoint.common.losses.base import Objective, row_mean
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.draws import noise_for
from counterpoint.common.losses.queue import FeatureQueue
from counterpoint.common.losses.scale import LogitScale, Temperature, as_scale
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["ALBEFContrast", "hard_negatives", "masked_lm_loss", "matching_loss"]


class Side(NamedTuple):
    """One modality: the student's rows, the momentum features, and the keys rows of the other modality meet."""

    q: Float[Tensor, "batch dim"]
    momentum: Float[Tensor, "batch dim"]
    keys: Float[Tensor, "keys dim"]
    ids: Int[Tensor, "batch"] | None
    key_ids: Int[Tensor, "keys"] | None
    first: int  # place of this rank's rows among the keys


class ALBEFContrast(Objective):
    """Image-text contrast against momentum features and a queue, with the momentum model's soft targets (ALBEF's ITC).

        keys K  = [momentum features of the batch ; queue]
        target  = alpha softmax_j(momentum_i . k_j / T) + (1 - alpha) one-hot
        L       = (CE(image -> text keys) + CE(text -> image keys)) / 2

    With `index` (or `group`) the one-hot part becomes uniform over all keys of the same id, queue included. T learns
    through the student's logits only. Queues start empty (the official ones full of random directions) and are pushed
    in training mode. With `distributed` the ranks share the queues and the batch's keys are those of all ranks (in the
    official code each rank sees its own and the queue).

    Args:
        dim, queue_size: width (256) and queue length (65536; 0: none).
        temperature: T; default a `LogitScale(0.07)` kept within [0.001, 0.5] as in the official code.

    `alpha` is given per call: 0 to 0.4 over the first epoch, then 0.4 (our reading of the training script).

    Source: Li et al. 2021.

    >>> import torch
    >>> loss, z = ALBEFContrast(dim=4, queue_size=8, temperature=1.0), torch.eye(4)
    >>> round(loss(z, z, z, z, alpha=0.0).item(), 4)
    0.7437
    """

    card = ObjectiveCard(
        paper="ALBEF 2021",
        needs="momentum encoders; own queues; optional index or group",
        engine="contrast_stats, target_scores(Gibbs, SameLabel)",
        status="official numbers",
        checked="official numbers (salesforce/ALBEF b9727e4), temperature and queues included",
    )

    def __init__(
        self,
        dim: int = 256,
        queue_size: int = 65536,
        temperature: Temperature | None = None,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        own = LogitScale(0.07, max_scale=1000.0, min_scale=2.0) if temperature is None else temperature
        self.logit_scale = as_scale(own)
        self.image_queue = FeatureQueue(queue_size, dim, engine.get("distributed")) if queue_size else None
        self.text_queue = FeatureQueue(queue_size, dim, engine.get("distributed")) if queue_size else None

    def forward(
        self,
        image: Float[Tensor, "batch dim"],
        text: Float[Tensor, "batch dim"],
        image_momentum: Float[Tensor, "batch dim"],
        text_momentum: Float[Tensor, "batch dim"],
        *,
        alpha: float = 0.4,
        index: Int[Tensor, "batch"] | None = None,
        group: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean over rows and both directions."""
        sides = self.sides(image, text, image_momentum, text_momentum, index if group is None else group)
        loss = (self.across(*sides, alpha) + self.across(*reversed(sides), alpha)) / 2
        self.push(*sides)
        return loss

    def sides(
        self, image: Tensor, text: Tensor, image_momentum: Tensor, text_momentum: Tensor, ids: Tensor | None
    ) -> tuple[Side, Side]:
        """Both modalities with their keys: the momentum features of the batch, then the queue."""
        students = self.embed(image, text)
        teachers = self.embed(image_momentum.detach(), text_momentum.detach())
        queues = (self.image_queue, self.text_queue)
        return tuple(self._side(q, m, queue, ids) for q, m, queue in zip(students, teachers, queues, strict=True))

    def _side(self, q: Tensor, momentum: Tensor, queue: FeatureQueue | None, ids: Tensor | None) -> Side:
        keys, key_ids, first = self.union(momentum), None if ids is None else self.union(ids), self.own(q).start
        if queue is not None and len(queue):
            keys = torch.cat([keys, queue.keys.to(keys.dtype)])
            key_ids = None if ids is None else torch.cat([key_ids, queue.ids])
        return Side(q, momentum, keys, ids, key_ids, first)

    def across(self, one: Side, other: Side, alpha: float) -> Float[Tensor, ""]:
        """Mean cross-entropy of one modality's rows against the other's keys with the mixed target."""
        scale, q, keys = self.logit_scale(), one.q, other.keys
        stats = self.local_stats(q, keys, scale=scale, positive=Diagonal(one.first))
        hard = stats.positive
        if one.ids is not None:
            score, mass = self.local_target(q, keys, SameLabel(one.ids, other.key_ids))
            hard = scale * score / mass
        losses = stats.lse - hard
        if alpha:
            fixed = scale.detach() if isinstance(scale, Tensor) else scale
            soft, _ = self.local_target(q, keys, Gibbs(one.momentum, keys, scale=fixed))
            losses = losses + alpha * (hard - scale * soft)
        return self.mean(losses)

    def push(self, image: Side, text: Side) -> None:
        """Add the momentum features to the queues (training mode)."""
        if self.training and self.image_queue is not None:
            self.image_queue.push(image.momentum, image.ids)
            self.text_queue.push(text.momentum, text.ids)


@torch.no_grad()
def hard_negatives(
    q: Float[Tensor, "rows dim"],
    k: Float[Tensor, "columns dim"],
    *,
    scale: float = 1.0,
    group: Int[Tensor, "rows"] | None = None,
    generator: torch.Generator,
) -> Int[Tensor, "rows"]:
    """One column per row, drawn with probability softmax(scale q.k) over the others (ALBEF's ITM negatives).

    Gumbel noise and a streaming arg-max: no probability matrix, and no failure when all probabilities round to zero.
    Columns of the row's own `group` are never drawn; -1 where nothing is left.

    >>> import torch
    >>> z = torch.eye(3)
    >>> hard_negatives(z, z, generator=torch.Generator().manual_seed(0)).tolist().count(-1)
    0
    """
    exclude = Self() if group is None else SameLabel(group)
    return topk_scores(q, k, 1, exclude=exclude, noise=noise_for(generator, q.device), scale=scale)[1][:, 0]


def matching_loss(matched: Float[Tensor, "pairs"], unmatched: Float[Tensor, "others"]) -> Float[Tensor, ""]:
    """Binary cross-entropy of the matching logits of true pairs and of hard negatives, mean over all of them (ITM).

    ALBEF's two-way head has logits (l_no, l_yes); pass l_yes - l_no.

    >>> import torch
    >>> round(matching_loss(torch.zeros(2), torch.zeros(4)).item(), 4)   # log 2
    0.6931
    """
    return row_mean(torch.cat([F.softplus(-matched), F.softplus(unmatched)]))


def masked_lm_loss(
    logits: Float[Tensor, "*tokens vocabulary"],
    label: Int[Tensor, "*tokens"],
    *,
    masked: Bool[Tensor, "*tokens"],
    teacher: Float[Tensor, "*tokens vocabulary"] | None = None,
    alpha: float = 0.0,
) -> Float[Tensor, ""]:
    """Masked language modelling, mean over masked tokens; of the target, alpha is the momentum teacher's softmax.

    >>> import torch
    >>> logits, label = torch.zeros(2, 5, 7), torch.zeros(2, 5, dtype=torch.long)
    >>> round(masked_lm_loss(logits, label, masked=label == 0).item(), 4)   # log 7
    1.9459
    """
    logits, label = logits[masked], label[masked]
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    log_p = F.log_softmax(logits, -1)
    loss = F.nll_loss(log_p, label, reduction="none")
    if teacher is not None and alpha:
        soft = -(F.softmax(teacher.detach()[masked].to(log_p.dtype), -1) * log_p).sum(-1)
        loss = (1 - alpha) * loss + alpha * soft
    return row_mean(loss)
