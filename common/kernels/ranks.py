"""The ranks of a process group as a ring: who owns which columns, and messages of unequal sizes between neighbours.

Every message is a list of tensors whose first axis counts columns. Shapes are known to both sides beforehand, so a
message is its bytes and nothing else.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from counterpoint.common.kernels.problem import Labels, Problem

__all__ = ["GATHERED_BYTES", "MODES", "Ranks", "checked_mode", "dtype_number"]

MODES = ("gather", "ring", "auto")
GATHERED_BYTES = 256 * 2**20
"""Up to here "auto" gathers the keys of all ranks; more travel round the ring."""


def checked_mode(mode: str) -> str:
    """The mode, if it is one."""
    if mode not in MODES:
        raise ValueError(f"distributed must be 'none', {', '.join(map(repr, MODES[:-1]))} or 'auto', got {mode!r}")
    return mode


@dataclass(frozen=True)
class Coming:
    """Tensors on their way."""

    tensors: list[Tensor]
    requests: list[Any]
    sent: list[Tensor]  # kept until they have left

    def wait(self) -> list[Tensor]:
        for request in self.requests:
            request.wait()
        return self.tensors


@dataclass(frozen=True)
class Ranks:
    """This rank's place among the others, and the number of columns of each."""

    group: Any
    rank: int
    world: int
    sizes: tuple[int, ...]

    @classmethod
    def meet(cls, group: Any, problem: Problem) -> "Ranks":
        """Exchange the numbers of columns of a problem whose form all ranks must share."""
        return cls.agree(group, problem.shape[3], problem.q.device, _form(problem))

    @classmethod
    def agree(cls, group: Any, columns: int, device: torch.device, form: dict[str, int]) -> "Ranks":
        """Exchange sizes; ranks that disagree about a number in `form` all say so, instead of waiting for ever."""
        if not (dist.is_available() and dist.is_initialized()):
            raise ValueError("distributed contrasts need torch.distributed.init_process_group to have been called")
        mine = torch.tensor([columns, *form.values()], device=device)
        world = dist.get_world_size(group)
        everyone = [torch.empty_like(mine) for _ in range(world)]
        dist.all_gather(everyone, mine, group=group)
        table = torch.stack(everyone).tolist()
        for place, name in enumerate(form, start=1):
            values = [row[place] for row in table]
            if len(set(values)) > 1:
                raise ValueError(f"all ranks must agree about {name}, got {values} in rank order")
        return cls(group, dist.get_rank(group), world, tuple(row[0] for row in table))

    def start(self, owner: int) -> int:
        """Position of a rank's first column in the union."""
        return sum(self.sizes[:owner])

    @property
    def own_start(self) -> int:
        """Position of this rank's first column in the union."""
        return self.start(self.rank)

    @property
    def total(self) -> int:
        """Number of columns of the union."""
        return sum(self.sizes)

    def owner(self, hop: int) -> int:
        """Whose block this rank holds after `hop` hops."""
        return (self.rank - hop) % self.world

    def way(self, mode: str, key_bytes: int) -> str:
        """"gather" or "ring" for keys of so many bytes each; every rank decides alike."""
        if mode != "auto":
            return mode
        return "gather" if self.total * key_bytes <= GATHERED_BYTES else "ring"

    def pass_on(self, tensors: list[Tensor], coming_from: int) -> Coming:
        """Send a block to the next rank; receive the block of rank `coming_from` from the previous one."""
        if self.world == 1:
            return Coming(tensors, [], [])
        return self._exchange(
            [(t, (self.rank + 1) % self.world) for t in tensors],
            [(self._like(t, self.sizes[coming_from]), (self.rank - 1) % self.world) for t in tensors],
        )

    def pass_back(self, tensors: list[Tensor], belonging_to: int) -> Coming:
        """Return tensors to the previous rank; receive from the next one those about `belonging_to`'s block."""
        if self.world == 1:
            return Coming(tensors, [], [])
        return self._exchange(
            [(t, (self.rank - 1) % self.world) for t in tensors],
            [(self._like(t, self.sizes[belonging_to]), (self.rank + 1) % self.world) for t in tensors],
        )

    def gather(self, tensors: list[Tensor]) -> list[Tensor]:
        """Every rank's tensors, joined along columns in rank order."""
        others = [r for r in range(self.world) if r != self.rank]
        coming = self._exchange(
            [(t, r) for r in others for t in tensors],
            [(self._like(t, self.sizes[r]), r) for r in others for t in tensors],
        )
        received = iter(coming.wait())
        blocks = {r: [next(received) for _ in tensors] for r in others} | {self.rank: tensors}
        return [torch.cat([blocks[r][place] for r in range(self.world)]) for place in range(len(tensors))]

    def to_owners(self, tensors: list[Tensor]) -> list[list[Tensor]]:
        """Cut tensors over all columns into the ranks' own; returns this rank's cut as each rank computed it."""
        cuts = [t.split(self.sizes) for t in tensors]
        others = [r for r in range(self.world) if r != self.rank]
        coming = self._exchange(
            [(cut[r], r) for r in others for cut in cuts],
            [(self._like(t, self.sizes[self.rank]), r) for r in others for t in tensors],
        )
        received = iter(coming.wait())
        blocks = {r: [next(received) for _ in cuts] for r in others} | {self.rank: [cut[self.rank] for cut in cuts]}
        return [blocks[r] for r in range(self.world)]

    @staticmethod
    def _like(t: Tensor, columns: int) -> Tensor:
        return t.new_empty(columns, *t.shape[1:])

    def _exchange(self, outgoing: list[tuple[Tensor, int]], incoming: list[tuple[Tensor, int]]) -> Coming:
        sent = [_flat(t) for t, _ in outgoing]

        def op(kind: Any, t: Tensor, r: int) -> dist.P2POp:
            # Bytes: not every backend sends every dtype.
            return dist.P2POp(kind, t.view(-1).view(torch.uint8), self._global(r), self.group)

        ops = [op(dist.isend, t, r) for t, (_, r) in zip(sent, outgoing, strict=True) if t.numel()]
        ops += [op(dist.irecv, t, r) for t, r in incoming if t.numel()]
        return Coming([t for t, _ in incoming], dist.batch_isend_irecv(ops) if ops else [], sent)

    def _global(self, r: int) -> int:
        return r if self.group is None else dist.get_global_rank(self.group, r)


def _flat(t: Tensor) -> Tensor:
    """All numbers in a row, one after the other in memory: a single one may keep any stride and be contiguous."""
    flat = t.reshape(-1).contiguous()
    return flat if not flat.numel() or flat.stride(0) == 1 else flat.clone(memory_format=torch.contiguous_format)


def _form(problem: Problem) -> dict[str, int]:
    """What all ranks must share for their messages to match."""
    batch, scales, _, _, dim = problem.shape
    rules = (*problem.exclude, *problem.only)
    return {
        "the leading dimensions": batch,
        "the number of scales": scales,
        "the feature dimension": dim,
        "the dtype of k": dtype_number(problem.k.dtype),
        "columns=": problem.columns,
        "mean=": problem.mean,
        "whether positive is given": problem.positive is not None,
        "whether col_scale is given": problem.col_scale is not None,
        "whether col_bias is given": problem.col_bias is not None,
        "whether valid_cols is given": problem.valid_cols is not None,
        "the number of SameLabel masks": sum(isinstance(rule, Labels) for rule in rules),
    }


def dtype_number(dtype: torch.dtype) -> int:
    """A dtype as a number that ranks can compare."""
    return _DTYPES.index(dtype) if dtype in _DTYPES else -1


_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
