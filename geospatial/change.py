"""Change between two times by embedding distance: of every patch, 1 - cosine of its features then and now.

    d(p) = 1 - <f_A(p), f_B(p)> / (|f_A(p)| |f_B(p)|),      from 0 (the same) to 2

Both times are encoded in the same windows, so that what lies around a patch is the same ground. Nothing is said (NaN)
of a patch of which less than half is data at both times: no data, clouds and their shadows where a mask says so.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoint.common.data import Manifest
from counterpoint.common.errors import InputError
from counterpoint.common.metrics.classification import Scores, score_classes
from counterpoint.common.metrics.labels import encode_labels
from counterpoint.common.metrics.result import NotRun, Result
from counterpoint.common.progress import note
from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.suggest import no_such
from counterpoint.common.trainers import load_run
from counterpoint.common.vertical import Outcome
from counterpoint.geospatial.bands import band_name, sensor_of
from counterpoint.geospatial.data.chips import ChipCut, Chips
from counterpoint.geospatial.data.form import BandForm
from counterpoint.geospatial.data.grid import ALIGNED, Grid, Window
from counterpoint.geospatial.data.importing import Told, import_layers
from counterpoint.geospatial.data.layers import Source, bands_of, own_grid, read_bands, row_grid
from counterpoint.geospatial.data.pairs import Pairing
from counterpoint.geospatial.data.raster import handle
from counterpoint.geospatial.mosaic import RasterSweep, strips, sweep_of, write_strips
from counterpoint.geospatial.writers import dense_names

LEAST = 0.5
"""Share of a patch that is data at both times, below which nothing is said of it."""


def change_map(
    run: Path, earlier: str, later: str, out: Path, manifest: Path | None, truth: Path | None, features: str,
    checkpoint: str, batch_size: int, cog: bool,
) -> Outcome:  # fmt: skip
    """`change`: see the command.

    Raises:
        InputError: the two lie on different grids, share no sensor, or cannot be read.
    """
    system = load_run(run, checkpoint).pretrained
    if not hasattr(system, "patch_size") or "assets" not in vars(system) or "bands" not in system.assets:
        raise InputError(f"{run}: {type(system).__name__} has no features per place of rasters")
    with tempfile.TemporaryDirectory() as folder:
        names = (str(earlier), str(later))
        rows = [_one_row(name, manifest, Path(folder) / str(i)) for i, name in enumerate(names)]
        pair = chips_pair(system, *rows, names)
        grid = row_grid(pair[0].rows[0])
        if Path(out).suffix.lower() not in (".tif", ".tiff"):
            raise InputError(f"--out {out}: the map is a GeoTIFF; name a .tif file")
        known = None if truth is None else changed_cells(Path(truth), grid, system.patch_size)
        feature = compared_features(system, pair[0], features)
        cells = RasterSweep(system.patch_size, system.patch_size, 0).out_grid(grid)
        kept: list[np.ndarray] = []

        def counted() -> Iterator[tuple[int, np.ndarray]]:
            for first, found in change_strips(system, *pair, [feature], batch_size):
                kept.append(found[feature])
                yield first, found[feature][None]

        tags = {"EARLIER": names[0], "LATER": names[1], "RUN": str(run), "FEATURES": feature, "VALUE": "1 - cosine"}
        synthetic = pair[0].synthetic or pair[1].synthetic or _synthetic_tag(pair)
        tags |= {"SYNTHETIC": synthetic} if synthetic else {}
        each = sweep_over(pair[0], system.patch_size, 1).step // system.patch_size
        write_strips(Path(out), counted(), cells, each, names=("change",), tags=tags, cog=cog)
    found = np.concatenate(kept)
    seen = np.isfinite(found)
    figures: dict[str, Any] = {
        "cells": int(found.size), "without_data": int((~seen).sum()), "features": feature,
        "mean": float(found[seen].mean()) if seen.any() else None, "synthetic": synthetic,
    }  # fmt: skip
    lines = [f"{out}: {found.size} cells of {cells.side:g} m, {figures['without_data']} without data at both times"]
    if known is not None:
        both = seen & (known >= 0)
        scores = score_change(found[both], known[both])
        said = getattr(scores, "reason", "")
        if isinstance(scores, Scores):
            figures["scores"] = {"cells": scores.n, **scores.metrics}
            said = ", ".join(f"{k} {v:.3f} (chance {scores.chance[k]:.3f})" for k, v in scores.metrics.items())
        lines += [f"against {truth}: {said}"]
    lines += [f"SYNTHETIC data: {synthetic}"] if synthetic else []
    return Outcome(figures, tuple(lines), {"change": Path(out)})


def _one_row(name: str, manifest: Path | None, folder: Path) -> Manifest:
    """The one row that a name means: of a manifest, or of rasters imported for the purpose."""
    if manifest is not None:
        table = Manifest.load(manifest)
        ids = [str(v) for v in table.frame["id"]]
        if name not in ids:
            raise no_such("row", name, ids)
        return replace(table, frame=table.frame[table.frame["id"].astype(str) == name])
    if not Path(name).exists():
        raise InputError(f"{name}: there is no such file or folder (a row's id needs --manifest)")
    file = Path(name).absolute()
    patterns = {sensor: escape(file.name)} if file.is_file() and (sensor := _sensor_in(file)) else {}
    report = import_layers(file, folder, patterns, Told(), Pairing(days=None, single=True))
    if not report.rows and report.rejected:
        raise InputError(f"{report.rejected[0].source}: {report.rejected[0].reason}")
    if report.rows != 1:
        raise InputError(
            f"{name}: holds {report.rows} places or times, one is needed; import it (data import rasters) and name its "
            "row with --manifest"
        )
    return Manifest.load(report.manifest)


def _sensor_in(file: Path) -> str | None:
    """The sensor that the names of a raster's own bands tell; None where they tell none, and of damaged files."""
    try:
        names = [band_name(text or "") for text in handle(file).descriptions]
    except InputError:
        return None
    return sensor_of(names) if names and all(names) else None


def _synthetic_tag(pair: tuple[Chips, Chips]) -> str:
    """What the files themselves say, where no manifest does."""
    for chips in pair:
        row = chips.rows[0]
        for key in ("s1", "s2"):
            if row.get(key) and (said := handle(chips.manifest.folder / row[key]).tags().get("SYNTHETIC")):
                return str(said)
    return ""


def chips_pair(system: Any, earlier: Manifest, later: Manifest, names: tuple[str, str]) -> tuple[Chips, Chips]:
    """Both times in the system's form: of the sensors that both have, windows no larger than the scene."""
    rows = earlier.row(0), later.row(0)
    a, b = map(row_grid, rows)
    if why := differs(a, b):
        raise InputError(f"{names[0]} and {names[1]} lie on different grids ({why}); warp one (gdalwarp)")
    form, patch = BandForm.of(system.assets), system.patch_size
    bands = {s: n for s, n in form.bands.items() if all(set(n) <= set(bands_of(row, s)) for row in rows)}
    if not bands:
        wanted = "; ".join(f"{s}: {', '.join(n)}" for s, n in form.bands.items())
        raise InputError(f"{names[0]} and {names[1]} have no sensor of the run in common (it takes {wanted})")
    size = min(system.config.data.size, min(a.height, a.width) // patch * patch)
    if not size:
        raise InputError(f"{names[0]}: its {a.height} x {a.width} pixels are fewer than a patch of {patch}")
    cut = ChipCut(bands, size, size, False, 0.0, system.config.data.clouds)
    return Chips(earlier, cut, form), Chips(later, cut, form)


def differs(a: Grid, b: Grid) -> str:
    """How two grids differ, in words; empty where they are one."""
    if a.crs != b.crs:
        return f"{a.crs} and {b.crs}"
    if abs(a.side - b.side) > 1e-6 * a.side:
        return f"pixels of {a.side:g} m and of {b.side:g} m"
    if (a.height, a.width) != (b.height, b.width):
        return f"{a.height} x {a.width} and {b.height} x {b.width} pixels"
    if max(abs(a.left - b.left), abs(a.top - b.top)) > ALIGNED * a.side:
        return f"upper left corners {a.left:g}, {a.top:g} and {b.left:g}, {b.top:g}"
    return ""


def sweep_over(chips: Chips, cell: int, batch_size: int) -> RasterSweep:
    """The windows of `embed`, with half of a cell asked for."""
    return replace(sweep_of(chips, cell, max(1, min(batch_size, 64))), least=LEAST)


def compared_features(system: Any, chips: Chips, asked: str = "") -> str:
    """The dense features that are compared: those asked for, else `joint` where both sensors are there."""
    have = dense_names(system, chips)
    name = asked or ("joint" if "joint" in have else have[0])
    if name not in have:
        raise InputError(f"there are no dense features {name!r} of these scenes; there are {', '.join(have)}")
    return name


def change_strips(
    system: Any, earlier: Chips, later: Chips, names: Sequence[str], batch_size: int = 16, row: tuple[int, int] = (0, 0)
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """(first row, 1 - cosine [rows, columns] by the name of the features) of every strip of two rows on one grid; NaN
    where either holds no data. Both are encoded once for all names."""
    widths: dict[str, int] = {}

    def say(batch: Mapping[str, Any]) -> Tensor:
        dense = system.dense_features(batch)
        widths.update({name: dense[name].shape[-1] for name in names})
        return torch.cat([dense[name] for name in names], -1)

    sweep = sweep_over(earlier, system.patch_size, batch_size)
    system.eval()
    before = strips(system, earlier, row[0], say, sweep, "earlier and later")
    after = strips(system, later, row[1], say, sweep)
    for (first, a), (_, b) in zip(before, after):
        ends = np.cumsum([widths[name] for name in names])[:-1]
        parts = zip(names, np.split(a, ends), np.split(b, ends))
        yield first, {name: cosine_distance(x, y) for name, x, y in parts}


def cosine_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 - cosine over the first axis, in float64; NaN where either is NaN or has no length.

    >>> cosine_distance(np.array([[1.0], [0.0]]), np.array([[0.0], [2.0]])).tolist()
    [1.0]
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (1 - (a * b).sum(0) / (np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0))).astype(np.float32)


def changed_cells(file: Path, grid: Grid, cell: int) -> np.ndarray:
    """[rows, columns] 1 where at least half of a cell's known pixels changed, 0 where fewer did, -1 where less than
    half of them is known.

    Raises `InputError` where the map does not lie on the scenes' grid.
    """
    if why := differs(own_grid(file), grid):
        raise InputError(f"{file} does not lie on the scenes' grid ({why}); warp it onto theirs (gdalwarp)")
    values, valid = read_bands([Source(file, 1)], grid, Window(0, 0, grid.height, grid.width))
    rows, cols = -(-grid.height // cell), -(-grid.width // cell)
    pad = ((0, rows * cell - grid.height), (0, cols * cell - grid.width))

    def counted(where: np.ndarray) -> np.ndarray:
        return np.pad(where, pad).reshape(rows, cell, cols, cell).sum((1, 3))

    known, changed = counted(valid[0]), counted(valid[0] & (values[0] != 0))
    whole = counted(np.ones(valid[0].shape, bool))
    return np.where(2 * known >= whole, (2 * changed >= known).astype(int), -1)


def score_change(scores: np.ndarray, changed: np.ndarray, groups: np.ndarray | None = None, **options: Any) -> Result:
    """AUROC and average precision of distances, changed cells being those to be found."""
    if len(np.unique(changed)) < 2:
        return NotRun(f"{len(changed)} cells are known, and all of them are alike: nothing is to be told apart")
    p = np.clip(scores / 2, 0, 1).astype(np.float64)
    (truth,) = encode_labels(changed.astype(int).tolist())
    found = score_classes(np.stack([1 - p, p], 1), truth, groups=groups, **(options or {"n_boot": 1}))
    kept = {name: getattr(found, name) for name in ("metrics", "chance", "intervals")}
    parts = {k: {n: v[n] for n in ("auroc", "auprc")} for k, v in kept.items()}
    return replace(found, **parts, per_row={})


def change_scores(run: OpenRun) -> dict[str, Result]:
    """Distance between the two times of a place against its map of change (column `change_map`), pooled over the cells
    of all places of the split; intervals draw whole places."""
    chips = run.data.get(run.split)
    system = getattr(run.system, "pretrained", run.system)
    if not isinstance(chips, Chips) or "change_map" not in chips.columns or not hasattr(system, "patch_size"):
        return {}
    places: dict[tuple, list[int]] = {}
    for i, row in enumerate(chips.rows):
        if row.get("change_map"):
            places.setdefault((str(row["group"]), str(row["change_map"]), row_grid(row)), []).append(i)
    found: dict[str, tuple[list[np.ndarray], list[str]]] = {}
    for (group, file, grid), rows in places.items():
        times = sorted(rows, key=lambda i: str(chips.rows[i].get("s2_time") or chips.rows[i].get("s1_time") or ""))
        if len(times) < 2:
            continue
        try:
            truth = changed_cells(chips.manifest.folder / file, grid, system.patch_size)
            names, ends = dense_names(system, chips), (times[0], times[-1])
            made = [values for _, values in change_strips(system, chips, chips, names, run.batch_size, ends)]
        except InputError as error:
            if chips.on_error == "raise":
                raise
            note(f"left out of the scores of change: {group}: {error}")
            continue
        for name in names:
            values = np.concatenate([strip[name] for strip in made])
            both = np.isfinite(values) & (truth >= 0)
            pair = found.setdefault(name, ([], []))
            pair[0].append(np.stack([values[both], truth[both]]))
            pair[1].extend([group] * int(both.sum()))
    options = {"n_boot": run.n_boot, "seed": run.seed}
    return {
        f"change by distance, {name}": score_change(*np.concatenate(parts, 1), np.asarray(groups), **options)
        for name, (parts, groups) in found.items()
    }
