"""What can be said about a representation without labels: rank, spread, invariance, gap between modalities.

All take raw feature matrices [samples, dim]; those defined on the sphere normalise first (`normalize=True`). Spectra
are computed in float64 through a QR factor, so that one pass costs n d^2 and half precision never reaches an SVD.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.kernels import Self, contrast_stats
from counterpoint.common.metrics.bootstrap import numbered_groups
from counterpoint.common.metrics.inputs import accepts
from counterpoint.common.metrics.result import Result, features

# 1 - cosine of two vectors this far apart, relative to their length, is a few roundings of single precision.
COLLAPSED = 1e-3


@accepts(matrices=["z"])
def singular_values(z: Float[Tensor, "n dim"], *, center: bool = False) -> Float[Tensor, rank]:
    """Singular values of the feature matrix in float64, largest first (min(n, dim) of them)."""
    z = features("z", z).double()
    if center:
        z = z - z.mean(0)
    return torch.linalg.svdvals(torch.linalg.qr(z, mode="r").R if z.shape[0] > z.shape[1] else z)


@accepts(matrices=["spectrum"])
def entropy_rank(spectrum: Float[Tensor, rank], *, eps: float = 0.0) -> float:
    """exp of the entropy of a non-negative spectrum scaled to sum one: how many values it "really" has.

    >>> round(entropy_rank(torch.tensor([2.0, 2.0, 2.0, 0.0])), 12)
    3.0
    """
    total = spectrum.double().sum()
    if not total > 0:
        return 1.0  # the zero matrix spans nothing; one is the least the measure can say
    return float(torch.special.entr(spectrum.double() / total + eps).sum().exp())


@accepts(matrices=["z"])
def rankme(z: Float[Tensor, "n dim"], *, eps: float = 0.0) -> float:
    r"""RankMe: effective rank by the entropy of the singular values (not of their squares, and not centred).

    .. math:: \exp\Big(-\sum_k p_k \ln p_k\Big), \qquad p_k = \sigma_k / \lVert\sigma\rVert_1 + \epsilon

    Between 1 (collapsed to a line) and min(n, dim). Comparable between checkpoints of one architecture on one data
    set, not between dimensions. Needs n >> dim: for isotropic features of dim 256 it reads about 118 at n = 128, 237
    at 512 and 255 at 8192. Our reading of the paper's epsilon is a guard for ln 0 (1e-7); the limit 0 is exact here,
    because 0 ln 0 = 0 is computed as such.

    >>> round(rankme(torch.eye(4)), 6), round(rankme(torch.ones(100, 8)), 6)
    (4.0, 1.0)

    Source: Garrido et al., "RankMe: assessing the downstream performance of pretrained self-supervised
    representations by their rank", ICML 2023.
    """
    return entropy_rank(singular_values(z), eps=eps)


@accepts(matrices=["gram"])
def rankme_from_gram(gram: Float[Tensor, "dim dim"]) -> float:
    """RankMe from Z^T Z summed over batches and processes: exact for any n without keeping a feature.

    >>> z = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)).double()
    >>> abs(rankme_from_gram(z[:20].T @ z[:20] + z[20:].T @ z[20:]) - rankme(z)) < 1e-9
    True
    """
    return entropy_rank(torch.linalg.eigvalsh(gram.double()).clamp_min(0).sqrt())


@accepts(matrices=["z"])
def covariance_rank(z: Float[Tensor, "n dim"]) -> float:
    """Effective rank of the centred covariance (entropy of its eigenvalues): smaller than RankMe on the same data."""
    return entropy_rank(singular_values(z, center=True) ** 2)


@accepts(matrices=["z"])
def stable_rank(z: Float[Tensor, "n dim"]) -> float:
    """||Z||_F^2 / ||Z||_2^2: dominated by the largest direction, insensitive to small ones.

    >>> stable_rank(torch.eye(4))
    4.0
    """
    energy = singular_values(z) ** 2
    return float(energy.sum() / energy[0]) if energy[0] > 0 else 1.0


@accepts(matrices=["z"])
def nesum(z: Float[Tensor, "n dim"]) -> float:
    """Sum of covariance eigenvalues over the largest one (centred twin of the stable rank)."""
    energy = singular_values(z, center=True) ** 2
    return float(energy.sum() / energy[0]) if energy[0] > 0 else 1.0


@accepts(matrices=["z"])
def alpha_req(z: Float[Tensor, "n dim"], *, first: int = 1, last: int | None = None) -> float:
    r"""Decay exponent of the covariance spectrum: least-squares slope of :math:`\ln\lambda_k \approx c - \alpha\ln k`.

    Near 1 is reported as a good place; large means few directions carry all, small means a nearly white spectrum.
    `first`..`last` (1-based, inclusive) is the range fitted; eigenvalues that are numerically zero are left out.

    Source: Agrawal et al., "alpha-ReQ: assessing representation quality in self-supervised learning by measuring
    eigenspectrum decay", NeurIPS 2022.
    """
    n = z.shape[0]
    eigenvalues = singular_values(z, center=True) ** 2 / max(n - 1, 1)
    index = torch.arange(1, len(eigenvalues) + 1, dtype=torch.float64, device=z.device)
    keep = (eigenvalues > eigenvalues[0] * 1e-12) & (index >= first) & (index <= (last or len(eigenvalues)))
    if int(keep.sum()) < 2:
        return float("nan")
    x, y = index[keep].log(), eigenvalues[keep].log()
    x = x - x.mean()
    return float(-(x @ (y - y.mean())) / (x @ x))


@accepts(matrices=["views"])
def lidar(views: Float[Tensor, "n views dim"], *, delta: float = 1e-4) -> float:
    r"""LiDAR: effective rank of the discriminant matrix in which each sample, seen in several views, is a class.

    .. math:: \Sigma_w^{-1/2}\,\Sigma_b\,\Sigma_w^{-1/2}, \qquad \Sigma_w = E\,(z-\mu_x)(z-\mu_x)^\top + \delta I

    Directions that merely vary between views do not count, so noise cannot buy rank. At most n - 1. `delta` has the
    units of squared features (our reading of the paper's regulariser).

    Source: Thilak et al., "LiDAR: sensing linear probing performance in joint embedding SSL architectures", ICLR 2024.
    """
    if views.ndim != 3 or views.shape[1] < 2:
        raise ValueError(f"views must be [samples, at least 2 views, dim], got {tuple(views.shape)}")
    z = features("views", views.reshape(-1, views.shape[-1])).double().reshape(views.shape)
    means = z.mean(1)
    within = (z - means[:, None]).reshape(-1, z.shape[-1])
    sigma_w = within.T @ within / len(within) + delta * torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
    centred = means - means.mean(0)
    # Eigenvalues of S_w^-1/2 S_b S_w^-1/2 are the squared singular values of L^-1 X_b^T with S_w = L L^T.
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(sigma_w), centred.T, upper=False)
    return entropy_rank(torch.linalg.svdvals(whitened) ** 2)


@accepts(matrices=["za", "zb"])
def alignment(
    za: Float[Tensor, "n dim"], zb: Float[Tensor, "n dim"], *, alpha: float = 2.0, normalize: bool = True
) -> float:
    """E ||z_a - z_b||^alpha over positive pairs (rows belong together); 0 is perfect, 2 is chance for alpha = 2.

    >>> alignment(torch.eye(3), torch.eye(3))
    0.0

    Source: Wang & Isola, "Understanding contrastive representation learning through alignment and uniformity", 2020.
    """
    if za.shape != zb.shape:
        raise ValueError(f"paired features must have one shape, got {tuple(za.shape)} and {tuple(zb.shape)}")
    za, zb = features("za", za, normalize=normalize), features("zb", zb, normalize=normalize)
    return float((za - zb).double().norm(dim=1).pow(alpha).mean())


@accepts(matrices=["z"])
def uniformity(z: Float[Tensor, "n dim"], *, t: float = 2.0) -> float:
    r"""log of the mean Gaussian potential :math:`\ln E_{i \ne j}\,e^{-t\lVert z_i-z_j\rVert^2}` of normalised features.

    0 when collapsed; lower is more uniform. On the sphere ||z_i - z_j||^2 = 2 - 2 z_i.z_j, so this is the engine's row
    log-sum-exp at scale 2t without the self term: no matrix of distances is ever built.

    >>> round(uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])), 6)
    -8.0

    Source: Wang & Isola, 2020.
    """
    z = features("z", z, normalize=True)
    n = len(z)
    if n < 2:
        raise ValueError("uniformity needs at least two samples")
    with torch.no_grad():
        rows = contrast_stats(z, z, scale=2 * t, exclude=Self()).lse
    return float(torch.logsumexp(rows.double().flatten(), 0) - torch.tensor(float(n) * (n - 1)).double().log() - 2 * t)


@accepts(matrices=["z"])
def std_of_normalized(z: Float[Tensor, "n dim"]) -> float:
    """Mean over dimensions of the standard deviation of normalised features: 1/sqrt(dim) when spread, 0 collapsed.

    >>> std_of_normalized(torch.ones(5, 4))
    0.0
    """
    return float(features("z", z, normalize=True).double().std(0, correction=0).mean())


@accepts(matrices=["z"])
def relative_spread(z: Float[Tensor, "n dim"]) -> float:
    """Length of the features around their mean over their length: 0 when all are one vector, about 1 when centred.

    >>> relative_spread(torch.ones(5, 4)), relative_spread(torch.tensor([[1.0], [-1.0]]))
    (0.0, 1.0)
    """
    z = features("z", z).double()
    total = float(z.square().sum())
    return (float((z - z.mean(0)).square().sum()) / total) ** 0.5 if total > 0 else 0.0


@accepts(matrices=["z"])
def mean_cosine(z: Float[Tensor, "n dim"]) -> float:
    """Mean cosine between different samples (the cone effect): 0 when spread, 1 collapsed. Linear in n.

    >>> mean_cosine(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    -0.3333333333333333
    """
    z = features("z", z, normalize=True).double()
    n = len(z)
    return float((z.sum(0).square().sum() - z.square().sum()) / (n * (n - 1))) if n > 1 else 1.0


@accepts(matrices=["za", "zb"])
def modality_gap(za: Float[Tensor, "n dim"], zb: Float[Tensor, "m dim"]) -> float:
    """Distance between the centres of the two modalities' normalised features.

    Source: Liang et al., "Mind the gap: understanding the modality gap in multi-modal contrastive representation
    learning", NeurIPS 2022.
    """
    za, zb = features("za", za, normalize=True).double(), features("zb", zb, normalize=True).double()
    return float((za.mean(0) - zb.mean(0)).norm())


@accepts(matrices=["z"], arrays=["labels"])
def tolerance(z: Float[Tensor, "n dim"], labels: object) -> float:
    """Mean cosine between different samples of one class: how much semantic closeness survives uniformity.

    Our reading: the expectation is taken over pairs of equal label. Linear in n through class sums.

    >>> tolerance(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 1]))
    1.0

    Source: Wang & Liu, "Understanding the behaviour of contrastive loss", CVPR 2021.
    """
    z = features("z", z, normalize=True).double()
    names, count = numbered_groups(labels, len(z))
    codes = torch.as_tensor(names, device=z.device)
    sizes = torch.bincount(codes, minlength=count).double()
    sums = z.new_zeros(count, z.shape[1]).index_add_(0, codes, z)
    pairs = float((sizes * (sizes - 1)).sum())
    return float((sums.square().sum() - z.square().sum()) / pairs) if pairs else float("nan")


@dataclass(frozen=True)
class LabelFree(Result):
    """Label-free summary of one modality's features (and, given pairs, of two modalities together)."""

    n: int
    dim: int
    rankme: float
    covariance_rank: float
    stable_rank: float
    alpha_req: float
    uniformity: float
    std: float
    mean_cosine: float
    alignment: float | None = None
    modality_gap: float | None = None
    lidar: float | None = None
    tolerance: float | None = None
    notes: list[str] = field(default_factory=list)
    spread: float = 1.0

    @property
    def collapsed(self) -> bool:
        """Whether all samples have one and the same vector, as far as single precision can tell their cosines apart.

        A narrow cone (mean cosine 0.99) is none: neighbours and probes see past what all samples share.
        """
        return self.n > 1 and self.spread < COLLAPSED


@accepts(matrices=["z", "paired", "views"], arrays=["labels"])
def label_free(
    z: Float[Tensor, "n dim"],
    paired: Float[Tensor, "n dim"] | None = None,
    *,
    views: Float[Tensor, "m views dim"] | None = None,
    labels: object | None = None,
    max_rows: int = 25_600,
    seed: int = 0,
) -> LabelFree:
    """All label-free measures in one call, on at most `max_rows` rows (drawn with `seed`); notes say what to distrust.

    >>> label_free(torch.eye(4)).notes
    ['RankMe is biased low: 4 samples for 4 dimensions; use at least 32']
    """
    n, dim = z.shape
    notes = []
    if n < 8 * dim:
        notes.append(f"RankMe is biased low: {n} samples for {dim} dimensions; use at least {8 * dim}")
    if n > max_rows:
        keep = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:max_rows].to(z.device)
        notes.append(f"{max_rows} of {n} samples drawn with seed {seed}")
        z, paired = z[keep], None if paired is None else paired[keep]
        labels = None if labels is None else labels[keep.cpu().numpy()]
    spread = relative_spread(z)
    if len(z) > 1 and spread < COLLAPSED:
        what = "zero" if not bool(z.any()) else "one and the same vector"
        notes.insert(0, f"COLLAPSED: the embeddings of all {len(z)} samples are {what}; no figure can be but chance")
    return LabelFree(
        n=len(z),
        dim=dim,
        rankme=rankme(z),
        covariance_rank=covariance_rank(z),
        stable_rank=stable_rank(z),
        alpha_req=alpha_req(z),
        uniformity=uniformity(z),
        std=std_of_normalized(z),
        mean_cosine=mean_cosine(z),
        alignment=None if paired is None else alignment(z, paired),
        modality_gap=None if paired is None else modality_gap(z, paired),
        lidar=None if views is None else lidar(views),
        tolerance=None if labels is None else tolerance(z, labels),
        notes=notes,
        spread=spread,
    )
