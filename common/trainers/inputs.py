"""What `encode` reads of a batch, in words and names: the part of the preprocessing recipe that no setting says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Input:
    """One entry of a batch, for whoever has to make it without this suite.

    Attributes:
        about: what its values are and how they are made: units, rate, scale, order of steps, what stands for missing.
        axes: names of its axes behind the first one.
        free: names of axes whose length may be another at every call.
        first: the first axis: the batch, unless the entry has no row for each sample (the nodes, the edges of a graph).

    >>> Input("samples in mV", ("time", "channels"), ("time",)).recipe()["axes"]
    ['batch', 'time', 'channels']
    >>> Input("node types", (), ("nodes",), first="nodes").free_axes()
    {0: 'nodes'}
    """

    about: str
    axes: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    first: str = "batch"

    def recipe(self) -> dict[str, Any]:
        """The same as plain data."""
        return {"about": self.about, "axes": [self.first, *self.axes], "free": list(self.free)}

    def free_axes(self) -> dict[int, str]:
        """Place and name of the axes that may have any length."""
        return {i: name for i, name in enumerate((self.first, *self.axes)) if name in self.free}
