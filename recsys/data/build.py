"""Files of a log to a data set's folder: every file is read in a worker, names become rows, bad rows are told.

    manifest.parquet         the users: id, and what a table of users says of them
    items.parquet            the items: id, and what a table of items says of them
    interactions.parquet     user and item as rows of these, time, rating, split
    features/NAME.npy        vectors of the items (`features.py`)
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from counterpoint.common.data import Manifest
from counterpoint.common.data.archives import packed_inside
from counterpoint.common.data.importing import Found, plain_reason
from counterpoint.common.data.isolation import TIMEOUT, isolated_map
from counterpoint.common.errors import InputError
from counterpoint.common.progress import track
from counterpoint.common.vertical import ImportReport, Rejected
from counterpoint.recsys.data.features import ItemFeatures, read_features, save_features
from counterpoint.recsys.data.folder import INTERACTIONS, ITEMS, MANIFEST, SPLIT
from counterpoint.recsys.data.ids import IdMap
from counterpoint.recsys.data.log import Interactions, write_log_table
from counterpoint.recsys.data.parts import LogPart, Wanted, read_part
from counterpoint.recsys.data.sidetables import side_table
from counterpoint.recsys.data.splits import TRAIN

SECONDS_PER_GB = 600.0
SOME = 1 << 22  # names that may wait to be told apart


@dataclass
class Extras:
    """What is known beside the log.

    Attributes:
        user_table, item_table: id and further columns, as text or numbers.
        features: modality -> file or folder.
        feature_ids: what row i of a `.npy` belongs to.
        notes: sentences for the report.
    """

    user_table: pa.Table | None = None
    item_table: pa.Table | None = None
    features: Mapping[str, Path] = field(default_factory=dict)
    feature_ids: list[str] | None = None
    notes: list[str] = field(default_factory=list)


def build(
    found: Found, out: Path, wanted: Wanted, extras: Extras, *, repeats: str = "first", unknown: str = "keep",
    meta: dict[str, Any] | None = None,
) -> ImportReport:  # fmt: skip
    """Read the files of a log, all parts of one, and write the data set.

    Args:
        repeats: of several rows of one user and item the `first` counts, the `last`, or all (`keep`).
        unknown: whether rows of an item (or user) that the given table does not list are kept or left out (`drop`).
        meta: further facts for the manifest (synthetic, kind of split).
    """
    out.mkdir(parents=True, exist_ok=True)
    rejected = list(found.rejected)
    spool = Path(tempfile.mkdtemp(prefix=".import-", dir=out))
    try:
        parts = _read(found, spool, wanted, rejected)
        if not parts:
            return ImportReport(out / MANIFEST, 0, tuple(rejected))
        log = _without(_joined(parts, extras), parts, extras, repeats, unknown, rejected)
    finally:
        shutil.rmtree(spool, ignore_errors=True)
    if not len(log):
        return ImportReport(out / MANIFEST, 0, tuple(rejected))
    extras.notes += _units(log)
    features = {}
    for name, source in extras.features.items():
        try:
            features[name], notes = read_features(source, log.items, extras.feature_ids, name)
            extras.notes += notes
        except InputError as error:
            rejected.append(Rejected(str(source), plain_reason(str(error), source)))
    kind = {SPLIT: {"kind": "given"}} if log.split is not None else {}
    save_dataset(out, log, extras.user_table, extras.item_table, features, {**kind, **(meta or {})}, len(rejected))
    said = f"{len(log):,} interactions of {len(log.users):,} users with {len(log.items):,} items"
    return ImportReport(out / MANIFEST, len(log.users), tuple(rejected), "; ".join([said, *extras.notes]))


def save_dataset(
    out: Path,
    log: Interactions,
    user_table: pa.Table | None = None,
    item_table: pa.Table | None = None,
    features: Mapping[str, ItemFeatures] | None = None,
    meta: Mapping[str, Any] | None = None,
    rejected: int = 0,
) -> Path:
    """Write the folder of a data set; returns its manifest."""
    out.mkdir(parents=True, exist_ok=True)
    log.save(out / INTERACTIONS)
    write_log_table(side_table(log.items, item_table), out / ITEMS)
    files = save_features(out, features or {})
    facts = {"interactions": INTERACTIONS, "items": ITEMS, "features": files, "rejected": rejected}
    users = side_table(log.users, user_table).to_pandas()
    users = users.drop(columns=[c for c in ("group", "split") if c in users])
    Manifest(users, out, meta={**facts, **(meta or {})}).save(out / MANIFEST)
    return out / MANIFEST


def _units(log: Interactions) -> list[str]:
    """A sentence where times of both seconds and milliseconds since 1970 seem to stand in one log."""
    if log.time is None:
        return []
    seconds = int(((log.time >= 3e8) & (log.time < 1e10)).sum())  # 1979 to 2286
    thousandths = int(((log.time >= 3e11) & (log.time < 1e13)).sum())
    if not seconds or not thousandths:
        return []
    said = f"{seconds} times read as seconds since 1970 and {thousandths} as milliseconds"
    return [f"{said}: give all in one unit, or their order is wrong"]


def _read(found: Found, spool: Path, wanted: Wanted, rejected: list[Rejected]) -> list[tuple[Path, Path, LogPart]]:
    """(file, checked columns, what became of it) of every file that can be read."""
    tasks = [(str(file), str(spool / f"{i}.parquet"), wanted) for i, file in enumerate(found.files)]
    size = max((os.path.getsize(file) for file in found.files), default=0)
    timeout = TIMEOUT + SECONDS_PER_GB * size / 1e9
    parts = []
    work = isolated_map(read_part, tasks, timeout=timeout, name=lambda task: task[0])
    for task, part in track(work, "reading the log", len(tasks)):
        file = Path(task[0])
        if isinstance(part, Rejected):
            rejected.append(Rejected(str(file), packed_inside(file) or plain_reason(part.reason, file)))
            continue
        rejected += [Rejected(str(file), sentence) for sentence in part.sentences()]
        if part.rows:
            parts.append((file, Path(task[1]), part))
    columns = {tuple(c for c in part.columns if c != "row"): file.name for file, _, part in reversed(parts)}
    if len(columns) > 1:
        said = " and ".join(f"{file} has {', '.join(names)}" for names, file in list(columns.items())[-2:])
        raise InputError(f"the parts of the log have different columns ({said}); name them (--time none, ...)")
    return parts


def _joined(parts: list[tuple[Path, Path, LogPart]], extras: Extras) -> tuple[Interactions, np.ndarray]:
    """All parts as one log in the order of the files, with the names of the tables given, too; and where each row stood
    (file and row as one number)."""
    spools = [pq.ParquetFile(path, read_dictionary=["user", "item"]) for _, path, _ in parts]
    names: dict[str, list[pa.Array]] = {"user": [], "item": []}
    for spool in spools:
        for group in range(spool.num_row_groups):
            table = spool.read_row_group(group, columns=["user", "item"])
            for role, known in names.items():
                known += [pc.cast(chunk.dictionary, pa.large_string()) for chunk in table.column(role).chunks]
                if sum(map(len, known)) > 2 * len(known[0]) + SOME:
                    names[role] = [pc.unique(pa.concat_arrays(known))]
    for role, table in (("user", extras.user_table), ("item", extras.item_table)):
        names[role] += [] if table is None else [pc.cast(table.column("id").combine_chunks(), pa.large_string())]
    maps = {role: IdMap.of(*known) for role, known in names.items()}
    rows = sum(part.rows for _, _, part in parts)
    kinds = {"user": np.int32, "item": np.int32, "time": np.float64, "rating": np.float32, "split": np.int8}
    columns = {name: np.empty(rows, kind) for name, kind in kinds.items() if name in parts[0][2].columns}
    places = np.empty(rows, dtype=np.int64)
    start = 0
    for number, spool in enumerate(spools):
        for group in range(spool.num_row_groups):
            table = spool.read_row_group(group)
            stop = start + table.num_rows
            for name, values in columns.items():
                column = table.column(name).combine_chunks()
                if name in maps:
                    own = maps[name].rows(column.dictionary)
                    values[start:stop] = own[column.indices.to_numpy()]
                else:
                    values[start:stop] = column.to_numpy(zero_copy_only=False)
            places[start:stop] = table.column("row").to_numpy() + (number << 40)
            start = stop
    for role, ids in maps.items():
        _one_form(role, ids, columns[role], places, parts)
    return Interactions(maps["user"], maps["item"], **columns), places


def _one_form(role: str, ids: IdMap, rows: np.ndarray, places: np.ndarray, parts: list) -> None:
    """Raise `InputError` where an id stands in the log, or in its table, as `1` and as `1.0`: so it is written where a
    part of it had missing ids."""
    decimal = ids.names.filter(pc.match_substring_regex(ids.names, r"^-?[0-9]+\.0+$"))
    twice = decimal.filter(pa.array(ids.rows(pc.replace_substring_regex(decimal, r"\.0+$", "")) >= 0))
    if not len(twice):
        return
    ours = np.zeros(len(ids), dtype=bool)
    ours[ids.rows(twice)] = True
    name, where = twice[0].as_py(), f"the table of {role}s"
    if (bad := ours[rows]).any():
        place = int(places[bad].min())
        name = ids[int(rows[places == place][0])]
        where = f"{parts[place >> 40][0].name}: row {place & ((1 << 40) - 1)}"
    more = f", and {len(twice) - 1} more {role}s likewise" if len(twice) > 1 else ""
    raise InputError(
        f"{where} names the {role} {name!r}, and others {name.partition('.')[0]!r}{more}; write an id in one form in "
        "all parts and tables"
    )


def _without(
    joined: tuple[Interactions, np.ndarray], parts: list, extras: Extras, repeats: str, unknown: str,
    rejected: list[Rejected],
) -> Interactions:  # fmt: skip
    """The log in its order, without rows of unknown ids, repeated pairs and training pairs held out; each kind is told
    once, with its first row."""
    log, places = joined
    del joined  # the columns are large: none is kept in two orders for longer than it takes

    def tell(bad: np.ndarray, what: str) -> None:
        if bad.any():
            place = int(places[bad].min())
            file, row = parts[place >> 40][0], place & ((1 << 40) - 1)
            name = f"{log.users[log.user[places == place][0]]!r} and {log.items[log.item[places == place][0]]!r}"
            count = int(bad.sum())
            rows = f"row {row} ({name})" if count == 1 else f"{count} rows (the first: row {row}, {name})"
            rejected.append(Rejected(str(file), f"{rows} {what}"))

    for role, table in (("user", extras.user_table), ("item", extras.item_table)):
        if table is None:
            continue
        maps = {"user": log.users, "item": log.items}
        listed = np.zeros(len(maps[role]), dtype=bool)
        listed[maps[role].rows(table.column("id"))] = True
        bad = ~listed[getattr(log, role)]
        if len(log) and bad.all():
            first = maps[role][int(getattr(log, role)[0])]
            raise InputError(
                f"the table of {role}s lists not one {role} of the log (such as {first!r}); its first column is the "
                f"id, and it holds {table.column('id')[0].as_py()!r}"
            )
        if unknown == "drop":
            one = "an item" if role == "item" else "a user"
            tell(bad, f"of {one} that the table of {role}s does not list; add it there, or give --unknown keep")
            log, places = log.take(~bad), places[~bad]
            rows = (np.cumsum(listed) - 1)[getattr(log, role)]  # nor is what was left out part of the catalogue
            names = maps[role].take(np.flatnonzero(listed))
            log = replace(log, **{f"{role}s": names, role: rows})
        elif bad.any():
            extras.notes.append(f"{int(bad.sum())} interactions are of {role}s that the table of {role}s does not list")
    if log.time is None:
        order = np.argsort(log.user, kind="stable")
    else:
        order = np.argsort(log.time, kind="stable")
        order = order[np.argsort(log.user[order], kind="stable")]
    log, places = log.take(order), places[order]
    pairs = log.pairs
    by_pair = np.argsort(pairs, kind="stable")
    same = np.zeros(len(log), dtype=bool)
    same[1:] = pairs[by_pair][1:] == pairs[by_pair][:-1]
    if not same.any():
        return log
    first = np.flatnonzero(~same)
    size = np.diff([*first, len(log)])
    if log.split is not None:
        trained = np.maximum.reduceat((log.split[by_pair] == TRAIN).astype(np.int8), first).repeat(size).astype(bool)
        leak = np.zeros(len(log), dtype=bool)
        leak[by_pair] = trained & (log.split[by_pair] > TRAIN)
        tell(leak, "held out, though the same user and item stand in train; they are left out of what is held out")
        keep = ~leak
        if leak.any():
            log, places = log.take(keep), places[keep]
            return _without((log, places), parts, Extras(notes=extras.notes), repeats, unknown, rejected)
    if repeats == "keep":
        extras.notes.append(f"{int(same.sum())} rows repeat a user and an item; all are kept")
        return log
    bad = np.zeros(len(log), dtype=bool)
    if repeats == "first":
        bad[by_pair[same]] = True
    else:
        last = np.zeros(len(log), dtype=bool)
        last[[*(first[1:] - 1), len(log) - 1]] = True
        bad[by_pair[~last]] = True
    tell(bad, f"repeating a user and an item; the {repeats} of them counts (--repeats)")
    return log.take(~bad)
