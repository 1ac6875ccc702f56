"""Backends by name."""

from functools import cache
from importlib import import_module
from importlib.util import find_spec

from counterpoint.common.kernels import tiled

__all__ = ["resolve", "triton_refusal"]


@cache
def resolve(name: str, deterministic: bool) -> object:
    """The object that answers `forward` and `backward`."""
    if name == "triton":
        return import_module("counterpoint.common.kernels.triton_backend").TritonBackend(deterministic=deterministic)
    return tiled


def triton_refusal(problem: object) -> str | None:
    """Why the fused kernels cannot answer this problem; None when they can."""
    if find_spec("triton") is None:
        return "Triton is not installed"
    return resolve("triton", True).unsupported(problem)
