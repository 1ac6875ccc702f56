"""A node of a circuit with what it touches, as a small drawing: nets are circles, devices squares with their letter."""

from __future__ import annotations

import math

from counterpoint.graphs.circuits.data import JoinedCircuits

NET, DEVICE, PIN = range(3)
WIDTH, HEIGHT = 140, 105
NEAR, FAR = 8, 16
"""Nodes drawn at most beside the middle one, and beyond these."""


def surroundings(joined: JoinedCircuits, node: int) -> tuple[int, list[tuple[int, int]], list[tuple[int, int]]]:
    """(the node in the middle, edges to what touches it, edges from there on), each (from, to), across the pins. A pin
    stands for its device."""
    kind, (source, target) = joined.kind, joined.edge_index

    def touching(i: int) -> list[int]:
        return target[source == i].tolist()

    def across(i: int) -> list[int]:
        found = dict.fromkeys(j for pin in touching(i) for j in touching(pin) if j != i)
        return list(found)

    middle = node if kind[node] != PIN else next(j for j in touching(node) if kind[j] == DEVICE)
    near = [(middle, j) for j in across(middle)][:NEAR]
    known = {middle, *(j for _, j in near)}
    far: list[tuple[int, int]] = []
    for _, j in near:
        new = [k for k in across(j) if k not in known]
        far += [(j, k) for k in new]
        known.update(new)
    return middle, near, far[:FAR]


def node_drawing(joined: JoinedCircuits, node: int) -> str:
    """The node in the middle (dark), what touches it around it, what these touch further out; as SVG markup."""
    middle, near, far = surroundings(joined, node)
    place = {middle: (WIDTH / 2, HEIGHT / 2)}
    _ring(place, [j for _, j in near], 0.5)
    _ring(place, [k for _, k in far], 0.92)
    lines = "".join(
        f'<path d="M{place[a][0]:.1f} {place[a][1]:.1f}L{place[b][0]:.1f} {place[b][1]:.1f}" stroke="#9aa5b1"/>'
        for a, b in (*near, *far)
    )
    marks = "".join(_mark(joined, i, *place[i], i == middle) for i in place)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">'
    return f"{head}{lines}{marks}</svg>"


def node_words(joined: JoinedCircuits, node: int) -> str:
    """How much hangs on a node: the pins of a net or of a device.

    A pin has none of its own, and its net says where it leads.
    """
    kind, (source, target) = joined.kind, joined.edge_index
    ends = target[source == node]
    if int(kind[node]) == PIN:
        return "on " + ", ".join(joined.nodes[j] for j in ends.tolist() if kind[j] == NET)
    return f"{len(ends)} pin{'s' if len(ends) != 1 else ''}"


def _ring(place: dict[int, tuple[float, float]], nodes: list[int], radius: float) -> None:
    for number, i in enumerate(nodes):
        angle = 2 * math.pi * (number + 0.5) / len(nodes)
        x, y = math.sin(angle) * radius * (WIDTH / 2 - 10), math.cos(angle) * radius * (HEIGHT / 2 - 8)
        place[i] = (WIDTH / 2 + x, HEIGHT / 2 - y)


def _mark(joined: JoinedCircuits, i: int, x: float, y: float, middle: bool) -> str:
    if joined.kind[i] == NET:
        radius, fill = (7, "#0b3d6b") if middle else (4, "#2b6cb0")
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{fill}"/>'
    letter = joined.nodes[i].removeprefix("device ").rpartition("/")[2][:1].upper().replace("<", "").replace("&", "")
    half, fill, ink = (9, "#1c1f24", "#fff") if middle else (7, "#e6e9ee", "#333")
    return (
        f'<rect x="{x - half:.1f}" y="{y - half:.1f}" width="{2 * half}" height="{2 * half}" rx="2" fill="{fill}"/>'
        f'<text x="{x:.1f}" y="{y + 4:.1f}" font-size="11" font-family="sans-serif" text-anchor="middle" '
        f'fill="{ink}">{letter}</text>'
    )
