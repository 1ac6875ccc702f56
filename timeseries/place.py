"""Where a window was cut: its record, its time and its leads, in the words of the field."""

from __future__ import annotations

from typing import NamedTuple

from counterpoint.common.output import clock


class Place(NamedTuple):
    """A window's place: seconds from the beginning of its recording, which lasts `whole` seconds.

    >>> str(Place("100", 12.0, 22.0, 1805.6, ("MLII",)))
    '100, 0:12-0:22, MLII'
    >>> str(Place("gun-3", 0.0, 150.0, 150.0, ("channel1",)))
    'gun-3, whole, channel1'
    """

    record: str
    start: float
    end: float
    whole: float
    leads: tuple[str, ...]

    @property
    def part(self) -> bool:
        """Whether the window is less than its recording."""
        return self.start > 0 or self.end < self.whole

    @property
    def time(self) -> str:
        """From when to when, as fine as the window is short."""
        digits = 0 if self.end - self.start >= 10 else 1 if self.end - self.start >= 1 else 2
        return f"{clock(self.start, digits)}-{clock(self.end, digits)}" if self.part else "whole"

    @property
    def channels(self) -> str:
        """The leads by name where they are few."""
        return ", ".join(self.leads) if len(self.leads) <= 3 else f"{len(self.leads)} leads"

    def __str__(self) -> str:
        return f"{self.record}, {self.time}, {self.channels}"
