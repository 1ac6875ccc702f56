"""TCL (triple contrastive learning): cross-modal, intra-modal and local mutual information."""

import math
from typing import Unpack

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from counterpoint.common.kernels import Diagonal, SameLabel
from counterpoint.common.losses.albef import ALBEFContrast, Side
from counterpoint.common.losses.base import Objective, softplus_gap
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.scale import Temperature, as_scale
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["TCL", "LocalMI", "pool_patches"]


class LocalMI(Objective):
    """Each local token should be recognised by its sample's global vector (TCL's local mutual-information term).

        L = mean_i mean_l -log( e^{x_il . m_i / T} / (e^{x_il . m_i / T} + sum_{j != i} sum_l' e^{x_jl' . m_i / T}) )

    One log-sum-exp over the other samples' tokens per global vector serves all tokens of the sample. The tokens are the
    momentum encoder's (detached here); the gradient reaches m and T. Every sample counts alike, however many tokens it
    has; a sample without any counts as zero.

    Call with tokens [batch, n, dim], pooled [batch, dim] (m), mask [batch, n] (true: a real token).

    Args:
        temperature: T or a `LogitScale`.
        pool: the tokens are a square grid of patches, to be averaged over cells after they are normalised
            (`pool_patches`).

    Raises `ValueError` for a mask of tokens that are to be pooled.

    Source: Yang et al. 2022, official code.

    >>> import torch
    >>> m = torch.eye(2)
    >>> round(LocalMI(temperature=1.0)(m[:, None].expand(2, 3, 2), m).item(), 4)   # log(1 + 3 / e)
    0.7437
    """

    card = ObjectiveCard(
        paper="TCL 2022",
        needs="momentum tokens and a global vector of each sample",
        engine="contrast_stats(SameLabel)",
        status="official numbers",
        checked="official numbers (uta-smile/TCL 74a3e4f), within TCL; written-out equation",
    )

    def __init__(
        self,
        temperature: Temperature = 0.07,
        *,
        pool: bool = False,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        self.logit_scale, self.pool = as_scale(temperature), pool

    def forward(
        self,
        tokens: Float[Tensor, "batch n dim"],
        pooled: Float[Tensor, "batch dim"],
        *,
        mask: Bool[Tensor, "batch n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean over samples of the mean over their real tokens."""
        x, m = self.embed(tokens.detach(), pooled)
        if self.pool:
            if mask is not None:
                raise ValueError("LocalMI(pool=True) averages all patches: it takes no mask")
            x = pool_patches(x)
        batch, n, _ = x.shape
        mask = torch.ones(batch, n, dtype=torch.bool, device=x.device) if mask is None else mask
        scale, sample = self.logit_scale(), self.sample_ids(m)
        stats = self.stats(
            m,
            x.flatten(0, 1),
            scale=scale,
            exclude=SameLabel(sample, sample.repeat_interleave(n)),
            valid_cols=mask.flatten(),
        )
        own = scale * (x * m[:, None]).sum(-1)
        losses = softplus_gap(stats.lse[:, None].expand_as(own), own)
        return self.mean(torch.where(mask, losses, 0.0).sum(1) / mask.sum(1).clamp_min(1))


def pool_patches(patches: Float[Tensor, "batch n dim"]) -> Float[Tensor, "batch cells dim"]:
    """A square grid of patches averaged over cells of c x c, c = floor(sqrt(side)), as TCL does: fewer, wider tokens.

    Raises `ValueError` when the patches form no square.

    >>> import torch
    >>> pool_patches(torch.arange(16.0).view(1, 16, 1)).flatten().tolist()
    [2.5, 4.5, 10.5, 12.5]
    """
    side = math.isqrt(patches.shape[1])
    if side**2 != patches.shape[1]:
        raise ValueError(f"patches to be pooled must form a square grid, got {patches.shape[1]} of them")
    if not patches.numel():
        return patches
    grid = patches.mT.unflatten(2, (side, side))
    return F.avg_pool2d(grid, math.isqrt(side)).flatten(2).mT


class TCL(ALBEFContrast):
    """Image-text contrast within, across and below the modalities (triple contrastive learning).

        L = (i2t + t2i + i2i + t2t + local_i + local_t) / 6

    i2t, t2i: as `ALBEFContrast` with distillation. i2i, t2t: one-hot against the same modality's momentum features (the
    image's from a second augmentation) and queue. local: `LocalMI` of each modality; left out (and the divisor with it)
    when no tokens are given.

    Call with image_tokens [batch, patches, dim] and text_tokens [batch, words, dim]: the momentum encoders' projected
    tokens, the pooled one left out (detached here; the official code gives them no gradient either).

    Args:
        dim, queue_size, temperature: as `ALBEFContrast`.
        pool: image tokens are a square grid of patches and are averaged over cells (`pool_patches`).

    Source: Yang et al. 2022, official code.

    >>> import torch
    >>> loss, z = TCL(dim=4, queue_size=0, temperature=1.0), torch.eye(4)
    >>> round(loss(z, z, z, z, alpha=0.0).item(), 4)
    0.7437
    """

    card = ObjectiveCard(
        paper="TCL 2022",
        needs="momentum encoders; own queues; optional momentum tokens, index",
        engine="contrast_stats, target_scores(Gibbs)",
        status="official numbers",
        checked="official numbers (uta-smile/TCL 74a3e4f), temperature and queues included",
    )

    def __init__(
        self,
        dim: int = 256,
        queue_size: int = 65536,
        temperature: Temperature | None = None,
        *,
        pool: bool = True,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(dim, queue_size, temperature, **engine)
        self.local = LocalMI(self.logit_scale, **engine)
        self.local_image = LocalMI(self.logit_scale, pool=pool, **engine)

    def forward(
        self,
        image: Float[Tensor, "batch dim"],
        text: Float[Tensor, "batch dim"],
        image_momentum: Float[Tensor, "batch dim"],
        text_momentum: Float[Tensor, "batch dim"],
        *,
        image_tokens: Float[Tensor, "batch patches dim"] | None = None,
        text_tokens: Float[Tensor, "batch words dim"] | None = None,
        text_mask: Bool[Tensor, "batch words"] | None = None,
        alpha: float = 0.4,
        index: Int[Tensor, "batch"] | None = None,
        group: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean of the six (or four) terms."""
        sides = self.sides(image, text, image_momentum, text_momentum, index if group is None else group)
        terms = [self.across(*sides, alpha), self.across(*reversed(sides), alpha)]
        terms += [self._within(side) for side in sides]
        if image_tokens is not None:
            terms.append(self.local_image(image_tokens, image))
        if text_tokens is not None:
            terms.append(self.local(text_tokens, text, mask=text_mask))
        self.push(*sides)
        return torch.stack(terms).mean()

    def _within(self, side: Side) -> Float[Tensor, ""]:
        exclude = None if side.ids is None else SameLabel(side.ids, side.key_ids)
        stats = self.local_stats(
            side.q, side.keys, scale=self.logit_scale(), positive=Diagonal(side.first), exclude=exclude
        )
        return self.mean(stats.lse - stats.positive if side.ids is None else softplus_gap(stats.lse, stats.positive))
