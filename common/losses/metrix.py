"""Metrix: metric learning on mixed embeddings."""

import math
from typing import Unpack

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from counterpoint.common.kernels import SameLabel, Self
from counterpoint.common.kernels.unit import unit
from counterpoint.common.losses.base import Objective
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.draws import beta, noise_for
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["Metrix", "contrastive_margin", "mixed_margin"]


class Metrix(Objective):
    """Multi-similarity loss plus its mixed form: a mixture is positive with weight lam, negative with 1 - lam (Metrix).

        clean: 1/b log(1 + sum_{p} e^{-b (s_ip - m)}) + 1/g log(1 + sum_{n} e^{g (s_in - m)})
        mixed: 1/b log(1 + sum_v lam e^{-b (s_iv - m)}) + 1/g log(1 + sum_v (1 - lam) e^{g (s_iv - m)})
        v = norm(lam z_p + (1 - lam) z_n),     L = clean + weight mixed

    with p a random positive of the anchor and n its `hardest` negatives, one lam ~ Beta(alpha, alpha) per batch. A row
    without positives (negatives) lacks that term and the mixtures.

    The released code implements another clean loss, the contrastive one on distances: `contrastive_margin` plus 0.4
    `mixed_margin`. This form and its constants follow the paper's principle and the multi-similarity loss: our reading.

    Args:
        b, g, m: 18, 75, 0.77; weight 0.4; alpha 2; hardest 5.
        generator: source of lam and of the positives.

    Source: Venkataramanan et al. 2022.

    >>> import torch
    >>> loss = Metrix(generator=torch.Generator().manual_seed(0))
    >>> loss(torch.randn(6, 4), torch.tensor([0, 0, 1, 1, 2, 2])).shape
    torch.Size([])
    """

    card = ObjectiveCard(
        paper="Metrix 2022",
        needs="labels; a generator",
        engine="contrast_stats(only / exclude SameLabel), topk_scores; private mixtures dense",
        status="our reading",
        checked="written-out equation (our reading)",
    )

    def __init__(
        self,
        *,
        b: float = 18.0,
        g: float = 75.0,
        m: float = 0.77,
        weight: float = 0.4,
        alpha: float = 2.0,
        hardest: int = 5,
        generator: torch.Generator | None = None,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        self.b, self.g, self.m, self.weight, self.alpha, self.hardest = b, g, m, weight, alpha, hardest
        self.generator = generator

    def forward(self, z: Float[Tensor, "batch dim"], label: Int[Tensor, "batch"]) -> Float[Tensor, ""]:
        """Mean over anchors."""
        (z,) = self.embed(z)
        margin = z.new_full((len(z),), self.m)
        same = SameLabel(label)
        pull = self.stats(z, z, scale=-self.b, row_bias=self.b * margin, only=same, exclude=Self())
        push = self.stats(z, z, scale=self.g, row_bias=-self.g * margin, exclude=same)
        loss = self.mean(F.softplus(pull.lse) / self.b + F.softplus(push.lse) / self.g)
        if not self.weight:
            return loss
        lam, mixtures, real = self.mixtures(z, label)
        score = (mixtures @ z[:, :, None])[..., 0]
        near = torch.where(real, -self.b * (score - self.m) + math.log(lam), -torch.inf)
        far = torch.where(real, self.g * (score - self.m) + math.log1p(-lam), -torch.inf)
        mixed = torch.logsumexp(F.pad(near, (1, 0)), 1) / self.b + torch.logsumexp(F.pad(far, (1, 0)), 1) / self.g
        return loss + self.weight * self.mean(mixed)

    def mixtures(self, z: Float[Tensor, "batch dim"], label: Int[Tensor, "batch"]) -> tuple[float, Tensor, Tensor]:
        """lam, each anchor's mixtures [batch, hardest, dim], and which of them are real."""
        with torch.no_grad():
            drawn = beta(self.alpha, self.alpha, generator=self.generator).to(z.device)
            lam = float(self.agreed(drawn).clamp(1e-6, 1 - 1e-6))
            noise = noise_for(self.generator, z.device)
            # At scale 0 with Gumbel noise the best column is a uniform draw.
            chosen = self.best(z, z, 1, only=SameLabel(label), exclude=Self(), scale=0.0, noise=noise)[1]
            hard = self.best(z, z, self.hardest, exclude=SameLabel(label))[1]
        real, everyone = (chosen >= 0) & (hard >= 0), self.union(z)
        mix = lam * everyone[chosen.clamp_min(0)] + (1 - lam) * everyone[hard.clamp_min(0)]
        return lam, unit(mix, dim=-1), real


def contrastive_margin(
    z: Float[Tensor, "batch dim"], label: Int[Tensor, "batch"], margin: float = 0.5, *, block: int = 256
) -> Float[Tensor, ""]:
    """Mean distance of same-label pairs plus mean [margin - distance]_+ of the others, on unit vectors.

    Each mean is over its non-zero terms, self-pairs left out: the clean loss of the released Metrix code. A distance is
    no logit of the engine; rows go in blocks.

    >>> import torch
    >>> contrastive_margin(torch.eye(2), torch.tensor([0, 1])).item()       # sqrt 2 apart: beyond the margin
    0.0
    """
    z = unit(z, dim=-1)

    def sums(start: int) -> Tensor:
        distance = torch.cdist(z[start : start + block], z, compute_mode="donot_use_mm_for_euclid_dist")
        rows = torch.arange(start, start + len(distance), device=z.device)
        alike = label[rows, None] == label
        pull = distance * (alike & (rows[:, None] != torch.arange(len(z), device=z.device)))
        push = F.relu(margin - distance) * ~alike
        return torch.stack([t for term in (pull, push) for t in (term.sum(), (term > 0).sum())])

    parts = [checkpoint(sums, start, use_reentrant=False) for start in range(0, max(len(z), 1), block)]
    pull, pulled, push, pushed = torch.stack(parts).sum(0)
    return pull / pulled.clamp_min(1) + push / pushed.clamp_min(1)


def mixed_margin(
    anchor: Float[Tensor, "rows dim"], mixture: Float[Tensor, "rows dim"], lam: float, margin: float = 0.5
) -> Float[Tensor, ""]:
    """lam [d]_+ + (1 - lam) [margin - d]_+ on unit vectors, each mean over its non-zero terms.

    The loss of the released Metrix code, for one mixture per anchor.

    >>> import torch
    >>> mixed_margin(torch.eye(2), torch.eye(2), lam=1.0).item()
    0.0
    """
    distance = (unit(anchor, dim=-1) - unit(mixture, dim=-1)).norm(dim=-1)
    total = anchor.new_zeros(())
    for weight, term in ((lam, F.relu(distance)), (1 - lam, F.relu(margin - distance))):
        total = total + weight * term.sum() / (term > 0).sum().clamp_min(1)
    return total
