"""Batch normalisation over the batch of all ranks, so that a training on several equals one on a single process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import batch_norm

__all__ = ["SharedBatchNorm", "shared_batch_norm"]


class _Sum(torch.autograd.Function):
    """The sum of a tensor over ranks; what comes back is the derivative of the sum of all ranks' losses."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        value = value.clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient.contiguous())


class SharedBatchNorm(nn.SyncBatchNorm):
    """What a `BatchNorm1d`, `2d` or `3d` becomes inside `shared_batch_norm`: mean and variance are those of all ranks'
    rows, also where ranks hold different numbers of them or none.

    On GPUs this is PyTorch's own `SyncBatchNorm`, which knows no CPU tensors.
    """

    process_group = None

    def forward(self, x: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch channels *space"]:
        if x.is_cuda:
            return super().forward(x)
        if not self.training and self.running_mean is not None:
            return batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        others = [d for d in range(x.ndim) if d != 1]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        count = torch.tensor(x.numel() // max(x.shape[1], 1), device=x.device)
        dist.all_reduce(count)
        if int(count) < 2:
            raise ValueError(f"batch normalisation needs two values per channel over all ranks, got {int(count)}")
        mean = _Sum.apply(wide.sum(others)) / count
        centred = wide - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(others)) / count
        self._follow(mean.detach(), variance.detach() * count / (count - 1))
        z = centred * (variance + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            z = z * self.weight.view(shape) + self.bias.view(shape)
        return z.to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        if not self.training or not self.track_running_stats:
            return
        self.num_batches_tracked.add_(1)
        pace = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), pace)
        self.running_var.lerp_(variance.to(self.running_var), pace)


@contextlib.contextmanager
def shared_batch_norm(module: nn.Module) -> Iterator[None]:
    """Within, every batch normalisation of `module` normalises over the batch of all ranks of the process group.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    >>> with shared_batch_norm(net):
    ...     type(net[1]).__name__
    'SharedBatchNorm'
    >>> type(net[1]).__name__
    'BatchNorm1d'
    """
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    found = [(part, type(part)) for part in module.modules() if type(part) in kinds]
    for part, _ in found:
        part.__class__ = SharedBatchNorm
    try:
        yield
    finally:
        for part, kind in found:
            part.__class__ = kind
