"""Networks of M3AE: a picture and a text transformer, co-attention between them, and the heads.

Read in zhjohnchan/M3AE at 14da377 (`modules/m3ae_module.py`, `prediction_heads.py`, `vision_encoders/clip_model.py`,
`language_encoders/bert_model.py`). The picture tower is CLIP's, of which the released code builds one block fewer than
it is told (`layers - 1`); its reconstruction head therefore has four blocks. Layer norms here keep the precision of
their input, there they compute in single precision.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from counterpoint.medical.tokens import PAD


class PostNormAttention(nn.Module):
    """BERT's attention of `x` to `memory`, with what it adds to x normalised: LN(x + W softmax(q k^T / sqrt(d)) v)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out, self.norm = nn.Linear(width, width), nn.LayerNorm(width, eps=1e-12)

    def forward(
        self,
        x: Float[Tensor, "batch n width"],
        memory: Float[Tensor, "batch m width"],
        kept: Bool[Tensor, "batch m"] | None = None,
    ) -> Float[Tensor, "batch n width"]:
        """`kept` says which places of `memory` are attended to."""
        q, k, v = (
            part(z).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part, z in ((self.query, x), (self.key, memory), (self.value, memory))
        )
        rate = self.dropout if self.training else 0.0
        mask = None if kept is None else kept[:, None, None, :]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate)
        return self.norm(x + F.dropout(self.out(mixed.transpose(1, 2).flatten(2)), rate))


class PostNormFeed(nn.Module):
    """LN(x + W2 gelu(W1 x))."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm, self.dropout = nn.LayerNorm(width, eps=1e-12), dropout

    def forward(self, x: Tensor) -> Tensor:
        rate = self.dropout if self.training else 0.0
        return self.norm(x + F.dropout(self.down(F.gelu(self.up(x))), rate))


class WordLayer(nn.Module):
    """A block of BERT."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention, self.feed = PostNormAttention(width, heads, dropout), PostNormFeed(width, dropout)

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:
        return self.feed(self.attention(x, x, kept))


class CoAttention(nn.Module):
    """A block of one stream that looks at itself, then at the other stream."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention, self.cross = (PostNormAttention(width, heads, dropout) for _ in range(2))
        self.feed = PostNormFeed(width, dropout)

    def forward(self, x: Tensor, other: Tensor, kept: Tensor | None, other_kept: Tensor | None) -> Tensor:
        return self.feed(self.cross(self.attention(x, x, kept), other, other_kept))


class WordTower(nn.Module):
    """BERT: pieces, places and one kind of token, then blocks."""

    def __init__(self, vocabulary: int, length: int, width: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.pieces, self.places = nn.Embedding(vocabulary, width, padding_idx=PAD), nn.Embedding(length, width)
        self.kind = nn.Parameter(torch.zeros(width))
        self.norm, self.dropout = nn.LayerNorm(width, eps=1e-12), nn.Dropout(dropout)
        self.layers = nn.ModuleList(WordLayer(width, heads, dropout) for _ in range(layers))

    def forward(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length width"]:
        x = self.pieces(tokens) + self.places.weight[: tokens.shape[1]] + self.kind
        x, kept = self.dropout(self.norm(x)), tokens != PAD
        for layer in self.layers:
            x = layer(x, kept)
        return x


class PreNormBlock(nn.Module):
    """A block of CLIP: x + attention(LN(x)), then x + W2 g(W1 LN(x)) with g(z) = z sigmoid(1.702 z)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        z = self.ln_1(x)
        x = x + self.attn(z, z, z, need_weights=False)[0]
        z = self.up(self.ln_2(x))
        return x + self.down(z * torch.sigmoid(1.702 * z))


class PatchTower(nn.Module):
    """CLIP's picture transformer. `patches` are embedded with their places before some of them are taken away."""

    def __init__(self, size: int, patch: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        scale = width**-0.5
        self.conv = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.cls = nn.Parameter(scale * torch.randn(width))
        self.places = nn.Parameter(scale * torch.randn((size // patch) ** 2 + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.layers = nn.ModuleList(PreNormBlock(width, heads) for _ in range(layers))

    def patches(self, pictures: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch patches width"]:
        """Embedded patches with their places, without [CLS]."""
        return self.conv(pictures).flatten(2).transpose(1, 2) + self.places[1:]

    def forward(self, patches: Float[Tensor, "batch n width"]) -> Float[Tensor, "batch n+1 width"]:
        """[CLS] and the given patches through the blocks."""
        cls = (self.cls + self.places[0]).expand(len(patches), 1, -1)
        x = self.ln_pre(torch.cat([cls, patches], 1))
        for layer in self.layers:
            x = layer(x)
        return self.ln_post(x)


class PatchRestorer(nn.Module):
    """The head that restores patches: linear, a learnt token where one was taken away, sine places, blocks, linear."""

    def __init__(self, width: int, grid: int, patch: int, decoder: int, layers: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Linear(width, decoder)
        self.mask_token = nn.Parameter(0.02 * torch.randn(decoder))
        self.register_buffer("places", sine_places(decoder, grid), persistent=False)
        self.layers = nn.ModuleList(PreNormBlock(decoder, heads) for _ in range(layers))
        self.norm, self.out = nn.LayerNorm(decoder), nn.Linear(decoder, 3 * patch**2)

    def forward(
        self, states: Float[Tensor, "batch kept width"], restore: Int[Tensor, "batch patches"]
    ) -> Float[Tensor, "batch patches values"]:
        """`states` are [CLS] and the patches that were kept; `restore` the place of every patch in their order."""
        x = self.embed(states)
        missing = restore.shape[1] + 1 - x.shape[1]
        shown = torch.cat([x[:, 1:], self.mask_token.to(x).expand(len(x), missing, -1)], 1)
        shown = shown.gather(1, restore[..., None].expand(-1, -1, x.shape[2]))
        x = torch.cat([x[:, :1], shown], 1) + self.places.to(x)
        for layer in self.layers:
            x = layer(x)
        return self.out(self.norm(x))[:, 1:]


def sine_places(width: int, grid: int) -> Float[Tensor, "places width"]:
    """[1 + grid^2, width] sine and cosine of column and row, the first half of the width for columns; zeros for [CLS].

    >>> [round(v, 2) for v in sine_places(8, 2)[2].tolist()]  # column 1, row 0
    [0.84, 0.01, 0.54, 1.0, 0.0, 0.0, 1.0, 1.0]
    """
    omega = 10000 ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    line = torch.arange(grid, dtype=torch.float64)[:, None] * omega
    waves = torch.cat([line.sin(), line.cos()], 1)
    whole = torch.cat([waves.repeat(grid, 1), waves.repeat_interleave(grid, 0)], 1)
    return torch.cat([torch.zeros(1, width, dtype=torch.float64), whole]).float()


class PiecePredictor(nn.Module):
    """Of every place the logits over the vocabulary: linear, gelu, LN, linear."""

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.dense, self.norm = nn.Linear(width, width), nn.LayerNorm(width, eps=1e-12)
        self.out = nn.Linear(width, vocabulary)

    def forward(self, states: Tensor) -> Tensor:
        return self.out(self.norm(F.gelu(self.dense(states))))


def split_patches(pictures: Float[Tensor, "batch 3 size size"], patch: int) -> Float[Tensor, "batch patches values"]:
    """Patches row by row; of each its rows, columns and channels, in this order.

    >>> split_patches(torch.arange(12.0).view(1, 3, 2, 2), 2).tolist()
    [[[0.0, 4.0, 8.0, 1.0, 5.0, 9.0, 2.0, 6.0, 10.0, 3.0, 7.0, 11.0]]]
    """
    b, c, h, w = pictures.shape
    parts = pictures.view(b, c, h // patch, patch, w // patch, patch)
    return parts.permute(0, 2, 4, 3, 5, 1).reshape(b, -1, c * patch**2)


def init_bert(module: nn.Module) -> None:
    """Weights of linear maps and embeddings from N(0, .02^2), biases 0."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
