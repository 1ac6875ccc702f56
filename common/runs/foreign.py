"""Evaluation, search and report of vectors that any encoder made: no run of ours is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from counterpoint.common.errors import InputError
from counterpoint.common.output import write_json
from counterpoint.common.suggest import no_such
from counterpoint.common.vertical import Outcome

if TYPE_CHECKING:
    from counterpoint.common.metrics import Evaluation
    from counterpoint.common.runs.vectors import VectorTable

_REMEDIES = {
    "labels": "--labels COLUMN, FILE or FILE:COLUMN that holds them",
    "classes": "--labels of a column that holds classes",
    "no regression": "--labels of a column that holds classes",
    "train": "--splits COLUMN, FILE or FILE:COLUMN names it",
    "two modalities": "--embeddings takes a file for each",
    "pairs": "--embeddings takes a file for each",
}


def evaluate_embeddings(
    embeddings: tuple[str, ...] = (),
    ids: str | None = None,
    labels: str | None = None,
    groups: str | None = None,
    splits: str | None = None,
    split: str = "test",
    metric: Literal["cosine", "dot"] = "cosine",
    protocols: tuple[str, ...] = (),
    bootstrap: int = 1000,
    seed: int = 0,
    out: Path | None = None,
) -> Outcome:
    """Evaluate the vectors of any encoder, without a run of ours, with every protocol that the data allow.

    Args:
        embeddings: .parquet, .npy or .npz files, or folders of .parquet as embed writes them; several are several
            modalities of the same samples, called by their files or as in image=a.npy,text=b.npy.
        ids: column of the vectors' table, FILE or FILE:COLUMN; the column id unless given.
        labels: the same for the labels; the column label unless given.
        groups: the same for the groups (patient, scene, ...), the unit of intervals; the column group unless given.
        splits: the same for train, val and test; the column split unless given.
        split: which of them is scored.
        metric: how vectors answer one another in retrieval: cosine, or dot where lengths count.
        protocols: only these protocols.
        bootstrap: resamples of the 95 % intervals; groups are drawn, not rows.
        seed: seed of everything drawn.
        out: the JSON file; beside the vectors unless given.
    """
    from counterpoint.common.runs.measure import lines_of
    from counterpoint.common.runs.vectors import read_vectors

    table = read_vectors(embeddings, ids, labels, groups, splits)
    part, evaluation, warnings = measure_vectors(table, split, protocols, bootstrap, seed, metric)
    what = "all samples" if table.splits is None else f"samples of {split}"
    count = f", {len(set(part.groups))} groups" if part.groups else ""
    sizes = ", ".join(f"{name} ({z.shape[1]})" for name, z in part.vectors.items())
    lines = [f"{sizes}: {len(part)} {what}{count}"]
    lines += [*(f"WARNING: {said}" for said in warnings), *(f"note: {said}" for said in table.notes)]
    figures = {"embeddings": list(embeddings), "split": split if table.splits else "all", "warnings": warnings}
    figures |= {"notes": list(table.notes), **evaluation.as_dict()}
    first = Path(embeddings[0].rpartition("=")[2])
    target = out or first.parent / f"{first.stem}-evaluation-{figures['split']}.json"
    write_json(figures, target)
    lines += ["", *lines_of(evaluation), "", f"wrote {target}"]
    return Outcome(figures, tuple(lines), {"evaluation": target})


def measure_vectors(
    table: VectorTable,
    split: str,
    protocols: tuple[str, ...] = (),
    bootstrap: int = 1000,
    seed: int = 0,
    metric: str = "cosine",
) -> tuple[VectorTable, Evaluation, list[str]]:
    """(the rows scored, their evaluation, what to be warned of): `check_vectors`, then every protocol."""
    from counterpoint.common.metrics import PROTOCOLS, Split, evaluate_features
    from counterpoint.common.runs.vectors import check_vectors

    for name in protocols:
        if name not in PROTOCOLS:
            raise no_such("protocol", name, PROTOCOLS)
    if not table.rows(split):
        raise no_such("split", split, [s for s in dict.fromkeys(table.splits or ()) if s])
    warnings = check_vectors(table, split)
    part = table.part(table.rows(split))

    def others(name: str) -> Split | None:
        rows = table.rows(name) if table.splits is not None and name != split else []
        if not rows or table.labels is None:
            return None
        learnt = table.part(rows)
        return Split(learnt.vectors, learnt.labels, learnt.groups)

    try:
        evaluation = evaluate_features(
            Split(part.vectors, part.labels, part.groups, metric=metric),
            others("train"),
            others("val"),
            protocols=protocols or "auto",
            ks=(1, 5, 10, 25),
            seed=seed,
            n_boot=bootstrap,
            remedies=_REMEDIES,
        )
    except ValueError as error:
        raise InputError(str(error)) from error
    return part, evaluation, warnings


def search_embeddings(
    embeddings: tuple[str, ...] = (),
    id: str = "",
    ids: str | None = None,
    labels: str | None = None,
    source: str | None = None,
    to: str | None = None,
    top: int = 10,
    metric: Literal["cosine", "dot"] = "cosine",
) -> Outcome:
    """Find the nearest neighbours of a sample among the vectors of any encoder, without a run of ours.

    Args:
        embeddings: .parquet, .npy or .npz files, or folders of .parquet as embed writes them.
        id: the sample to start from.
        ids: column of the vectors' table, FILE or FILE:COLUMN; the column id unless given.
        labels: a column to show beside the neighbours.
        source: modality of the query; the first one unless given.
        to: modality to search in; another one than the query's unless given.
        top: how many neighbours.
        metric: cosine, or dot where lengths count.
    """
    from counterpoint.common.data.search import NeighbourIndex
    from counterpoint.common.output import table as aligned
    from counterpoint.common.runs.vectors import read_vectors

    if not id:
        raise InputError("which sample? give --id")
    if top < 1:
        raise InputError(f"--top is {top}; it must be at least 1")
    found = read_vectors(embeddings, ids, labels)
    names = list(found.vectors)
    source = source or names[0]
    to = to or next((name for name in names if name != source), source)
    for name in (source, to):
        if name not in names:
            raise no_such("modality", name, names)
    index = NeighbourIndex(found.vectors[to], found.ids, metric=metric)
    row = index.row(id)
    hits = index.search(found.vectors[source][[row]], top, leave_out=[{row} if source == to else ()])[0]
    labelled = found.labels or [""] * len(found)
    rows = [{"rank": i, "id": hit.id, metric: hit.value, "label": labelled[hit.row]} for i, hit in enumerate(hits, 1)]
    pool = len(found) - (source == to)
    cells = [(str(r["rank"]), f"{r[metric]:.4f}", r["id"], str(r["label"])) for r in rows]
    lines = (f"{source} of {id} -> {to}, pool of {pool}", "", *aligned(("rank", metric, "id", "label"), cells))
    return Outcome({"query": id, "source": source, "to": to, "pool": pool, "neighbours": rows}, lines)


def report_embeddings(
    embeddings: tuple[str, ...] = (),
    ids: str | None = None,
    labels: str | None = None,
    groups: str | None = None,
    splits: str | None = None,
    split: str = "test",
    bootstrap: int = 1000,
    seed: int = 0,
    out: Path | None = None,
    metric: Literal["cosine", "dot"] = "cosine",
) -> Outcome:
    """Write the figures and the map of any encoder's vectors into one HTML file, without a run of ours.

    Args:
        embeddings: .parquet, .npy or .npz files, or folders of .parquet as embed writes them.
        ids: column of the vectors' table, FILE or FILE:COLUMN; the column id unless given.
        labels: the same for the labels; the column label unless given.
        groups: the same for the groups; the column group unless given.
        splits: the same for train, val and test; the column split unless given.
        split: which of them is shown.
        bootstrap: resamples of the 95 % intervals.
        seed: seed of everything drawn.
        out: the file to write; beside the vectors unless given.
        metric: how vectors answer one another: cosine, or dot where lengths count.
    """
    from counterpoint.common.report import Report
    from counterpoint.common.runs.encode import Encoded
    from counterpoint.common.runs.figures import fill_cards, fill_tables
    from counterpoint.common.runs.page import add_map, fill_monitors
    from counterpoint.common.runs.vectors import read_vectors

    table = read_vectors(embeddings, ids, labels, groups, splits)
    part, evaluation, warnings = measure_vectors(table, split, (), bootstrap, seed, metric)
    groups = f" of {len(set(part.groups)):,} groups" if part.groups else ""
    of = f" ({split} split)" if table.splits is not None else ""
    what = f"{len(part):,} samples{groups}{of} from {', '.join(embeddings)}" + (f", labels: {labels}" if labels else "")
    page = Report(f"Embeddings: {', '.join(part.vectors)}", what)
    page.section("Figures")
    for said in [*warnings, *table.notes]:
        page.text(f"{said[:1].upper()}{said[1:]}.")
    fill_cards(page, evaluation, list(part.vectors))
    page.section("Embedding map")
    seen = Encoded(None, None, [], part.vectors, part.ids, part.groups or part.ids, part.labels, [])
    add_map(page, seen, metric=metric)
    fill_tables(page, evaluation, list(part.vectors))
    fill_monitors(page, evaluation)
    first = Path(embeddings[0].rpartition("=")[2])
    target = page.write(out or first.parent / f"{first.stem}-report.html")
    return Outcome({"report": str(target)}, (f"wrote {target}",), {"report": target})
