"""Recordings into a manifest: one row a recording, or a row a segment; files stay where they are."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from counterpoint.audio_speech.kinds import AUDIO_SUFFIXES
from counterpoint.audio_speech.sounds.reading import SoundFacts, sound_facts
from counterpoint.audio_speech.sounds.told import (
    CAPTIONS,
    SIDE_TABLES,
    SPEAKERS,
    NamePattern,
    captions_of,
    file_column,
    folder_facts,
    read_kaldi,
    read_told,
    segment_of,
    split_named,
)
from counterpoint.common.data import split_by_group
from counterpoint.common.data.importing import Found, find_files, name_files, read_files, save_manifest, unreadable
from counterpoint.common.data.places import folders_of
from counterpoint.common.errors import InputError
from counterpoint.common.suggest import no_such
from counterpoint.common.vertical import ImportReport, Rejected

FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}
OWN = ("row", "id", "group", "split", "file", "start", "end", "seconds", "sample_rate", "channels", "level_db",
       "channel", "caption")  # fmt: skip
NUMBER = re.compile(r" \([^)]*\)")
SHOWN = 6


def import_sound_files(
    source: Path,
    out: Path,
    *,
    table: Path | None = None,
    file: str = "",
    pattern: str = "",
    folders: str = "",
    group: str = "",
    seed: int = 0,
    workers: int = 2,
) -> ImportReport:
    """Every recording below `source`, with what its name, its folders and a table say of it."""
    found = find_files(source, AUDIO_SUFFIXES)
    table = table or next((found.root / name for name in SIDE_TABLES if (found.root / name).is_file()), None)
    named = NamePattern(pattern) if pattern else None
    places = tuple(name.strip() for name in folders.replace(",", "/").split("/") if name.strip())
    rejected = list(found.rejected)
    told: dict[Path, dict[str, Any]] = {}
    for path in found.files:
        try:
            told[path] = (folder_facts(path, found.root, places) if places else {}) | (
                named.facts(path) if named else {}
            )
        except InputError as error:
            rejected.append(Rejected(str(path), str(error)))
    names = name_files(found.files, found.root)
    rows = [{"id": names[path], "file": path, **facts} for path, facts in told.items()]
    if table is not None:
        rows = _joined(rows, read_told(table), table, file, found, rejected)
    return _write(rows, rejected, found, out, group, seed, workers)


def import_kaldi_folder(
    source: Path, out: Path, *, root: Path | None = None, group: str = "", seed: int = 0, workers: int = 2
) -> ImportReport:
    """The utterances of a Kaldi data folder; relative paths of wav.scp are taken from `root` (the folder itself)."""
    source = Path(source)
    rows = read_kaldi(source)
    base = Path(root) if root else source
    there, rejected = [], []
    for row in rows:
        file = base / row["file"]
        if reason := unreadable(file):
            rejected.append(Rejected(f"{source / 'wav.scp'}, {row['id']}", f"{file}: {reason}"))
        else:
            there.append({**row, "file": file})
    found = Found(sorted({row["file"] for row in there}), [], base)
    return _write(there, rejected, found, out, group, seed, workers)


def _joined(
    rows: list[dict[str, Any]],
    told: list[dict[str, Any]],
    table: Path,
    file: str,
    found: Found,
    rejected: list[Rejected],
) -> list[dict[str, Any]]:
    """A row for every line of the table whose recording is there; what stands on one side only is listed."""
    column = file_column(told, table.name, file)
    by_path = {os.path.realpath(row["file"]): row for row in rows}
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_name.setdefault(row["file"].name, []).append(row)
        by_name.setdefault(row["file"].stem, []).append(row)
    joined: list[dict[str, Any]] = []
    seen: dict[tuple, dict[str, Any]] = {}
    for line in told:
        where, name = f"{table.name}, row {line['row']}", line.get(column)
        if name is None:
            rejected.append(Rejected(where, f"{column} is empty"))
            continue
        places = [
            base / path for path in (str(name), str(name).replace("\\", "/")) for base in (table.parent, found.root)
        ]
        mine = next((row for place in places if (row := by_path.get(os.path.realpath(place))) is not None), None)
        if mine is None:
            alike = by_name.get(str(name), []) if os.sep not in str(name) else []
            if len(alike) > 1:
                rejected.append(
                    Rejected(where, f"{name} is the name of {len(alike)} recordings; write its folder, too")
                )
                continue
            mine = alike[0] if alike else None
        if mine is None:
            rejected.append(Rejected(where, f"{name} is no recording below {found.root}"))
            continue
        try:
            start, end = segment_of(line)
        except InputError as error:
            rejected.append(Rejected(where, str(error)))
            continue
        key = (mine["file"], start, end)
        known = {
            k: v for k, v in line.items() if k not in (column, "start", "end", "offset") and not CAPTIONS.fullmatch(k)
        }
        if key in seen:  # AudioCaps writes a row for each caption of a clip
            before, said = seen[key], captions_of(line)
            differs = next((k for k, v in known.items() if k not in ("row", "id") and before.get(k) != v), None)
            if not said or differs:
                why = f"{differs} differs" if differs else "nothing new is said"
                rejected.append(Rejected(where, f"{name} stands there again (row {before['row']}), and {why}"))
            else:
                before["captions"] = list(dict.fromkeys([*before["captions"], *said]))
            continue
        part = {} if start is None and end is None else {"start": start or 0.0, "end": end}
        row = {**mine, **known, **part, "captions": captions_of(line), "file": mine["file"]}
        row["id"] = str(line["id"]) if line.get("id") is not None else mine["id"]
        seen[key] = row
        joined.append(row)
    used = {row["file"] for row in joined}
    rejected += [
        Rejected(str(row["file"]), f"no row of {table.name} names it") for row in rows if row["file"] not in used
    ]
    counts: dict[str, int] = {}
    for row in joined:
        counts[row["id"]] = counts.get(row["id"], 0) + 1
    for row in joined:  # several segments of a recording
        if counts[row["id"]] > 1 and "start" in row:
            row["id"] = f"{row['id']}@{row['start']:g}" + ("" if row["end"] is None else f"-{row['end']:g}")
    first: dict[str, int] = {}
    for row in joined:
        if row["id"] in first:
            raise InputError(
                f"{table.name}, rows {first[row['id']]} and {row['row']}: both are {row['id']!r}; give every row an id "
                "of its own"
            )
        first[row["id"]] = row["row"]
    return joined


def _write(
    rows: list[dict[str, Any]],
    rejected: list[Rejected],
    found: Found,
    out: Path,
    group: str,
    seed: int,
    workers: int,
) -> ImportReport:
    files = sorted({row["file"] for row in rows})
    facts = dict(read_files(sound_facts, files, rejected, description="reading recordings", workers=workers))
    kept, told = [], {}
    for row in rows:
        if row["file"] not in facts:
            continue
        try:
            kept.append(_row(row, facts[row["file"]], Path(out)))
        except InputError as error:
            rejected.append(Rejected(f"{row['file']} ({row['id']})", str(error)))
            continue
        for text in facts[row["file"]].notes:
            told.setdefault(NUMBER.sub("", text), []).append(row["id"])
    columns = sorted({name for row in kept for name in row})
    if group and group not in columns:
        raise no_such("column", group, columns)
    by = group or next((name for name in SPEAKERS if name in columns), "file")
    for row in kept:
        row["group"] = str(row.get(by) or row["file"])
        row.update({name: row.get(name) for name in columns if name not in row})
    for name in columns:
        _one_type(kept, name)
    groups, has_split = {row["group"] for row in kept}, any(row["split"] for row in kept)
    words, finish = _told(told), None
    if has_split:
        words += _of_own_split(kept, by)
    elif len(groups) >= len(FRACTIONS):
        words.append(f"Kept together in a split: recordings of one {by}.")
        finish = lambda manifest: split_by_group(manifest, FRACTIONS, seed)  # noqa: E731
    elif kept:
        words.append(f"{len(groups)} {by}(s) are too few to split into train, val and test; all rows are unsplit.")
    outside = folders_of(files, found.root)
    return save_manifest(out, kept, rejected, note=" ".join(words), finish=finish, outside=outside)


def _of_own_split(rows: Sequence[Mapping[str, Any]], by: str) -> list[str]:
    """What is to be known of a table's own split."""
    words = ["The table's own split was taken."]
    if bare := [row["id"] for row in rows if not row["split"]]:
        words.append(f"{len(bare)} rows have none and are in no split, {bare[0]} the first.")
    seen: dict[str, set[str]] = {}
    for row in rows:
        seen.setdefault(row["group"], set()).add(row["split"])
    if torn := [name for name, splits in seen.items() if len(splits - {""}) > 1]:
        words.append(
            f"{len(torn)} {by}(s) stand in several splits, {torn[0]} the first: training will refuse it; mend the "
            "table, or say by what rows belong together (--group)."
        )
    return words


def _one_type(rows: Sequence[dict[str, Any]], name: str) -> None:
    """Numbers stay numbers; a column of several kinds (1, "01", true) becomes text."""
    kinds = {type(row[name]) for row in rows} - {type(None)}
    if len(kinds) > 1 and not kinds <= {int, float}:
        for row in rows:
            row[name] = None if row[name] is None else str(row[name])


def _row(row: Mapping[str, Any], facts: SoundFacts, out: Path) -> dict[str, Any]:
    start, end = row.get("start"), row.get("end")
    seconds = facts.seconds
    if start is not None or end is not None:
        start, end = float(start or 0.0), float(end if end is not None else facts.seconds)
        if not start < end or start >= facts.seconds:
            raise InputError(f"{start:g} to {end:g} s is no stretch of a recording of {facts.seconds:g} s")
        if end > facts.seconds + 0.05:
            raise InputError(f"the segment ends at {end:g} s, the recording at {facts.seconds:g} s")
        seconds = min(end, facts.seconds) - start
    known = {k: v for k, v in row.items() if k not in (*OWN, "captions")}
    said = row.get("captions") or captions_of(row)
    return {
        "id": str(row["id"]),
        "split": split_named(row.get("split")),
        "file": os.path.relpath(row["file"], out),
        "start": float(start or 0.0),
        "seconds": round(seconds, 4),
        "sample_rate": facts.sample_rate,
        "channels": facts.channels,
        "channel": facts.channel,
        "level_db": facts.level_db,
        **({"caption": "\n".join(said)} if said else {}),
        **known,
    }


def _told(told: Mapping[str, Sequence[str]]) -> list[str]:
    lines = []
    for text, names in told.items():
        shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        lines.append(f"{shown}: {text.removesuffix('.')}.")
    return lines


def check_recording(row: Mapping[str, Any], root: Any) -> None:
    """Raise with the reason when a row's recording cannot be read, or is shorter than the row says."""
    facts = sound_facts(root / row["file"])
    end = float(row.get("start") or 0.0) + float(row.get("seconds") or 0.0)
    if end > facts.seconds + 0.05:
        raise InputError(f"{row['file']}: lasts {facts.seconds:g} s, the row needs {end:g} s; import it again")
