"""What the numbers of a Sentinel product mean: offset of the reflectance, unit and calibration of the radar, and zeros.

A radar file in decibel that holds exact zeros is filled with them, as a rule: toolboxes and services write 0 where the
swath ends or a mask says so, in decibel as in power, and often state no nodata value. A measurement of full precision
is never exactly 0 dB, so in such a file a zero is no data. Where decibels are rounded (whole numbers, hundredths) a
zero may be a measurement: it is no data where zeros lie side by side (`ZERO_RUN`), else it is taken, and said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from counterpoint.common.errors import InputError
from counterpoint.geospatial.bands import CLASSES
from counterpoint.geospatial.data.found import SceneFiles
from counterpoint.geospatial.data.product import OFFSET, Product
from counterpoint.geospatial.data.raster import Facts

if TYPE_CHECKING:
    from counterpoint.geospatial.data.importing import Layer, Told

TINY = 10.0
"""Reflectance x 10000 of a picture reaches above this, 0.001."""


def reflectance(
    scene: SceneFiles, seen: Sequence[tuple[Facts, Product]], product: Product, said: Told
) -> dict[str, Any]:
    """Scale and offset of Sentinel-2 numbers: reflectance x 10000 = (value + offset)."""
    facts = measured(scene, seen)
    names = {scene.name, *(file.stem for file in scene.files), *(file.name for file in scene.files)}
    listed = {said.offsets[name] for name in names if name in said.offsets}
    if len(listed) > 1:
        raise InputError(f"--s2_offset names it twice, with offsets {sorted(listed)}; leave one")
    stated = None if listed else stated_offset(facts)
    if listed:
        offset, source = listed.pop(), "--s2_offset"
    elif said.offset is not None:
        offset, source = said.offset, "--s2_offset"
        own = product.offset if stated is None else stated
        if own not in (None, offset):
            where = f"{product.source} says" if stated is None else "its own scale and offset say"
            raise InputError(
                f"{where} an offset of {own}, --s2_offset says {offset}; leave the option out, or overrule this "
                "product by its name in a CSV (name,offset)"
            )
    elif stated is not None:
        offset, source = stated, "the file's own offset"
        if product.offset not in (None, offset):
            raise InputError(
                f"its own scale and offset say an offset of {offset}, {product.source} says {product.offset}; overrule "
                "this product by its name in a CSV (--s2_offset FILE with name,offset)"
            )
    elif product.offset is not None:
        offset, source = product.offset, product.source
    elif facts[0].dtype[0] == "f":
        raise InputError(
            f"holds {facts[0].dtype} values and nothing says whether they are digital numbers; give --s2_offset (0, if "
            "they are reflectance x 10000)"
        )
    else:
        raise InputError(
            "nothing says its processing baseline (neither its name, its folders' names, its metadata nor its tags), "
            f"so it is unknown whether its values carry the offset of baseline 04.00; give --s2_offset {OFFSET} or 0, "
            "or a CSV with the columns name,offset"
        )
    if facts[0].dtype[0] == "f" and max(f.high for f in facts) <= TINY:
        raise InputError(
            f"holds values up to {max(f.high for f in facts):.4g}: they look like reflectance, and reflectance x 10000 "
            "is taken; multiply them by 10000"
        )
    return {"offset": offset, "offset_source": source, "level": product.level, "baseline": product.baseline}


def measured(scene: SceneFiles, seen: Sequence[tuple[Facts, Product]]) -> list[Facts]:
    """The files that hold measurements: all but the scene classification."""
    names = [*([""] if scene.file else []), *scene.parts]
    return [f for name, (f, _) in zip(names, seen) if name != CLASSES] or [f for f, _ in seen]


def stated_offset(facts: Sequence[Facts]) -> int | None:
    """The offset in digital numbers that the files' scale and offset state. A file with a scale and an offset of 0
    states none: that is what GDAL reports where none was written.

    Raises:
        InputError: another scale than Sentinel-2's, or bands that state different ones.
    """
    for f in facts:
        if (f.scale, f.offset) != (1.0, 0.0) and abs(f.scale - 1e-4) > 1e-9:
            raise InputError(
                f"its scale is {f.scale:g}; Sentinel-2 numbers have 0.0001; overrule this product by its name in a "
                "CSV (--s2_offset FILE with name,offset)"
            )
    found = {round(f.offset / f.scale) for f in facts}
    if len(found) > 1:
        raise InputError(f"its bands state different offsets ({sorted(found)}); write them with one for all")
    return found.pop() or None


def backscatter(
    seen: Sequence[tuple[Facts, Product]], product: Product, said: Told, stated: str = ""
) -> dict[str, Any]:
    """Unit and calibration of radar backscatter, and what its zeros are."""
    if any(f.low == f.high == 0 for f, _ in seen):
        raise InputError("every value of it is 0, which no radar measures: it holds no data; copy or process it anew")
    if scaled := next((f for f, _ in seen if (f.scale, f.offset) != (1.0, 0.0)), None):
        raise InputError(
            f"states a scale of {scaled.scale:g} and an offset of {scaled.offset:g}, and radar is taken as it stands; "
            "apply them first (gdal_translate -unscale)"
        )
    low, high = min(f.low for f, _ in seen), max(f.high for f, _ in seen)
    unit = said.s1_unit or stated
    if unit == "linear" and low < 0:
        raise InputError(f"holds values down to {low:.4g}, and power is never below 0: it is in decibel (--s1_unit db)")
    if not unit:
        if low >= 0:
            raise InputError(
                f"holds values from {low:.4g} to {high:.4g}, and nothing says whether they are power or decibel; give "
                "--s1_unit linear or db"
            )
        unit = "db"  # power has no values below 0
    if unit == "db" and low >= 0:
        raise InputError(
            f"holds values from {low:.4g} to {high:.4g}, none below 0, and decibels of backscatter mostly are: it "
            "holds power (--s1_unit linear)"
        )
    if unit == "db" and (low < -100 or high > 60):
        raise InputError(
            f"holds values from {low:.4g} to {high:.4g}, which are no decibels of backscatter; scale them first"
        )
    return {
        "unit": unit,
        "calibration": said.s1_calibration or product.calibration or "unknown",
        "orbit": product.orbit,
        "zero": said.s1_zero or _zero_means(seen, unit),
    }


def _zero_means(seen: Sequence[tuple[Facts, Product]], unit: str) -> str:
    """`nodata`, or `value` in rounded decibels without an area of zeros."""
    facts = [f for f, _ in seen]
    measured = unit == "db" and all(f.rounded for f in facts) and not any(f.zero_run for f in facts)
    return "value" if measured else "nodata"


def offset_notes(layers: Sequence[Layer]) -> list[str]:
    """Which Sentinel-2 products carry the offset, and those whose values look otherwise than is said of them."""
    optical = [layer for layer in layers if layer.scene.kind == "s2"]
    carry = [layer for layer in optical if layer.facts["offset"]]
    if not optical:
        return []
    sources = sorted({str(layer.facts["offset_source"]) for layer in optical})
    named = ", ".join(layer.scene.name for layer in carry[:8]) + (
        f" and {len(carry) - 8} more" if len(carry) > 8 else ""
    )
    notes = [
        f"{len(carry)} of {len(optical)} Sentinel-2 products carry an offset (by {', '.join(sources)})"
        + (f": {named}" if carry else "")
    ]
    for layer in optical:
        offset = layer.facts["offset"]
        if offset == 0 and layer.low >= -OFFSET:
            what = f"no value below {-OFFSET} (the lowest: {layer.low:g}), as with the offset; said to have none"
            notes.append(f"{layer.scene.name}: {what}")
        elif offset and 0 < layer.low < -offset / 2:
            what = f"values down to {layer.low:g}, below the offset of {-offset} that it is said to carry"
            notes.append(f"{layer.scene.name}: {what}")
    return notes


def radar_notes(layers: Sequence[Layer]) -> list[str]:
    radar = [layer for layer in layers if layer.scene.kind == "s1"]
    kinds = sorted({f"{layer.facts['calibration']} in {layer.facts['unit']}" for layer in radar})
    if not radar:
        return []
    unknown = [layer for layer in radar if layer.facts["calibration"] == "unknown"]
    notes = [f"Sentinel-1 is {' and '.join(kinds)}"]
    if unknown:
        notes.append(
            f"of {len(unknown)} radar products nothing says whether they are sigma0 or gamma0; give --s1_calibration"
        )
    for what, said in (("nodata", "is no data (--s1_zero value)"), ("value", "is taken for 0 dB (--s1_zero nodata)")):
        filled = [x for x in radar if x.zeros and x.facts["zero"] == what and x.facts["unit"] == "db"]
        if filled:
            most = max(filled, key=lambda x: x.zeros)
            notes.append(
                f"{len(filled)} radar products in decibel hold exact zeros ({most.scene.name}: {most.zeros:.2%} of its "
                f"pixels); there 0 {said}"
            )
    return notes
