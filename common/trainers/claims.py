"""What a check of a paper's claim states, and what one run of it measures."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Claim:
    """A statement that one measurable difference decides.

    Attributes:
        name: short and stable; names the stored runs and the row of the table.
        statement: the claim in one sentence, with the scale it is checked at.
        baseline, method: names of the two arms, given to the run function. A baseline that is a number in words
            ("0.95") is a threshold.
        metric: what the run function returns, with its unit.
        higher_is_better: whether larger figures favour the method.
        margin: smallest improvement that counts (0: any).
        effect: the claimed effect: by how much the improvement exceeds the margin where the claim is true, as the
            paper reports it or the statement says; 0 takes the margin's size.
        held_out: of generated data, how many held-out groups the pilot has. The run function then takes `groups=`, and
            a plan may ask for more. 0: the data have the groups they have.
        source: the paper; empty where no paper claims it.
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
    effect: float = 0.0
    held_out: int = 0

    def __post_init__(self) -> None:
        if self.baseline == self.method:
            raise ValueError(f"claim {self.name!r}: both arms are called {self.method!r}")
        if not re.fullmatch(r"[A-Za-z0-9._-]+", self.name):
            raise ValueError(f"claim name {self.name!r} names files: use letters, digits, '.', '_' and '-'")
        if self.effect < 0 or self.held_out < 0:
            raise ValueError(f"claim {self.name!r}: effect and held_out are 0 or more")

    @property
    def size(self) -> float:
        """The effect that the interval must resolve."""
        return self.effect or abs(self.margin)

    @property
    def threshold(self) -> float | None:
        """The baseline where it is a number."""
        try:
            return float(self.baseline)
        except ValueError:
            return None


@dataclass(frozen=True)
class Measured:
    """A figure, and the share of every held-out group in it (`common.metrics.group_shares`; their mean is the figure).

    Groups of the same name must be the same patients, pieces or nodes in every run.
    """

    figure: float
    groups: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, shares: Mapping[str, float]) -> Measured:
        """The mean of the shares."""
        return cls(float(np.mean(list(shares.values()))), shares)


#: `(arm, seed) -> figure`, with `groups=` too where the claim's held-out groups are generated.
Run = Callable[..., float | Measured]
