"""Contrasts across machines: rows stay where they are, columns are the union of every rank's keys in rank order.

Two ways for a row to meet keys of other ranks, the same numbers:

- `ring`: key blocks travel round the ranks with all that belongs to a column (ids, biases, scale, validity). While a
  rank works on one block the next one is already on its way. A block's column statistics, and in the backward pass
  its gradients, are added up hop by hop and come home after a full turn. Memory: two key blocks.
- `gather`: every rank holds all keys at once; partial column statistics and key gradients return to their owners.
  Memory: all keys. Fewer, larger messages.

Row statistics of different blocks merge exactly: with (shift, sum) pairs, shift = max, sum = sum_b sum_b exp(shift_b -
shift). Nothing of size rows x columns exists on any rank, and nothing of size rows x dim is ever sent.

Convention. Every rank's loss is the mean over its own rows (ranks of unequal size: the sum over them, times ranks, over
all rows). The backward pass here returns to a rank the gradient of
the SUM of all ranks' losses with respect to that rank's features and biases; parameters that all ranks share (the
scale) receive the share of the local rows. Averaging gradients over ranks, as DistributedDataParallel does, then gives
exactly the single-process gradient of the mean over all rows.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from counterpoint.common.kernels.problem import (
    Band,
    Columns,
    Gradients,
    Labels,
    Primitive,
    Problem,
    RawStats,
    Upstream,
)
from counterpoint.common.kernels.ranks import Ranks, checked_mode

__all__ = ["BySize", "Gather", "Ring", "distributed_backend", "union_parts"]


def distributed_backend(mode: str, process_group: Any, local: Any) -> "Ring | Gather | BySize":
    """A backend over the ranks of `process_group` (None: the default group), whose blocks `local` works out."""
    backends = {"ring": Ring, "gather": Gather, "auto": BySize}
    return backends[checked_mode(mode)](local, process_group)


def _key_bytes(problem: Problem) -> int:
    batch, _, _, _, dim = problem.shape
    return batch * dim * problem.k.element_size()


# ---- what travels with a block of keys ------------------------------------------------------------------------------


def _labels(problem: Problem) -> list[Labels]:
    return [rule for rule in (*problem.exclude, *problem.only) if isinstance(rule, Labels)]


def luggage(problem: Problem) -> list[Tensor]:
    """All tensors indexed by column, columns first."""
    optional = (problem.col_scale, problem.col_bias, problem.valid_cols, *(rule.col for rule in _labels(problem)))
    return [_features_first(problem.k), *_columns_first(optional)]


def _features_first(k: Tensor) -> Tensor:
    return k.transpose(0, 1)  # its own inverse


def _columns_first(vectors: Iterable[Tensor | None]) -> list[Tensor]:
    return [t.movedim(-1, 0) for t in vectors if t is not None]


def _columns_last(bag: Iterable[Tensor]) -> list[Tensor]:
    return [t.movedim(0, -1) for t in bag]


def _unpack(problem: Problem, bags: list[Tensor]) -> tuple[dict[str, Tensor | None], Iterator[Tensor]]:
    """Fields of a problem from a luggage, and the label columns that remain."""
    k, *vectors = bags
    bag = iter(_columns_last(vectors))
    names = ("col_scale", "col_bias", "valid_cols")
    optional = {name: None if getattr(problem, name) is None else next(bag) for name in names}
    return {"k": _features_first(k), **optional}, bag


def against(problem: Problem, bags: list[Tensor], ranks: Ranks, owner: int) -> Problem:
    """The local rows against the keys of `owner`, unpacked from its luggage."""
    fields, labels = _unpack(problem, bags)
    start, width, own = ranks.start(owner), ranks.sizes[owner], owner == ranks.rank

    def there(rule: Primitive) -> Primitive:
        if isinstance(rule, Labels):
            return Labels(rule.row, next(labels))
        if not isinstance(rule, Band):
            return rule.columns_from(start, start + width)
        if rule.scope == "global":  # a rank's rows and keys count from the same position
            return replace(rule, offset=rule.offset + ranks.start(ranks.rank) - start)
        return rule if own else replace(rule, offset=width)  # names nothing: every column is < width

    exclude = tuple(there(rule) for rule in problem.exclude)
    only = tuple(there(rule) for rule in problem.only)
    positive, diagonal = problem.positive, problem.diagonal
    if diagonal is not None and not own:
        positive, diagonal = torch.full_like(positive, -1), None
    elif positive is not None and diagonal is None:
        positive = torch.where((positive >= start) & (positive < start + width), positive - start, -1)
    changed = {"positive": positive, "diagonal": diagonal, "exclude": exclude, "only": only, "same": False}
    return replace(problem, **fields, **changed)


def united(problem: Problem, bags: list[Tensor], ranks: Ranks) -> Problem:
    """The local rows against everybody's keys."""
    fields, labels = _unpack(problem, bags)
    start, width, rows = ranks.start(ranks.rank), ranks.sizes[ranks.rank], problem.shape[2]

    def there(rule: Primitive) -> Primitive:
        if isinstance(rule, Labels):
            return Labels(rule.row, next(labels))
        if isinstance(rule, Band) and rule.scope == "global":
            return replace(rule, offset=rule.offset + start)
        if isinstance(rule, Band):
            if 0 <= rule.offset <= width - rows:
                return replace(rule, offset=rule.offset + start)
            column = torch.arange(rows, device=problem.q.device) + rule.offset
            return Columns(torch.where((column >= 0) & (column < width), column + start, -1)[None, :, None])
        return rule

    exclude = tuple(there(rule) for rule in problem.exclude)
    only = tuple(there(rule) for rule in problem.only)
    positive, diagonal = problem.positive, problem.diagonal
    if diagonal is not None:
        positive = torch.where(positive >= 0, positive + start, -1)
        diagonal = diagonal + start if 0 <= diagonal <= width - rows else None
    changed = {"positive": positive, "diagonal": diagonal, "exclude": exclude, "only": only, "same": False}
    return replace(problem, **fields, **changed)


# ---- exact merging --------------------------------------------------------------------------------------------------

Part = tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor]  # shift, sum, mean, rest, count


def merged(a: Part, b: Part) -> Part:
    """Statistics over the union of two disjoint sets of entries."""
    shift = torch.maximum(torch.where(a[1] > 0, a[0], b[0]), torch.where(b[1] > 0, b[0], a[0]))
    left, right = (torch.where(s > 0, s * torch.exp(at - shift), 0.0) for at, s, *_ in (a, b))
    total, mean, rest = left + right, None, None
    if a[3] is not None:
        rest = sum(torch.where(part[1] > 0, part[3] * torch.exp(part[0] - shift), 0.0) for part in (a, b))
    if a[2] is not None:
        mean = torch.where(total > 0, (left * a[2] + right * b[2]) / total, 0.0)
    return shift, total, mean, rest, a[4] + b[4]


def _rows(stats: RawStats) -> Part:
    return stats.shift, stats.sum, stats.mean, stats.rest, stats.count


def _columns(stats: RawStats) -> Part:
    rest = stats.col_rest
    if rest is None and stats.rest is not None:  # no positive lies on a diagonal of this block
        rest = stats.col_sum
    return stats.col_shift, stats.col_sum, stats.col_mean, rest, stats.col_count


def _unpacked(problem: Problem, bag: list[Tensor]) -> Part:
    shift, total, *optional, count = _columns_last(bag)
    given = iter(optional)
    mean = next(given) if problem.mean else None
    return shift, total, mean, next(given, None), count


def _column_side(problem: Problem, saved: RawStats, upstream: Upstream) -> list[Tensor]:
    """What a column tells the rows of other ranks in the backward pass. Always sent: ranks must agree on messages."""
    if not problem.columns:
        return []
    mean = [saved.col_mean, _or_zero(upstream.col_mean, saved.col_sum)] if problem.mean else []
    rest = [] if saved.col_rest is None else [saved.col_rest]
    return _columns_first([saved.col_shift, saved.col_sum, _or_zero(upstream.col_lse, saved.col_sum), *mean, *rest])


def _or_zero(t: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if t is None else t


def _with_columns(
    problem: Problem, saved: RawStats, upstream: Upstream, side: list[Tensor]
) -> tuple[RawStats, Upstream]:
    """The local rows' statistics and derivatives beside those of a block of columns."""
    if not problem.columns:
        return saved, upstream
    shift, total, lse, *optional = _columns_last(side)
    given = iter(optional)
    mean, mean_grad = (next(given), next(given)) if problem.mean else (None, None)
    saved = replace(saved, col_shift=shift, col_sum=total, col_mean=mean, col_rest=next(given, None), col_count=None)
    return saved, replace(upstream, col_lse=lse, col_mean=mean_grad)


def _column_gradients(grads: Gradients, needs_k: bool) -> list[Tensor]:
    # What nobody asked for stays here, even where a backend has it: ranks must agree on messages.
    features = [_features_first(grads.k)] if needs_k else []
    return features + _columns_first((grads.col_scale, grads.col_bias))


def _add_rows(total: Gradients | None, part: Gradients) -> Gradients:
    """Gradients of the row side, summed over blocks."""
    if total is None:
        return replace(part, k=None, col_scale=None, col_bias=None)
    for name in ("q", "scale", "row_bias"):
        if getattr(total, name) is not None:
            setattr(total, name, getattr(total, name) + getattr(part, name))
    return total


def _with_column_gradients(total: Gradients, problem: Problem, needs_k: bool, bag: list[Tensor]) -> Gradients:
    items = iter(bag)
    total.k = _features_first(next(items)) if needs_k else None
    total.col_scale = None if problem.col_scale is None else next(items).movedim(0, -1)
    total.col_bias = None if problem.col_bias is None else next(items).movedim(0, -1)
    return total


def _add_positive(total: RawStats | None, part: RawStats) -> Tensor | None:
    return part.positive if total is None or part.positive is None else total.positive + part.positive


def _latest_own(total: RawStats | None, part: RawStats) -> Tensor | None:
    return part.own if total is None or part.own is None else torch.maximum(total.own, part.own)


def union_parts(problem: Problem, ranks: Ranks, mode: str) -> Iterator[tuple[int, Problem]]:
    """(first column, local rows against these columns): the union in one piece ("gather") or rank by rank ("ring")."""
    bags = luggage(problem)
    if ranks.way(checked_mode(mode), _key_bytes(problem)) == "gather":
        yield 0, united(problem, ranks.gather(bags), ranks)
        return
    for _, owner, bag in Ring._turn(ranks, bags):
        yield ranks.start(owner), against(problem, bag, ranks, owner)


# ---- the backends --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ring:
    """Key blocks travel; `local` works out each block."""

    local: Any
    process_group: Any = None
    ranks: Ranks | None = None  # where they have met already

    def forward(self, problem: Problem) -> RawStats:
        ranks = self.ranks or Ranks.meet(self.process_group, problem)
        total = columns = None
        for hop, owner, bags in self._turn(ranks, luggage(problem)):
            stats = self.local.forward(against(problem, bags, ranks, owner))
            positive = _add_positive(total, stats)
            row = _rows(stats) if total is None else merged(_rows(total), _rows(stats))
            own = _latest_own(total, stats)
            total = RawStats(row[0], row[1], row[4], positive, row[2], own=own, rest=row[3])
            if problem.columns:
                mine = _columns(stats)
                if hop > 0:
                    mine = merged(_unpacked(problem, columns.wait()), mine)
                columns = ranks.pass_on(_columns_first(mine), ranks.owner(hop + 1))
        if problem.columns:
            self._store(total, _unpacked(problem, columns.wait()))
        return total

    def backward(self, problem: Problem, saved: RawStats, upstream: Upstream) -> Gradients:
        ranks = self.ranks or Ranks.meet(self.process_group, problem)
        side = _column_side(problem, saved, upstream)
        return self._backward(
            problem, upstream.needs_k, side, ranks,
            lambda block, bag: self.local.backward(block, *_with_columns(problem, saved, upstream, bag)),
        )  # fmt: skip

    def pair_sum_forward(self, problem: Problem, fn: str) -> Tensor:
        ranks = self.ranks or Ranks.meet(self.process_group, problem)
        parts = self._turn(ranks, luggage(problem))
        return sum(self.local.pair_sum_forward(against(problem, bags, ranks, owner), fn) for _, owner, bags in parts)

    def pair_sum_backward(self, problem: Problem, fn: str, upstream: Tensor) -> Gradients:
        ranks = self.ranks or Ranks.meet(self.process_group, problem)
        return self._backward(
            problem, True, [], ranks, lambda block, bag: self.local.pair_sum_backward(block, fn, upstream)
        )

    def _backward(self, problem: Problem, needs_k: bool, side: list[Tensor], ranks: Ranks, block: Any) -> Gradients:
        """One turn: key blocks and what their columns say travel ahead, their gradients follow one hop behind."""
        bags = luggage(problem)
        total = coming = None
        returns = needs_k or problem.col_scale is not None or problem.col_bias is not None
        for hop, owner, bag in self._turn(ranks, bags + side):
            part = block(against(problem, bag[: len(bags)], ranks, owner), bag[len(bags) :])
            total = _add_rows(total, part)
            if returns:
                mine = _column_gradients(part, needs_k)
                if hop > 0:
                    mine = [a + b for a, b in zip(coming.wait(), mine, strict=True)]
                coming = ranks.pass_on(mine, ranks.owner(hop + 1))
        return _with_column_gradients(total, problem, needs_k, coming.wait() if returns else [])

    @staticmethod
    def _store(stats: RawStats, columns: Part) -> None:
        stats.col_shift, stats.col_sum, stats.col_mean, stats.col_rest, stats.col_count = columns

    @staticmethod
    def _turn(ranks: Ranks, bags: list[Tensor]) -> Iterator[tuple[int, int, list[Tensor]]]:
        """(hop, owner, luggage) of every block, starting with the own one; the next is under way meanwhile."""
        for hop in range(ranks.world):
            coming = ranks.pass_on(bags, ranks.owner(hop + 1)) if hop + 1 < ranks.world else None
            yield hop, ranks.owner(hop), bags
            if coming is not None:
                bags = coming.wait()


@dataclass(frozen=True)
class Gather:
    """All keys on every rank; `local` works out the whole width."""

    local: Any
    process_group: Any = None
    ranks: Ranks | None = None  # where they have met already

    def forward(self, problem: Problem) -> RawStats:
        ranks = self.ranks or Ranks.meet(self.process_group, problem)
        stats = self.local.forward(united(problem, ranks.gather(luggage(problem)), ranks))
        if problem.columns:
            first, *others = ranks.to_owners(_columns_first(_columns(stats)))
            part = _unpacked(problem, first)
            for other in others:
                part = merged(part, _unpacked(problem, other))
            Ring._store(stats, part)
        return stats

    def backward(self, problem: Problem, saved: RawStats, upstream: Upstream) -> Gradients:
        ranks = self.ranks or Ranks.meet(self.process_group, problem)
        side = ranks.gather(_column_side(problem, saved, upstream))
        whole = united(problem, ranks.gather(luggage(problem)), ranks)
        grads = self.local.backward(whole, *_with_columns(problem, saved, upstream, side))
        return self._return(problem, grads, upstream.needs_k, ranks)

    def pair_sum_forward(self, problem: Problem, fn: str) -> Tensor:
        ranks = self.ranks or Ranks.meet(self.process_group, problem)
        return self.local.pair_sum_forward(united(problem, ranks.gather(luggage(problem)), ranks), fn)

    def pair_sum_backward(self, problem: Problem, fn: str, upstream: Tensor) -> Gradients:
        ranks = self.ranks or Ranks.meet(self.process_group, problem)
        whole = united(problem, ranks.gather(luggage(problem)), ranks)
        return self._return(problem, self.local.pair_sum_backward(whole, fn, upstream), True, ranks)

    @staticmethod
    def _return(problem: Problem, grads: Gradients, needs_k: bool, ranks: Ranks) -> Gradients:
        parts = ranks.to_owners(_column_gradients(grads, needs_k))
        bag = [sum(items[1:], items[0]) for items in zip(*parts, strict=True)]
        return _with_column_gradients(_add_rows(None, grads), problem, needs_k, bag)


@dataclass(frozen=True)
class BySize:
    """Gather while all keys are small enough to be held by every rank, else ring."""

    local: Any
    process_group: Any = None

    def forward(self, problem: Problem) -> RawStats:
        return self._fitting(problem).forward(problem)

    def backward(self, problem: Problem, saved: RawStats, upstream: Upstream) -> Gradients:
        return self._fitting(problem).backward(problem, saved, upstream)

    def pair_sum_forward(self, problem: Problem, fn: str) -> Tensor:
        return self._fitting(problem).pair_sum_forward(problem, fn)

    def pair_sum_backward(self, problem: Problem, fn: str, upstream: Tensor) -> Gradients:
        return self._fitting(problem).pair_sum_backward(problem, fn, upstream)

    def _fitting(self, problem: Problem) -> Ring | Gather:
        ranks = Ranks.meet(self.process_group, problem)
        kind = Gather if ranks.way("auto", _key_bytes(problem)) == "gather" else Ring
        return kind(self.local, self.process_group, ranks)
