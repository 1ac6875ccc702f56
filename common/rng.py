"""The global random generators: seeded together, kept and put back."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch


def rng_state(devices: bool = True) -> dict[str, Any]:
    """States of torch's (CPU and, with `devices`, CUDA), numpy's and Python's global generators."""
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(),
        "python": random.getstate(),
    }
    if devices and torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Put the generators back."""
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextlib.contextmanager
def preserved_rng(devices: bool = True) -> Iterator[None]:
    """Whatever the block draws, the generators stand afterwards as before."""
    state = rng_state(devices)
    try:
        yield
    finally:
        set_rng_state(state)


def seed_all(seed: int, devices: bool = True) -> None:
    """Seed the three global generators, and the devices' where there are any."""
    # Not torch.manual_seed: without a device it keeps every seed (and a formatted stack) for the day one appears.
    torch.default_generator.manual_seed(seed)
    if devices and torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


_common: ContextVar[torch.Generator | None] = ContextVar("common_generator", default=None)


@contextlib.contextmanager
def drawing_together(seed: int) -> Iterator[None]:
    """Within, `common_generator` draws from this seed: the loader's, the same for all ranks that share a batch."""
    token = _common.set(torch.Generator().manual_seed(seed))
    try:
        yield
    finally:
        _common.reset(token)


def common_generator() -> torch.Generator | None:
    """For what the whole batch has in common (the length of its crops): equal draws on every rank that shares it.

    Outside of a loader None, which is torch's global generator.

    >>> def draw():
    ...     with drawing_together(0):
    ...         return int(torch.randint(100, (), generator=common_generator()))
    >>> draw() == draw()
    True
    """
    return _common.get()
