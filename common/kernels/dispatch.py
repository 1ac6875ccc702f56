"""Which backend answers a problem."""

from torch import Tensor

from counterpoint.common.kernels import dense
from counterpoint.common.kernels.dense import Outputs
from counterpoint.common.kernels.problem import Problem

__all__ = ["BACKENDS", "choose", "evaluate", "evaluate_pair_sum"]

BACKENDS = ("auto", "dense")


def choose(problem: Problem, backend: str) -> str:
    """The backend's name for this problem; "auto" decides by size and device."""
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    return "dense" if backend == "auto" else backend


def evaluate(
    problem: Problem, backend: str, distributed: str, process_group: object | None, deterministic: bool
) -> Outputs:
    """The differentiable statistics of a problem."""
    if distributed != "none":
        raise ValueError(f"distributed must be 'none', got {distributed!r}")
    choose(problem, backend)
    return dense.statistics(problem)


def evaluate_pair_sum(
    problem: Problem, fn: str, backend: str, distributed: str, process_group: object | None
) -> Tensor:
    """The differentiable pair sums [batch, rows] of a problem."""
    if distributed != "none":
        raise ValueError(f"distributed must be 'none', got {distributed!r}")
    choose(problem, backend)
    return dense.pair_sums(problem, fn)
