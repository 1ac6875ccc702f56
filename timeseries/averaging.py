"""The equal-weight average of a network's weights over all steps, which TS2Vec and COMET evaluate with."""

from __future__ import annotations

import torch
from torch import nn

from counterpoint.common.models import EMATeacher


class AveragedWeights(EMATeacher):
    """Mean of the weights after every optimiser step: avg_n = avg_{n-1} + (w_n - avg_{n-1}) / n.

    As stochastic weight averaging (Izmailov et al., UAI 2018) with one sample per step. The system updates it by
    itself, like any teacher; the number of steps is a buffer and travels in the checkpoints.

    >>> student = nn.Linear(1, 1, bias=False)
    >>> average = AveragedWeights(student)
    >>> for value in (1.0, 2.0, 6.0):
    ...     _ = nn.init.constant_(student.weight, value)
    ...     average.update()
    >>> round(average.module.weight.item(), 6)
    3.0
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__(student, momentum=0.0)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def update(self, momentum: float | None = None) -> None:
        """Add the current weights to the average (a scheduled EMA momentum does not apply)."""
        taken = int(self.steps)
        super().update(taken / (taken + 1))
        self.steps += 1
