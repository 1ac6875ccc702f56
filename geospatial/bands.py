"""The bands of Sentinel-1 and Sentinel-2 by name. Nothing here or elsewhere finds a band by its position.

Wavelengths are the central ones of Sentinel-2A (ESA, Sentinel-2 spectral response functions), in nanometres.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from counterpoint.common.errors import InputError
from counterpoint.common.suggest import no_such


@dataclass(frozen=True)
class NamedBand:
    """One band of a sensor.

    Attributes:
        name: as users name it (`B02`, `VV`).
        sensor: `s1` or `s2`.
        wavelength: central wavelength in nanometres; None for radar.
        metres: side of its pixels as the mission delivers them.
    """

    name: str
    sensor: str
    wavelength: float | None
    metres: float


BANDS: dict[str, NamedBand] = {
    band.name: band
    for band in (
        NamedBand("B01", "s2", 442.7, 60), NamedBand("B02", "s2", 492.4, 10), NamedBand("B03", "s2", 559.8, 10),
        NamedBand("B04", "s2", 664.6, 10), NamedBand("B05", "s2", 704.1, 20), NamedBand("B06", "s2", 740.5, 20),
        NamedBand("B07", "s2", 782.8, 20), NamedBand("B08", "s2", 832.8, 10), NamedBand("B8A", "s2", 864.7, 20),
        NamedBand("B09", "s2", 945.1, 60), NamedBand("B10", "s2", 1373.5, 60), NamedBand("B11", "s2", 1613.7, 20),
        NamedBand("B12", "s2", 2202.4, 20), NamedBand("VV", "s1", None, 10), NamedBand("VH", "s1", None, 10),
        NamedBand("HH", "s1", None, 10), NamedBand("HV", "s1", None, 10),
    )
}  # fmt: skip

S2_12 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
"""The bands of a level-2A product: all but the cirrus band B10."""
S2_13 = (*S2_12[:10], "B10", *S2_12[10:])
S1_2 = ("VV", "VH")
SENSORS = {"s1": S1_2, "s2": S2_12}
"""Sensors, and the bands that systems take of each unless told otherwise."""
ORDERS = {"L2A": S2_12, "L1C": S2_13, "VVVH": S1_2}
"""Orders that users may name in place of a list: ESA's of the bands of a level-2A and of a level-1C product."""
CLASSES = "SCL"
"""ESA's scene classification, which says where clouds are."""
CLOUDS = (1, 3, 8, 9, 10)
"""Classes of the scene classification that hide the ground: saturated, cloud shadow, cloud (medium, high), cirrus."""


def band_name(text: str) -> str | None:
    """The band that a text names, in whatever way files spell it; None where it names none. A bare number
    names none: in files it counts places.

    >>> [band_name(t) for t in ("B2", "b08", "8A", "vv", "SCL", "red", "4")]
    ['B02', 'B08', 'B8A', 'VV', 'SCL', None, None]
    """
    said = text.strip().upper()
    if said in BANDS or said == CLASSES:
        return said
    number = re.fullmatch(r"(B?)0?(\d{1,2})(A?)", said)
    if number is None or not (number[1] or number[3]):
        return None
    digits, a = number[2], number[3]
    name = "B8A" if a and digits == "8" else f"B{int(digits):02d}" if not a else ""
    return name if name in BANDS else None


def band_list(text: str | Sequence[str]) -> tuple[str, ...]:
    """A list of bands as users write it: names with commas, or one of `ORDERS`.

    Raises `InputError` for a name that is no band, and for one that stands there twice.

    >>> band_list("B4,B3,B2"), len(band_list("L2A"))
    (('B04', 'B03', 'B02'), 12)
    """
    if isinstance(text, str):
        if text in ORDERS:
            return ORDERS[text]
        text = [part for part in re.split(r"[,\s]+", text) if part]
    found = []
    for part in text:
        name = band_name(part)
        if name is None:
            raise no_such("band", part, (*ORDERS, *BANDS))
        found.append(name)
    if twice := {name for name in found if found.count(name) > 1}:
        raise InputError(f"band {min(twice)} is named twice in {','.join(found)}")
    return tuple(found)


def sensor_of(names: Iterable[str]) -> str | None:
    """The sensor that all of these bands belong to; None where they belong to several or to none.

    >>> sensor_of(["VV", "VH"]), sensor_of(["B02", "SCL"]), sensor_of(["VV", "B02"])
    ('s1', 's2', None)
    """
    found = {"s2" if name == CLASSES else BANDS[name].sensor for name in names}
    return found.pop() if len(found) == 1 else None
