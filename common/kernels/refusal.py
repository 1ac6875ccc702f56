"""Which problems the fused kernels leave to another backend, decided without importing them.

Everything here is plain arithmetic on shapes and dtypes, so that a compiler can trace through it.
"""

import os
from importlib.util import find_spec

import torch

from counterpoint.common.kernels.problem import CsrPairs, Problem

__all__ = ["LONGEST_PAIR_LIST", "refusal"]

LONGEST_PAIR_LIST = 64  # columns a row of `Pairs` may list before the tiled backend serves it better
TRITON = find_spec("triton") is not None
INTERPRET = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")
HALF_OR_SINGLE = (torch.float32, torch.bfloat16, torch.float16)


def refusal(problem: Problem) -> str | None:
    """Why the fused kernels cannot answer this problem, in words; None when they can."""
    if not TRITON:
        return "Triton is not installed"
    if problem.dtype == torch.float64:
        return "float64 is not supported by the fused kernels"
    if problem.q.dtype != problem.k.dtype:
        return f"q and k have different dtypes, {problem.q.dtype} and {problem.k.dtype}"
    if problem.q.dtype not in HALF_OR_SINGLE:
        return f"{problem.q.dtype} is not supported by the fused kernels"
    if problem.q.device.type != "cuda" and not INTERPRET:
        return f"the fused kernels need a CUDA device, the features are on {problem.q.device}"
    if problem.shape[2] >= 2**31 - 1024 or problem.shape[3] >= 2**31 - 1024:
        return "more than 2^31 rows or columns"
    for rule in (*problem.exclude, *problem.only):
        if isinstance(rule, CsrPairs):
            if torch.compiler.is_compiling():
                return "the lengths of Pairs' rows are not known while compiling"
            if rule.ptr.numel() > 1 and int(rule.ptr.diff().amax()) > LONGEST_PAIR_LIST:
                return f"Pairs lists more than {LONGEST_PAIR_LIST} columns for a row"
    return None
