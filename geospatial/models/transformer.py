"""CROMA's transformers: pre-norm blocks whose attention knows positions by a bias alone.

Names of parameters are those of the published model file, so that its weights load by name.
"""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from counterpoint.geospatial.models.masking import kept_rows, patchify

Tokens = Float[Tensor, "batch tokens dim"]
Bias = Float[Tensor, "#batch heads queries keys"]


def _heads(x: Tensor, count: int) -> Tensor:
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d) + bias) v of a layer's own tokens, normalised first."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim)
        self.input_norm = nn.LayerNorm(dim)

    def forward(self, x: Tokens, bias: Bias | None = None) -> Tokens:
        q, k, v = (_heads(part, self.heads) for part in self.to_qkv(self.input_norm(x)).chunk(3, -1))
        found = scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias.to(q.dtype))
        return self.to_out(found.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Queries of one sensor, keys and values of the other; one norm serves both."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(dim, dim, bias=False)
        self.to_v = nn.Linear(dim, dim, bias=False)
        self.to_out = nn.Linear(dim, dim)
        self.input_norm = nn.LayerNorm(dim)

    def forward(self, x: Tokens, context: Float[Tensor, "batch others dim"], bias: Bias) -> Tokens:
        x, context = self.input_norm(x), self.input_norm(context)
        q, k, v = (_heads(part, self.heads) for part in (self.to_q(x), self.to_k(context), self.to_v(context)))
        found = scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return self.to_out(found.transpose(1, 2).flatten(2))


class FFN(nn.Module):
    """Norm, four times the width, GELU, back."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        # The fourth place is the published file's too: its third is a dropout of 0.
        self.net = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Identity(), nn.Linear(4 * dim, dim))
        self.input_norm = nn.LayerNorm(dim)

    def forward(self, x: Tokens) -> Tokens:
        return self.net(self.input_norm(x))


class Transformer(nn.Module):
    """Self-attention blocks and a last norm."""

    def __init__(self, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleList([Attention(dim, heads), FFN(dim)]) for _ in range(depth))
        self.norm_out = nn.LayerNorm(dim)

    def forward(self, x: Tokens, bias: Bias | None = None) -> Tokens:
        for attention, ffn in self.layers:
            x = attention(x, bias) + x
            x = ffn(x) + x
        return self.norm_out(x)


class JointTransformer(nn.Module):
    """Self-attention among one sensor's tokens, then attention to the other's, block by block."""

    def __init__(self, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList([Attention(dim, heads), CrossAttention(dim, heads), FFN(dim)]) for _ in range(depth)
        )
        self.norm_out = nn.LayerNorm(dim)

    def forward(self, x: Tokens, context: Float[Tensor, "batch others dim"], bias: Bias, cross: Bias) -> Tokens:
        for attention, cross_attention, ffn in self.layers:
            x = attention(x, bias) + x
            x = cross_attention(x, context, cross) + x
            x = ffn(x) + x
        return self.norm_out(x)


class ViT(nn.Module):
    """Patches through a linear layer and the blocks; no class token, no position embedding."""

    def __init__(self, bands: int, dim: int, depth: int, heads: int, patch_size: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim {dim} does not divide by {heads} heads")
        self.patch_size, self.heads = patch_size, heads
        self.linear_input = nn.Linear(bands * patch_size**2, dim)
        self.transformer = Transformer(dim, depth, heads)

    def forward(
        self, images: Float[Tensor, "batch bands height width"], bias: Bias, keep: Tensor | None = None
    ) -> Tokens:
        """Tokens of all patches, or of those in `keep`; `bias` is for just these."""
        patches = patchify(images, self.patch_size)
        return self.transformer(self.linear_input(patches if keep is None else kept_rows(patches, keep)), bias)


def hide_keys(bias: Bias, valid: Bool[Tensor, "batch keys"] | None) -> Bias:
    """The bias with keys that hold no data out of reach; a sample without one valid key keeps all of them."""
    if valid is None or bool(valid.all()):
        return bias
    reach = valid | ~valid.any(1, keepdim=True)
    return bias.masked_fill(~reach[:, None, None, :], float("-inf"))


def mean_tokens(x: Tokens, valid: Bool[Tensor, "batch tokens"] | None) -> Float[Tensor, "batch dim"]:
    """The mean over tokens that hold data; over all where none does."""
    if valid is None or bool(valid.all()):
        return x.mean(1)
    weight = (valid | ~valid.any(1, keepdim=True)).to(x.dtype)
    return (x * weight.unsqueeze(-1)).sum(1) / weight.sum(1, keepdim=True)


def gap_ffn(dim: int) -> nn.Sequential:
    """What turns a sensor's mean token into its representation."""
    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
