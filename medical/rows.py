"""Samples that are rows of a manifest: names and columns from its table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from counterpoint.common.data import Samples
from counterpoint.common.data.samples import plain


class RowSamples(Samples):
    """A sample a row of `frame`, a part of a manifest's table; `rows` are the numbers of its rows among those read."""

    rows: list[int]
    frame: Any

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def ids(self) -> list[str]:
        return self.frame["id"].astype(str).tolist()

    @cached_property
    def groups(self) -> list[str]:
        return self.frame["group"].astype(str).tolist()

    def column(self, name: str) -> Sequence[Any]:
        return [plain(v) for v in self.frame[name].tolist()] if name in self.columns else super().column(name)

    def row_of(self, position: int) -> int:
        return int(self.frame.index[position])
