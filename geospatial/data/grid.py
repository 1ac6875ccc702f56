"""Where pixels lie: a grid of square, upright pixels, windows of it, and the distance between two places on Earth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from counterpoint.common.errors import InputError

ALIGNED = 0.01
"""Share of a pixel by which two grids may lie beside one another and still count as one: rounding of their files."""
EARTH = 6371.0088
"""Mean radius in kilometres."""


class Window(NamedTuple):
    """A rectangle of pixels of a grid."""

    row: int
    col: int
    height: int
    width: int


@dataclass(frozen=True)
class Grid:
    """Square upright pixels: pixel (row, col) reaches from x = left + col * side to the right, from y = top - row *
    side downwards, in the units of `crs`.

    >>> grid = Grid("EPSG:32633", 500000.0, 5000000.0, 10.0, 100, 200)
    >>> grid.bounds
    (500000.0, 4999000.0, 502000.0, 5000000.0)
    """

    crs: str
    left: float
    top: float
    side: float
    height: int
    width: int

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top)."""
        return self.left, self.top - self.height * self.side, self.left + self.width * self.side, self.top

    def part(self, window: Window) -> Grid:
        """The grid of a window."""
        return Grid(
            self.crs, self.left + window.col * self.side, self.top - window.row * self.side, self.side,
            window.height, window.width,
        )  # fmt: skip

    @property
    def transform(self) -> tuple[float, float, float, float, float, float]:
        """The affine transform as rasterio orders it: x = a col + b row + c, y = d col + e row + f."""
        return self.side, 0.0, self.left, 0.0, -self.side, self.top

    def beside(self, other: Grid) -> float:
        """How far this grid's pixel corners lie from the nearest of `other`'s, as a share of the smaller pixel; the
        greater of both directions.

        >>> a = Grid("EPSG:32633", 0.0, 0.0, 10.0, 4, 4)
        >>> a.beside(Grid("EPSG:32633", 25.0, -20.0, 10.0, 4, 4))
        0.5
        """
        step = min(self.side, other.side)
        away = [(a - b) / step for a, b in ((self.left, other.left), (self.top, other.top))]
        return max(abs(x - round(x)) for x in away)

    def window_of(self, bounds: Sequence[float]) -> Window:
        """The whole pixels of this grid inside of bounds in its own units; empty (height or width 0) where none is."""
        left, bottom, right, top = bounds
        slack = ALIGNED
        first_col = max(math.ceil((left - self.left) / self.side - slack), 0)
        first_row = max(math.ceil((self.top - top) / self.side - slack), 0)
        last_col = min(math.floor((right - self.left) / self.side + slack), self.width)
        last_row = min(math.floor((self.top - bottom) / self.side + slack), self.height)
        return Window(first_row, first_col, max(last_row - first_row, 0), max(last_col - first_col, 0))


def grid_of(crs: str, transform: Sequence[float], height: int, width: int) -> Grid:
    """The grid of a raster's affine transform (a, b, c, d, e, f).

    Raises:
        InputError: the pixels are rotated or sheared, not square, mirrored, or measured in degrees.
    """
    a, b, c, d, e, f = (float(v) for v in transform[:6])
    if not all(map(math.isfinite, (a, b, c, d, e, f))) or a == 0 or e == 0:
        raise InputError("its georeference is damaged (a pixel has no size); write it anew (gdal_translate -a_ullr)")
    if abs(b) > 1e-9 * abs(a) or abs(d) > 1e-9 * abs(e):
        turned = math.degrees(math.atan2(d, a))
        raise InputError(f"its grid is rotated or sheared (by {turned:.2f} degrees); warp it upright (gdalwarp)")
    if a < 0 or e > 0:
        raise InputError("its grid is mirrored (rows run north or columns run west); warp it (gdalwarp)")
    if abs(a + e) > 1e-6 * a:
        raise InputError(f"its pixels are not square ({a:g} by {-e:g}); resample it (gdalwarp -tr SIDE SIDE)")
    return Grid(crs, c, f, a, height, width)


def distance_km(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> np.ndarray:
    """Great-circle distance in kilometres between boxes (west, south, east, north) in degrees: of their nearest
    points, 0 where they meet. `b` may be many boxes [n, 4].

    >>> float(distance_km((0, 0, 0, 0), (0, 1, 0, 1)).round(1))
    111.2
    """
    west, south, east, north = (float(v) for v in a)
    other = np.asarray(b, dtype=float)
    w, s, e, n = (other[..., i] for i in range(4))
    # Longitudes go round: the gap is the smaller of the two ways.
    gap = np.minimum(np.mod(w - east, 360.0), np.mod(west - e, 360.0))
    overlap = (np.mod(w - west, 360.0) <= east - west) | (np.mod(west - w, 360.0) <= e - w)
    gap = np.where(overlap, 0.0, gap)
    lat1 = np.where(s > north, north, np.where(n < south, south, np.clip(0.0, np.maximum(s, south), None)))
    lat2 = np.where(s > north, s, np.where(n < south, n, lat1))
    # Where the boxes share latitudes, the gap is shortest at the latitude that is farthest from the equator.
    shared = (s <= north) & (n >= south)
    low, high = np.maximum(s, south), np.minimum(n, north)
    far = np.where(np.abs(low) > np.abs(high), low, high)
    lat1, lat2 = np.where(shared, far, lat1), np.where(shared, far, lat2)
    p, q = np.radians(lat1), np.radians(lat2)
    h = np.sin((q - p) / 2) ** 2 + np.cos(p) * np.cos(q) * np.sin(np.radians(gap) / 2) ** 2
    return np.asarray(2 * EARTH * np.arcsin(np.sqrt(np.clip(h, 0, 1))))
