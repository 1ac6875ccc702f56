"""Momentum teachers: a copy of a module whose weights follow the student's."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


class EMATeacher(nn.Module):
    r"""Exponential moving average of a module: :math:`\xi \leftarrow m\,\xi + (1-m)\,\theta` after every step.

    A `ContrastiveSystem` finds its teachers and updates them by itself, with `momentum` from its schedule if there is
    one. Floating buffers follow by the same rule, others are copied. The teacher takes no gradient; its dropout is off,
    also that inside attention and recurrent layers, and its batch norms normalise by the batch (`train` moves them with
    the student; dropout stays off).

    Source: Tarvainen & Valpola, "Mean teachers are better role models", NeurIPS 2017; He et al., MoCo, CVPR 2020.

    >>> student = nn.Linear(2, 2)
    >>> teacher = EMATeacher(student, momentum=0.5)
    >>> with torch.no_grad():
    ...     student.weight += 1.0
    >>> before = teacher.module.weight.clone()
    >>> teacher.update()
    >>> bool(torch.allclose(teacher.module.weight - before, torch.full((2, 2), 0.5)))
    True
    """

    def __init__(self, student: nn.Module, momentum: float = 0.996) -> None:
        super().__init__()
        self.module = copy.deepcopy(student).requires_grad_(False)
        self.momentum = momentum
        # In a tuple, so that the student is not registered as a part of its teacher.
        self._student = (student,)

    @torch.no_grad()
    def update(self, momentum: float | None = None) -> None:
        """Move towards the student."""
        m = self.momentum if momentum is None else momentum
        if not 0 <= m <= 1:
            raise ValueError(f"momentum is in [0, 1], got {m}")
        (student,) = self._student
        for mine, theirs in zip(self.module.parameters(), student.parameters()):
            mine.lerp_(theirs.to(mine.dtype), 1 - m)
        for mine, theirs in zip(self.module.buffers(), student.buffers()):
            if mine.is_floating_point():
                mine.lerp_(theirs.to(mine.dtype), 1 - m)
            else:
                mine.copy_(theirs)

    def train(self, mode: bool = True) -> EMATeacher:
        super().train(mode)
        for part in self.modules():
            if isinstance(part, nn.modules.dropout._DropoutNd | nn.MultiheadAttention | nn.RNNBase):
                part.eval()
        return self

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)
