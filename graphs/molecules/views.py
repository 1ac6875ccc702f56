"""GraphCL's augmentations of a batch of molecules: node drop, edge perturbation, attribute masking, subgraph.

Each acts inside every molecule on `ratio` of its atoms or bonds, and never mixes molecules.

Source: You et al., "Graph Contrastive Learning with Augmentations", NeurIPS 2020.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from counterpoint.graphs.molecules.featurize import MoleculeBatch


def augment(batch: MoleculeBatch, view: str, ratio: float, generator: torch.Generator | None = None) -> MoleculeBatch:
    """One view of each molecule; `view` is `drop`, `perturb`, `mask` or `subgraph`."""
    if view not in _VIEWS:
        raise ValueError(f"view must be one of {', '.join(_VIEWS)}, got {view!r}")
    if not 0 <= ratio < 1:
        raise ValueError(f"ratio must lie in [0, 1), got {ratio}")
    return _VIEWS[view](batch, ratio, generator)


def _counts(group: Tensor, n: int) -> Tensor:
    return torch.bincount(group, minlength=n)


def _random_fraction(group: Tensor, n: int, ratio: float, generator) -> Tensor:
    """A mask of floor(ratio x members) random members of each group."""
    noise = torch.rand(len(group), generator=generator, device=group.device)
    order = torch.argsort(group + noise.to(torch.float64))
    size = _counts(group, n)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(group), device=group.device) - (torch.cumsum(size, 0) - size)[group[order]]
    return rank < (ratio * size).floor()[group]


def keep_atoms(batch: MoleculeBatch, keep: Tensor) -> MoleculeBatch:
    """The induced subgraph; a molecule that would lose all atoms keeps its first."""
    kept = _counts(batch.graph[keep], batch.n_graphs)
    first = torch.searchsorted(batch.graph, torch.arange(batch.n_graphs, device=keep.device))
    keep = keep.clone()
    keep[first[kept == 0]] = True
    number = torch.cumsum(keep, 0) - 1
    bonds = keep[batch.bonds].all(0)
    return replace(
        batch,
        atoms=batch.atoms[keep],
        graph=batch.graph[keep],
        bonds=number[batch.bonds[:, bonds]],
        bond_features=batch.bond_features[bonds],
    )


def _drop(batch: MoleculeBatch, ratio: float, generator) -> MoleculeBatch:
    return keep_atoms(batch, ~_random_fraction(batch.graph, batch.n_graphs, ratio, generator))


def _mask(batch: MoleculeBatch, ratio: float, generator) -> MoleculeBatch:
    atoms = batch.atoms.clone()
    atoms[_random_fraction(batch.graph, batch.n_graphs, ratio, generator)] = 0  # atomic number 0: "no element"
    return replace(batch, atoms=atoms)


def _perturb(batch: MoleculeBatch, ratio: float, generator) -> MoleculeBatch:
    """Remove a share of the bonds (both directions) and add as many single bonds inside the same molecule."""
    if batch.bonds.shape[1] == 0:
        return batch
    pair_graph = batch.graph[batch.bonds[0, ::2]]
    removed = _random_fraction(pair_graph, batch.n_graphs, ratio, generator)
    keep = (~removed).repeat_interleave(2)
    count = _counts(batch.graph, batch.n_graphs)
    start = torch.cumsum(count, 0) - count
    where = pair_graph[removed]
    draw = torch.rand(2, len(where), generator=generator, device=count.device)
    ends = start[where] + (draw * count[where]).long()
    ends = ends[:, ends[0] != ends[1]]
    added = torch.stack([ends, ends.flip(0)], 2).reshape(2, -1)
    return replace(
        batch,
        bonds=torch.cat([batch.bonds[:, keep], added], 1),
        bond_features=torch.cat([batch.bond_features[keep], batch.bond_features.new_zeros(added.shape[1], 4)]),
    )


def _subgraph(batch: MoleculeBatch, ratio: float, generator) -> MoleculeBatch:
    """Grow a connected part from a random atom until 1 - ratio of the atoms are in it, or nothing more is reached."""
    n = len(batch.atoms)
    count = _counts(batch.graph, batch.n_graphs)
    wanted = (count - (ratio * count).floor()).clamp_min(1)
    start = torch.cumsum(count, 0) - count
    seed = start + (torch.rand(batch.n_graphs, generator=generator, device=count.device) * count).long()
    inside = torch.zeros(n, dtype=torch.bool, device=count.device)
    inside[seed] = True
    for _ in range(int(count.max())):
        missing = wanted - _counts(batch.graph[inside], batch.n_graphs)
        source, target = batch.bonds
        border = torch.zeros_like(inside)
        border[target[inside[source]]] = True
        border &= ~inside & (missing > 0)[batch.graph]
        candidates = border.nonzero().squeeze(1)
        if len(candidates) == 0:
            break
        # Of each molecule's border take a random share that does not overshoot.
        shuffled = candidates[torch.randperm(len(candidates), generator=generator, device=count.device)]
        group = batch.graph[shuffled]
        order = torch.argsort(group, stable=True)
        size = _counts(group, batch.n_graphs)
        rank = torch.arange(len(order), device=count.device) - (torch.cumsum(size, 0) - size)[group[order]]
        inside[shuffled[order][rank < missing[group[order]]]] = True
    return keep_atoms(batch, inside)


_VIEWS = {"drop": _drop, "perturb": _perturb, "mask": _mask, "subgraph": _subgraph}
