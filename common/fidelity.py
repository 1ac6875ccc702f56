"""The record of the checks that were run, `fidelity.json` in a vertical's folder, and the table made from it. Light.

A record names the commit and the hash of the code that its figures rest on (`common.sources`); where that code has
changed since, the row says `(stale)`. `counterpoint VERTICAL reproduce table --readme README` writes the table anew.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from counterpoint.common.errors import InputError
from counterpoint.common.output import write_json
from counterpoint.common.sources import known_hash

FILE = "fidelity.json"
COLUMNS = (
    "check", "claim", "data", "metric", "baseline", "method", "improvement [95 %]", "seeds", "groups", "verdict",
    "commit",
)  # fmt: skip
HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"


@dataclass(frozen=True)
class CheckRecord:
    """One check as it was run.

    Attributes:
        check, claim, data, metric, source: of the claim; `source` is empty where no paper claims it.
        baseline, method: name of the arm and its mean figure.
        improvement: value, low and high of the 95 % interval; positive favours the claim.
        seeds, groups: how many; no groups where only whole figures were compared.
        verdict: `holds`, `does not hold`, or `undecided: ...` with what would decide it.
        powered: the interval reaches at most half of the claimed effect to each side, or decides by itself.
        plan: what the pilot of the baseline asked for, in a sentence; empty for records without one.
        commit, code: when it was made, and the hash of `rests_on` (`module:name`) at that time.
    """

    check: str
    claim: str
    data: str
    metric: str
    source: str
    baseline: tuple[str, float | None]
    method: tuple[str, float | None]
    improvement: Mapping[str, float | None]
    seeds: int
    groups: int
    verdict: str
    powered: bool
    plan: str = ""
    commit: str = ""
    rests_on: str = ""
    code: str = ""
    power: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stale(self) -> bool:
        """Whether the code it rests on has changed since, or is gone, or was not noted."""
        return not self.code or known_hash(self.rests_on) != self.code

    def row(self) -> str:
        """A row of the Markdown table."""
        i = self.improvement
        spread = f"{_figure(i['value'])} [{_figure(i['low'])}, {_figure(i['high'])}]"
        arms = [f"{name}: {_figure(mean)}" for name, mean in (self.baseline, self.method)]
        made = f"`{self.commit or 'unknown'}`" + (" (stale)" if self.stale else "")
        counts = [str(self.seeds), str(self.groups or "–")]
        cells = [self.check, self.claim, self.data, self.metric, *arms, spread, *counts]
        return "| " + " | ".join(map(_cell, [*cells, f"**{self.verdict}**", made])) + " |"


def read_records(file: str | os.PathLike[str]) -> list[CheckRecord]:
    """The records of a file, in its order; none where it does not exist.

    Raises:
        InputError: the file is no such list.
    """
    path = Path(file)
    if not path.is_file():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["checks"]
        pairs = [{name: tuple(row[name]) for name in ("baseline", "method")} for row in rows]
        return [CheckRecord(**{**row, **own}) for row, own in zip(rows, pairs)]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a record of checks ({error}); restore it from version control") from error


def add_records(file: str | os.PathLike[str], new: Iterable[CheckRecord]) -> list[CheckRecord]:
    """Put records into a file: they replace those of the same checks, others stay as they are."""
    known = {r.check: r for r in read_records(file)} | {r.check: r for r in new}
    write_json({"checks": [asdict(r) for r in known.values()]}, Path(file))
    return list(known.values())


def records_of(package: str) -> list[CheckRecord]:
    """The records that came with a vertical's package; none where it has no file, or is not installed."""
    first, *rest = package.split(".")
    spec = importlib.util.find_spec(first)
    if spec is None or not spec.submodule_search_locations:
        return []
    return read_records(Path(next(iter(spec.submodule_search_locations))).joinpath(*rest, FILE))


def fidelity_rows(records: Iterable[CheckRecord]) -> list[str]:
    """The Markdown table."""
    return ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS), *(r.row() for r in records)]


def write_table(readme: str | os.PathLike[str], new: Iterable[CheckRecord] = (), marker: str = "fidelity") -> Path:
    """Put records into `fidelity.json` beside a README and the table of all of them between its markers
    `<!-- fidelity:begin -->` and `<!-- fidelity:end -->`.

    Raises:
        InputError: the file has no such pair of markers.
    """
    path = Path(readme)
    before, behind = around_table(path, marker)
    lines = fidelity_rows(add_records(path.with_name(FILE), new))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(before + "\n".join(["", *lines, ""]) + behind, encoding="utf-8")
    return temporary.replace(path)


def around_table(readme: str | os.PathLike[str], marker: str = "fidelity") -> tuple[str, str]:
    """What stands before and behind the table of a README, its markers included; whoever is about to run for hours asks
    first.

    Raises:
        InputError: there is no such file, or it has no such pair of markers.
    """
    path = Path(readme)
    if not path.is_file():
        raise InputError(f"{path}: no such file; --readme names the page whose table is written")
    text = path.read_text(encoding="utf-8")
    begin, end = f"<!-- {marker}:begin -->", f"<!-- {marker}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise InputError(f"{path}: put the lines {begin} and {end} once each where the table shall stand")
    return text[: text.index(begin) + len(begin)], text[text.index(end) :]


def system_of_check(check: str, systems: Iterable[str]) -> str:
    """The system that a check belongs to: the longest name that begins its own; empty where none does.

    >>> system_of_check("audio-sheet-pretraining", ["audio", "audio-sheet"])
    'audio-sheet'
    """
    return max((s for s in systems if check == s or check.startswith(f"{s}-")), key=len, default="")


@dataclass(frozen=True)
class Standing:
    """What the records say of a system: its status, what is missing for `ready`, and the verdicts of its checks."""

    status: str
    missing: str
    verdict: str


NOT_CHECKED = "not checked"


def standing(status: str, missing: str, checks: Iterable[CheckRecord]) -> Standing:
    """The standing of a system by what its entry says of the first three criteria and by the records of its checks.

    Only claims of its papers count (`source`), and only figures of the code as it is.

    >>> standing("ready", "", []).missing
    '4: no check of a claim was run with power'
    >>> standing("experimental", "2: the encoder is ours", []).status
    'experimental'
    """
    checks = [r for r in checks if r.source]
    lacking = [missing or "1 to 3: not stated"] if status != "ready" else []
    if not any(r.powered and not r.stale for r in checks):
        older = " on the code as it is" if any(r.powered for r in checks) else ""
        lacking.append(f"4: no check of a claim was run with power{older}")
    counts: dict[str, int] = {}
    for r in checks:
        verdict = r.verdict + (" (stale)" if r.stale else "")
        counts[verdict] = counts.get(verdict, 0) + 1
    said = "; ".join(verdict + (f" ({count} checks)" if count > 1 else "") for verdict, count in counts.items())
    return Standing("experimental" if lacking else "ready", "; ".join(lacking), said or NOT_CHECKED)


def commit_of(package: str = "counterpoint") -> str:
    """The short commit of the checkout that holds a package, `+` behind it where files were changed since; empty
    without one."""
    spec = importlib.util.find_spec(package.partition(".")[0])
    if spec is None or not spec.submodule_search_locations:
        return ""
    git = ["git", "-C", next(iter(spec.submodule_search_locations))]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=7", "HEAD"], capture_output=True, text=True, timeout=10)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no", "--", "*.py"],
            capture_output=True, text=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return head.stdout.strip() + ("+" if head.stdout.strip() and changed.stdout.strip() else "")


def _figure(x: float | None) -> str:
    return "not finite" if x is None or x != x or abs(x) == float("inf") else f"{x:.3g}"


def _cell(text: str) -> str:
    return re.sub(r"\|", r"\\|", text).replace("\n", " ")
