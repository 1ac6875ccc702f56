"""Which objective should I use here? Systems of the verticals under several objectives, on real data.

    OMP_NUM_THREADS=1 python benchmarks/objectives.py                # everything; writes benchmarks/objectives.md
    OMP_NUM_THREADS=1 python benchmarks/objectives.py --tasks gunpoint --objectives published,DCL --seeds 3
    python benchmarks/objectives.py --tasks none                     # the page again, with what is stale

Every task is `counterpoint VERTICAL compare SYSTEM --objectives ... --seeds 5` in a small configuration: for each seed
all objectives see the same data, initial weights, batches and views, and every objective has its own defaults. What ran
is kept in `objectives.json`; rows of other tasks and objectives stay as they are.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from counterpoint.common.cli.compare import seeds_of, several
from counterpoint.common.discover import find_verticals
from counterpoint.common.fidelity import commit_of
from counterpoint.common.lazy import resolve
from counterpoint.common.output import write_json
from counterpoint.common.sources import known_hash

HERE = Path(__file__)
RECORD, PAGE = HERE.with_suffix(".json"), HERE.with_suffix(".md")
OBJECTIVES = "published,DCL,DHEL,HCL,SigLIP,VICReg,BarlowTwins"


@dataclass(frozen=True)
class Task:
    """One system on one set of data. `prepare(data, out)` gives the settings that name the data."""

    vertical: str
    system: str
    data: str
    prepare: Callable[[Path, Path], dict[str, Any]]
    settings: dict[str, Any]
    label: str | None
    figure: str | None = None


def gunpoint(data: Path, out: Path) -> dict[str, Any]:
    from counterpoint.timeseries.commands import import_ucr

    both = out / "source"
    both.mkdir(parents=True, exist_ok=True)
    for name in ("GunPoint_TRAIN.txt", "GunPoint_TEST.txt"):
        (both / name).write_bytes((data / "timeseries" / "ucr_uea" / name).read_bytes())
    return {"data.manifest": str(import_ucr(both, out).manifest)}


def bbbp(data: Path, out: Path) -> dict[str, Any]:
    from counterpoint.graphs.commands import import_molecules

    return {"data.manifest": str(import_molecules(data / "graphs" / "molecules" / "bbbp.csv", out).manifest)}


def cora(data: Path, out: Path) -> dict[str, Any]:
    return {"data.path": str(data / "graphs" / "nodes" / "planetoid" / "ind.cora")}


def chorales(data: Path, out: Path) -> dict[str, Any]:
    return {"data.cache": str(out / "cache")}


TASKS = {
    "gunpoint": Task(
        "timeseries", "frame-projections", "GunPoint (50 series to train, 150 to test)", gunpoint,
        {"train.max_epochs": 40, "mapper_epochs": 5, "data.normalize": "window", "data.length": 150}, "label",
    ),
    "bbbp": Task("graphs", "graphcl", "BBBP (scaffold split)", bbbp, {"train.max_epochs": 3}, "p_np"),
    "cora": Task("graphs", "grace", "Cora (public split)", cora, {"train.max_epochs": 60}, "label"),
    "chorales": Task(
        "audio", "audio-sheet", "Bach chorales, synthetic audio", chorales,
        {"train.max_steps": 60, "sheet_stage.max_steps": 0, "audio_stage.max_steps": 0, "sheet_stage.max_epochs": 0,
         "audio_stage.max_epochs": 0, "data.pieces": 60}, None,
    ),
}  # fmt: skip


def measure(name: str, objectives: list[str], seeds: list[int], data: Path, out: Path) -> list[dict[str, Any]]:
    """One task: a record for each objective."""
    from counterpoint.common.runs.comparing import compare
    from counterpoint.common.trainers import override

    task = TASKS[name]
    vertical = find_verticals()[task.vertical]()
    entry = next(e for e in vertical.systems if e.name == task.system)
    cls = resolve(entry.system)
    changes = {**task.prepare(data, out / name / "data"), "train.tensorboard": False, **task.settings}
    config = override(override(resolve(entry.config)(), cls.presets["small"]), changes)
    done = compare(
        vertical, entry, config, objectives, seeds, out=out / name / "runs", label=task.label, figure=task.figure
    )
    rows = []
    for arm in done.figures["objectives"]:
        what = rests_on(entry.system, arm["objective"])
        rows.append({
            "task": name, "figure": done.figures["figure"], "seeds": len(seeds), "commit": commit_of(),
            "rests_on": what, "code": hashed(what), **{k: arm[k] for k in KEPT},
        })  # fmt: skip
    return rows


KEPT = ("objective", "values", "difference", "verdict", "seconds_per_step", "megabytes_per_step", "rankme", "collapsed")


def rests_on(system: str, objective: str) -> list[str]:
    """The system's class, and the objective's where it is another one."""
    own = [] if objective == "published" else [f"counterpoint.common.losses:{objective.partition('(')[0]}"]
    return [system, *own]


def hashed(targets: list[str]) -> str:
    return " ".join(map(known_hash, targets))


INTRODUCTION = """\
Which objective should I use here? `OMP_NUM_THREADS=1 python benchmarks/objectives.py` runs `counterpoint VERTICAL
compare SYSTEM --objectives ...` in small configurations. For each seed all objectives of a task see the same data,
initial weights, batches and views; each has its own defaults, so this compares defaults, not each one's best. Digits,
with more objectives: [losses.md](losses.md). Quality is the mean over seeds with its t interval; differences are paired
by seed and sample. A step's time is the median wall time, its memory what it keeps for its backward pass. `(stale)`:
the code of the system or of the objective has changed since.

The rows below were made on two cores with five times as much other work: times of different objectives are not to be
compared. The trainings are short; on GunPoint (40 steps) the representation has hardly more than one dimension."""
COLUMNS = (
    "objective", "quality [95 %]", "difference from published [95 %]", "verdict", "step", "memory", "RankMe",
    "collapsed", "seeds", "commit",
)  # fmt: skip


def page(rows: list[dict[str, Any]]) -> str:
    """The page; rows that are older than their code say so."""
    from counterpoint.common.metrics import t_interval

    lines = ["# Objectives on the data of the verticals", "", INTRODUCTION, ""]
    for name, task in TASKS.items():
        own = [row for row in rows if row["task"] == name]
        if not own:
            continue
        what = f"{task.data}; `{task.system}` ({task.vertical}), {own[0]['figure']}"
        lines += [f"## {name}", "", f"{what}.", "", f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
        for row in sorted(own, key=lambda r: -sum(r["values"]) / len(r["values"])):
            quality, d = t_interval(row["values"]), row["difference"]
            spread = "" if d is None else f"{d['value']:+.3f} [{_signed(d['low'])}, {_signed(d['high'])}]"
            made = f"`{row['commit']}`" + (" (stale)" if hashed(row["rests_on"]) != row["code"] else "")
            cells = (
                row["objective"], str(quality), spread, row["verdict"] or "",
                f"{1000 * _median(row['seconds_per_step']):.3g} ms", f"{_median(row['megabytes_per_step']):.3g} MB",
                f"{row['rankme']:.1f}", "yes" if row["collapsed"] else "no", str(row["seeds"]), made,
            )  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _signed(x: float | None) -> str:
    return "?" if x is None else f"{x:+.3f}"


def _median(values: list[float | None]) -> float:
    known = sorted(v for v in values if v is not None)
    return known[len(known) // 2] if known else math.nan


def read() -> list[dict[str, Any]]:
    return json.loads(RECORD.read_text(encoding="utf-8"))["rows"] if RECORD.is_file() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=[*TASKS, "all", "none"], default=["all"])
    parser.add_argument("--objectives", default=OBJECTIVES, help="names with options, the first to compare with")
    parser.add_argument("--seeds", default="5", help="how many, as in 5, or which, as in 0,1,2")
    parser.add_argument("--data", type=Path, default=os.environ.get("COUNTERPOINT_DATA"))
    parser.add_argument("--out", type=Path, default=Path("runs/objectives"))
    options = parser.parse_args()
    chosen = [] if "none" in options.tasks else list(TASKS) if "all" in options.tasks else options.tasks
    if chosen and options.data is None:
        sys.exit("set COUNTERPOINT_DATA or give --data: the folder of the sample data")
    for name in chosen:
        found = measure(name, several(options.objectives), seeds_of(options.seeds), Path(options.data), options.out)
        new = {(row["task"], row["objective"]): row for row in found}
        kept = {(row["task"], row["objective"]): row for row in read()} | new
        write_json({"rows": list(kept.values())}, RECORD)
        PAGE.write_text(page(read()), encoding="utf-8")
    PAGE.write_text(page(read()), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
