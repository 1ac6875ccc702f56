"""How many bytes of logits a contrast may keep between its forward and its backward pass.

Kept tiles are not recomputed: three matrix products in all instead of four. Above the budget memory stays linear.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from counterpoint.common.kernels.problem import Problem

__all__ = ["KEPT_BYTES", "fits", "kept_budget", "kept_bytes"]

KEPT_BYTES = 64 * 2**20

_budget: ContextVar[int] = ContextVar("kept_bytes", default=KEPT_BYTES)


@contextlib.contextmanager
def kept_bytes(budget: int) -> Iterator[None]:
    """Contrasts inside the block keep at most `budget` bytes of tiles each (default 64 MiB; 0: none).

    >>> import torch
    >>> from counterpoint.common.kernels import contrast_stats
    >>> z = torch.randn(500, 8, requires_grad=True)
    >>> with kept_bytes(0):
    ...     stats = contrast_stats(z, z)
    """
    token = _budget.set(budget)
    try:
        yield
    finally:
        _budget.reset(token)


def kept_budget() -> int:
    """The bytes that a contrast may keep here."""
    return _budget.get()


def fits(problem: Problem) -> bool:
    """Whether all tiles of the problem may be kept."""
    batch, scales, rows, columns, _ = problem.shape
    return batch * scales * rows * columns * problem.dtype.itemsize <= _budget.get()
