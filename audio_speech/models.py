"""The two towers: a VGG stack for printed music and one for spectrograms, and the CCA projection between them.

The architecture of Carvalho, Washüttl, Widmer, "Self-Supervised Contrastive Learning for Robust Audio-Sheet Music
Retrieval Systems", ACM MMSys 2023, after the official configuration files.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class VGGTower(nn.Module):
    """Blocks of two 3x3 convolutions with batch norm and ELU and a 2x2 max-pooling; a 1x1 convolution to the embedding
    size, batch norm, mean over the plane.

    With channels (24, 48, 96, 96) and 32 dimensions a tower has 331,000 parameters, with (12, 24, 48, 48) it has
    83,884. The size of the picture does not matter.

    >>> tower = VGGTower()
    >>> sum(p.numel() for p in tower.parameters())
    331000
    >>> tower(torch.zeros(2, 1, 80, 100)).shape
    torch.Size([2, 32])
    """

    def __init__(self, channels: tuple[int, ...] = (24, 48, 96, 96), dim: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 1
        for out in channels:
            for _ in range(2):
                layers += [nn.Conv2d(width, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ELU(inplace=True)]
                width = out
            layers.append(nn.MaxPool2d(2))
        layers += [nn.Conv2d(width, dim, 1, bias=False), nn.BatchNorm2d(dim)]
        self.features = nn.Sequential(*layers)

    def forward(self, picture: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch dim"]:
        """Embeddings before normalisation."""
        return self.tokens(picture).mean(1)

    def tokens(self, picture: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch places dim"]:
        """The embedding of every place of the plane, whose mean is the picture's."""
        return self.features(picture.contiguous(memory_format=torch.channels_last)).flatten(2).mT


class CCAProjection(nn.Module):
    """Canonical correlation analysis of two embeddings, fitted once on training pairs, as two affine maps.

    With covariances `S_xx + r I`, `S_yy + r I`, `S_xy` (r also damps the whitening) and the singular value
    decomposition `S_xx^-1/2 S_xy S_yy^-1/2 = U diag(c) V'`, the maps are `x -> U' S_xx^-1/2 (x - mean_x)` and
    `y -> V' S_yy^-1/2 (y - mean_y)`. Before fitting both maps are the identity.
    """

    def __init__(self, dim: int = 32, regulariser: float = 1e-3) -> None:
        super().__init__()
        self.regulariser = regulariser
        for name in ("x", "y"):
            self.register_buffer(f"map_{name}", torch.eye(dim))
            self.register_buffer(f"mean_{name}", torch.zeros(dim))
        self.register_buffer("correlations", torch.zeros(dim))

    @torch.no_grad()
    def fit(self, x: Float[Tensor, "pairs dim"], y: Float[Tensor, "pairs dim"]) -> None:
        """Fit on pairs; more pairs than dimensions are needed."""
        if len(x) != len(y) or len(x) <= x.shape[1]:
            raise ValueError(f"CCA needs more pairs than dimensions, of one length: got {len(x)} and {len(y)}")
        x, y = x.double(), y.double()
        self.mean_x.copy_(x.mean(0))
        self.mean_y.copy_(y.mean(0))
        x, y = x - x.mean(0), y - y.mean(0)
        n = len(x) - 1
        eye = self.regulariser * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        white_x, white_y = _inverse_root(x.T @ x / n + eye), _inverse_root(y.T @ y / n + eye)
        u, c, vt = torch.linalg.svd(white_x @ (x.T @ y / n) @ white_y)
        self.map_x.copy_(white_x @ u)
        self.map_y.copy_(white_y @ vt.T)
        self.correlations.copy_(c)

    def follow(self, x: Float[Tensor, "pairs dim"], y: Float[Tensor, "pairs dim"]) -> tuple[Tensor, Tensor]:
        """Project a training batch by the CCA of itself (`batch_cca`), whose maps become this projection's."""
        found = batch_cca(x, y, self.regulariser)
        with torch.no_grad():
            for side, (_, mapping, mean) in found.items():
                getattr(self, f"map_{side}").copy_(mapping)
                getattr(self, f"mean_{side}").copy_(mean)
        return found["x"][0].to(x.dtype), found["y"][0].to(y.dtype)

    def forward(self, x: Float[Tensor, "batch dim"], side: str) -> Float[Tensor, "batch dim"]:
        """Project embeddings of one side, `x` or `y`."""
        return (x - getattr(self, f"mean_{side}")) @ getattr(self, f"map_{side}")


def batch_cca(
    x: Float[Tensor, "pairs dim"], y: Float[Tensor, "pairs dim"], regulariser: float = 1e-3
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """CCA of a batch with gradients through all of it, as the official network has it in training: side -> (projected
    rows, map, mean), in float64.

    With T = S_xx^-1/2 S_xy S_yy^-1/2 (covariances + r I) the maps are S_xx^-1/2 E and S_yy^-1/2 F with the eigenvectors
    E of T T' + r I and F of T' T + r I, in the order of growing correlation, signs by the correlation. No gradient goes
    through the means.

    Source: luisfvc/ucasr at 0534103, ucasr/models/cca_layer.py (CCALayer, alpha 1).
    """
    x, y = x.double(), y.double()
    eye = regulariser * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    mean_x, mean_y, n = x.detach().mean(0), y.detach().mean(0), max(len(x) - 1, 1)
    cx, cy = x - mean_x, y - mean_y
    s_xy = cx.T @ cy / n
    white_x, white_y = _inverse_root(cx.T @ cx / n + eye), _inverse_root(cy.T @ cy / n + eye)
    t = white_x @ s_xy @ white_y
    map_x = white_x @ _eigenvectors(t @ t.T + eye)
    map_y = white_y @ _eigenvectors(t.T @ t + eye)
    map_x = map_x * (map_x.T @ s_xy @ map_y).diagonal().sign()
    return {"x": (cx @ map_x, map_x, mean_x), "y": (cy @ map_y, map_y, mean_y)}


class _InverseRoot(torch.autograd.Function):
    """A^-1/2 of a symmetric matrix. Its derivative has (a^-1/2 - b^-1/2) / (a - b) = -1 / (sqrt(ab) (sqrt a + sqrt b))
    for eigenvalues a and b, which is finite where they are equal; through eigenvectors it would be 0 / 0 there."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        roots = values.clamp_min(1e-12).sqrt()
        ctx.save_for_backward(roots, vectors)
        return vectors @ torch.diag(1 / roots) @ vectors.T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        roots, vectors = ctx.saved_tensors
        slopes = -1 / (roots[:, None] * roots * (roots[:, None] + roots))
        return vectors @ (slopes * (vectors.T @ gradients[0] @ vectors)) @ vectors.T


class _Eigenvectors(torch.autograd.Function):
    """Eigenvectors of a symmetric matrix. Of equal eigenvalues any turn of theirs is as good, and no gradient asks for
    one (torch's is not a number there)."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        ctx.save_for_backward(values, vectors)
        return vectors

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        values, vectors = ctx.saved_tensors
        gaps = values - values[:, None]
        turns = torch.where(gaps == 0, 0.0, 1 / torch.where(gaps == 0, 1.0, gaps))
        return vectors @ (turns * (vectors.T @ gradients[0])) @ vectors.T


def _inverse_root(matrix: Tensor) -> Tensor:
    found: Any = _InverseRoot.apply(matrix)
    return found


def _eigenvectors(matrix: Tensor) -> Tensor:
    found: Any = _Eigenvectors.apply(matrix)
    return found
