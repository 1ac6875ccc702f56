"""Differentiable statistics over the ranks of a process group. Under torch.compile they run eagerly."""

from typing import Any

import torch
from torch import Tensor

from counterpoint.common.kernels import eager
from counterpoint.common.kernels.dense import Outputs
from counterpoint.common.kernels.problem import Problem
from counterpoint.common.kernels.ring import distributed_backend

__all__ = ["pair_sums", "statistics"]


@torch.compiler.disable
def statistics(problem: Problem, mode: str, process_group: Any, local: Any) -> Outputs:
    """The statistics of the local rows against all ranks' keys, and of the local columns against all ranks' rows."""
    return eager.statistics(problem, distributed_backend(mode, process_group, local), twice=False)


@torch.compiler.disable
def pair_sums(problem: Problem, fn: str, mode: str, process_group: Any, local: Any) -> Tensor:
    """Pair sums [batch, rows] of the local rows over all ranks' keys."""
    return eager.pair_sums(problem, fn, distributed_backend(mode, process_group, local))
