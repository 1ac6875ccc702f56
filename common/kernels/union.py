"""Rows of all ranks as one tensor, with gradients: what an objective needs that the engine's statistics do not give.

The gradient follows the engine's convention: what comes back to a rank is the derivative of the SUM of all ranks'
losses with respect to its own rows. Where every rank computes the same loss from gathered rows, or each the mean over
its own, averaging over ranks as DistributedDataParallel does gives exactly the single-process gradient.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from counterpoint.common.kernels.ranks import Ranks, dtype_number

__all__ = ["blocks", "gather_rows", "meet", "own_rows"]


def meet(rows: Tensor, process_group: Any = None) -> Ranks:
    """The ranks of a group, each with its number of rows of a tensor [rows, ...]."""
    form = {
        "the number of dimensions": rows.dim(),
        "the numbers per row": rows[:1].numel() if len(rows) else int(torch.tensor(rows.shape[1:]).prod()),
        "the dtype": dtype_number(rows.dtype),
    }
    return Ranks.agree(process_group, len(rows), rows.device, form)


@torch.compiler.disable
def gather_rows(rows: Tensor, process_group: Any = None) -> Tensor:
    """The rows of all ranks in rank order (as many on each as it has); their gradient returns summed over ranks.

    >>> import torch.distributed as dist, tempfile
    >>> store = f"file://{tempfile.mkdtemp()}/store"
    >>> dist.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    >>> gather_rows(torch.tensor([[1.0], [2.0]])).tolist()
    [[1.0], [2.0]]
    >>> dist.destroy_process_group()
    """
    return _Gather.apply(meet(rows, process_group), rows)


@torch.compiler.disable
def own_rows(rows: Tensor, process_group: Any = None) -> slice:
    """Where this rank's rows lie in the union."""
    ranks = meet(rows, process_group)
    return slice(ranks.own_start, ranks.own_start + len(rows))


def blocks(ranks: Ranks, k: Tensor, luggage: list[Tensor], mode: str) -> Iterator[tuple[int, Tensor, list[Tensor]]]:
    """(first column, keys, what belongs to them) of the union: in one piece ("gather") or rank by rank ("ring").

    Gradients of the keys return to their owners. The luggage, whose first axis counts columns as well, has none.
    """
    luggage = [t.detach() for t in luggage]
    if mode == "gather":
        yield 0, _Gather.apply(ranks, k), ranks.gather(luggage)
        return
    for hop in range(ranks.world):
        owner, then = ranks.owner(hop), ranks.owner(hop + 1)
        yield ranks.start(owner), k, luggage
        if hop + 1 < ranks.world:
            coming = ranks.pass_on(luggage, then)
            k, luggage = _Shift.apply(ranks, owner, then, k), coming.wait()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ranks: Ranks, rows: Tensor) -> Tensor:
        ctx.ranks = ranks
        return ranks.gather([rows.detach()])[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, _Return.apply(ctx.ranks, grad)


class _Return(torch.autograd.Function):
    """Every rank's tensor over all rows, cut into the ranks' own and summed there: the transpose of `_Gather`."""

    @staticmethod
    def forward(ctx: Any, ranks: Ranks, grad: Tensor) -> Tensor:
        ctx.ranks = ranks
        first, *others = (part[0] for part in ranks.to_owners([grad.detach().contiguous()]))
        return sum(others, first)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, _Gather.apply(ctx.ranks, grad)


class _Shift(torch.autograd.Function):
    """The block of the previous rank in exchange for one's own; gradients travel back the same way."""

    @staticmethod
    def forward(ctx: Any, ranks: Ranks, here: int, then: int, k: Tensor) -> Tensor:
        ctx.place = ranks, here, then
        return ranks.pass_on([k.detach()], then).wait()[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None, Tensor]:
        ranks, here, _ = ctx.place
        return None, None, None, ranks.pass_back([grad.detach().contiguous()], here).wait()[0]
