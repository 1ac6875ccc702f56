"""Runs of a check, kept: each is run once, and older code's are kept where the code still gives their figures."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

from counterpoint.common.errors import InputError
from counterpoint.common.trainers.claims import Claim, Measured, Run


class StoredRuns:
    """Finished runs, one line each; what is asked for is taken from them or run."""

    def __init__(self, store: Path, claim: Claim, run: Run, code: str) -> None:
        self.store, self.claim, self.run, self.code = store, claim, run, code
        self.done, self.old = _read_runs(store, claim, code)

    def get(self, arm: str, seed: int, groups: int) -> Measured:
        """A stored run, or a new one."""
        key = (arm, seed, groups)
        if key not in self.done and key in self.old:
            again = self._fresh(*key)
            if not math.isclose(again.figure, self.old[key].figure, rel_tol=1e-6):
                self.old = {k: v for k, v in self.old.items() if k[0] != arm}  # the code gives other figures now
            for known in [k for k in self.old if k[0] == arm and k != key]:  # it does not: they are as good as new
                self._keep(known, self.old.pop(known))
        return self.done[key] if key in self.done else self._fresh(*key)

    def _fresh(self, arm: str, seed: int, groups: int) -> Measured:
        measured = as_measured(self.run(arm, seed, **({"groups": groups} if self.claim.held_out else {})))
        self._keep((arm, seed, groups), measured)
        return measured

    def _keep(self, key: tuple[str, int, int], measured: Measured) -> None:
        self.done[key] = measured
        entry = {"claim": self.claim.name, "metric": self.claim.metric, "arm": key[0], "seed": key[1]}
        entry |= {"held_out": key[2]} if key[2] else {}
        entry |= {"figure": measured.figure, "groups": dict(measured.groups), "code": self.code}
        _append(self.store, entry)


_Stored = dict[tuple[str, int, int], Measured]


def _read_runs(store: Path, claim: Claim, code: str) -> tuple[_Stored, _Stored]:
    """Runs of the code as it is, and of older code."""
    done: _Stored = {}
    old: _Stored = {}
    if not store.exists():
        return done, old
    lines = store.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            key, metric = (entry["arm"], int(entry["seed"]), int(entry.get("held_out", 0))), entry["metric"]
            figure, shares = entry["figure"], {str(k): float(v) for k, v in entry.get("groups", {}).items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if number == len(lines):
                break  # the process was killed while writing its last line: that run is simply run again
            raise InputError(f"{store}, line {number}: not a stored run; delete the file to start over") from error
        if metric != claim.metric:
            raise InputError(
                f"{store}, line {number}: holds {metric!r}, the claim now measures {claim.metric!r}; delete it"
            )
        place = done if entry.get("code", "") == code else old
        place[key] = Measured(float("nan") if figure is None else float(figure), shares)
    return done, old


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


def as_measured(value: float | Measured) -> Measured:
    """A bare number as a figure without groups."""
    return value if isinstance(value, Measured) else Measured(float(value))
