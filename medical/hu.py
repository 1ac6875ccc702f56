"""Are these Hounsfield units? The check that finds a slope and intercept applied twice, not at all, or a window.

In a CT of a body in HU soft tissue (water 0, fat -120 to -80, muscle 20 to 70, with contrast more) is always present,
something is darker than water (fat, lung, air), and nothing but padding is darker than air (-1000; -1024 is the lowest
that scanners store), and little is denser than bone. Each of the known faults breaks one of the four.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from counterpoint.common.errors import InputError

TISSUE = (-200.0, 300.0)
"""HU of fat, muscle, organs with and without contrast."""
LEAST_TISSUE = 0.03
"""Share of voxels, beside padding, that is soft tissue in any CT of a body."""
DARKER = (-30.0, 0.001)
"""At least this share of the voxels is below this value: fat, lung or air."""
BELOW_AIR, MOST_BELOW = -1150.0, 0.02
"""At most this share of the voxels, beside padding, is below this value."""
METAL, MOST_METAL = 4000.0, 0.005
"""At most this share of the voxels, beside padding, is above this value: scanners end at 3071, metal may lie higher."""
BONE, MOST_BONE = 700.0, 0.25
"""At most this share of the voxels, beside padding, is as dense as the hard part of bones."""
_MOST = 2_000_000


@dataclass(frozen=True)
class Shares:
    """Shares of the voxels of a volume, padding (its lowest value, where many voxels have exactly that one) left out.

    Attributes:
        low, high: of all values.
        tissue, dark, deep: in `TISSUE`, below `DARKER`, below `BELOW_AIR`.
        metal, bone: above `METAL`, above `BONE`.
    """

    low: float
    high: float
    tissue: float
    dark: float
    deep: float
    metal: float
    bone: float

    @classmethod
    def of(cls, data: np.ndarray) -> Shares:
        values = np.asarray(data).ravel(order="K")  # as it lies in memory: no copy
        if len(values) > _MOST:  # evenly drawn: shares of a few per cent are known to a few thousandths
            values = values[:: len(values) // _MOST + 1]
        values = values.astype(np.float32)
        low, high = float(np.min(data)), float(np.max(data))
        padding = values == low
        if padding.mean() > 0.005:
            values = values[~padding]
        n = max(len(values), 1)
        between = (values >= TISSUE[0]) & (values <= TISSUE[1])
        below = [(values < limit).sum() / n for limit in (DARKER[0], BELOW_AIR)]
        return cls(low, high, between.sum() / n, *below, *((values > limit).sum() / n for limit in (METAL, BONE)))


def hu_fault(data: np.ndarray) -> str:
    """What keeps values from being Hounsfield units of a body, in words; empty where they may be.

    >>> body = np.repeat([-1000.0, -100.0, 40.0, 60.0, 400.0], 100)
    >>> hu_fault(body)
    ''
    >>> hu_fault(body - 1024)[-64:]
    'slope and intercept look applied twice, or it is no CT of a body'
    """
    found = Shares.of(data)
    if found.high - found.low <= 4.0:
        return f"its values lie between {found.low:g} and {found.high:g}; it was normalised, or is a mask"
    if found.low >= 0 and found.high <= 255:
        return f"its values lie between {found.low:g} and {found.high:g}; it was windowed to 8 bits, or is a label map"
    tissue = f"{100 * found.tissue:.0f} % of the voxels are soft tissue ({TISSUE[0]:g} to {TISSUE[1]:g} HU)"
    if found.deep > MOST_BELOW:
        return (
            f"{tissue} and {100 * found.deep:.0f} % are below {BELOW_AIR:g}, less than air; slope and intercept look "
            "applied twice, or several padding values stand in it"
        )
    if found.metal > MOST_METAL:
        return (
            f"{100 * found.metal:.1f} % of the voxels are above {METAL:g}, more than metal; values below 0 look "
            "wrapped round (unsigned numbers), or a mark was drawn in"
        )
    if found.dark < DARKER[1]:
        return (
            f"next to nothing ({100 * found.dark:.1f} %) is darker than water, neither fat nor air; the intercept "
            "(-1024 in most files) looks not applied"
        )
    if found.bone > MOST_BONE:
        return (
            f"{100 * found.bone:.0f} % of the voxels are above {BONE:g}, as dense as hard bone; it looks inverted, or "
            "not in Hounsfield units"
        )
    if found.tissue < LEAST_TISSUE:
        return f"only {tissue}; slope and intercept look applied twice, or it is no CT of a body"
    return ""


def require_hu(data: np.ndarray, said: str, others: Mapping[str, np.ndarray]) -> None:
    """Raise `InputError` where values read as `said` are no HU; names which other reading would be.

    Args:
        data: the values.
        said: how they were read: `already`, `header` or `table`.
        others: another way -> the values that it gives.
    """
    fault = hu_fault(data)
    if not fault:
        return
    better = next((name for name, values in others.items() if name != said and not hu_fault(values)), "")
    hint = f"; read with --hu {better} it looks right" if better else ""
    raise InputError(f"read with --hu {said} it is not in Hounsfield units: {fault}{hint}")
