"""SSMA: a gate that says, place by place and channel by channel, how much of each sensor's features counts.

Valada, Mohan, Burgard, "Self-Supervised Model Adaptation for Multimodal Semantic Segmentation", IJCV 2019. Written from
the method's description; the authors' code (TensorFlow, GPL) was not read.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

Map = Float[Tensor, "batch dim rows columns"]


class SSMA(nn.Module):
    """With x = [a; b] the features of both sensors, C channels each,

        g = sigmoid(W_2 * ReLU(W_1 * x)),      out = BN(W_3 * (g . x))

    W_1: 2C to 2C / eta, W_2: back to 2C, W_3: to C; convolutions of 3 x 3.

    Args:
        dim: C.
        reduction: eta; 16 for wide maps, as published.

    >>> fusion = SSMA(32)
    >>> fusion(torch.zeros(2, 32, 4, 6), torch.zeros(2, 32, 4, 6)).shape
    torch.Size([2, 32, 4, 6])
    """

    def __init__(self, dim: int, reduction: int = 16) -> None:
        super().__init__()
        narrow = max(2 * dim // reduction, 1)
        self.squeeze = nn.Conv2d(2 * dim, narrow, 3, padding=1)
        self.excite = nn.Conv2d(narrow, 2 * dim, 3, padding=1)
        self.mix = nn.Conv2d(2 * dim, dim, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(dim)

    def gate(self, a: Map, b: Map) -> Float[Tensor, "batch both rows columns"]:
        """g: the first C channels weigh `a`, the others `b`."""
        return torch.sigmoid(self.excite(torch.relu(self.squeeze(torch.cat([a, b], 1)))))

    def forward(self, a: Map, b: Map) -> Map:
        return self.norm(self.mix(self.gate(a, b) * torch.cat([a, b], 1)))
