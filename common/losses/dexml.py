"""DEXML: many labels per query, over the whole label set."""

import math
from typing import Unpack

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.kernels import Index, Pairs, pair_sum, topk_scores
from counterpoint.common.losses.base import Objective, dots
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.scale import Temperature, as_scale
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["DecoupledSoftmax", "MultiLabelSigmoid", "MultiLabelSoftmax", "SoftTopK"]

_SOURCE = "DEXML 2023"


class _MultiLabel(Objective):
    """Queries [rows, dim], labels [labels, dim], positives as `Pairs` (`Pairs.from_rows(row, col, rows)`)."""

    def __init__(self, temperature: Temperature = 0.05, **engine: Unpack[EngineSettings]):
        super().__init__(**engine)
        self.logit_scale = as_scale(temperature)

    def _sparse(self, q: Tensor, k: Tensor, positives: Pairs) -> tuple[Tensor, Tensor, Tensor]:
        """Row of each listed positive, its logit, and one over the number of positives of its row."""
        count = positives.ptr.diff()
        row = torch.repeat_interleave(torch.arange(len(q), device=q.device), count)
        return row, self.logit_scale() * dots(q[row], k[positives.col]), 1 / count[row].to(q.dtype)


class DecoupledSoftmax(_MultiLabel):
    """Each positive against the negatives alone: positives do not compete with each other (decoupled softmax).

        L = mean_i 1/|P_i| sum_{p in P_i} -log( e^{s_ip / T} / (e^{s_ip / T} + sum_{n not in P_i} e^{s_in / T}) )

    One log-sum-exp per row serves all its positives. A row without positives counts as zero.

    Args:
        temperature: T (0.05).

    Source: Gupta et al. 2023. The official code masks with -100, which reaches 1e-11 of the value at scores of 20.

    >>> import torch
    >>> z = torch.eye(3); pairs = Pairs(torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 2]))
    >>> round(DecoupledSoftmax(temperature=1.0)(z, z, pairs).item(), 4)   # log(e + 2) - 1
    0.5514
    """

    card = ObjectiveCard(
        paper=_SOURCE,
        needs="positives as a sparse list",
        engine="contrast_stats(exclude Pairs); listed positives dense",
        status="official numbers",
        checked="official numbers",
    )

    def forward(
        self, queries: Float[Tensor, "rows dim"], labels: Float[Tensor, "labels dim"], positives: Pairs
    ) -> Float[Tensor, ""]:
        """Mean over rows."""
        q, k = self.embed(queries, labels)
        row, logit, share = self._sparse(q, k, positives)
        lse = self.local_stats(q, k, scale=self.logit_scale(), exclude=positives).lse
        return self.mean_over((F.softplus(lse[row] - logit) * share).sum(), len(q))


class MultiLabelSoftmax(_MultiLabel):
    """Ordinary softmax with several positives, summed: positives compete with each other (the baseline of DEXML).

        L = mean_i sum_{p in P_i} ( log sum_j e^{s_ij / T} - s_ip / T )

    Args:
        temperature: T (0.05).

    Source: Gupta et al. 2023.

    >>> import torch
    >>> z = torch.eye(3); pairs = Pairs(torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 2]))
    >>> round(MultiLabelSoftmax(temperature=1.0)(z, z, pairs).item(), 4)
    0.5514
    """

    card = ObjectiveCard(
        paper=_SOURCE,
        needs="positives as a sparse list",
        engine="contrast_stats; listed positives dense",
        status="official numbers",
        checked="official numbers",
    )

    def forward(
        self, queries: Float[Tensor, "rows dim"], labels: Float[Tensor, "labels dim"], positives: Pairs
    ) -> Float[Tensor, ""]:
        """Mean over rows of the sum over positives."""
        q, k = self.embed(queries, labels)
        row, logit, _ = self._sparse(q, k, positives)
        lse = self.local_stats(q, k, scale=self.logit_scale()).lse
        return self.mean_over((lse[row] - logit).sum(), len(q))


class MultiLabelSigmoid(_MultiLabel):
    """Binary cross-entropy over the full label set (one-versus-all).

        L = mean_i 1/C [ sum_j softplus(s_ij / T) - sum_{p in P_i} s_ip / T ]

    Args:
        temperature: T (0.05).

    Source: Gupta et al. 2023 (their "bce").

    >>> import torch
    >>> z = torch.eye(2); pairs = Pairs(torch.tensor([0, 1, 2]), torch.tensor([0, 1]))
    >>> round(MultiLabelSigmoid(temperature=1.0)(z, z, pairs).item(), 4)  # (softplus(-1) + log 2) / 2
    0.5032
    """

    card = ObjectiveCard(
        paper=_SOURCE,
        needs="positives as a sparse list",
        engine="pair_sum(softplus); listed positives dense",
        status="official numbers",
        checked="official numbers",
    )

    def forward(
        self, queries: Float[Tensor, "rows dim"], labels: Float[Tensor, "labels dim"], positives: Pairs
    ) -> Float[Tensor, ""]:
        """Mean over rows and labels."""
        q, k = self.embed(queries, labels)
        _, logit, _ = self._sparse(q, k, positives)
        total = pair_sum(q, k, fn="softplus", scale=self.logit_scale(), backend=self.backend).sum() - logit.sum()
        return self.mean_over(total / max(len(k), 1), len(q))


class SoftTopK(_MultiLabel):
    """Positives should be among the K best labels, with a differentiable top-K (SoftTop-K).

        t_i solves sum_j sigmoid(a (s_ij / T + t_i)) = K;   L = mean_i 1/|P_i| sum_p -log sigmoid(a (s_ip / T + t_i))

    The root starts between the scores of rank K and K + 1 and is found by bracketed Newton steps over `pair_sum`; its
    gradient is the implicit one, -(sum_j w_j ds_j) / sum_j w_j with w = sigmoid'.

    Args:
        k: K (5), below the number of labels.
        sharpness: a (2).
        temperature: T (0.05).
        steps: Newton steps at most; they end when a t_i moves by less than 1e-11 (float64) or 1e-5.

    Raises `ValueError` for a K that is not below the number of labels.

    Source: Gupta et al. 2023 (bisection with 32 passes there).

    >>> import torch
    >>> z = torch.eye(4); pairs = Pairs(torch.arange(5), torch.arange(4))
    >>> loss = SoftTopK(k=1, temperature=0.05)
    >>> loss(z, z, pairs).item() < 1e-3
    True
    """

    card = ObjectiveCard(
        paper=_SOURCE,
        needs="positives as a sparse list",
        engine="pair_sum(sigmoid), topk_scores",
        status="official numbers",
        checked="official numbers (nilesh2797/DEXML 7690769), implicit gradient included",
    )

    def __init__(
        self,
        k: int = 5,
        temperature: Temperature = 0.05,
        *,
        sharpness: float = 2.0,
        steps: int = 60,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(temperature, **engine)
        self.k, self.sharpness, self.steps = k, sharpness, steps

    def forward(
        self, queries: Float[Tensor, "rows dim"], labels: Float[Tensor, "labels dim"], positives: Pairs
    ) -> Float[Tensor, ""]:
        """Mean over rows."""
        q, k = self.embed(queries, labels)
        if not 0 < self.k < len(k):
            raise ValueError(f"k must lie between 1 and the number of labels less one ({len(k) - 1}), got {self.k}")
        if not len(q):
            return self.mean_over((q.sum() + k.sum()) * 0, 0)
        row, logit, share = self._sparse(q, k, positives)
        t = self.threshold(q, k)
        return self.mean_over((F.softplus(-self.sharpness * (logit + t[row])) * share).sum(), len(q))

    def threshold(self, q: Float[Tensor, "rows dim"], k: Float[Tensor, "labels dim"]) -> Float[Tensor, "rows"]:
        """t_i with its implicit gradient."""
        scale = self.logit_scale()
        fixed = scale.detach() if isinstance(scale, Tensor) else scale
        t, top = self._root(q.detach(), k.detach(), fixed)
        with torch.enable_grad():
            leaf = t.clone().requires_grad_()
            rest, short = self._balance(q.detach(), k.detach(), fixed, leaf, top)
            (slope,) = torch.autograd.grad((rest - short).sum(), leaf)
        # One Newton step at the root changes nothing and carries the implicit gradient in q, k and scale.
        rest, short = self._balance(q, k, scale, t, top)
        gap = rest - short
        return t - (gap - gap.detach()) / slope.clamp_min(torch.finfo(q.dtype).tiny)

    def _balance(self, q: Tensor, k: Tensor, scale: float | Tensor, t: Tensor, top: Tensor) -> tuple[Tensor, Tensor]:
        """What the other labels have, and what the K best lack of K: equal at the root, each to its own precision."""
        a = self.sharpness
        rest = pair_sum(q, k, fn="sigmoid", scale=a * scale, row_bias=a * t, exclude=Index(top), backend=self.backend)
        best = scale * (q[:, None] * k[top]).sum(-1)
        return rest, torch.sigmoid(-a * (best + t[:, None])).sum(-1)

    def _root(self, q: Tensor, k: Tensor, scale: float | Tensor) -> tuple[Tensor, Tensor]:
        a = self.sharpness
        values, index = topk_scores(q, k, self.k + 1)
        values, top = values * scale, index[:, : self.k]
        # All C sigmoids are at most K / C at the lower bound; the K + 1 best at least K / (K + 1) at the upper one.
        low = -values[:, 0] + math.log(self.k / (len(k) - self.k)) / a
        high = -values[:, self.k] + math.log(self.k) / a
        t = (-(values[:, self.k - 1] + values[:, self.k]) / 2).clamp(low, high)
        for _ in range(self.steps):
            with torch.enable_grad():
                leaf = t.clone().requires_grad_()
                rest, short = self._balance(q, k, scale, leaf, top)
                ratio = rest.log() - short.log()  # nearly linear in t where the sigmoids saturate
                (slope,) = torch.autograd.grad(ratio.sum(), leaf)
            ratio = torch.nan_to_num(ratio.detach(), nan=0.0)  # both underflow: t lies between the two ranks as it is
            high, low = torch.where(ratio > 0, t, high), torch.where(ratio > 0, low, t)
            newton = t - torch.nan_to_num(ratio / slope, nan=0.0)
            inside = (newton >= low) & (newton <= high)
            step = torch.where(inside, newton, (low + high) / 2) - t
            t = t + step
            if bool((a * step.abs() <= (1e-11 if q.dtype == torch.float64 else 1e-5)).all()):
                break
        return t, top
