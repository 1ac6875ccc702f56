"""Quantities that change during training: learning rate, weight decay, temperature, momentum share one `Schedule`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from counterpoint.common.errors import InputError
from counterpoint.common.trainers.configs import ScheduleConfig

KINDS = ("constant", "linear", "cosine", "wsd", "infinite")
DESCENTS = ("cosine", "linear", "inverse_sqrt")


@dataclass
class Schedule:
    r"""A value for every step n of a stage of `total` steps, continuous at every joint.

    - warm-up, n < w: linear from `start` to `peak`;
    - `constant`: `peak`; `linear`, `cosine`: from `peak` at w to `end` at `total`;
    - `wsd`: `peak`, then linear to `end` over the last `decay` steps;
    - `infinite`: from `peak` to `level` over `cooldown` steps, then `level` for ever; once `begin_anneal` was called,
      :math:`level\,(end/level)^{(n-n_a)/(n_{end}-n_a)}` (linear where `end` is 0). The way down, t from 0 to 1, is a
      cosine, a line, or the inverse square root, :math:`peak + (level-peak)\,h(t)/h(1)`,
      :math:`h(t) = 1/\sqrt{1+10t} - 1` (`descent`).

    At `total` and beyond, the value is the last one. Steps are whole or fractional.

    The infinite schedule follows "Beyond Cosine Decay: On the effectiveness of Infinite Learning Rate Schedule for
    Continual Pre-training" (CoLLAs 2025) with the exponent reaching `end` after the annealing's own length; a later
    stage continues from the state before the annealing, at `level`, with no warm-up (`continued()`).

    >>> lr = Schedule("cosine", peak=1.0, end=0.0, total=110, warmup=10)
    >>> [round(lr(n), 3) for n in (0, 5, 10, 60, 110)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    >>> momentum = Schedule("cosine", peak=0.996, end=1.0, total=100)
    >>> momentum(0), momentum(100)
    (0.996, 1.0)
    """

    kind: str
    peak: float
    end: float
    total: int
    warmup: float = 0
    start: float = 0.0
    decay: float = 0
    cooldown: float = 0
    level: float | None = None
    descent: str = "cosine"
    anneal_from: int | None = None
    anneal_steps: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"schedule kind {self.kind!r} is not one of {', '.join(KINDS)}")
        if self.descent not in DESCENTS:
            raise InputError(f"schedule descent {self.descent!r} is not one of {', '.join(DESCENTS)}")
        if self.level is None:
            self.level = self.peak

    @classmethod
    def from_config(cls, config: ScheduleConfig, base: float, total: int) -> Schedule:
        """The schedule of a quantity whose peak is `base` in a stage of `total` steps."""

        def steps(length: float) -> int:
            return round(length * total) if length < 1 else int(length)

        cooldown = steps(config.cooldown) if config.kind == "infinite" else 0
        schedule = cls(
            kind=config.kind,
            peak=base,
            end=base * config.final,
            total=total,
            warmup=steps(config.warmup),
            decay=steps(config.decay) if config.kind == "wsd" else 0,
            cooldown=cooldown,
            level=base * config.constant if cooldown else base,  # without a way down, it stays at the peak
            descent=config.descent,
        )
        anneal = steps(config.decay) if config.kind == "infinite" else 0
        if anneal:
            schedule.anneal_from, schedule.anneal_steps = max(total - anneal, 0), anneal
        return schedule

    def begin_anneal(self, step: int, steps: int) -> None:
        """From `step` on, descend to `end` within `steps` (kind `infinite`): the tail that makes a usable model."""
        if self.kind != "infinite":
            raise ValueError(f"only an infinite schedule anneals on request, this one is {self.kind!r}")
        if steps < 1:
            raise ValueError(f"annealing takes at least one step, got {steps}")
        self.anneal_from, self.anneal_steps = step, steps

    def continued(self, total: int) -> Schedule:
        """The next stage's schedule of a continual run: constant at `level`, no warm-up, no cool-down."""
        if self.kind != "infinite":
            raise ValueError(f"only an infinite schedule continues without re-warming, this one is {self.kind!r}")
        start = max(total - self.anneal_steps, 0) if self.anneal_steps else None
        return replace(self, total=total, warmup=0, cooldown=0, peak=self.level, anneal_from=start)

    def __call__(self, step: float) -> float:
        if step < self.warmup:
            return self.start + (self.peak - self.start) * step / self.warmup
        if self.kind == "constant":
            return self.peak
        if self.kind == "infinite":
            return self._infinite(step)
        begin = self.total - self.decay if self.kind == "wsd" else self.warmup
        progress = min(max((step - begin) / max(self.total - begin, 1e-12), 0.0), 1.0)
        if self.kind == "cosine":
            return self.end + (self.peak - self.end) * (1 + math.cos(math.pi * progress)) / 2
        return self.peak + (self.end - self.peak) * progress

    def _infinite(self, step: float) -> float:
        assert self.level is not None
        if self.anneal_from is not None and step >= self.anneal_from:
            before = self._descent(self.anneal_from)
            progress = min((step - self.anneal_from) / self.anneal_steps, 1.0)
            if self.end > 0 and before > 0:
                return before * (self.end / before) ** progress
            return before + (self.end - before) * progress
        return self._descent(step)

    def _descent(self, step: float) -> float:
        assert self.level is not None
        if step < self.warmup:
            return self.start + (self.peak - self.start) * step / self.warmup
        if step >= self.warmup + self.cooldown:
            return self.level
        progress = (step - self.warmup) / self.cooldown
        if self.descent == "cosine":
            left = (1 + math.cos(math.pi * progress)) / 2
        elif self.descent == "linear":
            left = 1 - progress
        else:
            left = 1 - _slowing(progress) / _slowing(1.0)
        return self.level + (self.peak - self.level) * left

    def state_dict(self) -> dict[str, Any]:
        """What `begin_anneal` changed."""
        return {"anneal_from": self.anneal_from, "anneal_steps": self.anneal_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""
        self.anneal_from, self.anneal_steps = state["anneal_from"], state["anneal_steps"]


def _slowing(progress: float, timescale: float = 10.0) -> float:
    return 1 / math.sqrt(1 + timescale * progress) - 1
