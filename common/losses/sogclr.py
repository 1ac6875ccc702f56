"""Global contrastive losses with a running estimate per sample: SogCLR and iSogCLR (RGCL)."""

import math
from typing import Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from counterpoint.common.kernels import SameLabel, Self
from counterpoint.common.losses.base import Objective, dots
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.sample_state import SampleState
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["ISogCLR", "SogCLR"]


class SogCLR(Objective):
    """Contrast with the whole data set through a moving average per sample: small batches suffice (SogCLR).

        F = mean_i sum_sides T log E_{negatives} exp(h_ij / T),     h_ij = s_ij - s_{i, i+}
        g_i = batch mean of exp(h_ij / T),   u_i <- (1 - gamma) u_i + gamma g_i,   gradient = (T / u_i) grad g_i

    The value returned is T log u_i summed over the two sides (the objective's estimate); its gradient is the
    estimator's, (g_i / u_i) grad(T log g_i). log u is stored, so nothing overflows. Two sides: unimodal rows see 2 (B
    - 1) negatives of both views and share one u; bimodal rows see the other modality's B - 1 and keep one u each. A
    sample not yet visited starts from its own g. In units of T nats, as in the paper.

    Args:
        n_samples: size of the data set; `index` in every call lies below it.
        temperature: T (0.1; 0.01 for image-text in the paper's code).
        gamma: weight of the new estimate (0.9); `set_epoch` implements FastCLIP's schedule with `decay_epochs`.
        bimodal: two modalities instead of two views.
        relative: keep u of exp(h / T), as the paper; `False` keeps u of exp(s / T), as the unimodal official code does
            (not the same estimator when gamma < 1, because s_{i, i+} changes between visits).

    Raises `ValueError` for a `gamma` outside (0, 1].

    Source: Yuan et al. 2022. The bimodal official code lacks the division by B - 1 and averages the two sides, so that
    its gradient is (B - 1) / 2 times this one.

    >>> import torch
    >>> loss = SogCLR(n_samples=10, temperature=1.0)
    >>> z = torch.eye(4)
    >>> round(loss(z, z, index=torch.arange(4)).item(), 4)    # 2 (log e^-1)
    -2.0
    """

    card = ObjectiveCard(
        paper="SogCLR 2022",
        needs="index; state over the data set",
        engine="contrast_stats x 2-3, merge",
        status="official numbers",
        checked="official gradients, up to a factor that the code leaves out, and state (LibAUC v2, bimodal)",
    )

    def __init__(
        self,
        n_samples: int,
        temperature: float = 0.1,
        *,
        gamma: float = 0.9,
        decay_epochs: int | None = None,
        bimodal: bool = False,
        relative: bool = True,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        if not 0 < gamma <= 1:
            raise ValueError(f"gamma must lie in (0, 1], got {gamma}")
        self.temperature, self.gamma, self.decay_epochs = temperature, gamma, decay_epochs
        self.bimodal, self.relative = bimodal, relative
        self.now = gamma
        names = ("log_u_a", "log_u_b") if bimodal else ("log_u",)
        self.state = SampleState(n_samples, engine.get("distributed"), **dict.fromkeys(names, -math.inf))

    def set_epoch(self, epoch: int) -> None:
        """gamma 1 in epoch 0; then constant, or cosine from 1 to `gamma` over `decay_epochs`."""
        if epoch == 0:
            self.now = 1.0
        elif self.decay_epochs and epoch < self.decay_epochs:
            self.now = self.gamma + (1 - self.gamma) * (1 + math.cos(math.pi * epoch / self.decay_epochs)) / 2
        else:
            self.now = self.gamma

    def forward(
        self,
        za: Float[Tensor, "batch dim"],
        zb: Float[Tensor, "batch dim"],
        *,
        index: Int[Tensor, "batch"],
        group: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean over samples of the sum of both sides."""
        a, b = self.embed(za, zb)
        positive = dots(a, b)
        temperatures = self.temperatures(index, a)
        sides = [
            self._side(side, q, k, 1 / t, group, positive, index)
            for side, (q, k, t) in enumerate(((a, b, temperatures[0]), (b, a, temperatures[1])))
        ]
        self._store(index, [log_u for *_, log_u in sides])
        losses = [
            self._surrogate(t, lse, log_g, log_u, positive, some)
            for t, (some, lse, log_g, _, log_u) in zip(temperatures, sides, strict=True)
        ]
        if self.training:
            self._after(index, temperatures, sides, positive)
        return losses[0] + losses[1]

    def temperatures(self, index: Int[Tensor, "batch"], like: Tensor) -> tuple[Tensor, Tensor]:
        """T of each row, for the two sides."""
        t = like.new_full((len(like),), self.temperature)
        return t, t

    def _side(
        self,
        side: int,
        q: Tensor,
        k: Tensor,
        scale: Tensor,
        group: Tensor | None,
        positive: Tensor,
        index: Tensor,
    ) -> tuple[Tensor, ...]:
        """(rows with negatives, lse, log g, mean raw score, log u) of one side."""
        drop = Self() if group is None else SameLabel(group)
        stats = self.stats(q, k, scale=scale, exclude=drop, mean=True)
        count, lse, mean = stats.count, stats.lse, stats.mean.detach()
        if not self.bimodal:
            own = self.stats(q, q, scale=scale, exclude=drop, mean=True)
            lse_all = _logaddexp(lse, own.lse)
            share = torch.exp(torch.nan_to_num(own.lse.detach() - lse_all.detach(), nan=0.0))
            mean = mean + share * (own.mean.detach() - mean)
            count, lse = count + own.count, lse_all
        some = count > 0
        log_g = (lse - count.clamp_min(1).to(lse.dtype).log()).detach()
        if self.relative:
            log_g = log_g - scale * positive.detach()
        name = ("log_u_a", "log_u_b")[side] if self.bimodal else "log_u"
        return some, lse, log_g, mean, self.state.moved(name, index, log_g, self.now)

    @torch.no_grad()
    def _store(self, index: Tensor, log_u: list[Tensor]) -> None:
        if not self.training:
            return
        if self.bimodal:
            self.state.write("log_u_a", index, log_u[0])
            self.state.write("log_u_b", index, log_u[1])
        else:
            self.state.write("log_u", index, torch.logaddexp(log_u[0], log_u[1]) - math.log(2))

    def _surrogate(
        self, t: Tensor, lse: Tensor, log_g: Tensor, log_u: Tensor, positive: Tensor, some: Tensor
    ) -> Float[Tensor, ""]:
        lse, gap, log_u = (torch.where(some, x, torch.zeros_like(x)) for x in (lse, log_g - log_u, log_u))
        weight = torch.exp(gap)
        if self.relative:
            value, surrogate = t * log_u, weight * (t * lse - positive)
        else:
            value, surrogate = t * log_u - positive.detach(), weight * t * lse - positive
        return self.mean(value.detach() + surrogate - surrogate.detach(), some)

    def _after(
        self, index: Tensor, temperatures: tuple[Tensor, Tensor], sides: list[tuple[Tensor, ...]], positive: Tensor
    ) -> None:
        """What a subclass does once the statistics are known."""


class ISogCLR(SogCLR):
    """SogCLR with a temperature per sample, learnt inside the loss (iSogCLR, the RGCL objective).

        F = mean_i sum_sides T_i log E exp(h_ij / T_i) + T_i rho
        grad T_i = log u_i + rho - sum_j p_ij h_ij / T_i,   m <- (1 - beta) m + beta grad,   T_i <- clamp(T_i - eta m)

    Frequent, easy concepts end with high temperatures, rare ones with low ones. Temperatures move in training mode
    only.

    Args:
        rho, eta, beta, bounds: 0.3, 0.01, 0.9, (0.05, 0.7) for two views; the paper's code uses rho 6 and bounds
            (0.005, 0.05) for image-text.

        temperature, gamma, decay_epochs, bimodal, relative: as `SogCLR` (`temperature` is where every T_i starts).

    Source: Qiu et al. 2023.

    >>> import torch
    >>> loss = ISogCLR(n_samples=10)
    >>> _ = loss(torch.eye(4), torch.eye(4), index=torch.arange(4))
    >>> loss.state.temperature[0].item() != loss.state.temperature[5].item()
    True
    """

    card = ObjectiveCard(
        paper="iSogCLR 2023",
        needs="index; state over the data set",
        engine="contrast_stats(per-row scale, mean) x 2-4",
        status="official numbers",
        checked="official gradients, u, temperatures and their gradient (LibAUC v1)",
    )

    def __init__(
        self,
        n_samples: int,
        temperature: float = 0.1,
        *,
        gamma: float = 0.9,
        decay_epochs: int | None = None,
        rho: float = 0.3,
        eta: float = 0.01,
        beta: float = 0.9,
        bounds: tuple[float, float] = (0.05, 0.7),
        bimodal: bool = False,
        relative: bool = True,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(
            n_samples,
            temperature,
            gamma=gamma,
            decay_epochs=decay_epochs,
            bimodal=bimodal,
            relative=relative,
            **engine,
        )
        self.rho, self.eta, self.beta, self.bounds = rho, eta, beta, bounds
        self._names = ("temperature_a", "temperature_b") if bimodal else ("temperature",)
        for name in self._names:
            self.state.register_buffer(name, torch.full((n_samples,), float(temperature)))
            self.state.register_buffer(f"momentum_{name}", torch.zeros(n_samples))

    def temperatures(self, index: Int[Tensor, "batch"], like: Tensor) -> tuple[Tensor, Tensor]:
        """T_i of each row, for the two sides."""
        t = [self.state.read(name, index).to(like.dtype) for name in self._names]
        return t[0], t[-1]

    @torch.no_grad()
    def _after(
        self, index: Tensor, temperatures: tuple[Tensor, Tensor], sides: list[tuple[Tensor, ...]], positive: Tensor
    ) -> None:
        gradients = []
        for t, (some, _, log_g, mean, log_u) in zip(temperatures, sides, strict=True):
            score = mean - positive if self.relative else mean
            gradient = log_u + self.rho - torch.exp(log_g - log_u) * score / t
            gradients.append(torch.where(some, gradient, torch.zeros_like(gradient)))
        if not self.bimodal:
            gradients = [(gradients[0] + gradients[1]) / 2]
        for name, gradient in zip(self._names, gradients, strict=True):
            momentum = (1 - self.beta) * self.state.read(f"momentum_{name}", index) + self.beta * gradient
            self.state.write(f"momentum_{name}", index, momentum)
            moved = (self.state.read(name, index) - self.eta * momentum).clamp(*self.bounds)
            self.state.write(name, index, moved)


def _logaddexp(a: Tensor, b: Tensor) -> Tensor:
    """logaddexp with zero gradient where both are -inf."""
    empty = torch.isinf(a) & torch.isinf(b)
    both = torch.logaddexp(torch.where(empty, 0.0, a), torch.where(empty, 0.0, b))
    return torch.where(empty, -math.inf, both)
