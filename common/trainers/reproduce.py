"""Fidelity checks: a paper's claim as "method beats baseline on the same data and seeds", measured and written down.

Both arms run on every seed; the difference per seed is the unit of evidence, because what a seed decides (split, order,
initial weights) is shared by the two. The verdict follows from the interval of the mean difference, nothing else.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from counterpoint.common.errors import InputError
from counterpoint.common.metrics import Interval, t_interval

Run = Callable[[str, int], float]
HOLDS, FAILS, OPEN = "holds", "does not hold", "inconclusive"


@dataclass(frozen=True)
class Claim:
    """A statement that one measurable difference decides.

    Attributes:
        name: short and stable; names the stored runs and the row of the table.
        statement: the claim in one sentence, with the scale it is checked at.
        baseline, method: names of the two arms, given to the run function.
        metric: what the run function returns, with its unit.
        higher_is_better: whether larger figures favour the method.
        margin: smallest improvement that counts (0: any).
        source: the paper.
        data: what the check runs on; say "synthetic" when it is.
    """

    name: str
    statement: str
    baseline: str
    method: str
    metric: str
    higher_is_better: bool = True
    margin: float = 0.0
    source: str = ""
    data: str = ""

    def __post_init__(self) -> None:
        if self.baseline == self.method:
            raise ValueError(f"claim {self.name!r}: both arms are called {self.method!r}")
        if not re.fullmatch(r"[A-Za-z0-9._-]+", self.name):
            raise ValueError(f"claim name {self.name!r} names files: use letters, digits, '.', '_' and '-'")


@dataclass(frozen=True)
class Verdict:
    """What was measured: figures of both arms by seed, the improvement's interval, and the verdict.

    `improvement` is method minus baseline where higher is better, baseline minus method otherwise: positive favours the
    claim. "holds": its whole 95 % interval lies above the margin; "does not hold": the whole interval lies at or below
    it; "inconclusive": the interval contains the margin, or there are fewer than three seeds.
    """

    claim: Claim
    seeds: list[int]
    baseline: list[float]
    method: list[float]
    improvement: Interval
    verdict: str

    def as_dict(self) -> dict[str, object]:
        return {
            **asdict(self.claim),
            "seeds": self.seeds,
            "figures": {self.claim.baseline: self.baseline, self.claim.method: self.method},
            "improvement": self.improvement.as_dict(),
            "verdict": self.verdict,
        }

    def row(self) -> str:
        """The verdict as a row of the Markdown table."""
        i, c = self.improvement, self.claim
        spread = f"{_figure(i.value)} [{_figure(i.low)}, {_figure(i.high)}]"
        means = [f"{_figure(sum(v) / len(v))}" for v in (self.baseline, self.method)]
        cells = [c.name, c.statement, c.data, c.metric, f"{c.baseline}: {means[0]}", f"{c.method}: {means[1]}", spread]
        return "| " + " | ".join(_cell(x) for x in [*cells, str(len(self.seeds)), f"**{self.verdict}**"]) + " |"


COLUMNS = ("check", "claim", "data", "metric", "baseline", "method", "improvement [95 %]", "seeds", "verdict")


def reproduce(
    claim: Claim, run: Run, seeds: Sequence[int] = (0, 1, 2, 3, 4), *, out: str | os.PathLike[str]
) -> Verdict:
    """Run both arms on every seed and judge; finished runs are stored in `out` and not run again.

    Args:
        run: `(arm, seed) -> figure`; must give the same data, split and budget to both arms of a seed.
        out: folder for `<claim>.runs.jsonl` (one line per finished run) and `<claim>.json` (the verdict).

    >>> import tempfile
    >>> claim = Claim("demo", "adding one helps", "plain", "plus-one", "score")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     verdict = reproduce(claim, lambda arm, seed: seed + (arm == "plus-one"), seeds=(0, 1, 2), out=folder)
    >>> verdict.verdict, verdict.improvement.value
    ('holds', 1.0)
    """
    seeds = [int(s) for s in seeds]
    if len(set(seeds)) != len(seeds) or not seeds:
        raise ValueError(f"seeds must be different and at least one, got {list(seeds)}")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    store = out / f"{claim.name}.runs.jsonl"
    done = _read_runs(store, claim)
    for seed in seeds:  # seed by seed, so that an interrupted check holds complete pairs
        for arm in (claim.baseline, claim.method):
            if (arm, seed) not in done:
                figure = float(run(arm, seed))
                done[arm, seed] = figure
                _append(
                    store, {"claim": claim.name, "metric": claim.metric, "arm": arm, "seed": seed, "figure": figure}
                )
    baseline, method = ([done[arm, s] for s in seeds] for arm in (claim.baseline, claim.method))
    verdict = judge(claim, seeds, baseline, method)
    temporary = out / f".{claim.name}.json.{os.getpid()}"
    temporary.write_text(json.dumps(verdict.as_dict(), indent=2) + "\n", encoding="utf-8")
    temporary.replace(out / f"{claim.name}.json")
    return verdict


def judge(claim: Claim, seeds: Sequence[int], baseline: Sequence[float], method: Sequence[float]) -> Verdict:
    """The verdict on paired figures. An arm that gave NaN (diverged) makes the check inconclusive, never better."""
    sign = 1.0 if claim.higher_is_better else -1.0
    gains = [sign * (m - b) for b, m in zip(baseline, method, strict=True)]
    if not all(map(math.isfinite, gains)):
        nothing = Interval(float("nan"), float("-inf"), float("inf"), len(gains), len(gains))
        return Verdict(claim, list(seeds), list(baseline), list(method), nothing, OPEN)
    i = t_interval(gains)
    if len(gains) < 3:
        word = OPEN
    elif i.low > claim.margin:
        word = HOLDS
    elif i.high <= claim.margin:
        word = FAILS
    else:
        word = OPEN
    return Verdict(claim, list(seeds), list(baseline), list(method), i, word)


def write_table(readme: str | os.PathLike[str], verdicts: Sequence[Verdict], marker: str = "fidelity") -> Path:
    """Put the table of verdicts between `<!-- fidelity:begin -->` and `<!-- fidelity:end -->` of a README.

    Rows of checks that are not among `verdicts` stay as they are, so that one check can be run again alone.

    Raises:
        InputError: the file has no such pair of markers.
    """
    path = Path(readme)
    text = path.read_text(encoding="utf-8")
    begin, end = f"<!-- {marker}:begin -->", f"<!-- {marker}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise InputError(f"{path}: put the lines {begin} and {end} once each where the table shall stand")
    head, rest = text.split(begin)
    old, tail = rest.split(end)
    rows: dict[str, str] = {}
    for line in old.splitlines():
        cells = [c.strip() for c in re.split(r"(?<!\\)\|", line)]
        if len(cells) == len(COLUMNS) + 2 and cells[1] != COLUMNS[0] and set(cells[1]) - set("-:"):
            rows[cells[1]] = line
    rows |= {_cell(v.claim.name): v.row() for v in verdicts}
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS), *rows.values()]
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(head + begin + "\n" + "\n".join(lines) + "\n" + end + tail, encoding="utf-8")
    return temporary.replace(path)


def _read_runs(store: Path, claim: Claim) -> dict[tuple[str, int], float]:
    done: dict[tuple[str, int], float] = {}
    if not store.exists():
        return done
    lines = store.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            key, metric, figure = (entry["arm"], int(entry["seed"])), entry["metric"], entry["figure"]
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break  # the process was killed while writing its last line: that run is simply run again
            raise InputError(f"{store}, line {number}: not a stored run; delete the file to start over") from error
        if metric != claim.metric:
            raise InputError(
                f"{store}, line {number}: holds {metric!r}, the claim now measures {claim.metric!r}; delete it"
            )
        done[key] = float("nan") if figure is None else float(figure)
    return done


def _append(store: Path, entry: dict[str, object]) -> None:
    """Add a line; a last line cut short by a kill is removed first."""
    if not math.isfinite(entry["figure"]):  # type: ignore[arg-type]
        entry = entry | {"figure": None}
    text = store.read_text(encoding="utf-8") if store.exists() else ""
    whole = text[: text.rindex("\n") + 1] if "\n" in text else ""
    if whole != text:
        try:
            json.loads(text[len(whole) :])
            whole = text + "\n"
        except ValueError:
            pass
        store.write_text(whole, encoding="utf-8")
    with store.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _figure(x: float) -> str:
    return f"{x:.3g}" if math.isfinite(x) else "not finite"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
