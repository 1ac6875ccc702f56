"""MLCD: several cluster labels per image over a million centres."""

from typing import Unpack

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from counterpoint.common.kernels import Index, topk_scores
from counterpoint.common.kernels.unit import unit
from counterpoint.common.losses.base import Objective
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.draws import uniform
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["MLCD", "cluster_labels"]


class MLCD(Objective):
    """Pull an image to its several cluster centres and away from sampled others, the two sides apart (MLCD).

        L = mean_i log(1 + sum_{n sampled, not in P_i} e^{s_in}) + log(1 + sum_{p in P_i} e^{-s_ip})
        s = scale (cos - margin for positives, cos for negatives)

    Centres are parameters, one per cluster. A share `sampled` of the other centres is drawn per call (PartialFC); all
    positive centres of the batch take part. With `distributed` every rank holds all centres and the ranks share the
    draw. Scale 64 and margin 0.3 are common choices, not confirmed for this method.

    Call with z [batch, dim], label [batch, positives] (cluster numbers, -1 pads).

    Args:
        n_classes, dim: number and width of the centres (one million in the paper).
        scale, margin: see above.
        sampled: share of centres drawn as negatives (0.1).
        generator: source of the draw.

    Raises `ValueError` for a `sampled` outside (0, 1].

    Source: An et al. 2024 (8 nearest of 1M k-means centres per image, see `cluster_labels`). The authors' repositories
    (deepglint/unicom at ae71411, deepglint/MVT at 087c80e) hold models and PartialFC, not this loss.

    >>> import torch
    >>> loss = MLCD(n_classes=6, dim=4, scale=1.0, margin=0.0, sampled=1.0)
    >>> loss(torch.randn(3, 4), torch.tensor([[0, 1], [2, -1], [3, 5]])).shape
    torch.Size([])
    """

    card = ObjectiveCard(
        paper="MLCD 2024",
        needs="cluster labels (several per sample)",
        engine="contrast_stats(exclude Index, valid_cols)",
        status="equation",
        checked="written-out equation (the training code is not public)",
    )

    def __init__(
        self,
        n_classes: int,
        dim: int,
        *,
        scale: float = 64.0,
        margin: float = 0.3,
        sampled: float = 0.1,
        generator: torch.Generator | None = None,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        if not 0 < sampled <= 1:
            raise ValueError(f"sampled must lie in (0, 1], got {sampled}")
        self.centres = nn.Parameter(torch.randn(n_classes, dim) * 0.01)
        self.scale, self.margin, self.sampled, self.generator = scale, margin, sampled, generator

    def forward(self, z: Float[Tensor, "batch dim"], label: Int[Tensor, "batch positives"]) -> Float[Tensor, ""]:
        """Mean over rows."""
        q, centres = self.embed(z, self.centres.to(z.dtype) if z.dtype == torch.float64 else self.centres)
        real = label >= 0
        positive = (q[:, None] * centres[label.clamp_min(0)]).sum(-1) - self.margin
        pulls = torch.where(real, -self.scale * positive, -torch.inf)
        kept = self._negatives(self.union(label[real]))
        lse = self.local_stats(q, centres, scale=self.scale, exclude=Index(label), valid_cols=kept).lse
        pull = torch.logsumexp(F.pad(pulls, (1, 0)), 1)  # the padded zero is the 1 of log(1 + sum)
        return self.mean(F.softplus(lse) + pull)

    def _negatives(self, positive: Int[Tensor, "some"]) -> Tensor | None:
        if self.sampled == 1:
            return None
        count = len(self.centres)
        order = self.agreed(uniform(count, generator=self.generator, like=self.centres))
        kept = torch.zeros(count, dtype=torch.bool, device=positive.device)
        kept[order.topk(max(1, round(self.sampled * count))).indices] = True
        kept[positive] = True
        return kept


def cluster_labels(
    vectors: Float[Tensor, "samples dim"],
    clusters: int,
    *,
    nearest: int = 8,
    seed: int = 0,
    batch: int | None = None,
) -> tuple[Int[Tensor, "samples nearest"], Float[Tensor, "clusters dim"]]:
    """MLCD's first stage: k-means of a trained encoder's features; every sample's labels are its nearest centres.

    One clustering, in advance, on unit vectors; nearness is the cosine. Look labels up by the sample's stable number:
    `labels[batch["index"]]`.

    Args:
        clusters: one million in the paper, of 400 million images.
        nearest: labels per sample (8).
        batch: samples per step of mini-batch k-means; without it ordinary k-means.

    Returns the labels, nearest first, and the centres as unit vectors.

    Raises `ValueError` for fewer than two clusters, or more than samples.

    >>> import torch
    >>> x = torch.eye(3).repeat(4, 1)
    >>> labels, centres = cluster_labels(x, 3, nearest=2)
    >>> labels.shape, len({*labels[:3, 0].tolist()})
    (torch.Size([12, 2]), 3)
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans

    if not 2 <= clusters <= len(vectors):
        raise ValueError(f"clusters must lie between 2 and the number of samples ({len(vectors)}), got {clusters}")
    q = unit(vectors.detach().float(), dim=-1)
    if batch is None:
        model = KMeans(clusters, n_init=1, random_state=seed)
    else:
        model = MiniBatchKMeans(clusters, batch_size=batch, n_init=1, random_state=seed)
    centres = unit(torch.as_tensor(model.fit(q.cpu().numpy()).cluster_centers_, dtype=q.dtype), dim=-1).to(q.device)
    return topk_scores(q, centres, min(nearest, clusters))[1], centres
