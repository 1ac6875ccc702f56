"""Projection heads between the encoder, which is kept, and the loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Projector(nn.Module):
    r"""MLP head :math:`g(h) = W_L\,\sigma(\ldots W_1 h)`, hidden layers with normalisation and activation.

    `fixed_reweight` kappa multiplies output k by kappa^k, not trained: the fixed diagonal head of "Investigating the
    Benefits of Projection Head for Representation Learning" (ICLR 2024), in our reading. Its lesson is also why
    `layers()` exists: probe before the head when the augmentations do not fit the task.

    Shapes: `[..., in_dim] -> [..., out_dim]` (with `norm="batch"`: `[batch, in_dim]`).

    Args:
        in_dim, hidden_dim, out_dim: widths.
        n_layers: linear layers; 0 is the identity (then in_dim == out_dim).
        norm: `batch`, `layer` or `none`, after every hidden layer.
        last_norm: also normalise the output (BYOL-style heads do not, SimCLR v2's and Barlow Twins' do).
        bias: of the last layer.
        fixed_reweight: kappa in (0, 1].

    >>> Projector(32, 64, 16)(torch.zeros(4, 32)).shape
    torch.Size([4, 16])
    """

    def __init__(
        self,
        in_dim: int,
        hidden_dim: int,
        out_dim: int,
        n_layers: int = 2,
        norm: str = "batch",
        last_norm: bool = False,
        bias: bool = True,
        fixed_reweight: float | None = None,
    ) -> None:
        super().__init__()
        norms = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm, "none": lambda width: nn.Identity()}
        if norm not in norms:
            raise ValueError(f"norm is one of {', '.join(norms)}, not {norm!r}")
        if n_layers == 0 and in_dim != out_dim:
            raise ValueError(f"a head without layers keeps the width: in_dim {in_dim} != out_dim {out_dim}")
        if fixed_reweight is not None and not 0 < fixed_reweight <= 1:
            raise ValueError(f"fixed_reweight is in (0, 1], got {fixed_reweight}")
        widths = [in_dim] + [hidden_dim] * (n_layers - 1) + [out_dim]
        self.blocks = nn.ModuleList()
        for i in range(n_layers):
            last = i == n_layers - 1
            parts: list[nn.Module] = [nn.Linear(widths[i], widths[i + 1], bias=bias if last else norm == "none")]
            if not last or last_norm:
                parts.append(norms[norm](widths[i + 1]))
            if not last:
                parts.append(nn.ReLU())
            self.blocks.append(nn.Sequential(*parts))
        scale = None if fixed_reweight is None else fixed_reweight ** torch.arange(out_dim, dtype=torch.float32)
        self.register_buffer("reweight", scale)

    def layers(self, h: Float[Tensor, "*batch in_dim"]) -> list[Float[Tensor, "*batch width"]]:
        """Input and every layer's output, for probing."""
        outputs = [h]
        for block in self.blocks:
            outputs.append(block(outputs[-1]))
        if self.reweight is not None:
            outputs[-1] = outputs[-1] * self.reweight
        return outputs

    def forward(self, h: Float[Tensor, "*batch in_dim"]) -> Float[Tensor, "*batch out_dim"]:
        return self.layers(h)[-1]


class MultiHead(nn.Module):
    """Several heads of one form and different weights over the same features (AMCL's projection heads).

    Shapes: `[batch, width] -> [heads, batch, out]`; given `[heads, batch, width]`, every head sees its own part (a
    predictor behind projection heads).

    Args:
        heads, make: how many, and a function that makes one.

    >>> MultiHead(3, lambda: Projector(8, 16, 4))(torch.zeros(5, 8)).shape
    torch.Size([3, 5, 4])
    """

    def __init__(self, heads: int, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        if heads < 1:
            raise ValueError(f"heads must be at least 1, got {heads}")
        self.heads = nn.ModuleList(make() for _ in range(heads))

    def forward(self, h: Float[Tensor, "*heads batch width"]) -> Float[Tensor, "heads batch out"]:
        parts = h if h.dim() == 3 else [h] * len(self.heads)
        if len(parts) != len(self.heads):
            raise ValueError(f"{len(self.heads)} heads were given {len(parts)} parts")
        return torch.stack([head(part) for head, part in zip(self.heads, parts, strict=True)])
