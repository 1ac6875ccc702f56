"""Synthetic scenes as real GeoTIFFs, and the manifest over them: the simulator's way into everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.common.data import Manifest
from counterpoint.common.errors import InputError
from counterpoint.common.progress import track
from counterpoint.common.vertical import ImportReport
from counterpoint.geospatial.bands import S1_2, S2_12
from counterpoint.geospatial.data.grid import Grid
from counterpoint.geospatial.data.importing import Told, import_layers
from counterpoint.geospatial.data.legend import SIMULATED
from counterpoint.geospatial.data.pairs import Pairing
from counterpoint.geospatial.data.splits import assigned
from counterpoint.geospatial.data.writing import write_raster
from counterpoint.geospatial.scene import (
    OFFSET_NUMBERS,
    SYNTHETIC,
    Scene,
    draw_change,
    draw_ground,
    draw_landscape,
    draw_places,
)

SEASONS = (("2021-07-10", 0.75), ("2021-10-10", 0.45), ("2021-01-10", 0.15), ("2021-04-10", 0.55))
LEGEND = dict(enumerate(SIMULATED, start=1))
SHARES = {"train": 0.6, "val": 0.15, "test": 0.25}


def write_scenery(
    out: Path, scenes: int = 48, size: int = 128, seasons: int = 1, clouds: float = 0.0, offset: str = "none",
    seed: int = 0, change: float = 0.0,
) -> ImportReport:  # fmt: skip
    """`data simulate`: rasters below `out`, their manifest with a split by place, and their causes as columns. With
    `change`, about this share of the fields is of another class from the second time on, and `change_map` names the
    raster that says where."""
    for name, value, least in (("scenes", scenes, 3), ("size", size, 16), ("seasons", seasons, 1)):
        if value < least:
            raise InputError(f"--{name} is {value}; it must be {least} or more")
    if seasons > len(SEASONS) or not 0 <= clouds <= 1:
        raise InputError(f"--seasons goes to {len(SEASONS)} and --clouds from 0 to 1, not {seasons} and {clouds:g}")
    if not 0 <= change <= 1 or (change and seasons < 2):
        raise InputError(f"--change is {change:g}; it goes from 0 to 1 and needs two times (--seasons 2)")
    out = Path(out)
    causes: dict[str, dict[str, float | str]] = {}
    drawn = np.random.default_rng([seed, 0])
    places = draw_places(drawn, scenes)
    for i, (lat, lon, biome, wetness) in enumerate(track(places, "drawing scenes", scenes)):
        ground = draw_ground(np.random.default_rng([seed, 1, i]), size, biome, wetness)
        grid = _grid(lat, lon, size)
        later, where = draw_change(np.random.default_rng([seed, 3, i]), ground, change) if change else (ground, None)
        for s in range(seasons):
            rng = np.random.default_rng([seed, 2, i, s])
            clouded, shifted = rng.random() < clouds, offset == "all" or (offset == "some" and rng.random() < 0.5)
            scene = draw_landscape(rng, later if s else ground, SEASONS[s][1], clouded)
            name = f"scene-{i:04d}-{s}"
            _write(out, name, scene, grid, SEASONS[s][0], shifted)
            causes[name] = {"biome": biome, **_named(scene)}
            if where is not None:
                file = out / "change" / f"scene-{i:04d}.tif"
                write_raster(file, where.astype(np.uint8)[None], grid, ("change",), tags={"SYNTHETIC": SYNTHETIC})
                causes[name] |= {"change_map": file.relative_to(out).as_posix(), "changed": float(where.mean())}

    def finish(manifest: Manifest) -> Manifest:
        frame = manifest.frame
        stems = [Path(str(file)).stem for file in frame["s2"]]
        extra = {key: [causes[stem][key] for stem in stems] for key in next(iter(causes.values()))}
        shares = SHARES if scenes >= 8 else {"train": 1 / 3, "val": 1 / 3, "test": 1 / 3}
        return assigned(Manifest(frame.assign(**extra), manifest.root, manifest.path, manifest.meta), shares, seed, 0.0)

    said = Told(legend=LEGEND, synthetic=SYNTHETIC)
    patterns = {
        "s1": "s1/*.tif",
        "s2": "s2/*.tif",
        "landcover": "landcover/*.tif",
        "cloud": "cloud/*.tif" if (out / "cloud").is_dir() else "",
    }
    report = import_layers(out, out, patterns, said, Pairing(days=3.0), finish=finish)
    return ImportReport(report.manifest, report.rows, report.rejected,
                        f"The scenes are synthetic; so is every score on them.\n{report.note}")  # fmt: skip


def _named(scene: Scene) -> dict[str, float]:
    parts = (("shared", scene.shared), ("optical", scene.optical), ("radar", scene.radar))
    return {f"{kind}_{name}": value for kind, found in parts for name, value in found.items()}


def _grid(lat: float, lon: float, size: int) -> Grid:
    """The UTM grid of a place, its corner at whole 10 m."""
    from rasterio.warp import transform

    crs = f"EPSG:{32600 + int((lon + 180) // 6) + 1}"
    (x,), (y,) = transform("EPSG:4326", crs, [lon], [lat])
    return Grid(crs, float(round(x / 10) * 10), float(round(y / 10) * 10), 10.0, size, size)


def _write(out: Path, name: str, scene: Scene, grid: Grid, day: str, shifted: bool) -> None:
    tags: dict[str, Any] = {"SYNTHETIC": SYNTHETIC}
    baseline = {"PROCESSING_BASELINE": "04.00" if shifted else "03.01", "datetime": f"{day}T10:10:31"}
    s2 = (scene.s2 + (OFFSET_NUMBERS if shifted else 0)).astype(np.int16)
    write_raster(out / "s2" / f"{name}.tif", s2, grid, S2_12, nodata=0, tags=tags | baseline)
    radar = {"CALIBRATION": "sigma0", "datetime": f"{day}T05:17:02", "ORBIT": "descending"}
    write_raster(out / "s1" / f"{name}.tif", scene.s1, grid, S1_2, nodata=-9999.0, tags=tags | radar)
    cover = scene.landcover.astype(np.uint8)[None]
    write_raster(out / "landcover" / f"{name}.tif", cover, grid, ("land cover",), nodata=0, tags=tags)
    if scene.cloud.any():
        write_raster(out / "cloud" / f"{name}.tif", scene.cloud.astype(np.uint8)[None], grid, ("cloud",), tags=tags)
