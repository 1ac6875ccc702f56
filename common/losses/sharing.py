"""The engine's settings, written once for all objectives, and what a batch is that several ranks share.

A training over several ranks says once how they share (`with engine_settings(distributed="auto")`, which
`counterpoint.common.trainers.fit` does); objectives, queues and states per sample follow, unless their constructor was
given a setting of its own.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, TypedDict

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from counterpoint.common.kernels import gather_rows, own_rows
from counterpoint.common.kernels.ranks import checked_mode

__all__ = ["EngineSettings", "Shared", "engine_settings", "unshared"]

_settings: ContextVar[dict[str, str]] = ContextVar("engine_settings", default={})  # noqa: B039 - never changed in place


class EngineSettings(TypedDict, total=False):
    """Arguments that every objective takes by name; `Objective` says what they mean."""

    normalize: bool
    distributed: str | None
    backend: str | None


@contextlib.contextmanager
def engine_settings(*, distributed: str | None = None, backend: str | None = None) -> Iterator[None]:
    """Settings of all objectives called inside that were not given their own; None leaves what holds outside.

    The backward pass may run outside: it uses what the forward pass found.

    >>> from counterpoint.common.losses import InfoNCE
    >>> loss = InfoNCE()
    >>> with engine_settings(backend="dense"):
    ...     loss.backend
    'dense'
    >>> loss.backend
    'auto'
    """
    changes = {"distributed": distributed, "backend": backend}
    if distributed is not None:
        _known(distributed)
    token = _settings.set({**_settings.get(), **{k: v for k, v in changes.items() if v is not None}})
    try:
        yield
    finally:
        _settings.reset(token)


@contextlib.contextmanager
def unshared() -> Iterator[None]:
    """Inside, ranks share no batch (each holds all of it): nothing is exchanged, whatever an objective was given.

    >>> with unshared():
    ...     Shared("gather").distributed
    'none'
    """
    token = _settings.set({**_settings.get(), "unshared": "yes"})
    try:
        yield
    finally:
        _settings.reset(token)


def _known(distributed: str) -> str:
    return distributed if distributed == "none" else checked_mode(distributed)


class Shared:
    """A batch of which every rank holds some rows: the rows of all, sums and means over all.

    On one rank, or with "none", nothing is exchanged. A value counts as the rank's share: averaged over ranks, as
    DistributedDataParallel averages gradients, it is the value of the whole batch, however rows are shared out; a rank
    without any takes part with zero. All ranks must call the same methods in the same order.

    Args:
        distributed: "none", "gather", "ring" or "auto" (by size); None follows `engine_settings`, else "none".

    >>> Shared().mean(torch.tensor([1.0, 3.0])).item()
    2.0
    """

    def __init__(self, distributed: str | None = None, *, backend: str | None = None, **rest: Any):
        super().__init__(**rest)
        self.given = {"distributed": None if distributed is None else _known(distributed), "backend": backend}

    @property
    def distributed(self) -> str:
        """How columns of other ranks are met."""
        around = _settings.get()
        if "unshared" in around:
            return "none"
        return self.given["distributed"] or around.get("distributed", "none")

    @property
    def backend(self) -> str:
        """Who works out the statistics."""
        return self.given["backend"] or _settings.get().get("backend", "auto")

    @property
    def world(self) -> int:
        """How many ranks share the batch."""
        return 1 if self.distributed == "none" else torch.distributed.get_world_size()

    @property
    def rank(self) -> int:
        """This rank's place among those that share the batch."""
        return 0 if self.distributed == "none" else torch.distributed.get_rank()

    def union(self, rows: Shaped[Tensor, "batch *rest"]) -> Shaped[Tensor, "all_rows *rest"]:
        """The rows of all ranks in rank order; gradients return to their owners."""
        return rows if self.distributed == "none" else gather_rows(rows)

    def own(self, rows: Shaped[Tensor, "batch *rest"]) -> slice:
        """Where this rank's rows lie in `union(rows)`."""
        return slice(0, len(rows)) if self.distributed == "none" else own_rows(rows)

    def count(self, rows: Shaped[Tensor, "batch *rest"]) -> int:
        """How many rows `union(rows)` has."""
        if self.distributed == "none":
            return len(rows)
        return int(self.summed(torch.tensor(len(rows), device=rows.device)))

    def summed(self, value: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
        """The sum of a tensor over ranks, without gradient."""
        value = value.detach().clone()
        if self.distributed != "none":
            torch.distributed.all_reduce(value)
        return value

    def agreed(self, draw: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
        """One random draw for all ranks: the first one's."""
        if self.distributed != "none":
            torch.distributed.broadcast(draw, 0)
        return draw

    def mean_over(self, total: Float[Tensor, ""], count: int | Int[Tensor, ""]) -> Float[Tensor, ""]:
        """total / count where ranks count differently (rows, tokens, pairs): this rank's share of the mean over all."""
        if self.distributed == "none":
            return total / (count.clamp_min(1) if isinstance(count, Tensor) else max(count, 1))
        everything = self.summed(torch.as_tensor(count, device=total.device))
        return total * self.world / everything.clamp_min(1)

    def mean(self, values: Float[Tensor, "*rows"], keep: Bool[Tensor, "*rows"] | None = None) -> Float[Tensor, ""]:
        """Mean over the rows of all ranks; rows not kept (no positive, no negative) count as zero. No rows: zero."""
        if keep is not None:
            values = torch.where(keep, values, torch.zeros_like(values))
        return self.mean_over(values.sum(), values.numel())

    def sample_ids(self, z: Float[Tensor, "batch dim"]) -> Int[Tensor, "batch"]:
        """Ids that tell the batch's samples apart, on this rank and from those of other ranks."""
        return torch.arange(len(z), device=z.device) + (self.rank << 32)
