"""Fidelity checks: a paper's claim as "method beats baseline on the same data and seeds", measured and written down.

First the baseline alone is run (the pilot): its spread over seeds and held-out groups says how many of both the check
needs, so that the 95 % interval reaches at most half of the claimed effect to each side (`common.metrics.power`). Then
both arms run on as many seeds as that, if there are so many. The interval draws seeds and groups, paired; the verdict
follows from it and from nothing else.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from counterpoint.common.fidelity import FAILS, HOLDS, UNDECIDED, CheckRecord, commit_of
from counterpoint.common.metrics import Interval, Spread, seeds_and_groups, t_interval
from counterpoint.common.output import write_json
from counterpoint.common.sources import known_hash
from counterpoint.common.trainers.claims import Claim, Measured, Run
from counterpoint.common.trainers.stored_runs import StoredRuns, as_measured

PILOT = 5  # seeds of the baseline that the plan is made from
GROW = 10  # generated data: a plan may ask for so many times the groups of the pilot


@dataclass(frozen=True)
class Plan:
    """What a pilot of the baseline alone asks for.

    Attributes:
        half_width: what the interval may reach to each side: half of the claimed effect.
        pilot: deviations of the baseline (`seeds` and `groups` of the pilot among them); None for a threshold.
        seeds, groups: what the check needs; None where no number of them is enough, or where nothing can be planned.
        sentence: the same in words.
    """

    half_width: float
    pilot: Spread | None
    seeds: int | None
    groups: int | None
    sentence: str


def plan_of(claim: Claim, pilot: Sequence[Measured], most: int = 10**9) -> Plan:
    """The seeds and groups with which the interval would reach half of the claimed effect.

    The fewest seeds are chosen that some number of groups makes enough (generated data: up to `GROW` times those of the
    pilot), then the fewest groups for these seeds, not below the pilot's.
    """
    target = claim.size / 2
    if claim.threshold is not None:
        return Plan(target, None, None, None, f"the baseline is the number {claim.baseline}: there is nothing to pilot")
    if not claim.size:
        return Plan(target, None, None, None, "the claim names no size of its effect: no power can be planned")
    shares = _table([pilot])
    spread = Spread.of(np.array([[m.figure] for m in pilot]) if shares is None else shares[0])
    what = f"pilot of {claim.baseline!r} alone over {spread.seeds} seeds"
    if not all(math.isfinite(m.figure) for m in pilot) or spread.seeds < 2:
        return Plan(target, spread, None, None, f"{what}: no spread can be told from it")
    parts = f"deviation {spread.seed:.3g} over seeds"
    if spread.groups:
        parts += f", {spread.group:.3g} over {spread.groups} groups, {spread.rest:.3g} in each of both"
    needed = spread.of_difference
    have = spread.groups
    reach = GROW * have if claim.held_out else have
    seeds = needed.seeds_for(target, reach, least=PILOT)
    groups = have
    if seeds is not None and have:
        groups = max(have, needed.groups_for(target, seeds) or have)
    elif have:  # these groups are too few for any number of seeds
        groups = needed.groups_for(target, PILOT)
    if seeds is None:
        asked = "no number of seeds" + (f" over {reach} groups; {PILOT} seeds take {groups} groups" if groups else "")
    else:
        asked = f"{seeds} seeds" + (f" and {groups} groups" if have else "")
    sentence = f"{what}: {parts}; a half-width of {target:.3g}, half of the claimed effect, takes {asked}"
    if seeds is not None and seeds > most:
        sentence += f" ({most} allowed)"
    return Plan(target, spread, seeds, groups, sentence)


@dataclass(frozen=True)
class Verdict:
    """What was measured: figures of both arms by seed, the improvement's interval, and the verdict.

    `improvement` is method minus baseline where higher is better, baseline minus method otherwise: positive favours the
    claim. `verdict` is

    - "holds": the whole 95 % interval lies above the margin;
    - "does not hold": it lies at or below it, or contains it and lies below what is claimed, margin + effect;
    - "undecided: ..." with what would decide it: elsewhere, and with fewer than three seeds.

    An interval that reaches at most half of the claimed effect to each side is never undecided.
    """

    claim: Claim
    seeds: list[int]
    baseline: list[float]
    method: list[float]
    improvement: Interval
    verdict: str
    groups: int = 0
    plan: Plan | None = None

    @property
    def powered(self) -> bool:
        """Whether the check could decide: its interval is as narrow as asked for, or decides by itself."""
        return not self.verdict.startswith(UNDECIDED)

    def as_dict(self) -> dict[str, object]:
        return {
            **asdict(self.claim),
            "seeds": self.seeds,
            "groups": self.groups,
            "figures": {self.claim.baseline: self.baseline, self.claim.method: self.method},
            "improvement": self.improvement.as_dict(),
            "verdict": self.verdict,
            "powered": self.powered,
            "plan": None if self.plan is None else asdict(self.plan),
        }

    def record(self, rests_on: str = "") -> CheckRecord:
        """What goes into the table, with the commit and the hash of the code under `rests_on`."""
        c, i = self.claim, self.improvement
        means = [_finite(sum(v) / len(v)) for v in (self.baseline, self.method)]
        plan = self.plan
        return CheckRecord(
            c.name, c.statement, c.data, c.metric, c.source, (c.baseline, means[0]), (c.method, means[1]),
            {k: _finite(getattr(i, k)) for k in ("value", "low", "high")}, len(self.seeds), self.groups, self.verdict,
            self.powered, plan.sentence if plan else "", commit_of(rests_on or "counterpoint"), rests_on,
            known_hash(rests_on), {} if plan is None else asdict(plan),
        )  # fmt: skip


def reproduce(
    claim: Claim,
    run: Run,
    seeds: Sequence[int] = tuple(range(10)),
    *,
    out: str | os.PathLike[str],
    rests_on: str = "",
    tell: Callable[[str], None] = lambda sentence: None,
) -> Verdict:
    """Pilot, plan, both arms, verdict; finished runs are stored in `out` and not run again.

    Args:
        run: `(arm, seed) -> figure`, a number or `Measured`; must give the same data, split and budget to both arms of
            a seed. With `claim.held_out` it is called with `groups=` too.
        seeds: those that may be used, in order: the first five are the pilot's, then as many as the plan asks for (five
            where nothing can be planned, or no number is enough). Generated groups grow to the planned ones where the
            seeds are enough.
        out: folder for `<claim>.runs.jsonl` (one line per finished run) and `<claim>.json` (the verdict).
        rests_on: `module:name` of the code behind `run`. Stored runs of older code are kept only where the first of
            each arm, run again, gives the same figure.
        tell: is given the plan before the method is run.

    >>> import tempfile
    >>> claim = Claim("demo", "adding one helps", "plain", "plus-one", "score", effect=1.0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     verdict = reproduce(claim, lambda arm, seed: seed + (arm == "plus-one"), seeds=(0, 1, 2), out=folder)
    >>> verdict.verdict, verdict.improvement.value
    ('holds', 1.0)
    """
    runs, plan = _piloted(claim, run, seeds, out, rests_on)
    tell(f"{claim.name}: {plan.sentence}")
    chosen = [int(s) for s in seeds][: max(plan.seeds or PILOT, PILOT)]
    met = plan.seeds is not None and plan.seeds <= len(seeds)  # more groups alone would not decide
    groups = plan.groups if claim.held_out and met and plan.groups else claim.held_out
    # Seed by seed, so that an interrupted check holds complete pairs.
    both = [[runs.get(arm, s, groups) for arm in (claim.baseline, claim.method)] for s in chosen]
    verdict = judge(claim, chosen, *zip(*both), plan=plan)
    write_json(verdict.as_dict(), Path(out) / f"{claim.name}.json")
    return verdict


def planned(
    claim: Claim, run: Run, seeds: Sequence[int] = tuple(range(10)), *, out: str | os.PathLike[str], rests_on: str = ""
) -> Plan:
    """The pilot of the baseline and what it asks for; takes what `reproduce` takes, and the method is not run."""
    return _piloted(claim, run, seeds, out, rests_on)[1]


def _piloted(
    claim: Claim, run: Run, seeds: Sequence[int], out: str | os.PathLike[str], rests_on: str
) -> tuple[StoredRuns, Plan]:
    seeds = [int(s) for s in seeds]
    if len(set(seeds)) != len(seeds) or not seeds:
        raise ValueError(f"seeds must be different and at least one, got {list(seeds)}")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    runs = StoredRuns(out / f"{claim.name}.runs.jsonl", claim, run, known_hash(rests_on))
    pilot = [runs.get(claim.baseline, s, claim.held_out) for s in seeds[:PILOT]]
    return runs, plan_of(claim, pilot, len(seeds))


def judge(
    claim: Claim,
    seeds: Sequence[int],
    baseline: Sequence[float | Measured],
    method: Sequence[float | Measured],
    plan: Plan | None = None,
) -> Verdict:
    """The verdict on paired figures. An arm that gave NaN (diverged) leaves the check undecided, never better."""
    sign = 1.0 if claim.higher_is_better else -1.0
    arms = [[as_measured(m) for m in arm] for arm in (baseline, method)]
    figures = [[m.figure for m in arm] for arm in arms]
    gains = [sign * (m - b) for b, m in zip(*figures, strict=True)]
    shown = (claim, list(seeds), *figures)
    if not all(map(math.isfinite, gains)):
        nothing = Interval(float("nan"), float("-inf"), float("inf"), len(gains), len(gains))
        return Verdict(*shown, nothing, f"{UNDECIDED}: an arm gave no finite figure", plan=plan)
    table = _table(arms if claim.threshold is None else arms[1:])
    if table is None:
        differences, i = np.array(gains)[:, None], t_interval(gains)
    else:
        differences = sign * (table[-1] - (table[0] if claim.threshold is None else claim.threshold))
        i = seeds_and_groups(differences)
    groups = 0 if table is None else differences.shape[1]
    word = _word(claim, i) if len(gains) >= 3 else UNDECIDED
    if word == UNDECIDED:
        word = f"{UNDECIDED}: {_needs(claim, Spread.of(differences), i)}"
    return Verdict(*shown, i, word, groups, plan)


def _word(claim: Claim, i: Interval) -> str:
    if i.low > claim.margin:
        return HOLDS
    if i.high <= claim.margin or (claim.size and i.high < claim.margin + claim.size):
        return FAILS
    return UNDECIDED


def _needs(claim: Claim, spread: Spread, i: Interval) -> str:
    """The seeds and groups with which the interval would decide, by the spread of the measured differences."""
    if spread.seeds < 3:
        return "needs 3 seeds at least"
    target = claim.size / 2 or abs(i.value - claim.margin)
    seeds = spread.seeds_for(target, GROW * spread.groups if claim.held_out else spread.groups)
    if seeds is not None and not claim.held_out:
        return f"needs {seeds} seeds"
    # More groups too: with the seeds that were run if they are enough for any number of groups, else with more.
    for more in [seeds] if seeds is not None else (spread.seeds * 2**k for k in range(12)):
        if groups := spread.groups_for(target, more):
            have = "" if claim.held_out else f", these data have {spread.groups}"
            return f"needs {max(more, spread.seeds)} seeds and {max(groups, spread.groups)} groups{have}"
    return f"needs {seeds} seeds" if seeds else "needs more than 10,000 seeds"


def _table(arms: Sequence[Sequence[Measured]]) -> np.ndarray | None:
    """[arms, seeds, groups]; None where runs have no groups, or not all the same ones."""
    names = arms[0][0].groups.keys()
    if len(names) < 2 or any(m.groups.keys() != names for arm in arms for m in arm):
        return None
    return np.array([[[m.groups[n] for n in names] for m in arm] for arm in arms])


def code_of(run: Callable[..., object]) -> str:
    """`module:name` of the top-level definition that made a run function (through `functools.partial` and closures).

    >>> code_of(judge)
    'counterpoint.common.trainers.reproduce:judge'
    """
    while hasattr(run, "func"):
        run = run.func
    return f"{inspect.unwrap(run).__module__}:{inspect.unwrap(run).__qualname__.split('.')[0]}"


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None
