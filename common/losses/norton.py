"""Norton: noise-robust temporal transport between clips and captions."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.kernels import Diagonal, Gibbs, Mix, sinkhorn, topk_scores
from counterpoint.common.losses.base import Objective
from counterpoint.common.losses.blocks import block_stats, symmetric_cross_entropy
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.infonce import InfoNCE
from counterpoint.common.losses.scale import Temperature, as_scale

__all__ = ["Norton", "NortonParagraph", "bucket_transport", "soft_max_similarity"]


class Norton(Objective):
    """Clip-caption contrast whose targets are rectified by optimal transport (Norton's clip term).

        target = b Q + (1 - b) I,   Q = B * Sinkhorn plan of the logits (uniform marginals, 50 iterations)
        L = CE(rows, target) + CE(columns, target)          (the sum, as the code: twice a symmetric mean)

    Features are not normalised and the scale is 1 in the official code. The last half-step of Sinkhorn makes the
    columns' mass exact; rows approach it. Q is never formed.

    Args:
        beta: b (0.3). epsilon, iterations: of the transport (1, 50).
        temperature: T (1).

    Source: Lin et al. 2024.

    >>> import torch
    >>> z = 100 * torch.eye(3)
    >>> Norton()(z, z).item() < 1e-6
    True
    """

    card = ObjectiveCard(
        paper="Norton 2024",
        needs="pairs",
        engine="sinkhorn, contrast_stats(columns), target_scores(Gibbs)",
        checked="official numbers, transport plan included",
    )

    def __init__(
        self,
        temperature: Temperature = 1.0,
        *,
        beta: float = 0.3,
        epsilon: float = 1.0,
        iterations: int = 50,
        normalize: bool = False,
        distributed: str = "none",
        backend: str = "auto",
    ):
        super().__init__(normalize=normalize, distributed=distributed, backend=backend)
        self.contrast = InfoNCE(temperature, normalize=False, distributed=distributed, backend=backend)
        self.beta, self.epsilon, self.iterations = beta, epsilon, iterations

    def forward(self, za: Float[Tensor, "batch dim"], zb: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
        """Sum of both directions' means."""
        a, b = self.embed(za, zb)
        return 2 * self.contrast(a, b, targets=self.targets(a, b))

    def targets(self, a: Tensor, b: Tensor) -> tuple[Mix, Mix]:
        """The rectified targets of both directions."""
        scale = self.contrast.logit_scale()
        scale = (scale.detach() if isinstance(scale, Tensor) else scale) / self.epsilon
        a, b = a.detach(), b.detach()
        size = math.log(max(self.count(a), 1))
        g, f = sinkhorn(b * scale, a, epsilon=1.0, iterations=self.iterations, distributed=self.distributed)
        plan = Gibbs(a, b, scale=scale, row_bias=f + size, col_bias=g, normalized=False)
        back = Gibbs(b, a, scale=scale, row_bias=g + size, col_bias=f, normalized=False)
        parts = [(1 - self.beta, Diagonal())]
        return Mix([(self.beta, plan), *parts]), Mix([(self.beta, back), *parts])


class NortonParagraph(Objective):
    """Video-paragraph contrast: the similarity of two sequences is the transport between their clips (Norton).

        S = (clip similarities - min) / (max - min) over the batch;  a bucket row and column of value p joins S
        p = the `bucket` quantile of the matching clips' similarities;  Q = entropic plan of [S, p], mass n_clips
        score = scale * sum_tu Q_tu S_tu (bucket left out),   L = (CE(rows) + CE(columns)) / 2

    Misaligned clips and captions go to the bucket. Q carries no gradient. Every pair of sequences needs its own small
    plan, so the scores are computed for blocks of rows.

    Call with clips, captions [batch, n, dim]. Args: scale (learnable temperature), bucket 0.3, epsilon 0.1, iterations
    50, block (rows of plans in memory at a time).

    Source: Lin et al. 2024; the published loss runs on 8 clips with weight 0.1. Our reading where the code was not run.

    >>> import torch
    >>> x = torch.eye(6).view(3, 2, 6)
    >>> loss = NortonParagraph(temperature=0.1)
    >>> loss(x, x).item() < loss(x, x.flip(0)).item()
    True
    """

    card = ObjectiveCard(
        paper="Norton 2024",
        needs="sequences of clips and captions",
        engine="topk_scores (range); rows in blocks (one plan per pair)",
        checked="written-out loops (our reading)",
    )

    def __init__(
        self,
        temperature: Temperature = 1.0,
        *,
        bucket: float = 0.3,
        epsilon: float = 0.1,
        iterations: int = 50,
        block: int = 16,
        normalize: bool = True,
        distributed: str = "none",
    ):
        super().__init__(normalize=normalize, distributed=distributed)
        self.logit_scale, self.bucket, self.block = as_scale(temperature), bucket, block
        self.epsilon, self.iterations = epsilon, iterations

    def forward(self, clips: Float[Tensor, "batch n dim"], captions: Float[Tensor, "batch m dim"]) -> Float[Tensor, ""]:
        """Mean over rows and both directions."""
        x, y = self.embed(clips, captions)
        everyone = self.union(y)
        if not len(everyone):
            return x.sum() + y.sum()
        flat_x, flat_y, scale = x.flatten(0, 1), everyone.flatten(0, 1), self.logit_scale()
        high = self.union(topk_scores(flat_x, flat_y, 1)[0]).max()
        low = -self.union(topk_scores(-flat_x, flat_y, 1)[0]).max()
        spread = (high - low).clamp_min(1e-6)
        length = min(x.shape[1], y.shape[1])
        matching = (((x[:, :length] * y[:, :length]).sum(-1)).detach().flatten() - low) / spread
        bucket = torch.quantile(self.union(matching), self.bucket, interpolation="lower")

        def score(start: int, stop: int) -> Tensor:
            similarity = (torch.einsum("itd,jud->ijtu", x[start:stop], everyone) - low) / spread
            plan = bucket_transport(similarity.detach(), bucket, epsilon=self.epsilon, iterations=self.iterations)
            return scale * (plan * similarity).sum((-2, -1))

        return symmetric_cross_entropy(block_stats(score, x, block=self.block, over=self), over=self)


@torch.no_grad()
def bucket_transport(
    similarity: Float[Tensor, "*batch n m"], bucket: float | Tensor, *, epsilon: float = 0.1, iterations: int = 50
) -> Float[Tensor, "*batch n m"]:
    """Entropic plans of many small similarity matrices with a bucket row and column, mass n, bucket dropped.

    Marginals are uniform over the n + 1 rows and m + 1 columns before the rescaling to total mass n.

    >>> import torch
    >>> plan = bucket_transport(torch.eye(3) * 5, 0.5)
    >>> plan.argmax(1).tolist()
    [0, 1, 2]
    """
    *batch, n, m = similarity.shape
    full = similarity.new_empty(*batch, n + 1, m + 1)
    full[...] = bucket
    full[..., :n, :m] = similarity
    full = full / epsilon
    f, g = full.new_zeros(*batch, n + 1, 1), full.new_zeros(*batch, 1, m + 1)
    for _ in range(iterations):
        f = -math.log(n + 1) - torch.logsumexp(full + g, -1, keepdim=True)
        g = -math.log(m + 1) - torch.logsumexp(full + f, -2, keepdim=True)
    plan = torch.exp(full + f + g)[..., :n, :m]
    return n * plan / plan.sum((-2, -1), keepdim=True)


def soft_max_similarity(
    a: Float[Tensor, "*batch n dim"], b: Float[Tensor, "*batch m dim"], alpha: float = 1.0
) -> Float[Tensor, "*batch"]:
    """Token similarity with a soft maximum: the mean over a's tokens of alpha log sum_u exp(a_t.b_u / alpha), and back.

    >>> import torch
    >>> a = torch.eye(2)
    >>> round(soft_max_similarity(a, a, alpha=0.01).item(), 4)      # the hard maximum in the limit
    1.0
    """
    scores = a @ b.mT / alpha
    return alpha / 2 * (torch.logsumexp(scores, -1).mean(-1) + torch.logsumexp(scores, -2).mean(-1))
