"""AMCL: several heads, each pair with its own temperature; for SimCLR, MoCo, SimSiam and Barlow Twins."""

from typing import Literal, Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from counterpoint.common.kernels import Diagonal, SameLabel, Self, topk_scores
from counterpoint.common.losses.base import Objective, dots
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.queue import FeatureQueue
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["AMCL", "AMCLBarlow", "AMCLMoCo", "AMCLSimSiam", "PairTemperature"]

_PAPER = "AMCL 2023"
_CHECKED = "official numbers (LeiWangR/cl 755799d)"


class PairTemperature(nn.Module):
    """A temperature for every pair, from one small network that all heads share.

        T(z, z') = t_min + (t_max - t_min) sigmoid(-phi(z) . phi(z')),     phi = Linear, ReLU, Linear

    >>> import torch
    >>> low, high = PairTemperature(4, 8, (0.1, 2.0)).between(torch.tensor([50.0, -50.0])).tolist()
    >>> round(low, 2), round(high, 2)      # alike pairs get a low temperature
    (0.1, 2.0)
    """

    def __init__(self, dim: int, hidden: int, bounds: tuple[float, float]):
        super().__init__()
        if not 0 < bounds[0] < bounds[1]:
            raise ValueError(f"bounds must be 0 < t_min < t_max, got {bounds}")
        self.phi = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))
        self.bounds = bounds

    def between(self, score: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
        """The temperatures that belong to the products phi(z) . phi(z')."""
        low, high = self.bounds
        return low + (high - low) * torch.sigmoid(-score)


def _omega(t: Tensor, dim: int) -> Tensor:
    return dim / 2 * t.log() + 1 / t


class _Headed(Objective):
    """What the four share: phi, beta, and the terms of a positive pair and of the hardest negatives."""

    def __init__(
        self, dim: int, hidden: int, beta: float, bounds: tuple[float, float], **engine: Unpack[EngineSettings]
    ):
        super().__init__(**engine)
        self.temperature = PairTemperature(dim, hidden, bounds)
        self.dim, self.beta, self.bounds = dim, beta, bounds

    @property
    def phi(self) -> nn.Module:
        return self.temperature.phi

    def _pull(self, a: Tensor, b: Tensor, p: Tensor, q: Tensor) -> Float[Tensor, "rows"]:
        """-s / T + beta Omega(T) of paired rows; p, q are their phi."""
        t = self.temperature.between(dots(p, q))
        return -dots(a, b) / t + self.beta * _omega(t, self.dim)


class _Pushed(_Headed):
    """SimCLR's and MoCo's form: negatives enter through the hardest ones."""

    def __init__(
        self,
        dim: int,
        *,
        hidden: int = 128,
        beta: float = 1e-4,
        hardest: int = 100,
        regulariser: Literal["selected", "omega"] = "selected",
        bounds: tuple[float, float] = (1e-5, 2.0),
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(dim, hidden, beta, bounds, **engine)
        if regulariser not in ("selected", "omega"):
            raise ValueError(f"regulariser must be 'selected' or 'omega', got {regulariser!r}")
        self.hardest, self.regulariser = hardest, regulariser

    def _push(self, a: Tensor, p: Tensor, keys: Tensor, temper: Tensor, hard: Tensor) -> Float[Tensor, "rows"]:
        """Mean s / T over the rows' `hard` keys (-1: none) less beta times their regulariser."""
        real, place = hard >= 0, hard.clamp_min(0)
        t = self.temperature.between((p[:, None] * temper[place]).sum(-1))
        score = (a[:, None] * keys[place]).sum(-1) / t
        cost = t.log() + 1 / t if self.regulariser == "selected" else _omega(t, self.dim) / hard.shape[1]
        count = real.sum(1).clamp_min(1)
        return (torch.where(real, score, 0.0).sum(1) / count) - self.beta * torch.where(real, cost, 0.0).sum(1)


class AMCL(_Pushed):
    """Adaptive multi-head contrast for SimCLR: every pair has its own temperature, negatives enter through the hardest.

        l_i = sum_c [ -s+ / T+ + beta Omega(T+) + (1/k) sum_{n in top k} s_n / T_n - beta sum_{n in top k} (log T_n +
        1 / T_n) ],        Omega(T) = (d / 2) log T + 1 / T,        T as in `PairTemperature`

    The minus before the negatives' regulariser is the authors': it rewards extreme temperatures, which the bounds
    contain. Which pairs are hardest carries no gradient. The loss tables of the authors' first README have the one
    hardest negative and Omega of it: `hardest=1, regulariser="omega"` (more than one: the mean of Omega).

    Call with za, zb [heads, batch, dim]: the outputs of the projection heads (`MultiHead`) for both views.

    Args:
        dim: width of the heads' outputs.
        hidden: width inside phi (128).
        beta: 1e-4 (SimCLR, MoCo, SimSiam), 1e-6 (Barlow Twins) in the released models.
        hardest: k (100).
        regulariser: "selected" (above) or "omega".
        bounds: (t_min, t_max).

    Raises `ValueError` for another regulariser, and for bounds that are none.

    Source: Wang et al. 2023; LeiWangR/cl at 755799d, amcl/losses.py.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> loss = AMCL(dim=4)
    >>> loss(torch.eye(4).expand(3, 4, 4), torch.eye(4).expand(3, 4, 4)).shape
    torch.Size([])
    """

    card = ObjectiveCard(
        paper=_PAPER,
        needs="two views through several heads",
        engine="topk_scores; listed pairs dense",
        status="official numbers",
        checked=_CHECKED,
    )

    def forward(self, za: Float[Tensor, "heads batch dim"], zb: Float[Tensor, "heads batch dim"]) -> Float[Tensor, ""]:
        """Sum over heads, mean over the 2 B rows."""
        a, b = self.embed(za, zb)
        return sum((self._head(x, y) for x, y in zip(a, b, strict=True)), a.new_zeros(()))

    def _head(self, a: Tensor, b: Tensor) -> Float[Tensor, ""]:
        batch = len(a)
        z, p = torch.cat([a, b]), self.phi(torch.cat([a, b]))
        partner = (torch.arange(2 * batch, device=z.device) + batch) % max(2 * batch, 1)
        everyone, temper = self.union(z), self.union(p)
        loss = self._pull(z, z[partner], p, p[partner])
        if len(everyone) > 2:
            k = min(self.hardest, len(everyone) - 2)
            _, hard = self.best(z, z, k, exclude=[Self(), Diagonal(batch), Diagonal(-batch)])
            loss = loss + self._push(z, p, everyone, temper, hard)
        return self.mean(loss)


class AMCLMoCo(_Pushed):
    """Adaptive multi-head contrast against a queue of past keys (AMCL for MoCo).

        L = sum_c mean_i [ l(q_i; k_i) + l(k_i; q_i) ] / 2,     l as in `AMCL`, negatives from the head's queue

    Keys get no gradient; in the second term it reaches the query as the positive, and phi. A call in training mode
    pushes the keys after use; with `index` or `group` entries of the same sample are no negatives. (The released queue
    starts with random directions; this one starts empty.)

    Call with za (queries) and zb (keys of the momentum encoder and heads), each [heads, batch, dim].

    Args:
        dim, heads, size: width and number of the heads' outputs, length of the queue (4096).
        hidden, beta, hardest, regulariser, bounds: as in `AMCL`.

    Source: Wang et al. 2023; LeiWangR/cl at 755799d, amcl/losses.py and amcl/models.py.

    >>> import torch
    >>> loss = AMCLMoCo(dim=4, heads=3, size=8)
    >>> z = torch.eye(4).expand(3, 4, 4)
    >>> _ = loss(z, z); len(loss.queue)
    4
    """

    card = ObjectiveCard(
        paper=_PAPER,
        needs="queries and momentum keys through several heads; own queue; optional index or group",
        engine="topk_scores on the queue; listed pairs dense",
        status="official numbers",
        checked=f"{_CHECKED}, queue included",
    )

    def __init__(
        self,
        dim: int,
        heads: int,
        size: int = 4096,
        *,
        hidden: int = 128,
        beta: float = 1e-4,
        hardest: int = 100,
        regulariser: Literal["selected", "omega"] = "selected",
        bounds: tuple[float, float] = (1e-5, 2.0),
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(
            dim, hidden=hidden, beta=beta, hardest=hardest, regulariser=regulariser, bounds=bounds, **engine
        )
        self.heads, self.queue = heads, FeatureQueue(size, heads * dim, engine.get("distributed"))

    def forward(
        self,
        za: Float[Tensor, "heads batch dim"],
        zb: Float[Tensor, "heads batch dim"],
        *,
        index: Int[Tensor, "batch"] | None = None,
        group: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, ""]:
        """Sum over heads, mean over rows and both directions."""
        q, k = self.embed(za, zb.detach())
        ids = index if group is None else group
        banks = self.queue.keys.to(q.dtype).unflatten(1, (self.heads, -1)).transpose(0, 1)
        terms = [self._pair(*head, ids) for head in zip(q, k, banks, strict=True)]
        if self.training:
            self.queue.push(k.transpose(0, 1).flatten(1), ids)
        return sum((self.mean(t) for t in terms), q.new_zeros(()))

    def _pair(self, q: Tensor, k: Tensor, bank: Tensor, ids: Tensor | None) -> Float[Tensor, "rows"]:
        p, r = self.phi(q), self.phi(k)
        loss = self._pull(q, k, p, r)
        if len(bank):
            temper = self.phi(bank)
            exclude = None if ids is None else SameLabel(ids, self.queue.ids)
            for rows, phi in ((q, p), (k, r)):
                hard = topk_scores(rows, bank, min(self.hardest, len(bank)), exclude=exclude)[1]
                loss = loss + self._push(rows, phi, bank, temper, hard) / 2
        return loss


class AMCLSimSiam(_Headed):
    """Adaptive multi-head agreement without negatives (AMCL for SimSiam).

        L = sum_c mean_i [ -cos(p_i, z'_i) / (2 T) - cos(p'_i, z_i) / (2 T') + beta Omega(T) + beta Omega(T') ]

    p, p' are predictions of the two views, z, z' their projections, which get no gradient; T = T(p, z').

    Call with pa, pb (predictions) and za, zb (projections), each [heads, batch, dim].

    Args:
        dim, hidden, beta, bounds: as in `AMCL`.

    Source: Wang et al. 2023; LeiWangR/cl at 755799d, amcl/losses.py.

    >>> import torch
    >>> z = torch.eye(4).expand(3, 4, 4)
    >>> AMCLSimSiam(dim=4)(z, z, z, z).shape
    torch.Size([])
    """

    card = ObjectiveCard(
        paper=_PAPER,
        needs="predictions and projections of two views through several heads",
        engine="none (row dots)",
        status="official numbers",
        checked=_CHECKED,
    )

    def __init__(
        self,
        dim: int,
        *,
        hidden: int = 128,
        beta: float = 1e-4,
        bounds: tuple[float, float] = (1e-5, 2.0),
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(dim, hidden, beta, bounds, **engine)

    def forward(
        self,
        pa: Float[Tensor, "heads batch dim"],
        pb: Float[Tensor, "heads batch dim"],
        za: Float[Tensor, "heads batch dim"],
        zb: Float[Tensor, "heads batch dim"],
    ) -> Float[Tensor, ""]:
        """Sum over heads, mean over rows."""
        total = pa.new_zeros((), dtype=torch.promote_types(pa.dtype, torch.float32))
        for predicted, aim in ((pa, zb), (pb, za)):
            p, z = self.embed(predicted, aim.detach())
            t = self.temperature.between(dots(self.phi(p), self.phi(z)))
            for head in -dots(p, z) / (2 * t) + self.beta * _omega(t, self.dim):
                total = total + self.mean(head)
        return total


class AMCLBarlow(_Headed):
    """Adaptive multi-head redundancy reduction (AMCL for Barlow Twins).

        L = sum_c [ sum_l (1 - C_ll / T_ll)^2 + lam sum_{l != m} C_lm^2 / T_lm + beta sum_l Omega(T_ll) - beta sum_{l !=
        m} Omega(T_lm) ]

    C is the cross-correlation of the standardised views (unbiased deviation, divided by B); T_lm = T(z_:l, z'_:m) of
    two channels, each a vector of the whole raw batch. So phi maps R^B to R^B: the batch size is part of the model and
    the order of the rows matters, as released.

    Call with za, zb [heads, batch, dim], raw.

    Args:
        batch: B, rows of all ranks together; another number of rows raises `ValueError` (none gives zero).
        dim, hidden, beta, bounds: as in `AMCL`; beta 1e-6.
        lam: 0.005.

    Source: Wang et al. 2023; LeiWangR/cl at 755799d, amcl/losses.py.

    >>> import torch
    >>> AMCLBarlow(batch=5, dim=4)(torch.randn(3, 5, 4), torch.randn(3, 5, 4)).shape
    torch.Size([])
    """

    card = ObjectiveCard(
        paper=_PAPER,
        needs="two views through several heads; a fixed batch size",
        engine="none (dim x dim)",
        status="official numbers",
        checked=_CHECKED,
    )
    normalizes = False

    def __init__(
        self,
        batch: int,
        dim: int,
        *,
        hidden: int = 128,
        beta: float = 1e-6,
        lam: float = 5e-3,
        bounds: tuple[float, float] = (1e-5, 2.0),
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(batch, hidden, beta, bounds, **engine)
        self.batch, self.dim, self.lam = batch, dim, lam

    def forward(self, za: Float[Tensor, "heads batch dim"], zb: Float[Tensor, "heads batch dim"]) -> Float[Tensor, ""]:
        """Sum over heads."""
        a, b = (self.union(z.transpose(0, 1)).transpose(0, 1) for z in self.embed(za, zb))
        rows = a.shape[1]
        if not rows:
            return a.sum() + b.sum()
        if rows != self.batch:
            raise ValueError(f"AMCLBarlow was made for batches of {self.batch} rows, got {rows}")
        return sum((self._head(x, y) for x, y in zip(a, b, strict=True)), a.new_zeros(()))

    def _head(self, a: Tensor, b: Tensor) -> Float[Tensor, ""]:
        x, y = ((z - z.mean(0)) / (z.std(0) + 1e-9) for z in (a, b))
        correlation = x.T @ y / len(a)
        t = self.temperature.between(self.phi(a.T) @ self.phi(b.T).T)
        own = torch.eye(len(t), dtype=torch.bool, device=t.device)
        pull = (1 - correlation.diagonal() / t.diagonal()).square().sum()
        push = (correlation.square() / t)[~own].sum()
        omega = _omega(t, self.dim)
        return pull + self.lam * push + self.beta * (omega.diagonal().sum() - omega[~own].sum())
