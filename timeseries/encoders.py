"""The dilated convolution encoder of TS2Vec, which COMET uses too.

Yue et al., "TS2Vec: Towards Universal Representation of Time Series", AAAI 2022.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from counterpoint.common.errors import InputError
from counterpoint.timeseries.layers import Dropout, SameConv

WHOLE = slice(None)
MASKS = ("binomial", "continuous", "all_true", "mask_last")


def timestamp_mask(
    kind: str,
    batch: int,
    time: int,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
    probability: float = 0.5,
    spans: int = 5,
    span_length: float = 0.1,
) -> Bool[Tensor, "batch time"]:
    """Which latent timestamps are kept.

    `binomial` keeps each with `probability`; `continuous` hides `spans` stretches of `span_length` * time steps at
    random places (they may overlap); `all_true` keeps all; `mask_last` hides the last step (the anomaly protocol).

    >>> timestamp_mask("mask_last", 1, 4).tolist()
    [[True, True, True, False]]
    """
    if kind not in MASKS:
        raise InputError(f"timestamp mask {kind!r} is unknown; choose one of {', '.join(MASKS)}")
    if kind == "binomial":
        return (torch.rand(batch, time, generator=generator) < probability).to(device)
    keep = torch.ones(batch, time, dtype=torch.bool)
    if kind == "mask_last":
        keep[:, -1] = False
    elif kind == "continuous":
        length = max(int(span_length * time), 1)
        starts = torch.randint(time - length + 1, (batch, spans, 1), generator=generator)
        hidden = (starts + torch.arange(length)).flatten(1)
        keep.scatter_(1, hidden, False)
    return keep.to(device)


class ConvBlock(nn.Module):
    """x + conv(gelu(conv(gelu(x)))), with a pointwise shortcut where the width changes or `last` is set."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int, last: bool = False):
        super().__init__()
        self.conv1 = SameConv(inputs, outputs, kernel, dilation)
        self.conv2 = SameConv(outputs, outputs, kernel, dilation)
        self.shortcut = SameConv(inputs, outputs, 1) if inputs != outputs or last else nn.Identity()

    def forward(self, x: Float[Tensor, "batch time inputs"]) -> Float[Tensor, "batch time outputs"]:
        return self.conv2(F.gelu(self.conv1(F.gelu(x)))) + self.shortcut(x)


class StepEncoder(nn.Module):
    """A representation per timestamp: a linear input layer, masked latent steps, `blocks`, one dropout behind them.

        h_t = W x_t + b, 0 where masked or missing;   z = dropout(blocks(h))

    A timestamp with NaN in any channel counts as masked and enters as 0 (a lead that is missing altogether should be
    zero-filled by the caller, or every step would be masked). No randomness stands inside the blocks.

    Args:
        channels: input channels.
        hidden: width of the latent steps.
        blocks: [batch, time, hidden] -> [batch, time, dim].
        dim: output width.
        dropout: on the output.
    """

    def __init__(self, channels: int, hidden: int, blocks: nn.Module, dim: int, dropout: float):
        super().__init__()
        self.dim = dim
        self.input = nn.Linear(channels, hidden)
        self.blocks = blocks
        self.dropout = Dropout(dropout)

    def project(self, x: Float[Tensor, "batch time channels"]) -> Float[Tensor, "batch time hidden"]:
        """The input layer: the part that all passes over one batch share; NaN steps come out as 0."""
        bad = torch.isnan(x).any(-1, keepdim=True)
        return self.input(x.nan_to_num()).masked_fill(bad, 0.0)

    def blocks_only(
        self, h: Float[Tensor, "batch time hidden"], steps: slice = WHOLE
    ) -> Float[Tensor, "batch steps dim"]:
        """The blocks without the dropout behind them: no randomness, so equal inputs may share one pass. Only the given
        `steps` come out."""
        return self.blocks(h)[:, steps]

    def latent(self, h: Float[Tensor, "batch time hidden"], steps: slice = WHOLE) -> Float[Tensor, "batch steps dim"]:
        """The blocks and the dropout, from (masked) latent timestamps."""
        return self.dropout(self.blocks_only(h, steps))

    def forward(
        self,
        x: Float[Tensor, "batch time channels"],
        keep: Bool[Tensor, "batch time"] | None = None,
        steps: slice = WHOLE,
    ) -> Float[Tensor, "batch steps dim"]:
        h = self.project(x)
        return self.latent(h if keep is None else h * keep[..., None], steps)


class TS2VecEncoder(StepEncoder):
    """One representation per timestamp: linear input layer, masked latent steps, residual blocks of dilation 2^i.

        h_t = W x_t + b, 0 where masked;   h <- block_i(h), i = 0..depth (the last one widens to `dim`);   dropout

    Args:
        channels: input channels.
        dim: output width (320 in the paper).
        hidden: width of the blocks (64).
        depth: blocks before the widening one (10); at kernel 3 a step sees 1 + 4 (2^(depth + 1) - 1) steps.
        dropout: on the output (0.1).

    >>> TS2VecEncoder(3, dim=16, hidden=8, depth=2)(torch.zeros(2, 20, 3)).shape
    torch.Size([2, 20, 16])
    """

    def __init__(
        self, channels: int, dim: int = 320, hidden: int = 64, depth: int = 10, kernel: int = 3, dropout: float = 0.1
    ):
        widths = [hidden] * (depth + 1) + [dim]
        # The input layer is drawn first, as checkpoints and seeds know it.
        super().__init__(channels, hidden, nn.Identity(), dim, dropout)
        self.blocks = nn.Sequential(
            *(ConvBlock(widths[i], widths[i + 1], kernel, 2**i, last=i == depth) for i in range(depth + 1))
        )

    def blocks_only(
        self, h: Float[Tensor, "batch time hidden"], steps: slice = WHOLE
    ) -> Float[Tensor, "batch steps dim"]:
        """The residual blocks without the dropout behind them.

        When the last block's dilation exceeds the window, its side taps meet padding alone and it acts on each step by
        itself: the steps that are not asked for then never enter it.
        """
        if steps == WHOLE or self.blocks[-1].conv1.dilation[0] < h.shape[1]:
            return self.blocks(h)[:, steps]
        return self.blocks[-1](self.blocks[:-1](h)[:, steps])


def pool_series(
    z: Float[Tensor, "batch time dim"], x: Float[Tensor, "batch time channels"] | None = None
) -> Float[Tensor, "batch dim"]:
    """The representation of a whole series: the maximum over time (TS2Vec's `full_series`).

    With the series `x` that `z` represents, steps that the encoder masked (NaN: gaps, padding) are no data and take no
    part; a series of nothing else is pooled whole.

    >>> z = torch.tensor([[[1.0], [2.0], [9.0]]])
    >>> pool_series(z, torch.tensor([[[0.1], [0.2], [torch.nan]]])).item()
    2.0
    """
    if x is None:
        return z.amax(1)
    hidden = torch.isnan(x).any(-1)
    hidden = hidden & ~hidden.all(1, keepdim=True)
    return z.masked_fill(hidden[..., None], -torch.inf).amax(1)
