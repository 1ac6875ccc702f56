"""SimLAP (first called Hydra): positives between arbitrary pairs of classes, through a gate per pair."""

from typing import Literal, Unpack

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from counterpoint.common.losses.base import Objective
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.draws import permutation, uniform
from counterpoint.common.losses.scale import Temperature, as_scale
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["SimLAP"]


class SimLAP(Objective):
    """In the subspace a gate opens for two classes, samples of the two classes agree (SimLAP, earlier Hydra).

        g_i  = sigmoid(MLP((E_{y_i} + E_{y'_i}) / 2)),      y' a second class per row (a permutation of the labels)
        s_ik = cos(g_i z_i, g_i z_k) / T
        L    = mean over pairs (i, p), y_p = y'_i, of  log( e^{s_ip} + sum_{k : y_k not in {y_i, y'_i}} e^{s_ik} ) -
        s_ip

    The gate belongs to the row, so the score is two products and a division: <g_i^2 z_i, z_k> and <g_i^2, z_k^2>. It is
    no inner product; rows go in blocks. With y' = y it contrasts ordinary classes (the own row is then a positive, as
    in the official code). A batch without positive pairs gives zero. With `distributed` samples of all ranks are
    compared (the official code gathers samples but not their labels); the gates' batch normalisation stays each rank's
    own unless it is converted to `SyncBatchNorm`, and every rank needs two rows.

    Call with z [batch, dim], label [batch], and optionally other [batch] (y'; default: as `pairs` says).

    Args:
        n_classes, dim, width, hidden: of the gate network (class embeddings of 512, hidden 1024).
        pairs: y' is "arbitrary" (the batch's labels permuted by `generator`), "identical" (y) or "distinct" (any other
            class).
        fuse: the gate of the mean of both embeddings (above); `False`: the product of both classes' gates.
        block: rows in memory at a time.
        temperature: T (0.1).

    Raises `ValueError` for other `pairs`.

    Source: authors' training script (arXiv 2410.18200, read without the name of its repository). Its classifier on
    detached features is the caller's.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> loss = SimLAP(n_classes=3, dim=8, generator=torch.Generator().manual_seed(0))
    >>> loss(torch.randn(6, 8), torch.tensor([0, 0, 1, 1, 2, 2])).item() > 0
    True
    """

    card = ObjectiveCard(
        paper="SimLAP / Hydra 2024",
        needs="labels; a generator",
        engine="none: rows in blocks (two-stream score)",
        status="official numbers",
        checked="official numbers (authors' training script of arXiv 2410.18200), gates included; written-out loops",
    )
    normalizes = None

    def __init__(
        self,
        n_classes: int,
        dim: int = 256,
        temperature: Temperature = 0.1,
        *,
        width: int = 512,
        hidden: int = 1024,
        pairs: Literal["arbitrary", "identical", "distinct"] = "arbitrary",
        fuse: bool = True,
        block: int = 256,
        generator: torch.Generator | None = None,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        if pairs not in ("arbitrary", "identical", "distinct"):
            raise ValueError(f"pairs must be 'arbitrary', 'identical' or 'distinct', got {pairs!r}")
        self.pairs, self.fuse = pairs, fuse
        self.classes = nn.Embedding(n_classes, width)
        self.gate = nn.Sequential(
            nn.ReLU(),
            nn.BatchNorm1d(width),
            nn.Linear(width, hidden),
            nn.ReLU(),
            nn.BatchNorm1d(hidden),
            nn.Linear(hidden, dim),
            nn.Sigmoid(),
        )
        self.logit_scale, self.block, self.generator = as_scale(temperature), block, generator

    def forward(
        self,
        z: Float[Tensor, "batch dim"],
        label: Int[Tensor, "batch"],
        *,
        other: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean over positive pairs."""
        (z,) = self.embed(z)
        if self.count(z) < 2:
            return z.sum() * 0  # batch normalisation of the gates needs two rows
        other = self._second(label) if other is None else other
        gate = self.gates(label, other).to(z.dtype)
        everyone, labels = self.union(z), self.union(label)
        parts = [
            checkpoint(self._block, z, gate, label, other, everyone, labels, start, use_reentrant=False)
            for start in range(0, max(len(z), 1), self.block)  # no rows: one empty block
        ]
        total, pairs = (torch.stack([p[i] for p in parts]).sum(0) for i in range(2))
        return self.mean_over(total, pairs)

    def gates(self, label: Int[Tensor, "batch"], other: Int[Tensor, "batch"]) -> Float[Tensor, "batch dim"]:
        """The gate of every row's pair of classes."""
        if self.fuse:
            return self.gate((self.classes(label) + self.classes(other)) / 2)
        return self.gate(self.classes(label)) * self.gate(self.classes(other))

    def _second(self, label: Int[Tensor, "batch"]) -> Int[Tensor, "batch"]:
        if self.pairs == "identical":
            return label
        if self.pairs == "arbitrary":
            return label[permutation(len(label), self.generator, label.device)]
        count = self.classes.num_embeddings
        step = uniform(len(label), generator=self.generator, like=self.classes.weight) * (count - 1)
        return (label + 1 + step.long().clamp_max(count - 2)) % count

    def _block(
        self,
        z: Tensor,
        gate: Tensor,
        label: Tensor,
        other: Tensor,
        everyone: Tensor,
        labels: Tensor,
        start: int,
    ) -> tuple[Tensor, Tensor]:
        rows = slice(start, start + self.block)
        squared = gate[rows].square()
        norm = (squared @ everyone.square().T).sqrt().clamp_min(1e-12)
        own = (gate[rows] * z[rows]).norm(dim=1, keepdim=True).clamp_min(1e-12)
        logits = self.logit_scale() * ((squared * z[rows]) @ everyone.T) / (norm * own)
        positive = labels[None] == other[rows, None]
        negative = ~positive & (labels[None] != label[rows, None])
        lse = torch.where(negative, logits, -torch.inf).logsumexp(1, keepdim=True)
        terms = F.softplus(torch.where(negative.any(1, keepdim=True), lse - logits, -torch.inf))
        return torch.where(positive, terms, torch.zeros_like(terms)).sum(), positive.sum()
