"""Modalities that some samples lack: a placeholder and an indicator tell the encoder so."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

__all__ = ["MissingIndicator"]


class MissingIndicator(nn.Module):
    r"""Gives an encoder the input :math:`[m_i x_i + (1-m_i) c;\, 1-m_i]`, c a placeholder, m whether it is there.

    So one model trains on samples that lack modalities: what it embeds for a missing one says "unknown", and the
    objective (Symile) relates whichever modalities are present. With a placeholder outside of the data's support (a
    token of its own, `indicator=False`) the indicator is not needed. The encoder must be able to tell: a linear one
    tells by the indicator.

    Shapes: `x [batch, *places, features]`, `present [batch]`; the encoder sees one feature more where there is an
    indicator. Entries of missing samples may hold anything, NaN too.

    Args:
        encoder: what follows.
        placeholder: stands in for every feature of a missing sample; "learn": a learnt vector.
        features: width of the input, needed to learn the placeholder.
        indicator: whether the encoder is also told.

    Source: Symile (Saporta et al. 2024), missing data; rajesh-lab/symile, examples/binary_xor_missing.py.

    >>> layer = MissingIndicator(nn.Identity(), placeholder=0.5)
    >>> layer(torch.tensor([[1.0], [float("nan")]]), torch.tensor([True, False]))
    tensor([[1.0000, 0.0000],
            [0.5000, 1.0000]])
    """

    def __init__(
        self, encoder: nn.Module, placeholder: float | str = 0.0, *, features: int | None = None, indicator: bool = True
    ) -> None:
        super().__init__()
        if placeholder == "learn" and features is None:
            raise ValueError("a learnt placeholder needs the width of the input: give features")
        if isinstance(placeholder, str) and placeholder != "learn":
            raise ValueError(f"placeholder is a number or 'learn', got {placeholder!r}")
        self.encoder, self.indicator = encoder, indicator
        self.constant = 0.0 if isinstance(placeholder, str) else float(placeholder)
        self.placeholder = nn.Parameter(torch.zeros(features or 1)) if placeholder == "learn" else None

    def forward(self, x: Float[Tensor, "batch *places features"], present: Bool[Tensor, batch] | None = None) -> Tensor:
        """The encoder's output; without `present` every sample has the modality."""
        if present is None:
            present = torch.ones(len(x), dtype=torch.bool, device=x.device)
        there = present.view(-1, *[1] * (x.dim() - 1))
        fill = x.new_full((), self.constant) if self.placeholder is None else self.placeholder.to(x.dtype)
        x = torch.where(there, x, fill)
        if self.indicator:
            x = torch.cat([x, (~there).to(x.dtype).expand(*x.shape[:-1], 1)], -1)
        return self.encoder(x)
