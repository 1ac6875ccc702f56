"""`data import hetero`: a folder of edge lists, or a saved HeteroData, to a graph file and a manifest of its nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from counterpoint.common.data.importing import save_manifest
from counterpoint.common.data.places import Folder
from counterpoint.common.errors import InputError
from counterpoint.common.vertical import ImportReport
from counterpoint.graphs.hetero.folder import read_folder
from counterpoint.graphs.hetero.graph import HeteroGraph, load_hetero
from counterpoint.graphs.hetero.metapaths import pair_count
from counterpoint.graphs.hetero.saved import read_hetero_data

GRAPH = "graph.npz"


def hetero_to_manifest(
    source: Path, out: Path, *, target: str = "", metapaths: Sequence[str] = (), split: str = ""
) -> ImportReport:
    """Write `out/graph.npz` and `out/manifest.parquet`, one row per node of the target type: `node` (its number),
    `type`, `label` and `split` where they are known. No column names the graph: rows of two splits would name one
    file."""
    source, out = Path(source), Path(out)
    if source.suffix.lower() in (".pt", ".pth"):
        if split:
            raise InputError(f"--split {split}: a saved HeteroData has one split, its masks; leave it out")
        graph, rejected = read_hetero_data(source, target, metapaths), []
    else:
        graph, rejected = read_folder(source, target, metapaths, split)
    pairs = {"-".join(m): pair_count(graph, m) for m in graph.metapaths}
    out.mkdir(parents=True, exist_ok=True)
    graph.save(out / GRAPH)
    meta = {"source": str(source), "target": graph.target, "metapaths": list(pairs)}
    return save_manifest(out, _rows(graph), rejected, meta=meta, note="\n".join(_told(graph, pairs)))


def _rows(graph: HeteroGraph) -> list[dict[str, Any]]:
    known, parted = (graph.labels >= 0).any(), (graph.split != "").any()
    rows = []
    for node, (label, part) in enumerate(zip(graph.labels.tolist(), graph.split.tolist(), strict=True)):
        row = {"id": str(node), "node": node, "type": graph.target, "group": str(node)}
        row |= {"label": label if label >= 0 else None} if known else {}
        rows.append(row | ({"split": part} if parted else {}))
    return rows


def _told(graph: HeteroGraph, pairs: Mapping[str, int]) -> list[str]:
    told = [f"{n} nodes of type {kind}" for kind, n in graph.counts.items()]
    told += [f"{'-'.join(r)}: {m.nnz} edges" for r, m in graph.relations.items()]
    told += [f"meta-path {name}: {n} pairs" for name, n in pairs.items()]
    labels = Counter(graph.labels[graph.labels >= 0].tolist())
    told.append("labels: " + (", ".join(f"{k} ({n})" for k, n in sorted(labels.items())) or "none"))
    return [*told, *graph.notes]


def check_node(row: Mapping[str, Any], root: Path | Folder) -> None:
    """Raise `InputError` when a manifest row names no node of the graph beside it."""
    path = Path(root / GRAPH)
    try:
        stat = path.stat()
        state = (stat.st_mtime_ns, stat.st_size)
    except OSError:
        state = (0, 0)  # the reader says what is wrong
    graph, node = _graph(path, state), row.get("node")
    whole = isinstance(node, int) or (isinstance(node, float) and node.is_integer())
    if not whole or not 0 <= node < graph.counts[graph.target]:
        some = f"{graph.counts[graph.target]} of type {graph.target}"
        raise InputError(f"node {node} is none of the {some} in {path.name}")


@lru_cache(maxsize=1)
def _graph(path: Path, state: tuple[int, int]) -> HeteroGraph:
    return load_hetero(path)
