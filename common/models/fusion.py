"""Network parts of image-text models: text encoder, cross-modal fusion, causal caption decoder, attentional pooler.

Blocks normalise before each part (ALBEF's and TCL's BERT after it). What stands for the picture is a sequence of
features of its places, whatever encoder they come from.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

__all__ = ["AttentionalPooler", "CaptionDecoder", "FusionEncoder", "PlaceEncoder", "TextEncoder", "TransformerBlock"]


class TransformerBlock(nn.Module):
    """x += attention(norm(x)); with a context x += attention(norm(x) to context); x += mlp(norm(x)).

    >>> TransformerBlock(8, 2, context_dim=6)(torch.zeros(2, 5, 8), context=torch.zeros(2, 3, 6)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, dim: int, heads: int, context_dim: int | None = None, expansion: int = 4) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(dim), nn.MultiheadAttention(dim, heads, batch_first=True)
        self.cross_norm = self.cross = None
        if context_dim is not None:
            self.cross_norm = nn.LayerNorm(dim)
            self.cross = nn.MultiheadAttention(dim, heads, kdim=context_dim, vdim=context_dim, batch_first=True)
        hidden = expansion * dim
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(
        self,
        x: Float[Tensor, "batch n dim"],
        *,
        padding: Bool[Tensor, "batch n"] | None = None,
        causal: bool = False,
        context: Float[Tensor, "batch m context_dim"] | None = None,
    ) -> Float[Tensor, "batch n dim"]:
        """`padding` is true where a place holds nothing; `causal`: a place sees itself and those before."""
        y = self.norm(x)
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1) if causal else None
        x = x + self.attention(y, y, y, key_padding_mask=padding, attn_mask=later, need_weights=False)[0]
        if self.cross is not None and context is not None:
            x = x + self.cross(self.cross_norm(x), context, context, need_weights=False)[0]
        return x + self.mlp(x)


def _drawn(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(*shape).normal_(std=0.02))


class PlaceEncoder(nn.Module):
    """Features of a picture's places, after a learnt token that stands for all of them: [batch, 1 + places, dim].

    >>> PlaceEncoder(6, 8, places=4, layers=1, heads=2)(torch.zeros(3, 4, 6)).shape
    torch.Size([3, 5, 8])
    """

    def __init__(self, features: int, dim: int, places: int, layers: int, heads: int) -> None:
        super().__init__()
        self.project, self.whole, self.place = nn.Linear(features, dim), _drawn(1, 1, dim), _drawn(1, places, dim)
        self.blocks = nn.ModuleList(TransformerBlock(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Float[Tensor, "batch places features"]) -> Float[Tensor, "batch places_1 dim"]:
        x = self.project(x) + self.place
        x = torch.cat([self.whole.expand(x.shape[0], -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class _Words(nn.Module):
    """Embeddings of words and their places; word 0 is padding."""

    def __init__(self, vocabulary: int, length: int, dim: int) -> None:
        super().__init__()
        self.word, self.place = nn.Embedding(vocabulary, dim, padding_idx=0), _drawn(1, length, dim)
        nn.init.normal_(self.word.weight, std=0.02)

    def forward(self, words: Int[Tensor, "batch n"]) -> Float[Tensor, "batch n dim"]:
        return self.word(words) + self.place[:, : words.shape[1]]


class TextEncoder(nn.Module):
    """Words to states, every word seeing all others: the text-only layers of ALBEF. Word 0 is padding.

    >>> TextEncoder(10, 7, 8, layers=1, heads=2)(torch.tensor([[1, 4, 2, 0]])).shape
    torch.Size([1, 4, 8])
    """

    def __init__(self, vocabulary: int, length: int, dim: int, layers: int, heads: int) -> None:
        super().__init__()
        self.words = _Words(vocabulary, length, dim)
        self.blocks = nn.ModuleList(TransformerBlock(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, words: Int[Tensor, "batch n"]) -> Float[Tensor, "batch n dim"]:
        x = self.words(words)
        for block in self.blocks:
            x = block(x, padding=words == 0)
        return self.norm(x)


class FusionEncoder(nn.Module):
    """Text states that look at a picture: the multimodal layers of ALBEF.

    >>> FusionEncoder(8, 6, layers=1, heads=2)(torch.zeros(2, 3, 8), torch.zeros(2, 5, 6)).shape
    torch.Size([2, 3, 8])
    """

    def __init__(self, dim: int, context_dim: int, layers: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(TransformerBlock(dim, heads, context_dim) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        states: Float[Tensor, "batch n dim"],
        context: Float[Tensor, "batch m context_dim"],
        padding: Bool[Tensor, "batch n"] | None = None,
    ) -> Float[Tensor, "batch n dim"]:
        for block in self.blocks:
            states = block(states, padding=padding, context=context)
        return self.norm(states)


class AttentionalPooler(nn.Module):
    """Learnt queries that attend to all places: one for the contrast, many for the captions (CoCa).

    >>> AttentionalPooler(6, 8, queries=3, heads=2)(torch.zeros(2, 5, 6)).shape
    torch.Size([2, 3, 8])
    """

    def __init__(self, context_dim: int, dim: int, queries: int, heads: int) -> None:
        super().__init__()
        self.queries = _drawn(1, queries, dim)
        self.attention = nn.MultiheadAttention(dim, heads, kdim=context_dim, vdim=context_dim, batch_first=True)
        self.norm = nn.LayerNorm(dim)

    def forward(self, context: Float[Tensor, "batch m context_dim"]) -> Float[Tensor, "batch queries dim"]:
        queries = self.queries.expand(context.shape[0], -1, -1)
        return self.norm(self.attention(queries, context, context, need_weights=False)[0])


class CaptionDecoder(nn.Module):
    """A causal text decoder in two halves: text alone, then text that looks at the picture (CoCa).

    A learnt token behind the words sums the text up for the contrast: it sees all words, none sees it.

    >>> decoder = CaptionDecoder(10, 7, 8, 6, text_layers=1, fusion_layers=1, heads=2)
    >>> states, whole = decoder.text(torch.tensor([[1, 4, 2, 0]]))
    >>> decoder.logits(states, torch.zeros(1, 5, 6)).shape, whole.shape
    (torch.Size([1, 4, 10]), torch.Size([1, 8]))
    """

    def __init__(
        self, vocabulary: int, length: int, dim: int, context_dim: int, text_layers: int, fusion_layers: int, heads: int
    ) -> None:
        super().__init__()
        self.words, self.whole = _Words(vocabulary, length, dim), _drawn(1, 1, dim)
        self.blocks = nn.ModuleList(TransformerBlock(dim, heads) for _ in range(text_layers))
        self.fusion = nn.ModuleList(TransformerBlock(dim, heads, context_dim) for _ in range(fusion_layers))
        self.text_norm, self.norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.out = nn.Linear(dim, vocabulary, bias=False)

    def text(self, words: Int[Tensor, "batch n"]) -> tuple[Float[Tensor, "batch n dim"], Float[Tensor, "batch dim"]]:
        """States of the words, and of the token that sums them up."""
        x = torch.cat([self.words(words), self.whole.expand(words.shape[0], -1, -1)], 1)
        padding = torch.cat([words == 0, torch.zeros_like(words[:, :1], dtype=torch.bool)], 1)
        for block in self.blocks:
            x = block(x, padding=padding, causal=True)
        return x[:, :-1], self.text_norm(x[:, -1])

    def logits(
        self, states: Float[Tensor, "batch n dim"], context: Float[Tensor, "batch m context_dim"]
    ) -> Float[Tensor, "batch n vocabulary"]:
        """Of the word after each."""
        for block in self.fusion:
            states = block(states, causal=True, context=context)
        return self.out(self.norm(states))
