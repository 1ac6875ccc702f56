"""Dialog2Flow: soft contrastive learning from the similarity of label texts."""

from typing import Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from counterpoint.common.kernels import Gibbs, Mix, SameLabel
from counterpoint.common.kernels.unit import unit
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.infonce import InfoNCE
from counterpoint.common.losses.scale import Temperature
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["SoftContrastive"]


class SoftContrastive(InfoNCE):
    """Labels are positives as far as their texts mean the same (Dialog2Flow's soft contrastive loss).

        t_ij = softmax_j(cos(l_i, l_j) / T'),     L = (CE(a -> b, t) + CE(b -> a, t)) / 2

    with l_i the (frozen) embedding of sample i's label text; the same row-normalised targets in both directions. With
    `label` instead of `label_embedding`: the hard form, uniform over the columns of the same label.

    Args:
        temperature: T (0.05).
        label_temperature: T' (0.35 in the class, 0.25 in the training configuration).

    Raises `ValueError` unless exactly one of `label_embedding` and `label` is given.

    Source: Burdisso et al. 2024.

    >>> import torch
    >>> z = torch.eye(4)
    >>> round(SoftContrastive(temperature=1.0)(z, z, label=torch.arange(4)).item(), 4)
    0.7437
    """

    card = ObjectiveCard(
        paper="Dialog2Flow 2024",
        needs="pairs; label embeddings or labels",
        engine="contrast_stats(columns), target_scores(Gibbs, SameLabel)",
        status="official numbers",
        checked="official numbers (idiap/dialog2flow 5ce95a6), soft and hard labels",
    )

    def __init__(
        self,
        temperature: Temperature = 0.05,
        *,
        label_temperature: float = 0.35,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(temperature, **engine)
        self.label_temperature = label_temperature

    def forward(
        self,
        za: Float[Tensor, "batch dim"],
        zb: Float[Tensor, "batch dim"],
        *,
        label_embedding: Float[Tensor, "batch features"] | None = None,
        label: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean over rows and both directions."""
        if (label_embedding is None) == (label is None):
            raise ValueError("give either label_embedding (soft targets) or label (hard targets)")
        if label is None:
            e = unit(label_embedding.detach().to(torch.promote_types(za.dtype, torch.float32)), dim=-1)
            targets = Gibbs(e, e, scale=1 / self.label_temperature)
        else:
            _, alike = self.target(za.detach(), za.detach(), SameLabel(label))
            targets = Mix([(1 / alike, SameLabel(label))])
        return self.mean(self.row_losses(za, zb, targets=targets))
