"""`flow RUN`: sequences of embeddings become actions, and these a drawn graph of what follows what (Dialog2Flow)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from counterpoint.common.errors import InputError
from counterpoint.common.output import table as aligned
from counterpoint.common.output import write_json
from counterpoint.common.suggest import no_such
from counterpoint.common.vertical import Outcome, Vertical

MOST = 20_000
"""Events of one role; clustering keeps the distance of every two."""


@dataclass(frozen=True)
class Events:
    """What happened: row i of everything is one event.

    Attributes:
        vectors: a tensor [n, dim].
        names: how an event is shown.
        sequences: to which sequence each belongs.
        order: its place there; numbers, or text that sorts as it happened.
        roles: who acts; one role where nobody says.
    """

    vectors: Any
    names: Sequence[str]
    sequences: Sequence[str]
    order: Sequence[Any]
    roles: Sequence[str]


def flow(
    run: Path,
    order: str = "",
    sequences: str | None = None,
    roles: str | None = None,
    names: str | None = None,
    modality: str | None = None,
    threshold: float = 0.6,
    weight: Literal["max", "max-out", "prob-out"] = "max-out",
    least_node: float = 0.023,
    least_edge: float = 0.2,
    checkpoint: Literal["best", "last"] = "best",
    split: str = "test",
    manifest: Path | None = None,
    limit: int | None = None,
    out: Path | None = None,
    *,
    vertical: Vertical | None = None,
) -> Outcome:
    """Cluster the embeddings of a split into actions and draw which action follows which, in the samples' order within
    their groups (Dialog2Flow's extraction). Vectors of another encoder need no RUN: see `flow --embeddings --help`.

    Args:
        run: the run's folder.
        order: field of the samples or column of the manifest that says when, within its sequence, each happened.
        sequences: field or column that names the sequence of each; the group unless given.
        roles: field or column that says who acts; clusters are made for each role alone.
        names: field or column by which a sample is shown; its id unless given.
        modality: whose embeddings; the first one unless given.
        threshold: cosine distance below which clusters merge; a whole number above 1 asks for so many clusters.
        weight: an edge's count over the greatest of all (max), over the greatest that leaves its node (max-out), or
            over the sum of these (prob-out).
        least_node: actions visited less often, as a share of the most visited, are left out.
        least_edge: lighter edges are left out.
        checkpoint: which weights.
        split: train, val or test.
        manifest: use this manifest instead of the run's own data.
        limit: the first so many samples; null for all.
        out: the page; RUN/flow-SPLIT.html unless given, with the figures as JSON beside it.
        vertical: the vertical of the run's system; unused, given by the command line.
    """
    import torch

    from counterpoint.common.data.encoding import encode_rows
    from counterpoint.common.runs.encode import open_split

    _needs_order(order)
    system, dataset = open_split(run, checkpoint, split, manifest)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    facts = tuple(dict.fromkeys(name for name in (order, sequences, roles, names) if name))
    rows = range(len(dataset) if limit is None else min(limit, len(dataset)))
    found = encode_rows(system.to(device).eval(), dataset, rows, facts=facts, progress="encoding")
    chosen = modality or next(iter(found.vectors))
    if chosen not in found.vectors:
        raise no_such("modality", chosen, found.vectors)
    events = Events(
        found.vectors[chosen].float(),
        found.ids if names is None else [str(v) for v in found.facts[names]],
        found.groups if sequences is None else _known(found.facts[sequences], sequences, found.ids),
        _known(found.facts[order], order, found.ids),
        [""] * len(found.ids) if roles is None else _known(found.facts[roles], roles, found.ids),
    )
    options = {"threshold": threshold, "weight": weight, "least_node": least_node, "least_edge": least_edge}
    target = out or run / f"flow-{split}.html"
    said = [f"left out: {name}: {reason}" for name, reason in found.left_out]
    return _drawn(events, f"{run}, split {split}, {chosen}", options, target, said, dataset.synthetic)


def flow_embeddings(
    embeddings: tuple[str, ...] = (),
    order: str = "",
    groups: str | None = None,
    roles: str | None = None,
    names: str | None = None,
    ids: str | None = None,
    splits: str | None = None,
    split: str = "test",
    threshold: float = 0.6,
    weight: Literal["max", "max-out", "prob-out"] = "max-out",
    least_node: float = 0.023,
    least_edge: float = 0.2,
    out: Path | None = None,
) -> Outcome:
    """Cluster the vectors of any encoder into actions and draw which action follows which, without a run of ours.

    Args:
        embeddings: one .parquet, .npy or .npz file, or a folder of .parquet as embed writes it.
        order: column of the vectors' table, FILE or FILE:COLUMN that says when, within its sequence, each happened.
        groups: the same for the sequence of each (dialogue, stay, order); the column group unless given.
        roles: the same for who acts; clusters are made for each role alone.
        names: the same for how an event is shown; its id unless given.
        ids: the same for the ids; the column id unless given.
        splits: the same for train, val and test; all rows are used where there are none.
        split: which of them.
        threshold: cosine distance below which clusters merge; a whole number above 1 asks for so many clusters.
        weight: an edge's count over the greatest of all (max), over the greatest that leaves its node (max-out), or
            over the sum of these (prob-out).
        least_node: actions visited less often, as a share of the most visited, are left out.
        least_edge: lighter edges are left out.
        out: the page; beside the vectors unless given, with the figures as JSON beside it.
    """
    from counterpoint.common.runs.vectors import read_vectors

    _needs_order(order)
    more = {k: v for k, v in (("order", order), ("roles", roles), ("names", names)) if v}
    table = read_vectors(embeddings, ids, None, groups, splits, more)
    if len(table.vectors) > 1:
        raise InputError(
            f"a flow is one of one kind of vectors; there are {', '.join(table.vectors)}: give one of them"
        )
    if table.groups is None:
        raise InputError("which events belong together? --groups COLUMN, FILE or FILE:COLUMN names their sequences")
    if not table.rows(split):
        raise no_such("split", split, [s for s in dict.fromkeys(table.splits or ()) if s])
    part = table.part(table.rows(split))
    (vectors,) = part.vectors.values()
    events = Events(
        vectors,
        part.ids if names is None else ["" if v is None else str(v) for v in part.more["names"]],
        part.groups or [],
        _known(part.more["order"], "order", part.ids),
        [""] * len(part) if roles is None else [str(v) for v in _known(part.more["roles"], "roles", part.ids)],
    )
    first = Path(embeddings[0].rpartition("=")[2])
    options = {"threshold": threshold, "weight": weight, "least_node": least_node, "least_edge": least_edge}
    target = out or first.parent / f"{first.stem}-flow.html"
    synthetic = "; ".join(n.removeprefix("SYNTHETIC data: ") for n in table.notes if n.startswith("SYNTHETIC"))
    return _drawn(events, ", ".join(embeddings), options, target, [], synthetic)


def _needs_order(order: str) -> None:
    if not order:
        raise InputError("in which order did the events of a sequence happen? --order names the column that says it")


def _known(values: Sequence[Any], what: str, ids: Sequence[str]) -> list[Any]:
    empty = [i for i, v in enumerate(values) if v is None or v == "" or v != v]
    if empty:
        raise InputError(f"sample {ids[empty[0]]!r} has no {what} ({len(empty)} have none)")
    return list(values)


def ordered(events: Events) -> tuple[dict[str, list[int]], int]:
    """The rows of every sequence as they happened, and how many share their place with the one before (which keep the
    order of the rows).

    Raises `InputError` where some places are numbers and some are text.
    """
    places: list[Any] = list(events.order)
    try:
        places = [float(p) for p in places]
    except (TypeError, ValueError):
        if any(isinstance(p, (int, float)) for p in places):
            raise InputError(
                "--order: some of its values are numbers and some are text; make them of one kind"
            ) from None
        places = [str(p) for p in places]
    found: dict[str, list[int]] = {}
    for row in sorted(range(len(places)), key=lambda i: places[i]):
        found.setdefault(str(events.sequences[row]), []).append(row)
    ties = sum(places[a] == places[b] for rows in found.values() for a, b in pairwise(rows))
    return found, ties


def _drawn(
    events: Events, what: str, options: dict[str, Any], target: Path, said: list[str], synthetic: str
) -> Outcome:
    from counterpoint.common.data.flow import extract_actions, transition_graph
    from counterpoint.common.report import Report
    from counterpoint.common.report.flow import flow_chart

    if not options["threshold"] > 0:
        raise InputError(f"--threshold is {options['threshold']}; give a distance above 0, or a number of clusters")
    role, count = max(((r, list(events.roles).count(r)) for r in set(events.roles)), key=lambda found: found[1])
    if count > MOST:
        whose = f" of {role}" if role else ""
        raise InputError(
            f"{count} events{whose}: clustering compares every two; give up to {MOST} (--limit, a --split)"
        )
    roles = [str(r) or "event" for r in events.roles]
    sequences, ties = ordered(events)
    ids, actions = extract_actions(events.vectors, roles, threshold=options["threshold"])
    lists = [[ids[row] for row in rows] for rows in sequences.values()]
    found = transition_graph(
        lists, weight=options["weight"], least_node=options["least_node"], least_edge=options["least_edge"]
    )
    shown = {a.id: events.names[a.nearest[0]] for a in actions}
    figures = {
        "of": what, "synthetic": synthetic, "events": len(ids), "sequences": len(sequences), "ties": ties, **options,
        "actions": [{"id": a.id, "events": a.size, "nearest": [events.names[i] for i in a.nearest]} for a in actions],
        "nodes": found.nodes, "path": found.path,
        "edges": [{"from": a, "to": b, "count": n, "weight": w} for (a, b), (n, w) in found.edges.items()],
    }  # fmt: skip
    said = ([f"SYNTHETIC data: {synthetic}"] if synthetic else []) + said
    if ties:
        said.append(f"{ties} events share their place with the one before and keep the order of the rows")
    kept = len(found.nodes) - 2
    head = f"{len(ids)} events of {len(sequences)} sequences: {len(actions)} actions, {kept} in the graph"
    rows = [(a.id, str(a.size), "; ".join(events.names[i] for i in a.nearest[:3])) for a in actions]
    path = " -> ".join(found.path) if found.path else "none: START does not reach END by steps between roles"
    page = Report("Flow", f"{what}: {head}", synthetic=synthetic)
    for sentence in said:
        page.text(f"{sentence}.")
    page.section("What follows what", "Wide lines are frequent steps; dark ones lie on the widest path.")
    if kept:
        page.drawing("Transition graph", flow_chart(found, shown))
    else:
        page.text("No action is frequent enough: lower --least_node and --least_edge, or raise --threshold.")
    page.table("Actions", rows, ("action", "events", "nearest its centre"))
    record = target.with_suffix(".json")
    written = page.write(target)
    write_json(figures, record)
    listed = aligned(("action", "events", "nearest its centre"), rows[:20])
    rest = [f"and {len(rows) - 20} more"] if len(rows) > 20 else []
    lines = (head, *said, f"widest path: {path}", "", *listed, *rest, "", f"wrote {written} and {record}")
    return Outcome(figures, lines, {"flow": written, "figures": record})
