"""Whole rasters by sliding windows: what a system says of every patch or pixel, written back where it lies.

A window is a block of output pixels with a margin of context around it; outside of the raster there is no data, which
the systems' masks hide. One strip of blocks is in memory at a time, and strips may be kept until the raster is whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoint.common.data.batch import to_device
from counterpoint.common.data.names import file_name
from counterpoint.common.errors import InputError
from counterpoint.common.progress import note, track
from counterpoint.geospatial.data.chips import Chips
from counterpoint.geospatial.data.form import physical
from counterpoint.geospatial.data.grid import Grid, Window
from counterpoint.geospatial.data.layers import read_sensor, row_grid, sources
from counterpoint.geospatial.data.writing import profile
from counterpoint.geospatial.strip_store import StripStore

Say = Callable[[Mapping[str, Any]], Tensor]
"""A batch to [batch, rows, columns, values] on a grid of `cell` pixels."""


@dataclass(frozen=True)
class RasterSweep:
    """How a raster is gone over.

    Attributes:
        size: pixels of a window's side, as the system was trained on.
        cell: pixels of an output pixel's side (a patch, or 1).
        margin: pixels of context on each side that are not written.
        batch_size: windows at a time.
        least: share of an output pixel's ground that holds data in every sensor, below which nothing is said of it; 0
            asks for one pixel.
    """

    size: int
    cell: int
    margin: int
    batch_size: int = 16
    least: float = 0.0

    def __post_init__(self) -> None:
        if self.size % self.cell or self.margin % self.cell or self.size <= 2 * self.margin:
            raise InputError(
                f"windows of {self.size} pixels with a margin of {self.margin} do not divide into cells of {self.cell}"
            )

    @property
    def step(self) -> int:
        """Pixels of a block's side."""
        return self.size - 2 * self.margin

    def out_grid(self, grid: Grid) -> Grid:
        """The grid of the output: the same corner, cells for pixels."""
        rows, cols = -(-grid.height // self.cell), -(-grid.width // self.cell)
        return Grid(grid.crs, grid.left, grid.top, grid.side * self.cell, rows, cols)


def sweep_of(chips: Chips, cell: int, batch_size: int) -> RasterSweep:
    """Windows as large as the chips, with an eighth of their side as margin."""
    margin = chips.cut.size // 8 // cell * cell
    return RasterSweep(chips.cut.size, cell, margin, batch_size)


def strips(
    system: Any, chips: Chips, number: int, say: Say, sweep: RasterSweep, progress: str = "",
    store: StripStore | None = None,
) -> Iterator[tuple[int, np.ndarray]]:  # fmt: skip
    """(first output row, [values, rows, columns] as float32) of every strip of the row `number`; NaN where no
    pixel of a cell is data in every sensor. With a `store`, strips that it has are not computed again."""
    row = chips.rows[number]
    grid = row_grid(row)
    out = sweep.out_grid(grid)
    firsts = [top // sweep.cell for top in range(0, grid.height, sweep.step)]
    device = next((p.device for p in system.parameters()), torch.device("cpu"))
    lefts = list(range(0, grid.width, sweep.step))

    def strip(first: int) -> np.ndarray:
        top, parts = first * sweep.cell, []
        height = min(sweep.step // sweep.cell, out.height - first)
        for i in range(0, len(lefts), sweep.batch_size):
            some = lefts[i : i + sweep.batch_size]
            windows = [Window(top - sweep.margin, left - sweep.margin, sweep.size, sweep.size) for left in some]
            batch = window_batch(chips, row, windows)
            with torch.inference_mode():
                said = say(to_device(batch, device)).float().cpu()
            seen = cells_with_data(batch, sweep.cell, sweep.least)
            if said.shape[1:3] != seen.shape[1:]:
                raise ValueError(f"what is said has {tuple(said.shape[1:3])} cells, not {tuple(seen.shape[1:])}")
            said = torch.where(seen.unsqueeze(-1), said, torch.full_like(said, float("nan")))
            edge = sweep.margin // sweep.cell
            core = said[:, edge : edge + sweep.step // sweep.cell, edge : edge + sweep.step // sweep.cell]
            parts += [part[:height].permute(2, 0, 1).numpy() for part in core]
        return np.ascontiguousarray(np.concatenate(parts, 2)[:, :, : out.width], dtype=np.float32)

    shown = track(firsts, progress, len(firsts)) if progress else firsts
    yield from ((first, strip(first)) for first in shown) if store is None else store.filled(shown, strip)


def window_batch(chips: Chips, row: Mapping[str, Any], windows: Sequence[Window]) -> dict[str, Any]:
    """A batch of windows of one row, which may reach beyond it."""
    if chips.form is None:
        raise ValueError("chips without a form are no input of a system")
    batch: dict[str, Any] = {"index": torch.arange(len(windows))}
    for sensor, names in chips.cut.bands.items():
        values, masks = [], []
        for window in windows:
            found = read_sensor(row, chips.manifest.folder, sensor, names, window, chips.cut.clouds)
            inside = _inside(row_grid(row), window)
            measured, valid = physical(sensor, found[0], found[1] & inside, row)
            values.append(torch.from_numpy(measured))
            masks.append(torch.from_numpy(valid))
        batch[f"{sensor}_valid"] = torch.stack(masks)
        batch[sensor] = chips.form.scaled(sensor, torch.stack(values), batch[f"{sensor}_valid"])
    return batch


def _inside(grid: Grid, window: Window) -> np.ndarray:
    """Which pixels of a window lie in the row's own grid: its files may go on where another row begins."""
    rows, cols = window.row + np.arange(window.height), window.col + np.arange(window.width)
    return ((rows >= 0) & (rows < grid.height))[:, None] & ((cols >= 0) & (cols < grid.width))


def cells_with_data(batch: Mapping[str, Any], cell: int, least: float = 0.0) -> Tensor:
    """[windows, rows, columns] cells of which some pixel, and this share of all, is data in every sensor."""
    seen = torch.stack([batch[name] for name in batch if name.endswith("_valid")]).all(0)
    n, h, w = seen.shape
    share = seen.reshape(n, h // cell, cell, w // cell, cell).double().mean((2, 4))
    return (share > 0) & (share >= least)


def _states(chips: Chips, number: int) -> dict[str, list[int]]:
    """Size and time of change of the files that a row is read from: what was replaced is another raster."""
    row = chips.rows[number]
    files = {s.file for sensor, names in chips.cut.bands.items() for s in sources(row, chips.files, sensor, names)}
    found = {str(file): os.stat(file) for file in sorted(files)}
    return {name: [state.st_size, state.st_mtime_ns] for name, state in found.items()}


def write_sweep(
    path: Path, system: Any, chips: Chips, number: int, say: Say, sweep: RasterSweep, *, names: Sequence[str] = (),
    dtype: str = "float32", nodata: float = float("nan"), tags: Mapping[str, Any] | None = None, cog: bool = False,
    finish: Callable[[np.ndarray], np.ndarray] | None = None, colours: Mapping[int, tuple] | None = None,
    keep: Mapping[str, Any] | None = None,
) -> Grid:  # fmt: skip
    """One raster of what `say` says of a row, strip by strip; complete or not at all. `finish` turns a strip into what
    is written (classes of probabilities). With `keep`, what the strips depend on beside the row and the sweep, a call
    that is killed leaves its strips, and the next one of the same meaning goes on after them."""
    out = sweep.out_grid(row_grid(chips.rows[number]))
    store = None
    if keep is not None:
        cut = {k: v for k, v in asdict(sweep).items() if k != "batch_size"}
        files = _states(chips, number)
        store = StripStore(path, {"row": chips.rows[number], "files": files, "sweep": cut, **keep})
        if len(store):
            note(f"{path.name}: {len(store)} strips are there already")
    made = strips(system, chips, number, say, sweep, str(path.name), store)
    finished = made if finish is None else ((first, finish(values)) for first, values in made)
    options = {"names": names, "dtype": dtype, "nodata": nodata, "tags": tags, "cog": cog, "colours": colours}
    options["scratch"] = None if store is None else store.folder
    write_strips(path, finished, out, sweep.step // sweep.cell, **options)
    if store is not None:
        store.clear()
    return out


def write_strips(
    path: Path, made: Iterable[tuple[int, np.ndarray]], out: Grid, rows: int, *, names: Sequence[str] = (),
    dtype: str = "float32", nodata: float = float("nan"), tags: Mapping[str, Any] | None = None, cog: bool = False,
    colours: Mapping[int, tuple] | None = None, scratch: Path | None = None,
) -> None:  # fmt: skip
    """A raster of strips of `rows` rows, (first row, [bands, rows, columns]) each; complete or not at all. What is not
    complete lies in `scratch`, or beside it."""
    import rasterio
    from rasterio.shutil import copy

    folder = scratch or path.parent
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{path.name}.{os.getpid()}.tmp.tif"
    target = None
    try:
        for first, values in made:
            if target is None:
                options = profile(out, len(values), dtype, nodata)
                for key in ("blockxsize", "tiled"):
                    options.pop(key, None)
                # A strip is a row of blocks of the file, so that none is written twice.
                options["blockysize"] = max(1, min(rows, out.height))
                target = rasterio.open(temporary, "w", **options)
                for i, name in enumerate(names, start=1):
                    target.set_band_description(i, name)
                if colours:
                    target.write_colormap(1, colours)
                target.update_tags(**(tags or {}))
            target.write(values.astype(dtype), window=((first, first + values.shape[1]), (0, out.width)))
        if target is not None:
            target.close()
            target = None
        if cog:
            second = temporary.with_suffix(".cog.tif")
            copy(temporary, second, driver="COG", compress="deflate")
            os.replace(second, temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        if target is not None:
            target.close()
        temporary.unlink(missing_ok=True)


def raster_name(row: Mapping[str, Any]) -> str:
    """The file name of a row's raster."""
    return f"{file_name(str(row['id']))}.tif"
