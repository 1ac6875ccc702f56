"""Metrix: metric learning on mixed inputs, features or embeddings."""

import math
from collections.abc import Callable
from typing import Literal, Unpack

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from counterpoint.common.kernels import SameLabel, Self
from counterpoint.common.kernels.unit import unit
from counterpoint.common.losses.base import Objective
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.draws import beta, noise_for, uniform
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["Metrix"]

Mix = Callable[[Tensor, Tensor, float], Tensor]


class Metrix(Objective):
    """Contrastive loss plus its mixed form: a mixture is positive with weight lam, negative with 1 - lam (Metrix).

        clean: mean+ d(z_i, z_p) + mean+ [m - d(z_i, z_n)]_+               d Euclidean on unit vectors, m = 0.5
        mixed: mean+ lam d(z_i, v) + mean+ (1 - lam) [m - d(z_i, v)]_+
        L = clean + w mixed,      mean+ over the terms that are not zero,      lam ~ Beta(alpha, alpha), one per call

    Half of the calls mix, for every anchor with positives, its first one with each negative, v = lam z_p + (1 - lam)
    z_n (an anchor counts as often as it has positives; w = 0.4); the other half mix anchors without positives with
    each negative, v = lam z_i + (1 - lam) z_n (w = 0.3; for inputs and features 0.4).

    Embeddings are mixed unless `mix` is given: it gets positions of rows in this batch, first and second, and lam, and
    returns the embeddings of the mixtures, `encode(lam * x[first] + (1 - lam) * x[second])` of inputs or features. Such
    mixtures stay within a rank. For inputs take `hardest=1`: only the nearest negatives of each anchor (the released
    code means to, and takes those of other anchors).

    `base="multi-similarity"` puts the same weights into that loss, by the paper's general form (no code is public):
    clean 1/b log(1 + sum_p e^{-b (s - m)}) + 1/g log(1 + sum_n e^{g (s - m)}), mixed with lam and 1 - lam before the
    exponentials, v from a random positive and the hardest negatives (5 unless `hardest` says), b, g, m = 18, 75, 0.77.

    Args:
        base: "contrastive" or "multi-similarity".
        b, g, m: of the base; m 0.5 or 0.77.
        weight: w of mixtures with a positive (0.4).
        anchor_weight: w of mixtures with the anchor, where embeddings are mixed (0.3).
        alpha: 2.
        hardest: negatives mixed per anchor; all of them by default.
        block: anchors in memory at a time.
        generator: source of the kind of mixtures, lam and the random positives.

    Raises `ValueError` for another base, and for `mix` with "multi-similarity".

    How much of the space training used is `counterpoint.common.metrics.utilization`.

    Source: Venkataramanan et al. 2022; billpsomas/Metrix_ICLR22 at 7ce730c, train.py and mixup/.

    >>> import torch
    >>> loss = Metrix(generator=torch.Generator().manual_seed(0))
    >>> loss(torch.randn(6, 4), torch.tensor([0, 0, 1, 1, 2, 2])).shape
    torch.Size([])
    """

    card = ObjectiveCard(
        paper="Metrix 2022",
        needs="labels; a generator",
        engine="none: rows in blocks (distances); contrast_stats and topk_scores for multi-similarity",
        status="official numbers",
        checked="official numbers (billpsomas/Metrix_ICLR22 7ce730c), both kinds of mixtures; written-out equation",
    )

    def __init__(
        self,
        *,
        base: Literal["contrastive", "multi-similarity"] = "contrastive",
        b: float = 18.0,
        g: float = 75.0,
        m: float | None = None,
        weight: float = 0.4,
        anchor_weight: float = 0.3,
        alpha: float = 2.0,
        hardest: int | None = None,
        block: int = 64,
        generator: torch.Generator | None = None,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        if base not in ("contrastive", "multi-similarity"):
            raise ValueError(f"base must be 'contrastive' or 'multi-similarity', got {base!r}")
        self.base, self.b, self.g = base, b, g
        self.m = (0.5 if base == "contrastive" else 0.77) if m is None else m
        self.weight, self.anchor_weight, self.alpha = weight, anchor_weight, alpha
        self.hardest, self.block, self.generator = 0 if hardest is None else hardest, block, generator

    def forward(
        self, z: Float[Tensor, "batch dim"], label: Int[Tensor, "batch"], *, mix: Mix | None = None
    ) -> Float[Tensor, ""]:
        """The clean loss plus the weighted mixed one; both lie in `monitors`."""
        (z,) = self.embed(z)
        if self.base == "multi-similarity":
            if mix is not None:
                raise ValueError("Metrix with base 'multi-similarity' mixes embeddings only: leave out `mix`")
            return self._multi_similarity(z, label)
        clean = self.clean(z, label)
        if not self.weight and not self.anchor_weight:
            return clean
        with_positive, lam = self.draw(z)
        weight = self.anchor_weight if mix is None and not with_positive else self.weight
        mixed = self.mixed(z, label, with_positive, lam, mix)
        self.monitors.update(clean=clean.detach(), mixed=mixed.detach())
        return clean + weight * mixed

    def draw(self, like: Tensor) -> tuple[bool, float]:
        """Which kind of mixtures this call makes (True: of a positive), and lam; the same on all ranks."""
        with torch.no_grad():
            kind = self.agreed(uniform(1, generator=self.generator, like=like))
            lam = self.agreed(beta(self.alpha, self.alpha, generator=self.generator).to(like.device))
        return bool(kind < 0.5), float(lam)

    def clean(self, z: Float[Tensor, "batch dim"], label: Int[Tensor, "batch"]) -> Float[Tensor, ""]:
        """The contrastive loss on distances of all pairs; z of unit norm."""
        everyone, labels, first = self.union(z), self.union(label), self.own(z).start

        def sums(rows: slice) -> Tensor:
            d = torch.cdist(z[rows], everyone, compute_mode="donot_use_mm_for_euclid_dist")
            same, other = _alike(label[rows], labels, first + rows.start)
            return _sums(d * same, F.relu(self.m - d) * other)

        return self._means(sums, len(z))

    def mixed(
        self,
        z: Float[Tensor, "batch dim"],
        label: Int[Tensor, "batch"],
        with_positive: bool,
        lam: float,
        mix: Mix | None = None,
    ) -> Float[Tensor, ""]:
        """The mixed term of one kind for a given lam; z of unit norm."""
        here = mix is not None
        everyone, labels, first = (z, label, 0) if here else (self.union(z), self.union(label), self.own(z).start)

        def sums(rows: slice) -> Tensor:
            same, other = _alike(label[rows], labels, first + rows.start)
            count = same.sum(1)
            # An anchor counts once per positive, or once if it has none and mixes itself.
            times = count if with_positive else (count == 0).long()
            own = torch.arange(len(same), device=z.device) + first + rows.start
            partner = torch.where(count > 0, same.long().argmax(1), own) if len(labels) else own
            row, column = self._chosen(z[rows], everyone, other & (times > 0)[:, None])
            if mix is None:
                v = lam * everyone[partner[row]] + (1 - lam) * everyone[column]
            else:
                v = mix(partner[row], column, lam)
            d = _distance(z[rows][row], unit(v.to(z.dtype), dim=-1))
            return _sums(lam * d, (1 - lam) * F.relu(self.m - d), times[row])

        return self._means(sums, len(z), again=not here)

    def _chosen(self, z: Tensor, everyone: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """The anchors and negatives to mix: all marked pairs, or each anchor's `hardest`."""
        if not self.hardest or not other.numel():
            row, column = other.nonzero(as_tuple=True)
            return row, column
        score = torch.where(other, z.detach() @ everyone.detach().T, -torch.inf)
        values, best = score.topk(min(self.hardest, score.shape[1]), dim=1)
        row, place = torch.isfinite(values).nonzero(as_tuple=True)
        return row, best[row, place]

    def _means(self, sums: Callable[[slice], Tensor], rows: int, again: bool = True) -> Float[Tensor, ""]:
        """Both sums over all ranks' anchors by the numbers of their terms."""
        if again:
            blocks = [slice(start, start + self.block) for start in range(0, max(rows, 1), self.block)]
            parts = [checkpoint(sums, block, use_reentrant=False) for block in blocks]
        else:  # an encoder inside `mix` normalises over its batch and may draw dropout: it runs once, on all mixtures
            parts = [sums(slice(0, rows))]
        pull, pulled, push, pushed = torch.stack(parts).sum(0)
        return self.mean_over(pull, pulled.detach().long()) + self.mean_over(push, pushed.detach().long())

    def _multi_similarity(self, z: Tensor, label: Tensor) -> Float[Tensor, ""]:
        margin = z.new_full((len(z),), self.m)
        same = SameLabel(label)
        pull = self.stats(z, z, scale=-self.b, row_bias=self.b * margin, only=same, exclude=Self())
        push = self.stats(z, z, scale=self.g, row_bias=-self.g * margin, exclude=same)
        loss = self.mean(F.softplus(pull.lse) / self.b + F.softplus(push.lse) / self.g)
        if not self.weight:
            return loss
        lam, mixtures, real = self.mixtures(z, label)
        score = (mixtures @ z[:, :, None])[..., 0]
        near = torch.where(real, -self.b * (score - self.m) + math.log(lam), -torch.inf)
        far = torch.where(real, self.g * (score - self.m) + math.log1p(-lam), -torch.inf)
        mixed = torch.logsumexp(F.pad(near, (1, 0)), 1) / self.b + torch.logsumexp(F.pad(far, (1, 0)), 1) / self.g
        return loss + self.weight * self.mean(mixed)

    def mixtures(self, z: Float[Tensor, "batch dim"], label: Int[Tensor, "batch"]) -> tuple[float, Tensor, Tensor]:
        """For multi-similarity: lam, each anchor's mixtures [batch, hardest, dim], and which of them are real."""
        with torch.no_grad():
            drawn = beta(self.alpha, self.alpha, generator=self.generator).to(z.device)
            lam = float(self.agreed(drawn).clamp(1e-6, 1 - 1e-6))
            noise = noise_for(self.generator, z.device)
            # At scale 0 with Gumbel noise the best column is a uniform draw.
            chosen = self.best(z, z, 1, only=SameLabel(label), exclude=Self(), scale=0.0, noise=noise)[1]
            hard = self.best(z, z, self.hardest or 5, exclude=SameLabel(label))[1]
        real, everyone = (chosen >= 0) & (hard >= 0), self.union(z)
        mix = lam * everyone[chosen.clamp_min(0)] + (1 - lam) * everyone[hard.clamp_min(0)]
        return lam, unit(mix, dim=-1), real


def _alike(label: Tensor, labels: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """Which columns hold the row's label (itself left out), and which another."""
    equal = label[:, None] == labels
    rows = torch.arange(start, start + len(label), device=label.device)
    return equal & (rows[:, None] != torch.arange(len(labels), device=label.device)), ~equal


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """|a - b| row by row, with gradient zero where they are equal (a distance of zero has no direction)."""
    squared = (a - b).square().sum(-1)
    apart = squared > 0
    return torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)


def _sums(pull: Tensor, push: Tensor, times: Tensor | None = None) -> Float[Tensor, "four"]:
    """Sum and number of the terms above zero, of both kinds, each term counted `times`."""
    counted = 1 if times is None else times
    return torch.stack([t for term in (pull, push) for t in ((term * counted).sum(), ((term > 0) * counted).sum())])
