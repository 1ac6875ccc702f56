"""Reports as an import writes them: scrubbed, with a private table of what was removed, what stays although it may
identify, and what no rule can know."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from counterpoint.common.data.names import file_name
from counterpoint.medical.report_files import FoundReports
from counterpoint.medical.scrub import UNKNOWN, scrub, suspects

AUDIT = "scrub-audit.private.csv"
STAYS = "stays, look at it"


def write_reports(
    out: Path,
    rows: Sequence[dict[str, Any]],
    belonging: Mapping[str, Sequence[FoundReports]],
    secrets: Mapping[str, Sequence[str]],
    clean: bool,
) -> tuple[int, int]:
    """Write reports/ID--N.txt and name them in the rows; the numbers of passages removed, and of such as stay although
    they may identify. `secrets` are words of every volume's header or table that must not stand in its reports: the
    patient's name, numbers."""
    folder, removed = out / "reports", 0
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[tuple[Any, ...]] = []
    written: dict[str, str] = {}
    for row in rows:
        files = []
        for number, report in enumerate(belonging.get(row["id"], ()), start=1):
            name, text = f"{file_name(row['id'])}--{number}.txt", report.text
            if clean:
                known = {word: "identity" for word in secrets.get(row["id"], ()) if len(word) > 2}
                text, gone = scrub(text, known)
                lines += [(name, part.rule, part.at, part.text) for part in gone]
                removed += len(gone)
            (folder / name).write_text(text, encoding="utf-8")
            written[name] = text
            files.append(f"reports/{name}")
        row["reports"] = "|".join(files)
    doubtful = 0
    if clean:
        ordinary = {word for text in written.values() for word in re.findall(r"(?<!\w)[^\W\d_A-Z]+", text)}
        stays = [(name, STAYS, at, word) for name, text in written.items() for at, word in suspects(text, ordinary)]
        doubtful = len(stays)
        audit = out / AUDIT
        audit.touch(mode=0o600)
        with audit.open("w", newline="", encoding="utf-8") as file:
            rows_of = [("report", "rule", "character", "passage"), *lines, *stays, ("", "not known", "", UNKNOWN)]
            csv.writer(file).writerows(rows_of)
    return removed, doubtful
