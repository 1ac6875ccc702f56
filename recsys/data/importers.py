"""The formats of the field: tables of interactions, RecBole's atomic files, MMRec's, sequences, arrays of edges."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from counterpoint.common.data.importing import Found, find_files, plain_reason, unreadable
from counterpoint.common.data.isolation import Isolated
from counterpoint.common.errors import InputError
from counterpoint.common.vertical import ImportReport, Rejected
from counterpoint.recsys.data.build import Extras, build
from counterpoint.recsys.data.features import load_npy
from counterpoint.recsys.data.parts import Wanted
from counterpoint.recsys.data.several import check_columns, looks_like_sets, separators, split_sets
from counterpoint.recsys.data.sidetables import read_sidetable

TABLES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")


def import_tables(
    source: Path, out: Path, wanted: Wanted, *, users: Path | None, items: Path | None, features: Sequence[str],
    feature_ids: Path | None, repeats: str, unknown: str, sets: Sequence[str] = (),
) -> ImportReport:  # fmt: skip
    """A file, or a folder of parts of one log."""
    several = separators(sets)
    found = find_files(source, TABLES)
    beside = {path.resolve() for path in (users, items, feature_ids, *_named(features).values()) if path is not None}
    files = [file for file in found.files if file.resolve() not in beside]
    extras = _extras(users, items, features, feature_ids)
    check_columns(several, (extras.user_table, extras.item_table))
    extras.user_table, extras.item_table = (split_sets(t, several) for t in (extras.user_table, extras.item_table))
    extras.notes += looks_like_sets((extras.user_table, extras.item_table))
    return build(Found(files, found.rejected, found.root), out, wanted, extras, repeats=repeats, unknown=unknown)


def import_atomic(
    source: Path, out: Path, wanted: Wanted, *, features: Sequence[str], feature_ids: Path | None, repeats: str,
    unknown: str,
) -> ImportReport:  # fmt: skip
    """RecBole's NAME.inter with NAME.item and NAME.user beside it where they are."""
    found = find_files(source, (".inter",))
    if len(found.files) > 1:  # their ids are of different tables, or their names say a split
        several = " and ".join(file.name for file in found.files[:2])
        raise InputError(f"{source}: {several}: several data sets; name one .inter file")
    extras = _extras(None, None, features, feature_ids)
    rejected = list(found.rejected)
    for suffix in (".user", ".item"):
        for side in (file.with_suffix(suffix) for file in found.files if file.with_suffix(suffix).exists()):
            try:
                table = read_sidetable(side, None, "atomic")
            except InputError as error:
                rejected.append(Rejected(str(side), plain_reason(str(error), side)))
                continue
            setattr(extras, f"{suffix[1:]}_table", table)
    return build(Found(found.files, rejected, found.root), out, wanted, extras, repeats=repeats, unknown=unknown)


def import_lines(source: Path, out: Path, *, features: Sequence[str], feature_ids: Path | None) -> ImportReport:
    """Lines of a user and its items in the order of time; an item that comes again is kept."""
    found = find_files(source, (".txt",))
    return build(found, out, Wanted(form="sequences"), _extras(None, None, features, feature_ids), repeats="keep")


def import_edge_arrays(source: Path, out: Path, *, features: Sequence[str], feature_ids: Path | None) -> ImportReport:
    """`train.npy`, `valid.npy` (or `val.npy`) and `test.npy`, each [2, n] whole numbers: users, items."""
    found = find_files(source, (".npy",))
    sides = {"train": "train", "valid": "val", "val": "val", "test": "test"}
    if source.is_dir():
        keep = [file for file in found.files if file.stem in sides]
        rest = [Rejected(str(f), "is none of train.npy, valid.npy and test.npy") for f in found.files if f not in keep]
    else:
        keep, rest = found.files, []
    rejected, tables = [*found.rejected, *rest], []
    for file in keep:
        try:
            tables.append((file, _edges(file, sides.get(file.stem, "train"))))
        except InputError as error:
            rejected.append(Rejected(str(file), plain_reason(str(error), file)))
    if not tables:
        return ImportReport(out / "manifest.parquet", 0, tuple(rejected))
    out.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=".edges-", dir=out))
    try:
        for file, table in tables:
            pq.write_table(table, place / f"{file.stem}.parquet")
        files = sorted(place.glob("*.parquet"))
        extras = _extras(None, None, features, feature_ids)
        report = build(Found(files, rejected, place), out, Wanted(), extras)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    named = [Rejected(str(source / Path(r.source).with_suffix(".npy").name), r.reason)
             if Path(r.source).parent == place else r for r in report.rejected]  # fmt: skip
    return ImportReport(report.manifest, report.rows, tuple(named), report.note)


def _edges(file: Path, split: str) -> pa.Table:
    with Isolated() as worker:
        edges = worker.call(load_npy, file)
    if edges.ndim != 2 or edges.shape[0] != 2 or edges.dtype.kind not in "iu" or not edges.shape[1]:
        raise InputError(f"{file.name}: edges are whole numbers [2, n], users and items, not {edges.dtype} "
                         f"{list(edges.shape)}")  # fmt: skip
    rows = edges.shape[1]
    return pa.table({"user": edges[0].astype(np.int64), "item": edges[1].astype(np.int64), "split": [split] * rows})


def _named(features: Sequence[str]) -> dict[str, Path]:
    """`NAME=FILE` as a mapping."""
    found = {}
    for text in features:
        name, equals, file = text.partition("=")
        if not equals or not name.strip() or not file.strip():
            raise InputError(f"--features {text}: give NAME=FILE, as in text=titles.npy")
        found[name.strip()] = Path(file.strip())
    return found


def _extras(users: Path | None, items: Path | None, features: Sequence[str], feature_ids: Path | None) -> Extras:
    found = Extras(features=_named(features))
    if users is not None:
        found.user_table = read_sidetable(users, None)
    if items is not None:
        found.item_table = read_sidetable(items, None)
    if feature_ids is not None:
        if reason := unreadable(feature_ids):
            raise InputError(f"{feature_ids}: {reason}")
        try:
            found.feature_ids = [line.strip() for line in feature_ids.read_text(encoding="utf-8").splitlines() if line]
        except UnicodeDecodeError:
            raise InputError(f"{feature_ids}: not UTF-8 text; write one id a line") from None
    return found


def columns_of(**given: Any) -> dict[str, str]:
    """The columns that were named."""
    return {role: name for role, name in given.items() if name}
