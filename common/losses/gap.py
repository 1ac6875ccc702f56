"""Alignment, uniformity, and the terms that close the gap between modalities (CUA)."""

from typing import Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from counterpoint.common.kernels import Self
from counterpoint.common.losses.base import Objective
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.infonce import InfoNCE
from counterpoint.common.losses.scale import Temperature
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["CUA", "Alignment", "CrossUniformity", "Uniformity"]


def _log_mean_kernel(objective: Objective, a: Tensor, b: Tensor, t: float) -> Float[Tensor, ""]:
    """log mean_{i != j} exp(-t |a_i - b_j|^2); the squared norms enter as a column bias and a row term."""
    stats = objective.stats(a, b, scale=2 * t, col_bias=-t * b.square().sum(-1), exclude=Self())
    rows = objective.union(stats.lse - t * a.square().sum(-1))
    if len(rows) < 2:
        return (a.sum() + b.sum()) * 0
    return torch.logsumexp(rows, 0) - objective.summed(stats.count.sum()).to(rows.dtype).log()


class Alignment(Objective):
    """Mean squared distance of paired embeddings.

        L = mean_i |a_i - b_i|^2 / (2 temperature)          (temperature 1/2: the plain squared distance)

    Args:
        temperature: 1/2 (Wang and Isola with alpha = 2; CUA); SepCLR writes the factor.

    Source: Wang and Isola 2020.

    >>> import torch
    >>> Alignment()(torch.eye(2), torch.eye(2).flip(0)).item()
    2.0
    """

    card = ObjectiveCard(
        paper="Alignment and Uniformity 2020",
        needs="pairs",
        engine="none (row dots)",
        status="official numbers",
        checked="official numbers (SepCLR)",
    )

    def __init__(self, temperature: float = 0.5, **engine: Unpack[EngineSettings]):
        super().__init__(**engine)
        self.temperature = temperature

    def forward(self, za: Float[Tensor, "batch dim"], zb: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
        """Mean over pairs."""
        a, b = self.embed(za, zb)
        return self.mean((a - b).square().sum(-1)) / (2 * self.temperature)


class Uniformity(Objective):
    """Gaussian potential of all pairs of distinct samples of one set.

        L = log mean_{i != j} exp(-t |z_i - z_j|^2),   t = 2

    Fewer than two samples give zero.

    Args:
        t: sharpness.

    Source: Wang and Isola 2020.

    >>> import torch
    >>> Uniformity()(torch.eye(3)).item()      # all pairs at squared distance 2
    -4.0
    """

    card = ObjectiveCard(
        paper="Alignment and Uniformity 2020",
        needs="one set of embeddings",
        engine="contrast_stats(col_bias, Self)",
        status="official numbers",
        checked="official numbers (SepCLR)",
    )

    def __init__(self, t: float = 2.0, **engine: Unpack[EngineSettings]):
        super().__init__(**engine)
        self.t = t

    def forward(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
        """One number for the set."""
        z = self.embed(z)[0]
        return _log_mean_kernel(self, z, z, self.t)


class CrossUniformity(Objective):
    """Gaussian potential of all unpaired samples across two modalities.

        L = log mean_{i != j} exp(-t |a_i - b_j|^2),   t = 2

    Args:
        t: sharpness.

    Source: Fahim et al. 2024, contrastive gap.

    >>> import torch
    >>> CrossUniformity()(torch.eye(3), torch.eye(3)).item()
    -4.0
    """

    card = ObjectiveCard(
        paper="Contrastive gap (CUA) 2024",
        needs="pairs",
        engine="contrast_stats(col_bias, Self)",
        status="official numbers",
        checked="official numbers (abrar-fahim/contrastive-gap 8c1a17b); equals Uniformity on identical sets",
    )

    def __init__(self, t: float = 2.0, **engine: Unpack[EngineSettings]):
        super().__init__(**engine)
        self.t = t

    def forward(self, za: Float[Tensor, "batch dim"], zb: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
        """One number for the two sets."""
        a, b = self.embed(za, zb)
        return _log_mean_kernel(self, a, b, self.t)


class CUA(Objective):
    """CLIP plus alignment, uniformity within and uniformity across the modalities: closes the modality gap.

        L = CLIP + w_a align(a, b) + w_u (unif(a) + unif(b)) / 2 + w_x xunif(a, b)

    Args:
        temperature: 0.01, fixed, in the paper's fine-tuning runs.
        align, uniform, cross: the three weights, 1 in the paper.

    Source: Fahim et al. 2024, "It's Not a Modality Gap: Characterizing and Addressing the Contrastive Gap";
    abrar-fahim/contrastive-gap at 8c1a17b, clips/hf_clip.py with all three switches on.

    >>> import torch
    >>> z = torch.eye(4)
    >>> round(CUA(temperature=1.0)(z, z).item(), 4)     # 0.7437 + 0 - 4 - 4
    -7.2563
    """

    card = ObjectiveCard(
        paper="Contrastive gap (CUA) 2024",
        needs="pairs; optional group",
        engine="as InfoNCE, contrast_stats(col_bias) x 3",
        status="official numbers",
        checked="official numbers (abrar-fahim/contrastive-gap 8c1a17b), all four terms",
    )

    def __init__(
        self,
        temperature: Temperature = 0.01,
        *,
        align: float = 1.0,
        uniform: float = 1.0,
        cross: float = 1.0,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        self.contrast = InfoNCE(temperature, **engine)
        self.align, self.uniform, self.cross = align, uniform, cross

    def forward(
        self,
        za: Float[Tensor, "batch dim"],
        zb: Float[Tensor, "batch dim"],
        *,
        index: Int[Tensor, "batch"] | None = None,
        group: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, ""]:
        """The weighted sum; its parts lie in `monitors`."""
        a, b = self.embed(za, zb)
        parts = {
            "contrast": self.contrast(za, zb, group=group),
            "align": self.mean((a - b).square().sum(-1)),
            "uniform": (_log_mean_kernel(self, a, a, 2.0) + _log_mean_kernel(self, b, b, 2.0)) / 2,
            "cross": _log_mean_kernel(self, a, b, 2.0),
        }
        self.monitors.update({name: value.detach() for name, value in parts.items()})
        return (
            parts["contrast"]
            + self.align * parts["align"]
            + self.uniform * parts["uniform"]
            + self.cross * parts["cross"]
        )
