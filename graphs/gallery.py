"""Molecules and circuits to look at: structure drawings, circuit graphs; users' files as queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.common.data.dataset import synthetic_part
from counterpoint.common.data.manifest import Manifest
from counterpoint.common.data.samples import ListSamples, Samples
from counterpoint.common.errors import InputError
from counterpoint.common.report import Media, Report
from counterpoint.common.vertical import Outcome
from counterpoint.graphs.circuits.data import load_circuit
from counterpoint.graphs.circuits.graph import CircuitGraph
from counterpoint.graphs.circuits.picture import node_drawing, node_words


def circuit_drawing(graph: CircuitGraph, predicted: Any = None, max_nets: int = 60, seed: int = 0) -> str:
    """Nets (dots) and devices (squares) of a circuit, spring-laid out, as SVG markup; coupling pairs are drawn in red,
    as wide as their capacitance is large. The `max_nets` nets with the most pins are shown."""
    import io

    import matplotlib.pyplot as plt
    import networkx as nx

    pins = np.bincount(graph.pin_net.numpy(), minlength=len(graph.nets))
    shown = np.argsort(-pins, kind="stable")[:max_nets]
    kept = set(shown.tolist())
    net_graph = nx.Graph()
    net_graph.add_nodes_from((f"net {i}", {"kind": "net"}) for i in shown)
    for device, net in zip(graph.pin_device.tolist(), graph.pin_net.tolist(), strict=True):
        if net in kept:
            net_graph.add_node(f"device {device}", kind="device")
            net_graph.add_edge(f"net {net}", f"device {device}")
    # Couplings pull in the layout, so that nets without a device in sight do not fly away; they are drawn below.
    pulled = net_graph.copy()
    pulled.add_edges_from((f"net {a}", f"net {b}") for a, b in graph.coupling.T.tolist() if a in kept and b in kept)
    lonely = [v for v, degree in pulled.degree() if not degree]
    pulled.remove_nodes_from(lonely)
    place = nx.spring_layout(pulled, seed=seed, iterations=60)
    if lonely and place:  # nets without a device or a coupling stand in a row below
        low, high = np.array(list(place.values())).min(0), np.array(list(place.values())).max(0)
        row = np.linspace(low[0], high[0], len(lonely) + 2)[1:-1]
        place |= {v: np.array([x, low[1] - 0.08 * (high[1] - low[1])]) for v, x in zip(lonely, row, strict=True)}
    figure, axis = plt.subplots(figsize=(6, 3.6))
    nx.draw_networkx_edges(net_graph, place, ax=axis, edge_color="#b0b8c0", width=0.6)
    for kind, shape, colour in (("net", "o", "#2b6cb0"), ("device", "s", "#718096")):
        chosen = [v for v, k in net_graph.nodes(data="kind") if k == kind]
        nx.draw_networkx_nodes(
            net_graph,
            place,
            chosen,
            node_size=16 if kind == "net" else 8,
            node_shape=shape,
            node_color=colour,
            ax=axis,
        )
    if len(graph.coupling_farad):
        log = graph.coupling_farad.log10()
        share = ((log - log.min()) / (log.max() - log.min()).clamp_min(1e-9)).tolist()
        for (a, b), s in zip(graph.coupling.T.tolist(), share, strict=True):
            if a in kept and b in kept:
                (x0, y0), (x1, y1) = place[f"net {a}"], place[f"net {b}"]
                axis.plot([x0, x1], [y0, y1], color="#c53030", alpha=0.25 + 0.5 * s, linewidth=0.3 + 1.7 * s, zorder=0)
    axis.axis("off")
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def picture(sample: dict[str, Any], modality: str, system: Any = None) -> Media | None:
    """One molecule of a data set as its structure drawing, one node of a circuit with what it touches; nodes of other
    graphs have no picture."""
    if "joined" in sample:
        joined, node = sample["joined"], sample["index"]
        title = sample["node"].replace("/", "/\N{ZERO WIDTH SPACE}")  # long hierarchical names may break there
        return Media(title, image=node_drawing(joined, node), caption=f"{sample['group']}, {node_words(joined, node)}")
    if "smiles" not in sample:
        return None
    name = str(sample.get("id", ""))
    title = f"molecule {name}" if name.isdigit() else name  # the number of its row
    (medium,), problems = _molecules([title], [str(sample["smiles"])])
    return replace(medium, caption=f"{medium.caption} (not drawn: {problems[0]})") if problems else medium


def _molecules(ids: Sequence[str], smiles: Sequence[str]) -> tuple[list[Media], dict[int, str]]:
    """Molecules to look at, drawn in another process, which one may end; those that cannot be drawn, by their place."""
    from counterpoint.graphs.molecules.drawing import depictions
    from counterpoint.graphs.molecules.watch import map_watched

    drawn, problems = [], {}
    for pictures, found in map_watched(depictions, smiles):
        problems |= {len(drawn) + i: reason for i, reason in found.items()}
        drawn += pictures
    media = [Media(n, image=svg or None, caption=s) for n, svg, s in zip(ids, drawn, smiles, strict=True)]
    return media, problems


def caption(sample: dict[str, Any], modality: str, system: Any = None) -> str:
    """A molecule's SMILES, a circuit's net or device; empty for what is neither.

    >>> caption({"smiles": "CCO"}, "molecule"), caption({"node": "net vout", "group": "ota"}, "node")
    ('CCO', 'net vout of ota')
    """
    return f"{sample['node']} of {sample['group']}" if "node" in sample else str(sample.get("smiles", ""))


def query(file: Path, modality: str, system: Any) -> Samples:
    """A user's file of one molecule as a sample."""
    from counterpoint.graphs.molecules.reader import read_molecules

    frame = read_molecules(file).frame
    if len(frame) > 1:
        raise InputError(f"{file}: holds {len(frame)} molecules; a query is one, give a file of that")
    return _sample(str(frame["id"].iloc[0]), str(frame["smiles"].iloc[0]))


def query_text(text: str, modality: str, system: Any) -> Samples:
    """A SMILES string as a sample.

    >>> query_text("OCC", "molecule", None)[0]["smiles"]
    'CCO'
    """
    from rdkit import Chem

    from counterpoint.graphs.molecules.smiles import parse_smiles

    return _sample(text, Chem.MolToSmiles(parse_smiles(text)))


def _sample(name: str, smiles: str) -> Samples:
    from counterpoint.graphs.molecules.data import collate_molecules
    from counterpoint.graphs.molecules.featurize import molecule_graph

    return ListSamples([{"id": name, "smiles": smiles, "molecule": molecule_graph(smiles)}], collate_molecules)


def preview_page(manifest: Path, out: Path, n: int) -> Outcome:
    """Depictions or circuit drawings of a manifest's first rows."""
    table = Manifest.load(manifest)
    synthetic = synthetic_part(table)
    page = Report(
        "What the manifest holds", f"{manifest}: {min(n, len(table))} of {len(table)} rows", synthetic=synthetic
    )
    frame = table.frame.astype(object).where(table.frame.notna(), None)
    rows, lines = frame.head(n).to_dict("records"), []
    if "smiles" in frame:
        media, problems = _molecules([r["id"] for r in rows], [str(r["smiles"] or "") for r in rows])
        lines = [f"left out: row {i + 1} (id {rows[i]['id']}): {reason}" for i, reason in problems.items()]
        page.gallery("Molecules", [medium for i, medium in enumerate(media) if i not in problems])
    elif "netlist" in frame:
        for row in rows:
            graph = load_circuit(row, table.folder)
            counts = ", ".join(f"{v} {k}s" for k, v in graph.n_nodes.items())
            page.figure(row["id"], circuit_drawing(graph), f"{counts}, {len(graph.coupling_farad)} coupling pairs")
    else:
        raise InputError(f"{manifest}: has neither a smiles nor a netlist column; make it with `data import`")
    written = page.write(out)
    return Outcome({"rows": len(rows), "left_out": lines}, (*lines, f"wrote {written}"), {"preview": written})
