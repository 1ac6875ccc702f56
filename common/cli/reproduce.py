"""`reproduce SYSTEM`: the reduced checks of the papers' claims, method against baseline, judged by seeds."""

from __future__ import annotations

from pathlib import Path

from counterpoint.common.cli.options import call
from counterpoint.common.cli.verbs import Call
from counterpoint.common.errors import InputError
from counterpoint.common.lazy import resolve
from counterpoint.common.suggest import no_such
from counterpoint.common.vertical import Outcome, Vertical


def reproduce(command: Call) -> int:
    """Run the verb."""
    return call(command.program, reproduce_run, command.argv, vertical=command.vertical)


def reproduce_run(
    vertical: Vertical,
    check: str,
    out: Path = Path("runs/reproduce"),
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
    data: Path | None = None,
    readme: Path | None = None,
) -> Outcome:
    """Check papers' claims: method and baseline on the same data and seeds, their difference with interval, a verdict.

    `reproduce list` lists the checks. Finished runs are stored and not run again.

    Args:
        check: a check, a system (all of its checks), all, or list.
        out: folder that keeps the finished runs and the verdicts.
        seeds: one pair of runs for each, as in --seeds 0,1,2; fewer than three cannot hold or fail.
        data: folder of the sample data; COUNTERPOINT_DATA unless given.
        readme: also write the rows into this README's fidelity table.
    """
    checks = resolve(vertical.checks)
    if check == "list":
        lines = tuple(f"{name}: {claim.statement} ({claim.data})" for name, (claim, _) in checks.items())
        return Outcome({"checks": {name: claim.statement for name, (claim, _) in checks.items()}}, lines)
    chosen = [name for name in checks if check in ("all", name) or name.startswith(f"{check}-")]
    if not chosen:
        raise no_such("check", check, ["all", "list", *(s.name for s in vertical.systems), *checks])
    from functools import partial

    from counterpoint.common.trainers.reproduce import reproduce as judge_claim
    from counterpoint.common.trainers.reproduce import write_table
    from counterpoint.common.trainers.throwaway import sample_folder

    if not seeds or len(set(seeds)) != len(seeds):
        raise InputError("--seeds: give different seeds, as in --seeds 0,1,2")
    folder = sample_folder(data)
    verdicts = []
    for name in chosen:
        claim, run = checks[name]
        verdicts.append(judge_claim(claim, partial(run, folder), seeds, out=out / vertical.name))
        if readme is not None:
            write_table(readme, verdicts[-1:])
    lines = tuple(f"{v.claim.name}: {v.verdict}; improvement {v.improvement} in {v.claim.metric}" for v in verdicts)
    return Outcome({v.claim.name: v.as_dict() for v in verdicts}, lines)
