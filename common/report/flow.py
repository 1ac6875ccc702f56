"""A transition graph drawn: actions in columns by their distance from START, steps as wide as they are frequent."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from counterpoint.common.data.flow import END, START, Flow

__all__ = ["flow_chart"]

_COLUMN, _ROW, _WIDTH, _HEIGHT = 200, 64, 150, 36
_COLOURS = ("#4c78a8", "#b279a2", "#54a24b", "#e45756", "#f58518", "#72b7b2")


def flow_chart(flow: Flow, names: Mapping[str, str] | None = None, *, label: str = "transition graph") -> str:
    """Inline SVG of a flow; `names` says what an action is called (its id otherwise). The widest path is drawn dark.

    >>> flow = Flow({"START": 1.0, "a:0": 1.0, "END": 1.0}, {("START", "a:0"): (2, 1.0), ("a:0", "END"): (2, 1.0)})
    >>> flow_chart(flow, {"a:0": "greet"}).count("<rect"), "greet" in flow_chart(flow, {"a:0": "greet"})
    (3, True)
    """
    places = _places(flow)
    wide = (1 + max(column for column, _ in places.values())) * _COLUMN
    high = (1 + max(row for _, row in places.values())) * _ROW
    roles = sorted({_role(n) for n in flow.nodes if n not in (START, END)})
    colours = {role: _COLOURS[i % len(_COLOURS)] for i, role in enumerate(roles)}
    main = set(zip(flow.path, flow.path[1:]))
    parts = [
        f'<svg viewBox="0 0 {wide} {high}" role="img" aria-label="{escape(label)}" font-size="11" '
        f'style="max-width:{wide}px;width:100%">'
    ]
    parts += [_edge(edge, flow, places, edge in main) for edge in sorted(flow.edges, key=lambda e: flow.edges[e])]
    for node, weight in flow.nodes.items():
        x, y = places[node][0] * _COLUMN + 10, places[node][1] * _ROW + 10
        colour = colours.get(_role(node), "currentColor")
        text = (names or {}).get(node, node)
        shown = text if len(text) <= 24 else text[:23] + "…"
        parts.append(
            f'<g><title>{escape(text)} ({node}): {weight:.0%} of the most frequent</title><rect x="{x}" y="{y}" '
            f'width="{_WIDTH}" height="{_HEIGHT}" rx="6" fill="{colour}" fill-opacity="{0.1 + 0.25 * weight:.2f}" '
            f'stroke="{colour}" stroke-width="{1 + 2 * weight:.1f}"/><text x="{x + _WIDTH / 2}" y="{y + 22}" '
            f'text-anchor="middle" fill="currentColor">{escape(shown)}</text></g>'
        )
    return "".join([*parts, "</svg>"])


def _role(node: str) -> str:
    return node.rpartition(":")[0]


def _places(flow: Flow) -> dict[str, tuple[int, int]]:
    """Column and row of every node: steps from START, most frequent on top; END stands behind all others."""
    depth, waiting = {START: 0}, [START]
    for a in waiting:
        for s, b in flow.edges:
            if s == a and b not in depth:
                depth[b] = depth[a] + 1
                waiting.append(b)
    for node in flow.nodes:
        depth.setdefault(node, 1)
    depth[END] = 1 + max((d for n, d in depth.items() if n != END), default=0)
    columns: dict[int, list[str]] = {}
    for node in sorted(flow.nodes, key=lambda n: (-flow.nodes[n], n)):
        columns.setdefault(depth[node], []).append(node)
    return {node: (column, row) for column, found in columns.items() for row, node in enumerate(found)}


def _edge(edge: tuple[str, str], flow: Flow, places: Mapping[str, tuple[int, int]], main: bool) -> str:
    (a, b), (count, weight) = edge, flow.edges[edge]
    (ca, ra), (cb, rb) = places[a], places[b]
    forward = cb > ca
    x0 = ca * _COLUMN + 10 + (_WIDTH if forward else 0)
    x1 = cb * _COLUMN + 10 + (0 if forward else _WIDTH)
    y0, y1 = (r * _ROW + 10 + _HEIGHT / 2 for r in (ra, rb))
    bend = 0 if forward else _ROW / 2  # steps back leave below the row
    middle = (x0 + x1) / 2
    return (
        f'<path d="M{x0} {y0} C{middle} {y0 + bend} {middle} {y1 + bend} {x1} {y1}" fill="none" stroke="currentColor" '
        f'stroke-opacity="{0.75 if main else 0.25}" stroke-width="{1 + 5 * weight:.1f}">'
        f"<title>{escape(a)} to {escape(b)}: {count} times, weight {weight:.2f}</title></path>"
    )
