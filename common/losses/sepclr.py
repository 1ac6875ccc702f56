"""SepCLR: what two populations share, and what only the target population has."""

from collections.abc import Callable
from typing import Unpack

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from counterpoint.common.kernels import contrast_stats
from counterpoint.common.losses.base import Objective
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.gap import Uniformity
from counterpoint.common.losses.sharing import EngineSettings, Shared

__all__ = ["SepCLR", "joint_entropy"]


def joint_entropy(
    common: Float[Tensor, "batch c"],
    salient: Float[Tensor, "batch s"],
    *,
    width: float = 0.5,
    over: Shared | None = None,
) -> Float[Tensor, ""]:
    """Kernel estimate of minus the joint entropy of two codes (SepCLR's k-JEM term; minimising it raises the entropy).

        mean_i log mean_j k(c_i, c_j) k(s_i, s_j),     k(x, y) = exp(-|x - y|^2 / (2 width)),   j = i included

    The product of two Gaussian kernels is one kernel on the concatenated codes.

    >>> import torch
    >>> joint_entropy(torch.zeros(4, 2), torch.zeros(4, 3)).item()    # no spread: the largest value
    0.0
    """
    z = torch.cat([common, salient], -1)
    norm = z.square().sum(-1) / (2 * width)
    over = Shared() if over is None else over
    across = {"distributed": over.distributed, "backend": over.backend}
    stats = contrast_stats(z, z, scale=1 / width, col_bias=-norm, **across)
    return over.mean(stats.lse - norm - stats.count.to(z.dtype).log())


class SepCLR(Objective):
    """Separate common from salient factors of a background and a target population (SepCLR).

        L = align(c1, c2) + 2 unif(c)                                     common code, all samples, on the sphere
          + w_salient (align(s1, s2 | target) + 2 unif(s, background at 0))   salient code, raw
          + w_zero align(s | background, 0)                              the background has no salient factor
          + w_joint mean_i log mean_j k(c_i, c_j) k(s_i, s_j)            keeps the two codes informative apart

    with align = mean |x - y|^2 / (2 T) and unif the logarithm of the mean Gaussian kernel of all pairs i != j, width T;
    in k-JEM (the last term) the background's s is 0, too. Terms of one view (unif, zero, k-JEM) are averaged over both.

    Call with the common codes c1, c2 and salient codes s1, s2 of both views, and `target` [batch]: true for samples of
    the target population.

    Args:
        temperature: T (0.5).
        salient, zero, joint: the weights, 1, 10, 10 as in the official CheXpert script (ODIR: zero 100; CelebA and
            CIFAR-MNIST: salient and zero 1000).

    `normalize` concerns the common codes only. Source: Louiset et al. 2024, official code.

    >>> import torch
    >>> c, s = torch.eye(4), torch.zeros(4, 2)
    >>> target = torch.tensor([True, True, False, False])
    >>> round(SepCLR()(c, c, s, s, target=target).item(), 4)    # 2 (-2) + 0 + 10 log((1 + 3 e^-2) / 4)
    -14.4554
    """

    card = ObjectiveCard(
        paper="SepCLR 2024",
        needs="common and salient codes, target or background",
        engine="contrast_stats(col_bias)",
        status="official numbers",
        checked="official numbers (neurospin-projects/2024_rlouiset_sep_clr 0e40bff), whole training step",
    )

    def __init__(
        self,
        *,
        temperature: float = 0.5,
        salient: float = 1.0,
        zero: float = 10.0,
        joint: float = 10.0,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        self.temperature, self.salient, self.zero, self.joint = temperature, salient, zero, joint
        self.unif = Uniformity(1 / (2 * temperature), **{**engine, "normalize": False})

    def forward(
        self,
        c1: Float[Tensor, "batch common"],
        c2: Float[Tensor, "batch common"],
        s1: Float[Tensor, "batch salient"],
        s2: Float[Tensor, "batch salient"],
        *,
        target: Bool[Tensor, "batch"],
    ) -> Float[Tensor, ""]:
        """The weighted sum; its parts lie in `monitors`."""
        c1, c2 = self.embed(c1, c2)
        s1, s2 = (s.float() if s.dtype in (torch.float16, torch.bfloat16) else s for s in (s1, s2))
        views = [(c, s, torch.where(target[:, None], s, torch.zeros_like(s))) for c, s in ((c1, s1), (c2, s2))]

        def both(term: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Float[Tensor, ""]:
            return (term(*views[0]) + term(*views[1])) / 2

        salient = self._align(s1[target], s2[target]) + 2 * both(lambda c, s, masked: self.unif(masked))
        joint = both(lambda c, s, masked: joint_entropy(c, masked, width=self.temperature, over=self))
        parts = {
            "common": self._align(c1, c2) + 2 * both(lambda c, s, masked: self.unif(c)),
            "salient": self.salient * salient,
            "zero": self.zero * both(lambda c, s, masked: self._align(s[~target], torch.zeros_like(s[~target]))),
            "joint": self.joint * joint,
        }
        self.monitors.update({name: value.detach() for name, value in parts.items()})
        return torch.stack(list(parts.values())).sum()

    def _align(self, x: Tensor, y: Tensor) -> Float[Tensor, ""]:
        return self.mean_over((x - y).square().sum(), len(x)) / (2 * self.temperature)
