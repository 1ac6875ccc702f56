"""Networks of the field: a small 3D encoder over HU windows, and a transformer over word pieces."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from counterpoint.medical.configs import ReportTextConfig
from counterpoint.medical.tokens import PAD


class Windows(nn.Module):
    """HU through several windows, as radiologists look at a CT: one channel each, clamped at 1.5 half widths.

    >>> Windows(((0.0, 100.0),))(torch.tensor([[[[50.0]]]])).flatten().tolist()
    [0.5]
    """

    def __init__(self, windows: Sequence[tuple[float, float]]) -> None:
        super().__init__()
        made = torch.tensor([list(w) for w in windows], dtype=torch.float32)
        self.register_buffer("centre", made[:, 0].view(1, -1, 1, 1, 1), persistent=False)
        self.register_buffer("reach", made[:, 1].view(1, -1, 1, 1, 1), persistent=False)

    def forward(self, ct: Float[Tensor, "batch x y z"]) -> Float[Tensor, "batch windows x y z"]:
        return ((ct[:, None] - self.centre) / self.reach).clamp(-1.5, 1.5)


class VolumeResidual(nn.Module):
    """x + conv(relu(norm(conv(x))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(width, width, 3, padding=1, bias=False), nn.BatchNorm3d(width), nn.ReLU(),
            nn.Conv3d(width, width, 3, padding=1, bias=False), nn.BatchNorm3d(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class VolumeEncoder(nn.Module):
    """Three strided stages; mean and maximum of the last, and of the middle one by regions of a 3 x 3 x 3 grid.

    The regions keep what is where (right, left, upper, lower), which a mean over the body forgets. Batch normalisation:
    one that rescales every volume by itself hides absolute HU.
    """

    def __init__(self, windows: Sequence[tuple[float, float]], channels: Sequence[int], dim: int) -> None:
        super().__init__()
        a, b, c = channels
        self.windows = Windows(windows)
        self.stem = _stage(len(windows), a, 5)
        self.middle = nn.Sequential(_stage(a, b, 3), VolumeResidual(b))
        self.last = nn.Sequential(_stage(b, c, 3), VolumeResidual(c))
        self.project = nn.Sequential(nn.Linear(2 * c + 54 * b, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))

    def maps(self, ct: Float[Tensor, "batch x y z"]) -> tuple[Tensor, Tensor]:
        """(a quarter of the resolution, an eighth of it)."""
        middle = self.middle(self.stem(self.windows(ct)))
        return middle, self.last(middle)

    def pooled(self, ct: Float[Tensor, "batch x y z"]) -> Float[Tensor, "batch features"]:
        """What the projection reads."""
        middle, last = self.maps(ct)
        return pool_stages(middle, last)

    def forward(self, ct: Float[Tensor, "batch x y z"]) -> Float[Tensor, "batch dim"]:
        return self.project(self.pooled(ct))


def pool_stages(middle: Tensor, last: Tensor) -> Float[Tensor, "batch features"]:
    """Mean and maximum of the last stage, and of the regions of the middle one."""
    regions = [regional(middle, 3, how).flatten(1) for how in ("mean", "amax")]
    return torch.cat([last.mean((2, 3, 4)), last.amax((2, 3, 4)), *regions], 1)


def regional(x: Float[Tensor, "batch width x y z"], n: int, how: str) -> Float[Tensor, "batch width n n n"]:
    """`mean` or `amax` of the regions of an n x n x n grid, as adaptive pooling; written as plain reductions where the
    sizes are multiples of n, since ONNX has no adaptive maximum.

    >>> regional(torch.arange(8.0).view(1, 1, 2, 2, 2), 1, "amax").item()
    7.0
    """
    if any(size % n for size in x.shape[2:]):
        return (F.adaptive_avg_pool3d if how == "mean" else F.adaptive_max_pool3d)(x, n)
    a, b, c = (size // n for size in x.shape[2:])
    blocks = x.reshape(*x.shape[:2], n, a, n, b, n, c)
    return getattr(blocks, how)((3, 5, 7))


def _stage(inputs: int, width: int, kernel: int) -> nn.Sequential:
    conv = nn.Conv3d(inputs, width, kernel, stride=2, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm3d(width), nn.ReLU())


class ReportEncoder(nn.Module):
    """Word pieces through transformer blocks (pre-norm), sentence by sentence; the mean and the maximum of all pieces'
    states, projected.

    A piece attends to the pieces of its own sentence, and its place is counted within it: a report is what its
    sentences say, in whatever order. Padding is neither attended to nor pooled, so that a text's embedding does not
    depend on its batch.
    """

    def __init__(self, vocabulary: int, length: int, config: ReportTextConfig, dim: int) -> None:
        super().__init__()
        self.pieces = nn.Embedding(vocabulary, config.width, padding_idx=PAD)
        self.places = nn.Parameter(0.02 * torch.randn(length, config.width))
        nn.init.normal_(self.pieces.weight, std=0.05)
        self.blocks = nn.ModuleList(TextBlock(config.width, config.heads, config.dropout) for _ in range(config.layers))
        self.norm = nn.LayerNorm(2 * config.width)
        self.project = nn.Sequential(nn.Linear(2 * config.width, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))

    def forward(
        self, tokens: Int[Tensor, "batch length"], sentence_of: Int[Tensor, "batch length"] | None = None
    ) -> Float[Tensor, "batch dim"]:
        """Without `sentence_of` every text is one sentence."""
        kept = tokens != PAD
        # No row is attended to or computed beyond the longest text of the batch.
        longest = used_length(kept)
        tokens, kept = tokens[:, :longest], kept[:, :longest]
        of = torch.where(kept, 0, -1) if sentence_of is None else sentence_of[:, :longest]
        states = self.pieces(tokens) + self.places[places_within(of)]
        mask = (of[:, :, None] == of[:, None, :]) & kept[:, None] | torch.eye(
            longest, dtype=torch.bool, device=of.device
        )
        for block in self.blocks:
            states = block(states, mask)
        shown = kept[..., None]
        mean = (states * shown).sum(1) / shown.sum(1).clamp_min(1)
        highest = states.masked_fill(~shown, -1e4).amax(1)
        return self.project(self.norm(torch.cat([mean, highest], 1)))


def places_within(sentence_of: Int[Tensor, "batch length"]) -> Int[Tensor, "batch length"]:
    """The place of every piece in its sentence, from 0.

    >>> places_within(torch.tensor([[0, 0, 1, 1, 1, -1]])).tolist()
    [[0, 1, 0, 1, 2, 0]]
    """
    same = sentence_of[:, :, None] == sentence_of[:, None, :]
    return same.long().tril(-1).sum(2) * (sentence_of >= 0)


def used_length(kept: Bool[Tensor, "batch length"]) -> int:
    """Length of the longest text of a batch, so that none of its padding is computed; an exported network, whose shapes
    may not depend on values, takes all of it."""
    if torch.compiler.is_exporting() or not len(kept):
        return kept.shape[1]
    return max(int(kept.sum(1).max()), 1)


class TextBlock(nn.Module):
    """A pre-norm transformer block with a mask of who attends to whom."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Float[Tensor, "batch n width"], mask: Bool[Tensor, "batch n n"]) -> Tensor:
        b, n, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        rate = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None], dropout_p=rate)
        x = x + F.dropout(self.out(mixed.transpose(1, 2).reshape(b, n, width)), rate)
        return x + F.dropout(self.mlp(self.norm2(x)), rate)
