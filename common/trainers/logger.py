"""metrics.csv: one row per logged step, readable while the run goes on, exact after a resume."""

from __future__ import annotations

import csv
import os
import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from counterpoint.common.errors import InputError


class MetricsCsv(Logger):
    """Appends rows (step, epoch, stage, metrics); a new metric rewrites the header.

    `step` is the number of updates done. `resume_at` drops the rows of later ones.
    """

    def __init__(self, path: Path, resume_at: int | None = None) -> None:
        super().__init__()
        self.path = path
        self.stage = ""
        self.columns = ["step", "epoch", "stage"]
        self.rows: list[dict[str, Any]] = []
        if resume_at is not None:
            self._restore(resume_at)

    @rank_zero_only
    def _restore(self, resume_at: int) -> None:
        """Take the file back to the checkpoint, so that no later row is there twice."""
        if not self.path.is_file():
            warnings.warn(f"{self.path} is missing: the run goes on without its earlier rows", stacklevel=2)
            return
        try:
            text = self.path.read_bytes().decode("utf-8")
            # A process that was killed may have left half a row, which is later than every checkpoint.
            lines = text[: text.rfind("\n") + 1].splitlines(keepends=True)
            reader = csv.DictReader(lines, strict=True)
            columns, rows = list(reader.fieldnames or ()), list(reader)
            if columns[:3] != self.columns:
                raise ValueError("its columns are not those of a run")
            for number, row in enumerate(rows, 2):
                if None in row or None in row.values():
                    raise ValueError(f"row {number} has not {len(columns)} values")
                row["step"] = int(row["step"])
        except (OSError, ValueError, csv.Error) as error:
            raise InputError(
                f"{self.path}: damaged ({error}); mend it, or remove it to go on without its earlier rows"
            ) from error
        self.columns, self.rows = columns, [row for row in rows if row["step"] <= resume_at]
        try:
            self._rewrite()
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror or error})") from error

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The configuration has its own file."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add numbers to the row of `step`."""
        row = {k: v for k, v in metrics.items() if k != "epoch"}
        row = {"step": step, "epoch": int(metrics.get("epoch", 0)), "stage": self.stage, **row}
        new = [k for k in row if k not in self.columns]
        self.columns += sorted(new)
        last = self.rows[-1] if self.rows else None
        same = last is not None and int(last["step"]) == step and last["stage"] == self.stage
        if same:
            last.update(row)
        else:
            self.rows.append(row)
        try:
            if new or same or len(self.rows) == 1 or not self.path.is_file():
                self._rewrite()
            else:
                with self.path.open("a", newline="", encoding="utf-8") as handle:
                    csv.DictWriter(handle, self.columns).writerow(row)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror or error})") from error

    def _rewrite(self) -> None:
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        with temporary.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(temporary, self.path)
