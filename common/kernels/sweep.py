"""Walking over a problem's logits tile by tile: sizes, buffers, folded scales, masks, positives.

Scale, column scale and the change to base 2 are folded into the features' strips, so that one matrix product gives a
finished tile of logits. Tiles are a few MB at most: they stay in a core's cache between the product and the reductions.
"""

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.kernels.problem import Band, Gradients, Labels, Problem, finite_features

__all__ = [
    "LN2", "LOG2E", "Sweep", "Tile", "TilePlaces", "forced_tiles", "headroom", "tile_shape", "row_dots", "tile_size",
]  # fmt: skip

LOG2E = math.log2(math.e)
LN2 = math.log(2.0)

_forced: ContextVar[tuple[int, int] | None] = ContextVar("tile_size", default=None)


class Tile(NamedTuple):
    """Rows i0:i1 and columns j0:j1."""

    i0: int
    i1: int
    j0: int
    j1: int

    def band(self, offset: int) -> int | None:
        """Which diagonal of the tile holds column == row + offset; None when it passes by."""
        d = self.i0 + offset - self.j0
        return d if -(self.i1 - self.i0) < d < self.j1 - self.j0 else None


class TilePlaces(NamedTuple):
    """Where positives lie in a tile: rows and columns of the problem, and a diagonal of the tile or flat places."""

    row: slice | Tensor
    column: slice | Tensor
    where: int | Tensor

    def of(self, x: Float[Tensor, "r c"]) -> Float[Tensor, "found"]:
        return x.diagonal(self.where) if isinstance(self.where, int) else x.view(-1)[self.where]

    def put(self, x: Float[Tensor, "r c"], values: Tensor | float) -> None:
        if not isinstance(self.where, int):
            x.view(-1)[self.where] = values
        elif isinstance(values, float):
            x.diagonal(self.where).fill_(values)
        else:
            x.diagonal(self.where).copy_(values)


@contextlib.contextmanager
def tile_size(rows: int, columns: int) -> Iterator[None]:
    """Use tiles of this shape inside the block (results do not depend on it, only speed and memory do)."""
    token = _forced.set((rows, columns))
    try:
        yield
    finally:
        _forced.reset(token)


def forced_tiles() -> bool:
    """Whether the caller has asked for a tile size."""
    return _forced.get() is not None


def headroom(dtype: torch.dtype) -> float:
    """H in nats: exp(H) times any number of columns is finite, exp(-H) times a rounding unit is a normal number."""
    return 600.0 if dtype == torch.float64 else 60.0


def tile_shape(rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> tuple[int, int]:
    """Tile rows and columns: 512 x 1024 float32 on one CPU thread (2 MB), larger with more threads or on a GPU."""
    forced = _forced.get()
    if forced is not None:
        return min(forced[0], rows), min(forced[1], columns)
    if device.type == "cpu":
        area = 512 * 1024 * (1 if torch.get_num_threads() == 1 else 4)
    else:
        area = 4096 * 8192
    area = area * 4 // torch.finfo(dtype).bits * 8
    r = min(rows, max(1 << (area.bit_length() // 2 - 1), area // columns))
    return r, min(columns, max(1, area // r))


class Sweep:
    """One batch element of a problem as tiles of logits, in units of 1 / `base` nats.

    `folded`: logits come straight from the product. Otherwise the product gives raw scores (needed for several scales,
    for means and for a score floor) and `logits` is made from them.
    """

    def __init__(self, problem: Problem, n: int, base: float, folded: bool, buffers: int = 1):
        self.problem, self.n, self.base, self.folded = problem, n, base, folded
        _, self.scales, self.rows, self.columns, self.dim = problem.shape
        self.q, self.k, self.dtype = problem.q[n], problem.k[n], problem.dtype
        self.device = self.q.device
        self.scale = problem.scale[n] * base
        self.col_scale = None if problem.col_scale is None else problem.col_scale[n]
        self.row_bias = None if problem.row_bias is None else problem.row_bias[n] * base
        self.col_bias = None if problem.col_bias is None else problem.col_bias[n] * base
        self.positive = None if problem.positive is None else problem.positive[n]
        self.bands, self.others = _split(problem)
        self.tile_rows, self.tile_columns = tile_shape(self.rows, self.columns, self.dtype, self.device)
        area = self.tile_rows * self.tile_columns
        self._buffers = [torch.empty(area, dtype=self.dtype, device=self.device) for _ in range(buffers)]
        self._strips: dict[str, tuple[int, Tensor]] = {}
        self._known_finite: dict[str, bool] = {}

    # ---- walking ----

    def __iter__(self) -> Iterator[Tile]:
        for i0 in range(0, self.rows, self.tile_rows):
            for j0 in range(0, self.columns, self.tile_columns):
                yield Tile(i0, min(i0 + self.tile_rows, self.rows), j0, min(j0 + self.tile_columns, self.columns))

    def triangle(self) -> Iterator[Tile]:
        """Square tiles on and above the diagonal, small where their diagonal tiles would be much of the whole."""
        side = min(self.tile_rows, self.tile_columns)
        if self.rows <= 2048 and self.device.type == "cpu":
            side = min(side, 256)
        for i0 in range(0, self.rows, side):
            for j0 in range(i0, self.rows, side):
                yield Tile(i0, min(i0 + side, self.rows), j0, min(j0 + side, self.rows))

    def buffer(self, t: Tile, which: int) -> Float[Tensor, "r c"]:
        r, c = t.i1 - t.i0, t.j1 - t.j0
        return self._buffers[which][: r * c].view(r, c)

    # ---- features ----

    def row_strip(self, t: Tile) -> Float[Tensor, "r dim"]:
        """The tile's queries as they enter the product."""
        return self._strip("q", t.i0, t.i1)

    def col_strip(self, t: Tile) -> Float[Tensor, "c dim"]:
        return self._strip("k", t.j0, t.j1)

    def _strip(self, side: str, start: int, stop: int) -> Tensor:
        cached = self._strips.get(side)
        if cached is not None and cached[0] == start:
            return cached[1]
        features = self.q if side == "q" else self.k
        strip = features[start:stop].to(self.dtype)
        if self.folded and side == "q":
            strip = strip * self.scale[0, start:stop, None]
        elif self.folded and self.col_scale is not None:
            strip = strip * self.col_scale[start:stop, None]
        self._strips[side] = (start, strip)
        return strip

    def weighed(self, side: str, start: int, stop: int) -> Tensor:
        """A strip for products with weights: pairs left out have weight 0, whatever stands in their features."""
        strip = self._strip(side, start, stop)
        return finite_features(strip) if self.problem.masked and not self._finite(side) else strip

    def _finite(self, side: str) -> bool:
        if side not in self._known_finite:
            self._known_finite[side] = bool((self.q if side == "q" else self.k).isfinite().all())
        return self._known_finite[side]

    # ---- logits ----

    def product(self, t: Tile, which: int = 0, keep: list[Tensor] | None = None) -> Float[Tensor, "r c"]:
        """The tile's product; in memory of its own, listed in `keep`, where that is given."""
        if keep is None:
            return torch.mm(self.row_strip(t), self.col_strip(t).t(), out=self.buffer(t, which))
        keep.append(torch.mm(self.row_strip(t), self.col_strip(t).t()))
        return keep[-1]

    def logits(self, t: Tile, s: int, product: Tensor, which: int = 0) -> Float[Tensor, "r c"]:
        """Logits of scale s, before masks; in place when folded, else in buffer `which`."""
        x = product
        if not self.folded:
            x = torch.mul(product, self.scale[s, t.i0 : t.i1, None], out=self.buffer(t, which))
            if self.col_scale is not None:
                x.mul_(self.col_scale[None, t.j0 : t.j1])
        if self.row_bias is not None:
            x.add_(self.row_bias[s, t.i0 : t.i1, None])
        if self.col_bias is not None:
            x.add_(self.col_bias[s, None, t.j0 : t.j1])
        return x

    def exponentials(self, t: Tile, x: Tensor, drop: Tensor | None, shift: float) -> Float[Tensor, "r c"]:
        """exp(logit - shift) from base-2 logits, in place; 0 where the pair is left out."""
        if shift:
            x.sub_(shift * LOG2E)
        return self.fill(t, x.exp2_(), drop, 0.0)

    def add_bias_gradients(self, t: Tile, s: int, dlogit: Float[Tensor, "r c"], out: Gradients) -> None:
        if out.row_bias is not None:
            out.row_bias[self.n, s, t.i0 : t.i1] += dlogit.sum(1)
        if out.col_bias is not None:
            out.col_bias[self.n, s, t.j0 : t.j1] += dlogit.sum(0)

    # ---- positives ----

    def positives(self, t: Tile, transposed: bool = False) -> TilePlaces | None:
        """The positives in the tile; None if there is none.

        `transposed`: the tile read as columns x rows, for self-similarities.
        """
        if self.positive is None:
            return None
        width = t.j1 - t.j0
        i0, i1, j0, j1 = (t.j0, t.j1, t.i0, t.i1) if transposed else t
        if self.problem.diagonal is not None:
            d = Tile(i0, i1, j0, j1).band(self.problem.diagonal)
            if d is None:
                return None
            first, length = i0 + max(0, -d), min(i1 - i0 - max(0, -d), j1 - j0 - max(0, d))
            start = first + self.problem.diagonal
            return TilePlaces(slice(first, first + length), slice(start, start + length), -d if transposed else d)
        column = self.positive[i0:i1] - j0
        row = ((column >= 0) & (column < j1 - j0)).nonzero()[:, 0]
        if row.numel() == 0:
            return None
        column = column[row]
        return TilePlaces(row + i0, column + j0, (column * width + row) if transposed else (row * width + column))

    # ---- masks ----

    def mask(self, t: Tile, raw: Tensor | None) -> Tensor | None:
        """The pairs left out of the tile, apart from single diagonals, which `fill` treats by their stride."""
        return self.others.dropped(self.n, *t, raw) if self.others.masked else None

    def kept(self, t: Tile, drop: Tensor | None) -> Tensor | None:
        """The pairs kept in the tile; None when all are."""
        crossing = [d for band in self.bands if (d := t.band(band.offset)) is not None]
        if drop is None and not crossing:
            return None
        keep = torch.ones(t.i1 - t.i0, t.j1 - t.j0, dtype=torch.bool, device=self.device) if drop is None else ~drop
        for d in crossing:
            keep.diagonal(d).fill_(False)
        return keep

    def fill(self, t: Tile, x: Tensor, drop: Tensor | None, value: float) -> Tensor:
        if drop is not None:
            x.masked_fill_(drop, value)
        for band in self.bands:
            d = t.band(band.offset)
            if d is not None:
                x.diagonal(d).fill_(value)
        return x


def row_dots(
    a: Float[Tensor, "rows dim"], b: Float[Tensor, "rows dim"], dtype: torch.dtype | None = None
) -> Float[Tensor, "rows"]:
    """a_i . b_i by strips that stay in the cache, so that no further rows x dim array appears."""
    dtype = dtype or b.dtype
    if len(a) <= 512:
        return (a.to(dtype) * b.to(dtype)).sum(-1)
    return torch.cat([(x.to(dtype) * y.to(dtype)).sum(-1) for x, y in zip(a.split(512), b.split(512))])


def _split(problem: Problem) -> tuple[list[Band], Problem]:
    """Excluded diagonals, and the problem with the other masks (labels narrowed to int32 where their values allow)."""
    if not problem.masked:
        return [], problem
    bands = [p for p in problem.exclude if isinstance(p, Band)] if not problem.only else []
    rest = tuple(_narrow(p) for p in problem.exclude if not bands or not isinstance(p, Band))
    return bands, replace(problem, exclude=rest, only=tuple(_narrow(p) for p in problem.only))


def _narrow(primitive: object) -> object:
    if not isinstance(primitive, Labels) or primitive.row.device.type != "cpu":
        return primitive
    info = torch.iinfo(torch.int32)
    for ids in (primitive.row, primitive.col):
        if ids.numel() and (int(ids.min()) < info.min or int(ids.max()) > info.max):
            return primitive
    return Labels(primitive.row.int(), primitive.col.int())
