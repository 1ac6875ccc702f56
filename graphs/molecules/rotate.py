"""RotatE embeddings of the element graph: an attribute is an element rotated by its relation.

Source: Sun et al., "RotatE: Knowledge Graph Embedding by Relational Rotation in Complex Space", ICLR 2019.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from counterpoint.graphs.molecules.element_kg import FIRST_ATTRIBUTE, ElementGraph


class RotatE(nn.Module):
    """score(h, r, t) = margin - | h o r - t |_1 over complex coordinates, |r_k| = 1.

    Entities have `dim` real numbers = dim / 2 complex ones; relations dim / 2 phases.

    >>> RotatE(5, 2, 8)(torch.tensor([0]), torch.tensor([1]), torch.tensor([2])).shape
    torch.Size([1])
    """

    def __init__(self, n_entities: int, n_relations: int, dim: int = 128, margin: float = 6.0):
        super().__init__()
        if dim % 2:
            raise ValueError(f"RotatE needs an even dim (complex coordinates), got {dim}")
        bound = (margin + 2.0) / (dim / 2)
        self.entities = nn.Parameter(torch.empty(n_entities, dim).uniform_(-bound, bound))
        self.phases = nn.Parameter(torch.empty(n_relations, dim // 2).uniform_(-math.pi, math.pi))
        self.margin = margin

    def forward(
        self, head: Int[Tensor, "*#n"], relation: Int[Tensor, "*#n"], tail: Int[Tensor, "*#n"]
    ) -> Float[Tensor, "*#n"]:
        """Scores; the three numbers broadcast. |h o r - t| = |h - t o r*|: the smaller side is the one that turns."""
        h, t = (self.entities[e].unflatten(-1, (2, -1)) for e in (head, tail))
        if head.numel() <= tail.numel():
            h = _turn(h, self.phases[relation])
        else:
            t = _turn(t, -self.phases[relation])
        return self.margin - (h - t).square().sum(-2).clamp_min(1e-12).sqrt().sum(-1)


def _turn(x: Float[Tensor, "... 2 half"], phase: Float[Tensor, "... half"]) -> Float[Tensor, "... 2 half"]:
    """Multiply complex coordinates (real row, imaginary row) by e^(i phase)."""
    cos, sin = phase.cos(), phase.sin()
    return torch.stack([x[..., 0, :] * cos - x[..., 1, :] * sin, x[..., 0, :] * sin + x[..., 1, :] * cos], -2)


def train_rotate(
    knowledge: ElementGraph, dim: int = 128, *, epochs: int = 200, negatives: int = 32, lr: float = 0.01,
    margin: float = 6.0, adversarial: float = 1.0, seed: int = 0,
) -> Float[Tensor, "nodes dim"]:  # fmt: skip
    """Train RotatE on the triples (attribute, relation, element) and return the table of all nodes.

    The loss is RotatE's self-adversarial negative sampling: -log sig(score) - sum_n p_n log sig(-score_n), p_n the
    softmax of `adversarial` x score_n without gradient; negatives replace the element or the attribute at random.
    Row z is the element of atomic number z, row `FIRST_ATTRIBUTE + a` attribute a. Deterministic in `seed`.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = RotatE(knowledge.n_nodes, len(knowledge.relations), dim, margin)
    triples = torch.from_numpy(knowledge.triples)
    head, relation, tail = triples[:, 0] + FIRST_ATTRIBUTE, triples[:, 1], triples[:, 2]
    optimizer = torch.optim.Adam(model.parameters(), lr)
    n_attributes = len(knowledge.attributes)
    for epoch in range(epochs):
        order = torch.randperm(len(triples), generator=generator)
        h, r, t = head[order], relation[order], tail[order]
        corrupt_tail = epoch % 2 == 0
        if corrupt_tail:
            other = torch.randint(1, FIRST_ATTRIBUTE, (len(t), negatives), generator=generator)
            negative = model(h[:, None], r[:, None], other)
        else:
            other = torch.randint(n_attributes, (len(h), negatives), generator=generator) + FIRST_ATTRIBUTE
            negative = model(other, r[:, None], t[:, None])
        weight = (adversarial * negative.detach()).softmax(1)
        positive = model(h, r, t)
        loss = -(nn.functional.logsigmoid(positive) + (weight * nn.functional.logsigmoid(-negative)).sum(1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.entities.detach().clone()
