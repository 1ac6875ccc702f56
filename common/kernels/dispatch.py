"""Which backend answers a problem."""

import logging
from functools import cache

import torch
from torch import Tensor

from counterpoint.common.kernels import dense, eager, pair_registration, sharded
from counterpoint.common.kernels.backends import backend_named
from counterpoint.common.kernels.dense import Outputs
from counterpoint.common.kernels.problem import Problem
from counterpoint.common.kernels.refusal import refusal
from counterpoint.common.kernels.registration import contrast

__all__ = ["BACKENDS", "DENSE_PAIRS", "choose", "evaluate_statistics", "evaluate_pair_sum"]

BACKENDS = ("auto", "dense", "tiled", "triton")

# Up to here the written-out logits are faster than tiles (benchmarks/engine.py --crossover).
DENSE_PAIRS = 96 * 96

log = logging.getLogger(__name__)


def choose(problem: Problem, backend: str, device: torch.device | None = None) -> str:
    """The backend's name for this problem (on `device`, by default its own); "auto" decides by size and device."""
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if problem.empty:  # nothing to tile
        return "dense"
    if backend != "auto":
        if backend == "triton" and (reason := refusal(problem)):
            _say(reason)
            return "tiled"
        return backend
    batch, scales, rows, columns, _ = problem.shape
    if batch * scales * rows * columns <= DENSE_PAIRS:
        return "dense"
    if (device or problem.q.device).type != "cuda":
        return "tiled"
    reason = refusal(problem)
    if reason is not None:
        _say(reason)
        return "tiled"
    return "triton"


def _say(reason: str) -> None:
    if not torch.compiler.is_compiling():  # a log line would break the graph
        _say_once(reason)


@cache
def _say_once(reason: str) -> None:
    log.warning("contrast engine: the tiled backend stands in for the fused kernels: %s", reason)


def _refuse_ranks(distributed: str) -> None:
    if distributed != "none":
        raise RuntimeError(
            f"distributed={distributed!r} has neither forward-mode derivatives nor torch.func transforms; "
            "use it with reverse mode (backward), or distributed='none'"
        )


def evaluate_statistics(
    problem: Problem, backend: str, distributed: str, process_group: object | None, deterministic: bool
) -> Outputs:
    """The differentiable statistics of a problem."""
    chosen = choose(problem, backend)
    if eager.transformed(*eager.inputs_of(problem)):
        _refuse_ranks(distributed)
        return dense.statistics(problem)
    if distributed != "none":
        return sharded.statistics(problem, distributed, process_group, backend_named(chosen, deterministic))
    return dense.statistics(problem) if chosen == "dense" else contrast(problem, chosen, deterministic)


def evaluate_pair_sum(
    problem: Problem, fn: str, backend: str, distributed: str, process_group: object | None
) -> Tensor:
    """The differentiable pair sums [batch, rows] of a problem."""
    chosen = choose(problem, backend)
    if eager.transformed(*eager.inputs_of(problem)):
        _refuse_ranks(distributed)
        return dense.pair_sums(problem, fn)
    if distributed != "none":
        return sharded.pair_sums(problem, fn, distributed, process_group, backend_named(chosen, True))
    return dense.pair_sums(problem, fn) if chosen == "dense" else pair_registration.pair_sums(problem, fn, chosen)
