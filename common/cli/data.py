"""`data import | check | split | simulate | preview | curate`: the field's files in, a checked manifest out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

from counterpoint.common.cli.options import call, listing, wants_help, write
from counterpoint.common.cli.verbs import Call
from counterpoint.common.errors import InputError
from counterpoint.common.lazy import resolve
from counterpoint.common.suggest import no_such
from counterpoint.common.vertical import Outcome, Vertical

_SHOWN = 50


def data(command: Call) -> int:
    """Dispatch to the action; each is offered only where the vertical brings what it needs."""
    vertical = command.vertical
    actions = {
        "import": ("turn the field's own files into a manifest", _import, bool(vertical.importers)),
        "check": ("read every row and every file; list each bad one with its reason", _check, True),
        "split": ("split by group into train, val and test; store the split with its hash", _split, True),
        "simulate": ("write a synthetic data set", _simulate, vertical.simulate is not None),
        "preview": ("look at samples", _preview, vertical.preview is not None),
        "curate": ("keep matching pairs, drop near-duplicates, pick by example", _curate, bool(vertical.systems)),
    }
    actions = {name: (summary, run) for name, (summary, run, offered) in actions.items() if offered}
    name = command.argv[0] if command.argv else ""
    if not name:
        raise InputError(f"which action? one of: {', '.join(actions)}")
    if wants_help([name]):
        rows = {action: summary for action, (summary, _) in actions.items()}
        usage = f"{command.program} ACTION [options]"
        write(listing(usage, "Bring data in.", {"actions": rows}, f"{command.program} ACTION --help"))
        return 0
    if name not in actions:
        raise no_such("action", name, actions)
    return actions[name][1](f"{command.program} {name}", command.argv[1:], vertical)


def _import(program: str, argv: list[str], vertical: Vertical) -> int:
    importers = {importer.name: importer for importer in vertical.importers}
    name = argv[0] if argv else ""
    if not name:
        raise InputError(f"which format? one of: {', '.join(importers)}")
    if wants_help([name]):
        rows = {importer.name: importer.summary for importer in vertical.importers}
        usage = f"{program} FORMAT SOURCE --out FOLDER"
        about = "Turn files into a manifest; what cannot be used is listed with its reason and the rest goes on."
        write(listing(usage, about, {"formats": rows}, f"{program} FORMAT --help"))
        return 0
    if name not in importers:
        raise no_such("format", name, importers)
    return call(f"{program} {name}", resolve(importers[name].run), argv[1:])


def _simulate(program: str, argv: list[str], vertical: Vertical) -> int:
    return call(program, resolve(vertical.simulate), argv)


def _preview(program: str, argv: list[str], vertical: Vertical) -> int:
    return call(program, resolve(vertical.preview), argv)


def _check(program: str, argv: list[str], vertical: Vertical) -> int:
    if vertical.check is not None:
        return call(program, resolve(vertical.check), argv)
    return call(program, check, argv, vertical=vertical)


def _split(program: str, argv: list[str], vertical: Vertical) -> int:
    return call(program, split if vertical.split is None else resolve(vertical.split), argv)


def _curate(program: str, argv: list[str], vertical: Vertical) -> int:
    return call(program, resolve("counterpoint.common.runs.curation:curate"), argv)


def check(vertical: Vertical, manifest: Path, workers: int = 2) -> Outcome:
    """Read every row of MANIFEST and every file it names; list each bad one with its reason. Exit code 2 if any is bad.

    Args:
        manifest: the manifest file (.parquet, .csv or .jsonl).
        workers: processes that read files.
    """
    from counterpoint.common.data import Manifest, check_leakage, validate_manifest
    from counterpoint.common.data.copies import check_copies

    table = Manifest.load(manifest)
    reader = partial(resolve(vertical.data_check), root=table.folder) if vertical.data_check else _accept
    report = validate_manifest(table, reader, workers=workers, progress=True, isolate=True)
    check_leakage(table)
    check_copies(table)
    bad = [{"row": b.row, "id": b.id, "file": str(b.file), "reason": b.reason} for b in report.bad]
    shown = [f"row {b['row']} ({b['id']}) {b['file']}: {b['reason']}" for b in bad[:_SHOWN]]
    if len(bad) > _SHOWN:
        shown.append(f"... and {len(bad) - _SHOWN} more; --json lists all")
    notes = [{"row": number, "id": name, "note": text} for number, name, text in report.notes]
    shown += [f"note, row {n['row']} ({n['id']}): {n['note']}" for n in notes[:_SHOWN]]
    if len(notes) > _SHOWN:
        shown.append(f"... and {len(notes) - _SHOWN} more notes; --json lists all")
    shown += [f"files of {folder} are read as well, as an import into this folder recorded" for folder in table.outside]
    good = report.rows - len(bad)
    verdict = f"{manifest}: {len(bad)} of {report.rows} rows cannot be used" if bad else ""
    lines = (*shown, f"{good} of {report.rows} rows can be used; {_apart(table)}")
    return Outcome({"rows": report.rows, "usable": good, "bad": bad, "notes": notes}, lines, failed=verdict)


def _apart(table: Any) -> str:
    """What the leakage check has found, in words."""
    from counterpoint.common.data.split_rules import split_kind

    kind = split_kind(table)
    return "no group stands in two splits" if kind == "group" else f"the splits are apart by {kind}"


def split(
    manifest: Path,
    out: Path | None = None,
    train: float = 0.8,
    val: float = 0.1,
    test: float | None = None,
    seed: int = 0,
    stratify: str | None = None,
    kind: Literal["group", "time", "leave-last-out", "place"] = "group",
    by: tuple[str, ...] = (),
    block: float | None = None,
) -> Outcome:
    """Split MANIFEST into train, val and test: so that no group stands in two of them, or by time or place.

    Args:
        manifest: the manifest file (.parquet, .csv or .jsonl).
        out: the manifest to write; by default NAME-split beside the input. In another folder it names the files from
            there.
        train: share of the training split.
        val: share of the validation split.
        test: share of the test split; the rest unless given.
        seed: seed of the shuffle; the same seed gives the same split.
        stratify: column whose distribution each split should keep (kind group).
        kind: group (whole groups, drawn at random), time (the latest rows test), leave-last-out (the last row of every
            group tests, the one before it validates), or place (whole squares, drawn at random). `data check` and every
            training hold the manifest to it.
        by: the column of times, or the two columns of places, as in --by lat,lon.
        block: side of the squares of a split by place, in the units of its columns.
    """
    from counterpoint.common.data import Manifest, split_by, split_by_group
    from counterpoint.common.data.moving import moved

    if not all(share >= 0 for share in (train, val, test or 0.0)) or not train + val <= 1 + 1e-9:
        raise InputError(f"--train {train:g} and --val {val:g} must be shares that add up to 1 or less")
    if test is not None and not abs(train + val + test - 1) < 1e-6:
        raise InputError(
            f"--train {train:g}, --val {val:g} and --test {test:g} add up to {train + val + test:g}; they must add up "
            "to 1 (leave --test out for the rest)"
        )
    if kind == "group" and (by or block is not None):
        raise InputError("--by and --block belong to the other kinds of split; give --kind time or --kind place")
    if kind != "group" and stratify is not None:
        raise InputError(f"--stratify goes with --kind group, not with {kind}")
    rest = round(max(1 - train - val, 0.0), 9) if test is None else test
    table, fractions = Manifest.load(manifest), {"train": train, "val": val, "test": rest}
    try:
        if kind == "group":
            done = split_by_group(table, fractions, seed=seed, stratify=stratify)
        else:
            done = split_by(table, kind, by, fractions, seed, block=block)
    except InputError as error:
        raise InputError(f"{manifest}: {error}") from None
    target = out or manifest.with_name(f"{manifest.stem}-split{manifest.suffix}")
    moved(done, target.parent).save(target)
    groups = done.frame.groupby("split")["group"].nunique()
    rows = done.frame["split"].value_counts()
    figures = {
        name: {"rows": int(rows.get(name, 0)), "groups": int(groups.get(name, 0))} for name in ("train", "val", "test")
    }
    lines = [f"{name:5}  {n['rows']:>8} rows  {n['groups']:>8} groups" for name, n in figures.items()]
    return Outcome({"splits": figures}, (*lines, f"wrote {target}"), {"manifest": target})


def _accept(row: dict) -> None:
    """The table alone is checked: this vertical reads no files."""
