"""What could not be read when a data set was made: refused, or left out, told and listed with its reason."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from counterpoint.common.data.samples import BadSample, Samples
from counterpoint.common.errors import InputError
from counterpoint.common.progress import note


def leave_out(bad: Sequence[BadSample], of: int, on_error: str, max_bad: float, where: str) -> None:
    """Refuse unreadable rows, or say which are left out.

    Args:
        bad: the rows, `index` their number in the manifest, counted from 0.
        of: how many rows were to be read.
        on_error: `raise`, or `skip` to leave them out unless they are all, or more than a share `max_bad`.
        where: the manifest, as the user knows it.

    Raises:
        InputError: the first row with its reason and the remedy.
    """
    if not bad:
        return
    said = [f"row {b.index + 1} (id {b.id}): {b.reason}" for b in bad]
    if on_error == "raise" or len(bad) > max_bad * of or len(bad) == of:
        more = f" ({len(bad)} of {of} rows fail; `data check` lists all)" if len(bad) > 1 else ""
        share = "raise `--train.max_bad`" if len(bad) < of else "give data that can be read"
        remedy = "train with `--train.on_error skip`" if on_error == "raise" else share
        raise InputError(f"{where}, {said[0]}{more}; repair or remove the row, or {remedy}")
    for text in said:
        note(f"left out: {where}, {text}")


def list_left_out(parts: Iterable[Samples | None], file: Path) -> None:
    """Add what the data sets left out to a run's list of bad samples, one JSON object a line; none stands there twice.
    """
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    known = {json.loads(line)["id"] for line in text.splitlines()}
    new = {bad.id: bad for part in parts if part is not None for bad in part.left_out if bad.id not in known}
    if new:
        with file.open("a", encoding="utf-8") as handle:
            for bad in new.values():
                record = {"index": bad.index, "id": bad.id, "reason": bad.reason}
                handle.write(json.dumps(record, ensure_ascii=False) + "\n")
