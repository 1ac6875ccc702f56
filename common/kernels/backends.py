"""Backends by name."""

from functools import cache
from importlib import import_module

from counterpoint.common.kernels import tiled

__all__ = ["backend_named"]


@cache
def backend_named(name: str, deterministic: bool) -> object:
    """The object that answers `forward` and `backward`."""
    if name == "triton":
        return import_module("counterpoint.common.kernels.triton_backend").TritonBackend(deterministic=deterministic)
    return tiled
