"""SupReMix: supervised contrastive regression with mixtures as hard negatives and hard positives."""

from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.losses.base import Objective, dots
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.draws import beta
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["SupReMix"]


class SupReMix(Objective):
    """Order embeddings by a continuous label, with label-aware mixtures as hardest cases (SupReMix).

        mix-neg of anchor i:  a z_i + (1 - a) z_k for every k with y_k != y_i,       a ~ Beta(2, 8)
        mix-pos of anchor i:  a z_j + (1 - a) z_k for all y_j < y_i < y_k within `window` labels, mixed label = y_i
        l_i = -1/|P_i| sum_{p in P_i} [ s_ip - log( sum_{r real, r != i} w_ir e^{s_ir} + sum_{m mixture} w_im e^{s_im}
        ) ] w = |y_i - y_.| + 1,     P_i = other rows of the same label and the mix-positives of i

    Rows are those of both views. Mixtures are neither normalised nor differentiated: the gradient reaches the anchor.
    The official code subtracts the greatest real score from the real rows and the greatest mixture's from the
    mixtures before it adds their exponentials, which weighs the mixtures; `separate_maxima` does so. A row without
    positives counts as zero. Dense by nature: rows^2 mix-negatives and up to rows^3 mix-positives; batches of the
    paper's 64 are meant.

    Args:
        temperature: T (0.3).
        beta: parameters of a.
        window: n, in label units, strict (5 for ages).
        separate_maxima: as the released code (see above).
        generator: source of a.

    Call with za, zb [batch, dim] and target [batch]. Source: Wu et al. 2023 and the
    authors' files (supremix_loss.py and the mixing of its README, read without the name of their repository).

    >>> import torch
    >>> loss = SupReMix(generator=torch.Generator().manual_seed(0))
    >>> loss(torch.eye(4), torch.eye(4), target=torch.arange(4.0)).item() > 0
    True
    """

    card = ObjectiveCard(
        paper="SupReMix 2023",
        needs="continuous labels; a generator",
        engine="none (per-pair label weights, private mixtures: dense)",
        status="official numbers",
        checked="official numbers (authors' loss file and mixing) with separate_maxima; written-out loops",
    )

    def __init__(
        self,
        temperature: float = 0.3,
        *,
        beta: tuple[float, float] = (2.0, 8.0),
        window: float = 5.0,
        separate_maxima: bool = False,
        generator: torch.Generator | None = None,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        self.temperature, self.beta, self.window, self.generator = temperature, beta, window, generator
        self.separate_maxima = separate_maxima

    def forward(
        self, za: Float[Tensor, "batch dim"], zb: Float[Tensor, "batch dim"], *, target: Float[Tensor, "batch"]
    ) -> Float[Tensor, ""]:
        """Mean over the 2 B rows."""
        a, b = self.embed(za, zb)
        z, y = torch.cat([a, b]), target.to(a.dtype).repeat(2)
        mixing = self.agreed(self.draw(self.count(z), z))[self.own(z)]
        return self.mean(self.row_losses(z, y, mixing))

    @torch.no_grad()
    def draw(self, rows: int, like: Tensor) -> Float[Tensor, "rows rows"]:
        """The mixing weight a of every (anchor, negative) pair."""
        return beta(*self.beta, rows, rows, generator=self.generator).to(like)

    def row_losses(
        self, z: Float[Tensor, "rows dim"], y: Float[Tensor, "rows"], mixing: Float[Tensor, "rows all_rows"]
    ) -> Float[Tensor, "rows"]:
        """One loss per anchor, for given mixing weights."""
        t, keys, label, first = self.temperature, self.union(z), self.union(y), self.own(z).start
        # These few-hundred-row products are the method's own object: a label weight per pair, mixtures per anchor.
        s, fixed = z @ keys.T / t, z @ keys.detach().T / t
        gap = (y[:, None] - label).abs()
        own = torch.arange(first, first + len(z), device=z.device)[:, None] == torch.arange(len(keys), device=z.device)
        real = torch.where(own, -torch.inf, s + torch.log1p(gap))
        mixed = mixing * dots(z, z.detach())[:, None] / t + (1 - mixing) * fixed
        below = (label < y[:, None]) & (gap < self.window)
        above = (label > y[:, None]) & (gap < self.window)
        pairs = below[:, :, None] & above[:, None, :]
        span = (label[None, :] - label[:, None]).clamp_min(1e-9)  # [j, k]: y_k - y_j
        share = ((label[None, None, :] - y[:, None, None]) / span).clamp(0, 1)
        positive = share * fixed[:, :, None] + (1 - share) * fixed[:, None, :]
        if self.separate_maxima:
            shift = self._shift(s, torch.where(gap > 0, mixed, 0.0), torch.where(pairs, positive, 0.0).flatten(1))
            mixed, positive = mixed + shift[:, None], positive + shift[:, None, None]
        negative = torch.where(gap > 0, mixed + torch.log1p((1 - mixing) * gap), -torch.inf)
        hard = torch.where(pairs, positive, -torch.inf).flatten(1)
        lse = torch.logsumexp(torch.cat([real, negative, hard], 1), 1)
        same = (gap == 0) & ~own
        count = same.sum(1) + pairs.flatten(1).sum(1)
        total = torch.where(same, s, 0.0).sum(1) + torch.where(pairs, positive, 0.0).flatten(1).sum(1)
        loss = lse - total / count.clamp_min(1)
        return torch.where(count > 0, loss, torch.zeros_like(loss))

    @staticmethod
    def _shift(real: Tensor, *mixtures: Tensor) -> Float[Tensor, "rows"]:
        """How far the greatest real score lies above the greatest mixture's (absent mixtures are zero vectors)."""
        top = torch.stack([m.amax(1) for m in mixtures]).amax(0) if real.shape[1] else real.sum(1)
        return (real.amax(1) - top).detach() if real.shape[1] else top.detach()
