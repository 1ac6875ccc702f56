"""Neighbour and link sampling in plain PyTorch: homogeneous or heterogeneous, optionally disjoint, seeded.

PyTorch Geometric's `NeighborLoader` needs pyg-lib or torch-sparse, which PyPI does not carry for current PyTorch; this
sampler needs neither. Sampling is uniform without replacement over the in-neighbours of each node. The stream of
random numbers of a batch depends on `(seed, epoch, batch)` alone, so any number of worker processes gives the same
batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

EdgeType = tuple[str, str, str]


@dataclass
class Subgraph:
    """A sampled neighbourhood. Per node type: global node ids (seeds first) and, when disjoint, the seed each node
    belongs to. Per edge type: local `edge_index` (source, target) and the global edge ids."""

    node: dict[str, Tensor]
    edge_index: dict[EdgeType, Tensor]
    edge_id: dict[EdgeType, Tensor]
    tree: dict[str, Tensor] | None
    n_seeds: int


@dataclass(frozen=True)
class _Incoming:
    """In-edges of one edge type by target (CSC): those of target v lie at `start[v]:start[v + 1]`."""

    start: Tensor
    source: Tensor
    edge_id: Tensor


def _group_by_target(edge_index: Tensor, n_targets: int) -> _Incoming:
    order = torch.argsort(edge_index[1], stable=True)
    start = torch.zeros(n_targets + 1, dtype=torch.int64)
    torch.cumsum(torch.bincount(edge_index[1], minlength=n_targets), 0, out=start[1:])
    return _Incoming(start, edge_index[0][order].contiguous(), order)


def choose_without_replacement(degree: Int[Tensor, " n"], k: int, generator: torch.Generator) -> Int[Tensor, "n k"]:
    """For each row, `k` distinct uniform offsets below its degree; rows of smaller degree list all theirs, then -1.

    Floyd's algorithm, one vectorised step per draw: every subset of size k is equally likely.

    >>> g = torch.Generator().manual_seed(0)
    >>> picked = choose_without_replacement(torch.tensor([2, 100]), 3, g)
    >>> picked[0].tolist(), len(set(picked[1].tolist()))
    ([0, 1, -1], 3)
    """
    n = degree.shape[0]
    chosen = torch.full((n, k), -1, dtype=torch.int64)
    large = (degree > k).nonzero().squeeze(1)
    small = (degree <= k).nonzero().squeeze(1)
    positions = torch.arange(k).expand(len(small), k)
    chosen[small] = torch.where(positions < degree[small, None], positions, -1)
    if len(large):
        top = degree[large] - k
        picks = torch.full((len(large), k), -1, dtype=torch.int64)
        uniform = torch.rand(len(large), k, generator=generator, dtype=torch.float64)
        for step in range(k):
            last = top + step
            draw = (uniform[:, step] * (last + 1)).long().clamp_(max=last)
            taken = (picks[:, :step] == draw[:, None]).any(1)
            picks[:, step] = torch.where(taken, last, draw)
        chosen[large] = picks
    return chosen


class NeighborSampler:
    """Samples the k-hop in-neighbourhood of seeds.

    Args:
        edge_index: `{(source type, relation, target type): [2, E]}`, or one `[2, E]` tensor for a plain graph (its
            node type is then `"node"`, its edge type `("node", "to", "node")`).
        n_nodes: number of nodes per type, or one number.
        fanout: neighbours per hop and edge type, e.g. `(8, 8, 8)`; -1 takes all.
        disjoint: give each seed a subgraph of its own (no sharing of nodes between seeds).

    >>> sampler = NeighborSampler(torch.tensor([[0, 1, 2], [1, 2, 3]]), 4, fanout=(1, 1))
    >>> sub = sampler.sample(torch.tensor([3]), generator=torch.Generator().manual_seed(0))
    >>> sub.node["node"].tolist(), sub.edge_index[("node", "to", "node")].tolist()
    ([3, 2, 1], [[1, 2], [0, 1]])
    """

    def __init__(
        self,
        edge_index: Tensor | Mapping[EdgeType, Tensor],
        n_nodes: int | Mapping[str, int],
        fanout: Sequence[int],
        disjoint: bool = False,
    ):
        if isinstance(edge_index, Tensor):
            edge_index, n_nodes = {("node", "to", "node"): edge_index}, {"node": n_nodes}
        self.n_nodes = dict(n_nodes)
        for (source, relation, target), pairs in edge_index.items():
            name = f"edge_index[{source}, {relation}, {target}]"
            if pairs.dim() != 2 or pairs.shape[0] != 2:
                raise ValueError(f"{name} must be [2, E], got {tuple(pairs.shape)}")
            if pairs.numel() and (
                pairs.min() < 0 or pairs[0].max() >= self.n_nodes[source] or pairs[1].max() >= self.n_nodes[target]
            ):
                raise ValueError(
                    f"{name} names a node outside 0..{self.n_nodes[source] - 1} or 0..{self.n_nodes[target] - 1}"
                )
        if not fanout or any(f == 0 or f < -1 for f in fanout):
            raise ValueError(f"fanout must be positive numbers per hop (or -1 for all), got {tuple(fanout)}")
        self.fanout, self.disjoint = tuple(fanout), disjoint
        self._incoming = {
            kind: _group_by_target(pairs.cpu().long(), self.n_nodes[kind[2]]) for kind, pairs in edge_index.items()
        }
        self._local: dict[str, Tensor] = {}

    def sample(self, seeds: Tensor, node_type: str | None = None, generator: torch.Generator | None = None) -> Subgraph:
        """The neighbourhood of `seeds` (ids of `node_type`; duplicates allowed only when disjoint)."""
        node_type = node_type or next(iter(self.n_nodes))
        generator = generator or torch.Generator().manual_seed(0)
        return self.sample_types({node_type: seeds}, generator)

    def sample_types(
        self, seeds: Mapping[str, Tensor], generator: torch.Generator, trees: Mapping[str, Tensor] | None = None
    ) -> Subgraph:
        """As `sample` with seeds of several types; `trees` may give several seeds one shared disjoint subgraph."""
        index = _NodeIndex(self.n_nodes, self.disjoint, self._local)
        frontier: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        offset = 0
        for kind, ids in seeds.items():
            ids = ids.long()
            tree = trees[kind] if trees is not None else torch.arange(offset, offset + len(ids))
            offset += len(ids)
            local = index.add(kind, ids, tree)
            new = torch.zeros(index.size(kind), dtype=torch.bool).index_fill_(0, local, True).nonzero().squeeze(1)
            frontier[kind] = (index.ids(kind)[new], index.trees(kind)[new], new)
        edges: dict[EdgeType, list[Tensor]] = {kind: [] for kind in self._incoming}
        edge_ids: dict[EdgeType, list[Tensor]] = {kind: [] for kind in self._incoming}
        for fanout in self.fanout:
            before = {kind: index.size(kind) for kind in self.n_nodes}
            for kind, incoming in self._incoming.items():
                if kind[2] not in frontier:
                    continue
                targets, tree, local_target = frontier[kind[2]]
                row, position = self._draw(incoming, targets, fanout, generator)
                local_source = index.add(kind[0], incoming.source[position], tree[row])
                edges[kind].append(torch.stack([local_source, local_target[row]]))
                edge_ids[kind].append(incoming.edge_id[position])
            frontier = {
                kind: (index.ids(kind)[n:], index.trees(kind)[n:], torch.arange(n, index.size(kind)))
                for kind, n in before.items()
                if index.size(kind) > n
            }
        nodes = {kind: index.ids(kind) for kind in self.n_nodes}
        tree = {kind: index.trees(kind) for kind in self.n_nodes} if self.disjoint else None
        index.release()
        empty = torch.empty(2, 0, dtype=torch.int64)
        return Subgraph(
            nodes,
            {kind: torch.cat(parts, 1) if parts else empty for kind, parts in edges.items()},
            {kind: torch.cat(parts) if parts else empty[0] for kind, parts in edge_ids.items()},
            tree,
            sum(len(s) for s in seeds.values()),
        )

    @staticmethod
    def _draw(incoming: _Incoming, targets: Tensor, fanout: int, generator) -> tuple[Tensor, Tensor]:
        """Rows of `targets` and positions in the CSC arrays of the drawn in-edges."""
        start = incoming.start[targets]
        degree = incoming.start[targets + 1] - start
        if fanout < 0:
            row = torch.repeat_interleave(torch.arange(len(targets)), degree)
            first = torch.cumsum(degree, 0) - degree
            return row, start[row] + torch.arange(len(row)) - first[row]
        offsets = choose_without_replacement(degree, fanout, generator)
        row, column = (offsets >= 0).nonzero(as_tuple=True)
        return row, start[row] + offsets[row, column]


class _NodeIndex:
    """Gives each new node (or (tree, node) pair) the next local number, in order of first appearance."""

    def __init__(self, n_nodes: Mapping[str, int], disjoint: bool, scratch: dict[str, Tensor]):
        self._n, self._disjoint, self._scratch = n_nodes, disjoint, scratch
        none = torch.empty(0, dtype=torch.int64)
        self._ids = dict.fromkeys(n_nodes, none)
        self._trees = dict.fromkeys(n_nodes, none)
        self._keys: dict[str, tuple[Tensor, Tensor]] = {}

    def size(self, kind: str) -> int:
        return len(self._ids[kind])

    def ids(self, kind: str) -> Tensor:
        return self._ids[kind]

    def trees(self, kind: str) -> Tensor:
        return self._trees[kind]

    def add(self, kind: str, ids: Tensor, tree: Tensor) -> Tensor:
        """Local numbers of `ids`, adding those not seen before."""
        if self._disjoint:
            return self._add_disjoint(kind, ids, tree)
        if kind not in self._scratch:
            with torch.inference_mode(False):  # it outlives the call: a sampler may serve training after evaluation
                self._scratch[kind] = torch.full((self._n[kind],), -1, dtype=torch.int64)
        local = self._scratch[kind]
        unseen = ids[local[ids] < 0]
        if len(unseen):
            # Of equal ids the last write stays: writing positions in reverse order keeps the first appearance.
            position = torch.arange(len(unseen))
            local[unseen.flip(0)] = position.flip(0)
            first = local[unseen] == position
            fresh = unseen[first]
            local[fresh] = torch.arange(self.size(kind), self.size(kind) + len(fresh))
            self._ids[kind] = torch.cat([self._ids[kind], fresh])
            self._trees[kind] = torch.cat([self._trees[kind], torch.zeros_like(fresh)])
        return local[ids]

    def _add_disjoint(self, kind: str, ids: Tensor, tree: Tensor) -> Tensor:
        key = tree * self._n[kind] + ids
        old_keys, old_local = self._keys.get(kind, (torch.empty(0, dtype=torch.int64),) * 2)
        known = torch.searchsorted(old_keys, key).clamp_(max=max(len(old_keys) - 1, 0))
        is_old = old_keys[known] == key if len(old_keys) else torch.zeros_like(key, dtype=torch.bool)
        fresh, inverse = torch.unique(key[~is_old], return_inverse=True)
        fresh_local = torch.arange(self.size(kind), self.size(kind) + len(fresh))
        local = torch.empty_like(key)
        if len(old_keys):
            local[is_old] = old_local[known[is_old]]
        local[~is_old] = fresh_local[inverse]
        self._ids[kind] = torch.cat([self._ids[kind], fresh % self._n[kind]])
        self._trees[kind] = torch.cat([self._trees[kind], fresh // self._n[kind]])
        keys = torch.cat([old_keys, fresh])
        order = torch.argsort(keys)
        self._keys[kind] = (keys[order], torch.cat([old_local, fresh_local])[order])
        return local

    def release(self) -> None:
        """Reset the scratch arrays where this batch wrote them."""
        for kind, local in self._scratch.items():
            local[self._ids[kind]] = -1


@dataclass(frozen=True)
class LinkBatch:
    """A subgraph round the end points of labelled links: `source`/`target` are local node numbers of each link."""

    subgraph: Subgraph
    source: Tensor
    target: Tensor
    link: Tensor


def sample_links(
    sampler: NeighborSampler, links: Int[Tensor, "2 n"], types: tuple[str, str], chosen: Tensor, generator
) -> LinkBatch:
    """The neighbourhood of the links `links[:, chosen]` between node types `types`; with a disjoint sampler each
    link has a subgraph of its own, shared by its two ends."""
    source, target = links[0, chosen], links[1, chosen]
    tree = torch.arange(len(chosen))
    if types[0] == types[1]:
        seeds = {types[0]: torch.cat([source, target])}
        trees = {types[0]: torch.cat([tree, tree])}
    else:
        seeds, trees = {types[0]: source, types[1]: target}, {types[0]: tree, types[1]: tree}
    sub = sampler.sample_types(seeds, generator, trees)
    return LinkBatch(sub, _find(sub, types[0], source, tree), _find(sub, types[1], target, tree), chosen)


def _find(sub: Subgraph, kind: str, ids: Tensor, tree: Tensor) -> Tensor:
    """Local numbers of `ids` (in `tree`, when disjoint) among the sampled nodes of a type."""
    width = int(max(int(ids.max()) if len(ids) else 0, int(sub.node[kind].max()) if len(sub.node[kind]) else 0)) + 1
    keys = sub.node[kind] + (sub.tree[kind] * width if sub.tree is not None else 0)
    wanted = ids + (tree * width if sub.tree is not None else 0)
    order = torch.argsort(keys)
    return order[torch.searchsorted(keys[order], wanted)]


def seeded_batches(
    n: int, batch_size: int, *, seed: int, epoch: int, shuffle: bool = True
) -> Iterator[tuple[Tensor, torch.Generator]]:
    """Batches of `range(n)` with a random generator each, a function of `(seed, epoch, batch)` alone.

    >>> [b.tolist() for b, _ in seeded_batches(5, 2, seed=0, epoch=0, shuffle=False)]
    [[0, 1], [2, 3], [4]]
    """
    order = torch.randperm(n, generator=batch_generator(seed, epoch, -1)) if shuffle else torch.arange(n)
    for number, batch in enumerate(order.split(batch_size)):
        yield batch, batch_generator(seed, epoch, number)


def batch_generator(seed: int, epoch: int, batch: int) -> torch.Generator:
    """The random generator of one batch."""
    mixed = (seed * 1_000_003 + epoch) * 1_000_003 + batch + 1
    return torch.Generator().manual_seed(mixed % (2**63))
