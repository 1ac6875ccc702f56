"""Cross-modality gradient harmonisation: gradients that conflict at a shared embedding are projected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def realign(gradients: Sequence[Float[Tensor, "*rows dim"]]) -> list[Float[Tensor, "*rows dim"]]:
    r"""Remove from each gradient its component against every other one it conflicts with, row by row.

    For two, :math:`g_a' = g_a - \frac{\langle g_a, g_b\rangle}{\lVert g_b\rVert^2} g_b` where
    :math:`\langle g_a, g_b\rangle < 0`, and the same with a and b exchanged; else nothing changes. For more than two,
    the projections follow one another in the order given, each against the other's original gradient.

    Source: "Scaling multimodal pre-training via cross-modality gradient harmonization", NeurIPS 2022 (our reading);
    the projection is that of Yu et al., "Gradient surgery for multi-task learning", NeurIPS 2020.

    >>> a, b = realign([torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 1.0]])])
    >>> a, b
    (tensor([[0.5000, 0.5000]]), tensor([[0., 1.]]))
    """
    result = []
    for i, own in enumerate(gradients):
        for j, other in enumerate(gradients):
            if i != j:
                inner = (own * other).sum(-1, keepdim=True)
                norm = (other * other).sum(-1, keepdim=True)
                own = own - torch.where((inner < 0) & (norm > 0), inner / norm.where(norm > 0, 1.0), 0.0) * other
        result.append(own)
    return result


def agreement(gradients: Sequence[Float[Tensor, "*rows dim"]]) -> Float[Tensor, "*rows"]:
    """Smallest cosine between two of the gradients, row by row: low where the pairing is likely wrong.

    >>> agreement([torch.tensor([[1.0, 0.0]]), torch.tensor([[-2.0, 0.0]])])
    tensor([-1.])
    """
    cosines = [
        torch.nn.functional.cosine_similarity(a, b, dim=-1) for i, a in enumerate(gradients) for b in gradients[i + 1 :]
    ]
    return torch.stack(cosines).amin(0)


class Harmonizer:
    """Gradients at the embeddings of several losses, realigned where they meet.

    Row i of every embedding belongs to sample i, so a row of the gradient is that sample's own gradient (up to its
    role as a negative of others). With `gamma`, samples whose `agreement` is below it are left out of this step: their
    rows are zero at every embedding. `cosine` keeps the last agreement, a score of pair quality.
    """

    def __init__(self, shared: str = "", gamma: float | None = None) -> None:
        self.shared, self.gamma = shared, gamma
        self.cosine: Tensor | None = None
        self.kept = 1.0

    def __call__(self, terms: Mapping[str, Tensor], leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gradient at each leaf of the sum of the (weighted) terms, harmonised."""
        if self.shared and self.shared not in leaves:
            raise ValueError(f"shared embedding {self.shared!r} is not among {', '.join(leaves)}")
        names = list(leaves)
        per_term = [
            torch.autograd.grad(t, [leaves[n] for n in names], retain_graph=True, allow_unused=True)
            for t in terms.values()
        ]
        result: dict[str, Tensor] = {}
        cosine: Tensor | None = None
        for i, name in enumerate(names):
            reached = [grads[i] for grads in per_term if grads[i] is not None]
            if not reached:
                continue
            if len(reached) > 1 and self.shared in ("", name):
                flat = [g.flatten(1) for g in reached]
                agree = agreement(flat)
                cosine = agree if cosine is None else torch.minimum(cosine, agree)
                reached = [g.view_as(leaves[name]) for g in realign(flat)]
            result[name] = torch.stack(reached).sum(0)
        self.cosine = cosine
        if self.gamma is not None and cosine is not None:
            keep: Bool[Tensor, " rows"] = cosine >= self.gamma
            self.kept = float(keep.double().mean())
            result = {n: g * keep.view(-1, *[1] * (g.ndim - 1)) for n, g in result.items()}
        return result
