"""CoCa: contrastive plus captioning."""

from typing import Unpack

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from counterpoint.common.losses.base import Objective
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.infonce import InfoNCE
from counterpoint.common.losses.scale import Temperature
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["CoCa"]


class CoCa(Objective):
    """Contrast the pooled embeddings and caption with the decoder, in one loss (CoCa).

        L = contrast_weight InfoNCE(image, text) + caption_weight mean_tokens CE(logits, caption)

    Padding tokens (`pad_id`) carry no loss. Captions without a single token give zero for the second term.

    Args:
        contrast_weight, caption_weight: 1 and 2 (our reading of the paper).
        pad_id: 0 in the open_clip port.
        temperature: of the contrastive term.

    Source: Yu et al. 2022; the open_clip port in fast_clip.

    >>> import torch
    >>> z, logits, caption = torch.eye(4), torch.zeros(4, 3, 7), torch.ones(4, 3, dtype=torch.long)
    >>> round(CoCa(temperature=1.0)(z, z, logits, caption).item(), 4)   # 0.7437 + 2 log 7
    4.6355
    """

    card = ObjectiveCard(
        paper="CoCa 2022",
        needs="pairs; decoder logits and caption tokens",
        engine="as InfoNCE",
        status="equation",
        checked="sum of InfoNCE (official numbers) and torch's cross-entropy (no code of the authors is public)",
    )

    def __init__(
        self,
        temperature: Temperature = 0.07,
        *,
        contrast_weight: float = 1.0,
        caption_weight: float = 2.0,
        pad_id: int = 0,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        self.contrast = InfoNCE(temperature, **engine)
        self.contrast_weight, self.caption_weight, self.pad_id = contrast_weight, caption_weight, pad_id

    def forward(
        self,
        image: Float[Tensor, "batch dim"],
        text: Float[Tensor, "batch dim"],
        logits: Float[Tensor, "batch tokens vocabulary"],
        caption: Int[Tensor, "batch tokens"],
        *,
        group: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, ""]:
        """The weighted sum; both terms lie in `monitors`."""
        contrast = self.contrast(image, text, group=group)
        logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        total = F.cross_entropy(logits.flatten(0, 1), caption.flatten(), ignore_index=self.pad_id, reduction="sum")
        words = self.mean_over(total, (caption != self.pad_id).sum())
        self.monitors.update(contrast=contrast.detach(), caption=words.detach())
        return self.contrast_weight * contrast + self.caption_weight * words
