"""WhitenedCSE: contrast between differently grouped whitenings of one sentence."""

from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn

from counterpoint.common.losses.base import Objective
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.draws import permutation
from counterpoint.common.losses.infonce import InfoNCE
from counterpoint.common.losses.scale import Temperature
from counterpoint.common.losses.sharing import EngineSettings, Shared

__all__ = ["ShuffledGroupWhitening", "WhitenedCSE"]


class ShuffledGroupWhitening(nn.Module):
    """ZCA-whiten random groups of dimensions over the batch.

    In training the dimensions are shuffled (by `generator`), split into groups, each group is centred and multiplied by
    the inverse square root of its covariance (+ eps), and unshuffled; the gradient passes through the covariance. In
    evaluation neither batch nor chance plays a part: contiguous groups and running statistics. With `distributed` the
    covariance is that of all ranks' rows and the ranks share the shuffle. `detach`: no gradient through the inverse
    root.

    >>> import torch
    >>> layer = ShuffledGroupWhitening(6, groups=2, generator=torch.Generator().manual_seed(0))
    >>> layer(torch.randn(50, 6)).std(0, correction=0).round(decimals=1).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """

    def __init__(
        self,
        dim: int = 768,
        groups: int = 128,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        detach: bool = False,
        generator: torch.Generator | None = None,
        distributed: str | None = None,
    ):
        super().__init__()
        if dim % groups:
            raise ValueError(f"groups must divide the {dim} dimensions, got {groups}")
        self.dim, self.groups, self.eps, self.momentum, self.generator = dim, groups, eps, momentum, generator
        self.detach = detach
        self.batch = Shared(distributed)
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_covariance", torch.eye(dim))

    def forward(self, h: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """The whitened rows."""
        if not self.training:
            order = torch.arange(self.dim, device=h.device)
            return self._whiten(h, self.running_mean.to(h), self.running_covariance.to(h), order)
        everyone = self.batch.union(h)
        mean = everyone.mean(0)
        covariance = (everyone - mean).T @ (everyone - mean) / len(everyone)
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            self.running_covariance.lerp_(covariance.to(self.running_covariance), self.momentum)
        return self._whiten(h, mean, covariance, self.batch.agreed(permutation(self.dim, self.generator, h.device)))

    def _whiten(self, h: Tensor, mean: Tensor, covariance: Tensor, order: Tensor) -> Float[Tensor, "batch dim"]:
        groups = order.view(self.groups, -1)
        blocks = covariance[groups[:, :, None], groups[:, None, :]]
        eye = self.eps * torch.eye(groups.shape[1], dtype=h.dtype, device=h.device)
        values, vectors = torch.linalg.eigh(blocks + eye)
        root = (vectors * values.clamp_min(self.eps).rsqrt()[:, None, :]) @ vectors.mT
        root = root.detach() if self.detach else root
        white = torch.einsum("bgi,gij->bgj", (h - mean)[:, groups], root)
        return white.flatten(1)[:, torch.argsort(order)]

    def extra_repr(self) -> str:
        return f"dim={self.dim}, groups={self.groups}, eps={self.eps}, detach={self.detach}"


class WhitenedCSE(Objective):
    """SimCSE between shuffled group whitenings of several dropout views (WhitenedCSE).

        L = sum_{v >= 2} CE_i( cos(g(h_1)_i, g(h_v)_j) / T, j = i ),      g(h) = tanh(W w(h) + b)

    with w the shuffled group whitening. Call with two or more views h [batch, dim]; the same tensor may be given
    several times, the shuffles differ. The released head stops the gradient at the inverse root of the covariance, by
    copying the covariance (whether the authors meant it is not said): `detach=True`.

    Args:
        dim, groups: 768, 128.
        temperature: T (0.05).
        eps: added to the groups' covariance (none in the released code).
        mlp: the dense layer and tanh behind the whitening; `False`: g = w.
        detach: see above.

    Raises `ValueError` for fewer than two views, and where `groups` does not divide `dim`.

    Source: Zhuo et al. 2023; SupstarZh/WhitenedCSE at 65fe70a (whose symeig is gone from PyTorch: eigh instead).

    >>> import torch
    >>> loss = WhitenedCSE(dim=6, groups=2, generator=torch.Generator().manual_seed(0))
    >>> h = torch.randn(20, 6)
    >>> loss(h, h, h).shape
    torch.Size([])
    """

    card = ObjectiveCard(
        paper="WhitenedCSE 2023",
        needs="two or more views",
        engine="contrast_stats; group covariance",
        status="official numbers",
        checked="official numbers (SupstarZh/WhitenedCSE 65fe70a) with detach, eps 0; whiteness, gradient",
    )

    def __init__(
        self,
        dim: int = 768,
        groups: int = 128,
        temperature: Temperature = 0.05,
        *,
        eps: float = 1e-5,
        mlp: bool = True,
        detach: bool = False,
        generator: torch.Generator | None = None,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.Tanh()) if mlp else nn.Identity()
        self.mlp = mlp
        self.whitening = ShuffledGroupWhitening(
            dim, groups, eps=eps, detach=detach, generator=generator, distributed=engine.get("distributed")
        )
        self.contrast = InfoNCE(temperature, symmetric=False, **engine)

    def forward(self, *views: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
        """Sum over the views after the first; fewer than two rows (which cannot be whitened) give zero."""
        if len(views) < 2:
            raise ValueError(f"WhitenedCSE needs at least two views, got {len(views)}")
        if self.count(views[0]) < 2:
            return sum(v.sum() * 0 for v in views)
        wide = [v.float() if v.dtype in (torch.float16, torch.bfloat16) else v for v in views]
        first, *rest = [self.head(self.whitening(v)) for v in wide]
        return torch.stack([self.contrast(first, v) for v in rest]).sum()
