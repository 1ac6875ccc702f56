"""Places to look at: radar in false colours, true colour, land cover; and users' rasters as queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from counterpoint.common.data import Manifest
from counterpoint.common.data.dataset import synthetic_part
from counterpoint.common.errors import InputError
from counterpoint.common.report import Media, Report
from counterpoint.common.vertical import Outcome
from counterpoint.geospatial.bands import SENSORS
from counterpoint.geospatial.data.chips import ChipCut, Chips
from counterpoint.geospatial.data.form import BandForm, physical
from counterpoint.geospatial.data.grid import Window
from counterpoint.geospatial.data.layers import bands_of, read_landcover, read_sensor, row_grid, sensors_of
from counterpoint.geospatial.data.legend import class_name, colour_of, legend_of

SHOWN = 160
"""Least pixels of a picture's side; smaller chips are enlarged by whole factors."""
MOST = 512
NO_DATA = 0.82
RANGES = {"VV": (-20.0, 0.0), "VH": (-27.0, -7.0), "HH": (-20.0, 0.0), "HV": (-27.0, -7.0)}
TITLES = {"s1": "radar", "s2": "optical"}


def true_colour(
    x: Float[np.ndarray, "bands rows cols"], names: Sequence[str], valid: np.ndarray
) -> Float[np.ndarray, "rows cols 3"]:
    """Reflectance x 10000 as a picture: red, green, blue up to a reflectance of 0.3 on a curve; without these bands the
    first one in grey; grey where there are no data.

    >>> true_colour(np.full((1, 1, 1), 3000.0), ["B08"], np.ones((1, 1), bool)).tolist()
    [[[1.0, 1.0, 1.0]]]
    """
    wanted = [n for n in ("B04", "B03", "B02") if n in names]
    chosen = [list(names).index(n) for n in wanted] if len(wanted) == 3 else [0, 0, 0]
    shown = np.clip(x[chosen] / 3000.0, 0, 1) ** (1 / 1.5)
    return np.where(valid[..., None], np.moveaxis(shown, 0, -1), NO_DATA)


def false_colour(
    x: Float[np.ndarray, "bands rows cols"], names: Sequence[str], valid: np.ndarray
) -> Float[np.ndarray, "rows cols 3"]:
    """Backscatter in dB as a picture: co-polarised red, cross-polarised green, their difference blue; one band grey."""

    def share(values: np.ndarray, low: float, high: float) -> np.ndarray:
        return np.clip((values - low) / (high - low), 0, 1)

    one = share(x[0], *RANGES.get(names[0], (-25.0, 0.0)))
    parts = [one, one, one]
    if len(names) > 1:
        parts = [one, share(x[1], *RANGES.get(names[1], (-27.0, -7.0))), share(x[0] - x[1], 2.0, 14.0)]
    return np.where(valid[..., None], np.stack(parts, -1), NO_DATA)


def land_cover(codes: np.ndarray, legend: Mapping[int, str]) -> Float[np.ndarray, "rows cols 3"]:
    """Codes in the colours of their classes; grey where there is none."""
    image = np.full((*codes.shape, 3), NO_DATA)
    for code in np.unique(codes[codes >= 0]).tolist():
        image[codes == code] = rgb(colour_of(int(code), legend))
    return image


def rgb(colour: str) -> tuple[float, float, float]:
    """A colour as shares of red, green and blue."""
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))  # type: ignore[return-value]


def enlarged(image: np.ndarray) -> np.ndarray:
    """At least `SHOWN` and at most `MOST` pixels a side, whole pixels repeated or left out; bytes."""
    factor = max(1, -(-SHOWN // max(image.shape[:2])))
    step = max(1, -(-max(image.shape[:2]) // MOST))
    image = np.repeat(np.repeat(image, factor, 0), factor, 1)[::step, ::step]
    return (255 * np.clip(image, 0, 1)).round().astype(np.uint8)


def drawn(
    sensor: str, values: np.ndarray, valid: np.ndarray, names: Sequence[str], row: Mapping[str, Any]
) -> np.ndarray:
    """A sensor's numbers as a picture."""
    measured, seen = physical(sensor, values, valid, row)
    return enlarged((false_colour if sensor == "s1" else true_colour)(measured, names, seen))


def picture(sample: Mapping[str, Any], modality: str, system: Any) -> Media | None:
    """A chip as one sensor sees it."""
    if modality not in sample:
        return None
    names = BandForm.of(system.pretrained.assets).bands[modality]
    row = {fact: sample.get(fact) for fact in ("s2_offset", "s1_unit", "s1_zero")}
    image = drawn(modality, sample[modality].numpy(), sample[f"{modality}_valid"].numpy(), names, row)
    said = [str(v) for v in (sample.get("place"), sample.get("label")) if v]
    return Media(TITLES[modality], image, caption=", ".join(said))


def caption(sample: Mapping[str, Any], modality: str, system: Any) -> str:
    """Where a chip lies."""
    return str(sample.get("place") or sample["id"])


def query(file: Path, modality: str, system: Any) -> Chips:
    """A user's raster in the form that the system was trained on: all of its chips.

    Raises:
        InputError: it cannot be read, nothing names its bands, its offset or its unit, or it lacks a band.
    """
    from counterpoint.geospatial.data.found import SceneFiles as Scene
    from counterpoint.geospatial.data.importing import Told, layer_of, look
    from counterpoint.geospatial.data.pairs import Pairing, pair_rows, places_of

    file = Path(file).absolute()
    form = BandForm.of(system.assets)
    try:
        layer = layer_of(Scene(file.stem, modality, file=file), {file: look(file)}, Told())
        places, _, _ = places_of([layer], Pairing())
        table = Manifest.from_rows(pair_rows(places, file.parent, Pairing()), file.parent)
        data = system.config.data
        cut = ChipCut(
            {modality: form.bands[modality]}, data.size, data.step or data.size, False, data.min_valid, data.clouds
        )
        return Chips(table, cut, form)
    except InputError as error:
        said = str(error)
        raise InputError(said if said.startswith(str(file)) else f"{file}: {said}") from None


def place_pictures(table: Manifest, number: int) -> list[tuple[str, np.ndarray]]:
    """(what it is, picture) of a row: every sensor, and land cover; at most `MOST` pixels from its middle."""
    row = table.row(number)
    grid = row_grid(row)
    height, width = min(grid.height, MOST), min(grid.width, MOST)
    window = Window((grid.height - height) // 2, (grid.width - width) // 2, height, width)
    found = []
    for sensor in sensors_of(row):
        names = bands_of(row, sensor)
        wanted = [n for n in ("B04", "B03", "B02") if n in names] if sensor == "s2" else list(names[:2])
        names = wanted if len(wanted) == 3 or sensor == "s1" else list(names[:1])
        values, valid = read_sensor(row, table.folder, sensor, names, window)
        found.append((TITLES[sensor], drawn(sensor, values, valid, names, row)))
    if row.get("landcover"):
        codes = read_landcover(row, table.folder, window)
        found.append(("land cover", enlarged(land_cover(codes, legend_of(table.meta)))))
    return found


def legend_text(codes: Sequence[int], legend: Mapping[int, str]) -> str:
    """The classes with their colours, as SVG."""
    parts, x = [], 0
    for code in codes:
        name = class_name(code, legend)
        colour = colour_of(code, legend)
        parts.append(
            f'<rect x="{x}" y="2" width="12" height="12" rx="2" fill="{colour}" stroke="#888" stroke-width=".5"/>'
        )
        parts.append(f'<text x="{x + 17}" y="12.5" font-size="12" font-family="sans-serif" fill="#444">{name}</text>')
        x += 30 + 7 * len(name)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {x} 16" width="{x}" height="16">{"".join(parts)}</svg>'
    )


def preview_page(manifest: Path, out: Path, places: int) -> Outcome:
    """The first places of a manifest, with what is known of them."""
    table = Manifest.load(manifest)
    shown = min(places, len(table))
    page = Report("Places", f"{manifest}: {shown} of {len(table)} places", synthetic=synthetic_part(table))
    about = "Radar: VV red, VH green, their difference blue, in dB. Optical: true colour up to a reflectance of 0.3."
    page.section("Pictures", f"{about} Light grey is no data, cloud or shadow.")
    rows = []
    for i in range(shown):
        row = table.row(i)
        day = str(row.get("s2_time") or row.get("s1_time") or "")[:10]
        where = f"{float(row['lat']):.3f}, {float(row['lon']):.3f}"
        page.gallery(f"{row['id']}", [Media(what, image, caption=where) for what, image in place_pictures(table, i)])
        extent = f"{row['width']} x {row['height']} at {row['side']:g} m"
        said = [row.get(name) for name in ("s2_level", "s2_offset", "s1_unit", "s1_calibration")]
        bands = "; ".join(" ".join(bands_of(row, s)) for s in SENSORS if bands_of(row, s))
        rows.append(
            [
                row["id"],
                row["split"] or "",
                day,
                where,
                row["crs"],
                extent,
                bands,
                *("" if v is None else v for v in said),
            ]
        )
    columns = ["place", "split", "date", "lat, lon", "CRS", "pixels", "bands", "level", "offset", "unit", "calibration"]
    page.section("What is known of them").table("Places", rows, columns)
    path = page.write(out)
    return Outcome({"places": shown}, (f"wrote {path}",), {"preview": Path(path)})
