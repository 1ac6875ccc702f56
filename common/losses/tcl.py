"""TCL (triple contrastive learning): cross-modal, intra-modal and local mutual information."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from counterpoint.common.kernels import Diagonal, SameLabel
from counterpoint.common.losses.albef import ALBEFContrast, Side
from counterpoint.common.losses.base import Objective, softplus_gap
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.scale import Temperature, as_scale

__all__ = ["TCL", "LocalMI"]


class LocalMI(Objective):
    """Each local token should recognise its sample's global vector (TCL's local mutual-information term).

        L = mean_{i, l} -log( e^{x_il . m_i / T} / (e^{x_il . m_i / T} + sum_{j != i} sum_l' e^{x_jl' . m_i / T}) )

    One log-sum-exp over the other samples' tokens per global vector serves all tokens of the sample.

    Call with tokens [batch, n, dim], globals [batch, dim], mask [batch, n] (true: a real token). Mean over real tokens.

    Args:
        temperature: T or a `LogitScale`.

    Source: Yang et al. 2022. Image patches are average-pooled to a coarse grid beforehand, as the paper does.

    >>> import torch
    >>> m = torch.eye(2)
    >>> round(LocalMI(temperature=1.0)(m[:, None].expand(2, 3, 2), m).item(), 4)   # log(1 + 3 / e)
    0.7437
    """

    card = ObjectiveCard(
        paper="TCL 2022",
        needs="tokens and a global vector of each sample",
        engine="contrast_stats(SameLabel)",
        checked="written-out equation",
    )

    def __init__(
        self,
        temperature: Temperature = 0.07,
        *,
        normalize: bool = True,
        distributed: str = "none",
        backend: str = "auto",
    ):
        super().__init__(normalize=normalize, distributed=distributed, backend=backend)
        self.logit_scale = as_scale(temperature)

    def forward(
        self,
        tokens: Float[Tensor, "batch n dim"],
        pooled: Float[Tensor, "batch dim"],
        *,
        mask: Bool[Tensor, "batch n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean over real tokens."""
        x, m = self.embed(tokens, pooled)
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
        losses = softplus_gap(stats.lse[:, None].expand_as(own), own)[mask]
        return self.mean_over(losses.sum(), mask.sum())


class TCL(ALBEFContrast):
    """Image-text contrast within, across and below the modalities (triple contrastive learning).

        L = (i2t + t2i + i2i + t2t + local_i + local_t) / 6

    i2t, t2i: as `ALBEFContrast` with distillation. i2i, t2t: one-hot against the same modality's momentum features (the
    image's from a second augmentation) and queue. local: `LocalMI` of each modality; left out (and the divisor with it)
    when no tokens are given.

    Args:
        dim, queue_size, temperature: as `ALBEFContrast`.

    Source: Yang et al. 2022.

    >>> import torch
    >>> loss, z = TCL(dim=4, queue_size=0, temperature=1.0), torch.eye(4)
    >>> round(loss(z, z, z, z, alpha=0.0).item(), 4)
    0.7437
    """

    card = ObjectiveCard(
        paper="TCL 2022",
        needs="momentum encoders; own queues; optional tokens, index",
        engine="contrast_stats, target_scores(Gibbs)",
        checked="sum of its checked parts",
    )

    def __init__(
        self,
        dim: int = 256,
        queue_size: int = 65536,
        temperature: Temperature | None = None,
        *,
        normalize: bool = True,
        distributed: str = "none",
        backend: str = "auto",
    ):
        super().__init__(dim, queue_size, temperature, normalize=normalize, distributed=distributed, backend=backend)
        self.local = LocalMI(self.logit_scale, normalize=normalize, distributed=distributed, backend=backend)

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
            terms.append(self.local(image_tokens, image))
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
