"""Rebalancing of labels: Balanced MSE (GAI, BMC, BNI), balanced softmax, label density weights."""

from typing import Unpack

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from counterpoint.common.kernels import Diagonal
from counterpoint.common.losses.base import Objective
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["BMC", "BNI", "GAI", "BalancedSoftmax", "label_density_weights"]

_PAPER = "Balanced MSE 2022"
_CHECKED = "official numbers (CircuitGCL's code): values alone, to six decimals"


class _BalancedMSE(Objective):
    normalizes = None

    def __init__(self, noise: float, learnable: bool, **engine: Unpack[EngineSettings]):
        super().__init__(**engine)
        if not noise > 0:
            raise ValueError(f"noise (a standard deviation in label units) must be positive, got {noise}")
        self.noise = nn.Parameter(torch.tensor(float(noise)), requires_grad=learnable)

    def _variance(self, like: Tensor) -> Float[Tensor, ""]:
        return self.noise.to(like.dtype).square()


class BMC(_BalancedMSE):
    """Balanced mean squared error, the batch as Monte-Carlo sample of the label distribution (BMC).

        logit_ij = -|p_i - y_j|^2 / (2 v),    L = 2 sg(v) mean_i CE(logit_i, i),    v = noise^2

    The squared error of a prediction competes with what the other labels of the batch would give, so frequent labels
    lose their advantage. (CircuitGCL's copy subtracts element by element and hands float class numbers to
    cross-entropy, which is another quantity.)

    Args:
        noise: standard deviation of the label noise, in label units; `learnable` by default, as in the paper.

    Call with prediction, target [batch] or [batch, dim]. Source: Ren et al. 2022; jiawei-ren/BalancedMSE at c6f2f33.

    >>> import torch
    >>> y = torch.tensor([0.0, 1.0])
    >>> round(BMC(noise=1.0)(y, y).item(), 4)     # 2 log(1 + e^-1/2)
    0.9482
    """

    card = ObjectiveCard(
        paper=_PAPER,
        needs="continuous labels",
        engine="contrast_stats(col_bias)",
        status="official numbers",
        checked="official numbers (jiawei-ren/BalancedMSE c6f2f33), of one and several values, noise included",
    )

    def __init__(self, noise: float = 1.0, *, learnable: bool = True, **engine: Unpack[EngineSettings]):
        super().__init__(noise, learnable, **engine)

    def forward(
        self, prediction: Float[Tensor, "batch *dim"], target: Float[Tensor, "batch *dim"]
    ) -> Float[Tensor, ""]:
        """Mean over rows."""
        p, y = (t.flatten(1) if t.dim() > 1 else t[:, None] for t in self.embed(prediction, target))
        v = self._variance(p)
        # Distances do not change when both are centred; the inner products then do not cancel.
        centre = self.summed(y.sum(0)) / max(self.count(y), 1)
        p, y = p - centre, y - centre
        stats = self.stats(p, y, scale=1 / v, col_bias=-y.square().sum(-1) / (2 * v), positive=Diagonal())
        return 2 * v.detach() * self.mean(stats.lse - stats.positive)


class GAI(_BalancedMSE):
    """Balanced mean squared error, the label distribution as a Gaussian mixture in closed form (GAI).

        L = 2 sg(v) mean_i [ (p - y)^2 / (2 v) + log v / 2 + log sum_k pi_k N(p; mu_k, s2_k + v) sqrt(2 pi) ]

    Args:
        means, variances, weights: mixture fitted to the training labels (8 components there), [components] each.
        noise: standard deviation of the label noise, in label units; `learnable` by default.

    Source: Ren et al. 2022.

    >>> import torch
    >>> one = torch.tensor([1.0])
    >>> round(GAI(0 * one, one, one, noise=1.0)(one, one).item(), 4)      # 2 (0 - log(2) / 2 - 1/4)
    -1.1931
    """

    card = ObjectiveCard(
        paper=_PAPER,
        needs="continuous labels; a label mixture",
        engine="none (rows x 8)",
        status="official numbers",
        checked=_CHECKED,
    )

    def __init__(
        self,
        means: Float[Tensor, "components"],
        variances: Float[Tensor, "components"],
        weights: Float[Tensor, "components"],
        noise: float = 1.0,
        *,
        learnable: bool = True,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(noise, learnable, **engine)
        for name, value in (("means", means), ("variances", variances), ("log_weights", weights.log())):
            self.register_buffer(name, value)

    def forward(self, prediction: Float[Tensor, "batch"], target: Float[Tensor, "batch"]) -> Float[Tensor, ""]:
        """Mean over rows."""
        p, y = self.embed(prediction, target)
        v = self._variance(p)
        spread = self.variances + v
        parts = -0.5 * spread.log() - 0.5 * (p[:, None] - self.means) ** 2 / spread + self.log_weights
        return 2 * v.detach() * self.mean((p - y) ** 2 / (2 * v) + 0.5 * v.log() + torch.logsumexp(parts, -1))


class BNI(_BalancedMSE):
    """Balanced mean squared error, the label distribution as weighted buckets (BNI).

        L = 2 sg(v) mean_i [ (p - y)^2 / (2 v) + log sum_b w_b exp(-(p - c_b)^2 / (2 v)) ]

    Args:
        centres, weights: bucket centres and their label frequencies, [buckets].
        noise: standard deviation of the label noise, in label units; `learnable` by default.

    Source: Ren et al. 2022.

    >>> import torch
    >>> one = torch.tensor([1.0])
    >>> BNI(one, one)(one, one).item()
    0.0
    """

    card = ObjectiveCard(
        paper=_PAPER,
        needs="continuous labels; a label histogram",
        engine="none (rows x buckets)",
        status="official numbers",
        checked=_CHECKED,
    )

    def __init__(
        self,
        centres: Float[Tensor, "buckets"],
        weights: Float[Tensor, "buckets"],
        noise: float = 1.0,
        *,
        learnable: bool = True,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(noise, learnable, **engine)
        self.register_buffer("centres", centres)
        self.register_buffer("log_weights", weights.log())

    def forward(self, prediction: Float[Tensor, "batch"], target: Float[Tensor, "batch"]) -> Float[Tensor, ""]:
        """Mean over rows."""
        p, y = self.embed(prediction, target)
        v = self._variance(p)
        buckets = -0.5 * (p[:, None] - self.centres) ** 2 / v + self.log_weights
        return 2 * v.detach() * self.mean((p - y) ** 2 / (2 * v) + torch.logsumexp(buckets, -1))


class BalancedSoftmax(Objective):
    """Cross-entropy with the class prior added to the logits: the classifier learns balanced posteriors.

        L = mean_i CE(logits_i + log n, y_i)

    Args:
        counts: training-set size of each class, [classes] (not the batch's, as one released code has it).

    Source: Ren et al. 2020.

    >>> import torch
    >>> logits = torch.zeros(1, 2)
    >>> round(BalancedSoftmax(torch.tensor([3.0, 1.0]))(logits, torch.tensor([1])).item(), 4)    # log 4
    1.3863
    """

    card = ObjectiveCard(
        paper="Balanced Softmax 2020",
        needs="class labels and counts",
        engine="none (rows x classes)",
        status="official numbers",
        checked=_CHECKED,
    )

    normalizes = None

    def __init__(self, counts: Float[Tensor, "classes"], **engine: Unpack[EngineSettings]):
        super().__init__(**engine)
        self.register_buffer("log_counts", counts.log())

    def forward(self, logits: Float[Tensor, "batch classes"], label: Int[Tensor, "batch"]) -> Float[Tensor, ""]:
        """Mean over rows."""
        logits = self.embed(logits)[0] + self.log_counts
        return self.mean(F.cross_entropy(logits, label, reduction="none"))


def label_density_weights(
    target: Float[Tensor, "samples"], *, bins: int = 100, width: float = 2.0
) -> Float[Tensor, "samples"]:
    """One over the smoothed label density of each sample, mean 1 (label distribution smoothing).

    The histogram over `bins` equal buckets is smoothed by a Gaussian of `width` buckets, cut at four.

    Source: Yang et al. 2021 (kernel size 9, width 2 there).

    >>> import torch
    >>> w = label_density_weights(torch.tensor([0., 0., 0., 10.]))
    >>> bool(w[3] > w[0]), round(w.mean().item(), 4)
    (True, 1.0)
    """
    low, high = target.min(), target.max()
    place = ((target - low) / (high - low).clamp_min(1e-12) * bins).long().clamp(0, bins - 1)
    histogram = torch.bincount(place, minlength=bins).to(target.dtype)
    reach = torch.arange(-4, 5, dtype=target.dtype, device=target.device)
    kernel = torch.softmax(-(reach**2) / (2 * width**2), 0)
    density = F.conv1d(histogram[None, None], kernel[None, None], padding=4)[0, 0]
    weight = 1 / density[place]
    return weight / weight.mean()
