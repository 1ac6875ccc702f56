"""Chips per second from tiled and untiled GeoTIFFs (synthetic), beside a plain rasterio loop, one process and thread.

    python benchmarks/geospatial.py --side 2048 --chips 200 [--torchgeo]

The plain loop opens both files for every chip, as a map-style data set without kept handles does, and reads the same
windows of the same bands; the values of both are compared. Ours also makes the masks of what is data. Kept files keep
decoded blocks in GDAL's memory too, where small rasters fit in as a whole. Seconds are the process's CPU seconds.
`--torchgeo` adds its `RasterDataset` of each sensor (no masks), asked for the ground of the same chips.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

from counterpoint.common.data import Manifest
from counterpoint.geospatial.bands import S1_2, S2_12
from counterpoint.geospatial.data.chips import ChipCut, Chips
from counterpoint.geospatial.data.importing import Told, import_layers
from counterpoint.geospatial.data.pairs import Pairing

SIZE = 120
LAYOUTS = {"tiled": {"tiled": True, "blockxsize": 256, "blockysize": 256}, "untiled": {"tiled": False}}


def write_pair(folder: Path, side: int, layout: dict[str, object]) -> None:
    """Smooth numbers with noise as one radar and one optical raster, deflated."""
    rng = np.random.default_rng(0)
    common = {
        "driver": "GTiff", "height": side, "width": side, "crs": "EPSG:32632", "compress": "deflate",
        "transform": rasterio.Affine(10, 0, 500000, 0, -10, 5000000), **layout,
    }  # fmt: skip
    tags = {"datetime": "2021-07-10T10:10:31", "PROCESSING_BASELINE": "03.01", "CALIBRATION": "sigma0"}
    for sensor, names, dtype, nodata in (("s1", S1_2, "float32", -9999.0), ("s2", S2_12, "int16", 0)):
        (folder / sensor).mkdir(parents=True)
        with rasterio.open(folder / sensor / "place.tif", "w", count=len(names), dtype=dtype, nodata=nodata,
                           **common) as out:  # fmt: skip
            for i, name in enumerate(names, start=1):
                noise = rng.normal(0, 1, (side, side))
                values = -12 + 2 * noise if sensor == "s1" else np.clip(2000 + 300 * noise, 1, 20000)
                out.write(values.astype(dtype), i)
                out.set_band_description(i, name)
            out.update_tags(**tags)


def per_second(read: Callable[[int], object], positions: list[int], repeats: int = 3) -> float:
    """The best rate of some passes over the same positions, after a first one that is not counted."""
    best = float("inf")
    for k in range(repeats + 1):
        start = time.process_time()
        for p in positions:
            read(p)
        best = min(best, time.process_time() - start) if k else best
    return len(positions) / best


def torchgeo_reader(folder: Path, windows: Callable[[int], Window]) -> Callable[[int], list[np.ndarray]]:
    """Both sensors' values of a chip by torchgeo, which is asked for places on the ground."""
    from torchgeo.datasets import RasterDataset

    data = [type(s, (RasterDataset,), {"filename_glob": "*.tif"})(folder / s) for s in ("s1", "s2")]

    def read(position: int) -> list[np.ndarray]:
        window = windows(position)
        left, top = 500000 + 10 * window.col_off, 5000000 - 10 * window.row_off
        ground = (slice(left, left + 10 * SIZE), slice(top - 10 * SIZE, top))
        return [found[ground]["image"].numpy() for found in data]

    return read


def compared(side: int, count: int, layout: str, torchgeo: bool = False) -> list[float]:
    """Chips a second: ours, the plain loop's, that of one that keeps its files open, and torchgeo's where wanted."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pair(folder, side, LAYOUTS[layout])
        patterns = {"s1": "s1/*.tif", "s2": "s2/*.tif", "landcover": "", "cloud": ""}
        report = import_layers(folder, folder, patterns, Told(), Pairing(days=3.0))
        chips = Chips(Manifest.load(report.manifest), ChipCut({"s1": S1_2, "s2": S2_12}, SIZE, SIZE))
        positions = np.random.default_rng(1).choice(len(chips), count, replace=count > len(chips)).tolist()

        kept = {s: rasterio.open(folder / s / "place.tif") for s in ("s1", "s2")}

        def window_of(position: int) -> Window:
            _, row, col = chips.places[position].tolist()
            return Window(col, row, SIZE, SIZE)

        def plain(position: int) -> list[np.ndarray]:
            found = []
            for sensor in kept:
                with rasterio.open(folder / sensor / "place.tif") as source:
                    found.append(source.read(window=window_of(position)))
            return found

        def plain_kept(position: int) -> list[np.ndarray]:
            return [source.read(window=window_of(position)) for source in kept.values()]

        peers = [plain, plain_kept, *([torchgeo_reader(folder, window_of)] if torchgeo else [])]
        for position in positions[:5]:
            ours = chips[position]
            for peer in peers:
                for sensor, values in zip(kept, peer(position)):
                    assert np.array_equal(ours[sensor].numpy(), values), "not the same values"
        found = [per_second(read, positions) for read in (lambda p: chips[p], *peers)]
        for source in kept.values():
            source.close()
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=2048, help="pixels of a raster's side")
    parser.add_argument("--chips", type=int, default=200, help="chips read in a pass")
    parser.add_argument("--torchgeo", action="store_true", help="beside torchgeo too, which has to be installed")
    given = parser.parse_args()
    peers = ("plain loop", "loop with files kept open", *(["torchgeo"] if given.torchgeo else []))
    columns = ("Counterpoint", *peers, *(f"ratio to {name}" for name in peers))
    print(f"| rasters of {given.side} pixels, {given.chips} chips of {SIZE} a pass | {' | '.join(columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    for layout in LAYOUTS:
        ours, *others = compared(given.side, given.chips, layout, given.torchgeo)
        ratios = " | ".join(f"{ours / other:.2f}" for other in others)
        print(f"| {layout} | {' | '.join(f'{v:.0f}' for v in (ours, *others))} | {ratios} |")


if __name__ == "__main__":
    main()
