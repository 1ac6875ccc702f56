"""The frame of every vertical's demo: a folder, a page, a clock; at the end the page, the figures and the commands."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from counterpoint.common.report import Report
from counterpoint.common.vertical import Outcome


class Demonstration:
    """A demo under way in the folder `out`.

    Attributes:
        page: the report that it fills.
        seconds: how long each part took (`lap`).
    """

    def __init__(self, out: str | Path) -> None:
        self.out, self.seconds = Path(out), {}
        self.page = Report("", "")
        self._begin = self._since = time.perf_counter()

    def open(self, title: str, what: str, synthetic: bool = False) -> Report:
        """The page, new, under its title; `synthetic` marks it where all data are made."""
        self.page = Report(title, what, synthetic=synthetic)
        return self.page

    def lap(self, part: str) -> None:
        """The part that took the time since the last lap."""
        now = time.perf_counter()
        self.seconds[part], self._since = now - self._since, now

    def training(self, name: str, seed: int) -> dict[str, Any]:
        """Changes of a configuration that put its run into the demo's folder."""
        return {
            "train.out": str(self.out / name),
            "train.overwrite": True,
            "train.seed": seed,
            "train.tensorboard": False,
        }

    def finish(self, figures: Mapping[str, Any], lines: Sequence[str], commands: Sequence[str]) -> Outcome:
        """Write `report.html` and `demo.json`; the outcome of the verb. `commands` are shown as those to run next."""
        self.page.reproduce(list(commands))
        report = Path(self.page.write(self.out / "report.html"))
        self.seconds["all"] = time.perf_counter() - self._begin
        told = {**figures, "seconds": {name: round(value, 1) for name, value in self.seconds.items()}}
        numbers = self.out / "demo.json"
        numbers.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        spent = ", ".join(f"{name} {value:.0f} s" for name, value in self.seconds.items())
        return Outcome(told, (*lines, "", spent, f"open {report}"), {"report": report, "figures": numbers})
