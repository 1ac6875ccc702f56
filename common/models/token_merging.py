"""Merging tokens by their density: clusters of a sample's tokens become the tokens of the next level."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

__all__ = ["TokenMerging", "density_peaks"]


@torch.no_grad()
def density_peaks(
    x: Float[Tensor, "batch tokens dim"],
    clusters: int,
    *,
    neighbours: int = 3,
    mask: Bool[Tensor, "batch tokens"] | None = None,
) -> Int[Tensor, "batch tokens"]:
    """The cluster of every token, by density peaks over nearest neighbours (DPC-kNN).

        density_i = exp(-mean over the `neighbours` nearest of |x_i - x_j|^2 / dim)
        centres: the `clusters` largest of density_i * (distance to the nearest denser token)

    Of equally dense tokens the earlier one counts as denser. Every token joins its nearest centre. `mask` marks real
    tokens: padding is dense nowhere and near to nothing.

    >>> x = torch.tensor([[[0.0], [0.1], [5.0], [5.1], [5.2]]])
    >>> density_peaks(x, 2, neighbours=2)[0].tolist() in ([0, 0, 1, 1, 1], [1, 1, 0, 0, 0])
    True
    """
    batch, tokens, dim = x.shape
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") / math.sqrt(dim)
    if mask is not None:
        far = distance.flatten(1).amax(1)[:, None, None] + 1
        distance = torch.where(mask[:, None], distance, far)
    nearest = distance.topk(min(neighbours, tokens), dim=-1, largest=False).values
    density = torch.exp(-nearest.square().mean(-1))
    if mask is not None:
        density = density * mask
    earlier = torch.ones(tokens, tokens, dtype=torch.bool, device=x.device).tril(-1)
    denser = density[:, None, :] > density[:, :, None]
    denser |= (density[:, None, :] == density[:, :, None]) & earlier
    apart = torch.where(denser, distance, distance.flatten(1).amax(1)[:, None, None]).amin(-1)
    centres = (apart * density).topk(clusters, dim=-1).indices
    rows = torch.arange(batch, device=x.device)[:, None]
    cluster = distance[rows, centres].argmin(1)
    return cluster.scatter(1, centres, torch.arange(clusters, device=x.device).expand(batch, -1))


class TokenMerging(nn.Module):
    """Fewer tokens: a convolution over neighbours, clusters by density, weighted means, attention back to the old ones.

        x' = norm(x + conv(x)),   w_i = exp(score(x'_i)),   y_c = sum_{i in c} w_i x'_i / sum_{i in c} w_i
        out = y + attention(norm(y) to norm(x'), scores added to the logits)

    Args:
        dim: width of the tokens.
        ratio: how many of the tokens remain (rounded up).
        heads: of the attention.
        neighbours: of the density estimate.

    Source: HBI (Jin et al. 2023), after token clustering transformers; jpthu17/HBI at b261e9c, models/cluster.py, whose
    noise of 1e-6 on the densities breaks ties that here fall to the earlier token.

    >>> TokenMerging(8, ratio=0.25, heads=2)(torch.randn(3, 12, 8)).shape
    torch.Size([3, 3, 8])
    """

    def __init__(self, dim: int, ratio: float, heads: int = 8, neighbours: int = 3) -> None:
        super().__init__()
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio must lie in (0, 1], got {ratio}")
        if dim % heads:
            raise ValueError(f"heads must divide the {dim} dimensions, got {heads}")
        self.conv = nn.Conv1d(dim, dim, 3, padding=1, bias=False)
        self.norm, self.score = nn.LayerNorm(dim), nn.Linear(dim, 1)
        self.before, self.query, self.key_value = nn.LayerNorm(dim), nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)
        self.ratio, self.heads, self.neighbours = ratio, heads, neighbours
        for layer in (self.query, self.key_value, self.out):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], mask: Bool[Tensor, "batch tokens"] | None = None
    ) -> Float[Tensor, "batch fewer dim"]:
        """The merged tokens; `mask` marks the real ones among the given."""
        x = self.norm(x + self.conv(x.mT).mT)
        score = self.score(x)
        if mask is not None:
            score = score.masked_fill(~mask[..., None], -torch.inf)
        count = max(math.ceil(x.shape[1] * self.ratio), 1)
        cluster = density_peaks(x, count, neighbours=self.neighbours, mask=mask)
        member = nn.functional.one_hot(cluster, count).to(x.dtype) * score.exp()  # [batch, tokens, fewer]
        merged = (member / (member.sum(1, keepdim=True) + 1e-6)).mT @ x
        return merged + self._attend(self.before(merged), self.before(x), score)

    def _attend(self, q: Tensor, kv: Tensor, score: Tensor) -> Tensor:
        def split(z: Tensor) -> Tensor:
            return z.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        keys, values = self.key_value(kv).chunk(2, -1)
        mixed = nn.functional.scaled_dot_product_attention(
            split(self.query(q)), split(keys), split(values), attn_mask=score.mT[:, None].to(q.dtype)
        )
        return self.out(mixed.transpose(1, 2).flatten(2))
