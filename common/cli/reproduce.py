"""`reproduce SYSTEM`: the reduced checks of the papers' claims, method against baseline, judged by seeds."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from counterpoint.common.cli.options import call
from counterpoint.common.cli.verbs import Call
from counterpoint.common.errors import InputError
from counterpoint.common.fidelity import FILE, around_table, read_records, write_table
from counterpoint.common.lazy import resolve
from counterpoint.common.progress import note
from counterpoint.common.suggest import no_such
from counterpoint.common.vertical import Outcome, Vertical


def reproduce(command: Call) -> int:
    """Run the verb."""
    return call(command.program, reproduce_run, command.argv, vertical=command.vertical)


def reproduce_run(
    vertical: Vertical,
    check: str,
    out: Path = Path("runs/reproduce"),
    seeds: tuple[int, ...] = tuple(range(10)),
    data: Path | None = None,
    readme: Path | None = None,
    plan: bool = False,
) -> Outcome:
    """Check papers' claims: method and baseline on the same data and seeds, their difference with interval, a verdict.

    The baseline alone is run first, on five seeds; its spread says how many seeds and held-out groups the check needs
    to see half of the claimed effect, and that plan is printed and stored. Finished runs are stored and not run again.
    `reproduce list` lists the checks; `reproduce table` writes the README's table anew, with what is older than its
    code.

    Args:
        check: a check, a system (all of its checks), all, list, or table.
        out: folder that keeps the finished runs and the verdicts.
        seeds: those that may be used, in order, as in --seeds 0,1,2; the plan takes as many as it needs, five or more.
        data: folder of the sample data; COUNTERPOINT_DATA unless given.
        readme: also write the rows into this README's fidelity table, and into fidelity.json beside it.
        plan: only say what the check needs, by its pilot; the method is not run.
    """
    checks = resolve(vertical.checks)
    if check == "list":
        lines = tuple(f"{name}: {claim.statement} ({claim.data})" for name, (claim, _) in checks.items())
        return Outcome({"checks": {name: claim.statement for name, (claim, _) in checks.items()}}, lines)
    if check == "table":
        return _table(readme)
    chosen = [name for name in checks if check in ("all", name) or name.startswith(f"{check}-")]
    if not chosen:
        if check in (s.name for s in vertical.systems):
            raise InputError(f"{check}: no claim about this system has a check; `reproduce list` shows those there are")
        raise no_such("check", check, ["all", "list", "table", *(s.name for s in vertical.systems), *checks])
    from functools import partial

    from counterpoint.common.trainers.reproduce import code_of, planned
    from counterpoint.common.trainers.reproduce import reproduce as judge_claim
    from counterpoint.common.trainers.throwaway import sample_folder

    if not seeds or len(set(seeds)) != len(seeds):
        raise InputError("--seeds: give different seeds, as in --seeds 0,1,2")
    if readme is not None:
        around_table(readme)  # a page without a place for the table is told before the runs, not behind them
    folder = sample_folder(data)
    verdicts, plans = [], {}
    for name in chosen:
        claim, run = checks[name]
        kept = {"out": out / vertical.name, "rests_on": code_of(run)}
        if plan:
            plans[name] = planned(claim, partial(run, folder), seeds, **kept)
            continue
        verdicts.append(judge_claim(claim, partial(run, folder), seeds, **kept, tell=note))
        if readme is not None:
            write_table(readme, [verdicts[-1].record(code_of(run))])
    if plan:
        lines = [f"plan of {name}: {found.sentence}" for name, found in plans.items()]
        return Outcome({name: asdict(found) for name, found in plans.items()}, tuple(lines))
    lines = [line for v in verdicts for line in (f"plan of {v.claim.name}: {v.plan.sentence}", _said(v))]
    return Outcome({v.claim.name: v.as_dict() for v in verdicts}, tuple(lines))


def _said(v: Any) -> str:
    groups = f" and {v.groups} groups" if v.groups else ""
    return (
        f"{v.claim.name}: {v.verdict}; improvement {v.improvement} in {v.claim.metric}, {len(v.seeds)} seeds{groups}"
    )


def _table(readme: Path | None) -> Outcome:
    if readme is None:
        raise InputError("reproduce table: name the file whose table is written anew with --readme")
    write_table(readme)
    records = read_records(readme.with_name(FILE))
    stale = [r.check for r in records if r.stale]
    said = f"{readme}: {len(records)} checks, {len(stale)} of them older than their code"
    return Outcome({"checks": len(records), "stale": stale}, (said, *stale), {"table": readme})
