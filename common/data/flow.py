"""Flows from sequences of events: embeddings become actions, actions a graph of who follows whom.

Dialog2Flow's use of its embeddings: utterances are clustered per speaker, every dialogue becomes a sequence of actions,
all sequences one transition graph, pruned to what happens often. Nothing in it is about speech: the roles may be
devices, departments or wards, the events anything that has a vector.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor

__all__ = ["END", "START", "Action", "Flow", "extract_actions", "transition_graph"]

START, END = "START", "END"
Weight = Literal["max", "max-out", "prob-out"]


@dataclass(frozen=True)
class Action:
    """A cluster of events of one role: its id (role:number), how many events it has, and those nearest its centre."""

    id: str
    role: str
    size: int
    nearest: tuple[int, ...]


@dataclass(frozen=True)
class Flow:
    """A transition graph.

    Attributes:
        nodes: weight of every action, its visits over those of the most visited; START and END weigh 1.
        edges: (from, to) -> (how often, weight).
        path: the widest path, whose rarest step is as frequent as can be; empty where START does not reach END.
    """

    nodes: dict[str, float]
    edges: dict[tuple[str, str], tuple[int, float]]
    path: list[str] = field(default_factory=list)


def extract_actions(
    vectors: Float[Tensor, "events dim"], roles: Sequence[str], *, threshold: float = 0.6, nearest: int = 5
) -> tuple[list[str], list[Action]]:
    """The action of every event: agglomerative clusters of each role's vectors, average linkage, cosine distance.

    Args:
        roles: who acts, per event.
        threshold: distance below which clusters merge; a whole number above 1 asks for so many clusters instead.
        nearest: how many events stand for an action.

    Returns an action id per event (`role:number`, the largest cluster first) and the actions.

    >>> import torch
    >>> ids, actions = extract_actions(torch.eye(2).repeat(3, 1), ["user"] * 6)
    >>> ids[:2], actions[0].size
    (['user:0', 'user:1'], 3)

    Source: Burdisso et al. 2024; idiap/dialog2flow at 5ce95a6, extract_trajectories.py.
    """
    from sklearn.cluster import AgglomerativeClustering

    if len(roles) != len(vectors):
        raise ValueError(f"{len(vectors)} vectors, but {len(roles)} roles")
    x = vectors.detach().double().cpu().numpy()
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    number = threshold > 1 and float(threshold).is_integer()
    ids, actions = [""] * len(x), []
    for role in sorted(set(roles)):
        rows = np.flatnonzero([r == role for r in roles])
        if len(rows) == 1:
            found = np.zeros(1, dtype=np.int64)
        else:
            model = AgglomerativeClustering(
                n_clusters=min(int(threshold), len(rows)) if number else None,
                distance_threshold=None if number else threshold,
                metric="cosine",
                linkage="average",
            )
            found = model.fit_predict(np.where(np.any(x[rows], axis=1, keepdims=True), x[rows], np.eye(1, x.shape[1])))
        # Numbers by size, then by first event: the same whatever order the clustering numbers them in.
        first = {int(c): int(np.flatnonzero(found == c)[0]) for c in np.unique(found)}
        for place, c in enumerate(sorted(first, key=lambda c: (-(found == c).sum(), first[c]))):
            members = rows[found == c]
            centre = x[members].mean(0)
            best = members[np.argsort(-(x[members] @ centre), kind="stable")[:nearest]]
            name = f"{role}:{place}"
            actions.append(Action(name, role, len(members), tuple(int(i) for i in best)))
            for i in members:
                ids[int(i)] = name
    return ids, actions


def transition_graph(
    sequences: Sequence[Sequence[str]],
    *,
    weight: Weight = "max-out",
    least_node: float = 0.023,
    least_edge: float = 0.2,
) -> Flow:
    """Which action follows which, pruned to what lies on a way from START to END and is frequent enough.

    An edge weighs its count over the greatest of all ("max"), over the greatest that leaves its node ("max-out") or
    over the sum of these ("prob-out"). Steps of an action to itself are counted into the weights, then left out. First
    actions lighter than `least_node` go, then edges lighter than `least_edge`, each time with all that START no longer
    reaches or that no longer reaches END; the remaining edges are weighed anew. The widest path belongs to the graph
    before edges are pruned and skips steps within one role (`role:number`).

    >>> flow = transition_graph([["a:0", "b:0"], ["a:0", "b:0"], ["a:0", "b:1"]], least_edge=0.6)
    >>> sorted(flow.nodes), flow.path
    (['END', 'START', 'a:0', 'b:0'], ['START', 'a:0', 'b:0', 'END'])

    Source: Burdisso et al. 2024; idiap/dialog2flow at 5ce95a6, build_graph.py.
    """
    if weight not in ("max", "max-out", "prob-out"):
        raise ValueError(f"weight must be 'max', 'max-out' or 'prob-out', got {weight!r}")
    visits = Counter({START: 1, END: 1})
    steps: Counter[tuple[str, str]] = Counter()
    for sequence in sequences:
        visits.update(sequence)
        steps.update(zip([START, *sequence], [*sequence, END]))
    top = max(visits.values())
    nodes = {n: 1.0 if n in (START, END) else count / top for n, count in visits.items()}
    weights = _weigh(steps, weight)
    counts = {edge: count for edge, count in steps.items() if edge[0] != edge[1]}
    nodes, counts = _keep({n: w for n, w in nodes.items() if w >= least_node}, counts)
    path = _widest({edge: weights[edge] for edge in counts if _role(edge[0]) != _role(edge[1])})
    nodes, counts = _keep(nodes, {edge: count for edge, count in counts.items() if weights[edge] >= least_edge})
    weights = _weigh(counts, weight)
    return Flow(nodes, {edge: (count, weights[edge]) for edge, count in counts.items()}, path)


def _role(node: str) -> str:
    return node.rpartition(":")[0] or node


def _weigh(counts: dict[tuple[str, str], int], weight: Weight) -> dict[tuple[str, str], float]:
    if weight == "max":
        top = max(counts.values(), default=1)
        return {edge: count / top for edge, count in counts.items()}
    leaving: dict[str, list[int]] = {}
    for (node, _), count in counts.items():
        leaving.setdefault(node, []).append(count)
    over = {node: (max if weight == "max-out" else sum)(found) for node, found in leaving.items()}
    return {edge: count / over[edge[0]] for edge, count in counts.items()}


def _keep(
    nodes: dict[str, float], counts: dict[tuple[str, str], int]
) -> tuple[dict[str, float], dict[tuple[str, str], int]]:
    """What lies on a way from START to END, and the edges between such nodes."""
    counts = {edge: count for edge, count in counts.items() if edge[0] in nodes and edge[1] in nodes}
    forth, back = _reached(START, counts), _reached(END, [(b, a) for a, b in counts])
    kept = {n: w for n, w in nodes.items() if n in (START, END) or (n in forth and n in back)}
    return kept, {edge: count for edge, count in counts.items() if edge[0] in kept and edge[1] in kept}


def _reached(start: str, edges: object) -> set[str]:
    following: dict[str, list[str]] = {}
    for a, b in edges:  # type: ignore[attr-defined]
        following.setdefault(a, []).append(b)
    seen, waiting = {start}, [start]
    while waiting:
        for node in following.get(waiting.pop(), ()):
            if node not in seen:
                seen.add(node)
                waiting.append(node)
    return seen


def _widest(weights: dict[tuple[str, str], float]) -> list[str]:
    """The path from START to END whose lightest edge is heaviest; of equal ones the shortest, then by name."""
    following: dict[str, list[str]] = {}
    for a, b in weights:
        following.setdefault(a, []).append(b)
    waiting, done = [(-np.inf, 0, (START,))], set()
    while waiting:
        lightest, length, path = heapq.heappop(waiting)
        node = path[-1]
        if node == END:
            return list(path)
        if node in done:
            continue
        done.add(node)
        for other in following.get(node, ()):
            if other not in done:
                heapq.heappush(waiting, (max(lightest, -weights[node, other]), length + 1, (*path, other)))
    return []
