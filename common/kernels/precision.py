"""`fast_matmul`: a scoped, opt-in use of reduced-precision matrix units for float32 features.

The choice belongs to a statistic: made where it is computed, kept for its backward pass, invisible outside.
"""

import contextlib
from collections.abc import Iterator

import torch

__all__ = ["fast_matmul", "is_fast", "products"]

_fast = False


@contextlib.contextmanager
def fast_matmul() -> Iterator[None]:
    """Let the engine's products round float32 operands to bfloat16 (CPU) or TF32 (GPU) inside the block.

    Sums, exponentials, biases and accumulators stay in float32. It is faster where the hardware has such units (AMX,
    AVX-512 BF16, tensor cores) and changes nothing elsewhere. Measured errors: README.md of this folder. The process's
    own `torch.set_float32_matmul_precision` is not touched outside the engine's loops.

    >>> import torch
    >>> from counterpoint.common.kernels import contrast_stats
    >>> q = torch.randn(400, 16)
    >>> with fast_matmul():
    ...     stats = contrast_stats(q, q, scale=2.0)
    >>> torch.get_float32_matmul_precision()
    'highest'
    """
    global _fast
    before, _fast = _fast, True
    try:
        yield
    finally:
        _fast = before


def is_fast() -> bool:
    return _fast


@contextlib.contextmanager
def products(fast: bool) -> Iterator[None]:
    """The precision of the matrix products inside the block: float32 throughout unless `fast`."""
    before = torch.get_float32_matmul_precision()
    if fast:
        torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        if fast:
            torch.set_float32_matmul_precision(before)
