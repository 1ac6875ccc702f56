"""`embed --format geotiff|cog`: a raster of embeddings for every place; and `map`: a raster of classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoint.common.data.samples import BadSample, Part
from counterpoint.common.errors import InputError
from counterpoint.common.vertical import Outcome
from counterpoint.geospatial.data.chips import Chips
from counterpoint.geospatial.mosaic import raster_name, sweep_of, write_sweep
from counterpoint.geospatial.strip_store import weights_digest


def write_geotiff(
    system: Any, samples: Any, folder: Path, *, columns: tuple[str, ...], shard: int, batch_size: int, workers: int
) -> Outcome:
    """The format `geotiff`: see `embedding_rasters`."""
    return embedding_rasters(system, samples, Path(folder), batch_size=batch_size)


def write_cog(
    system: Any, samples: Any, folder: Path, *, columns: tuple[str, ...], shard: int, batch_size: int, workers: int
) -> Outcome:
    """The format `cog`: the same as cloud-optimised GeoTIFFs."""
    return embedding_rasters(system, samples, Path(folder), batch_size=batch_size, cog=True)


def embedding_rasters(
    system: Any, samples: Any, folder: Path, *, modality: str = "", batch_size: int = 16, cog: bool = False
) -> Outcome:
    """A GeoTIFF a place with a pixel a patch and a band a dimension, in the place's CRS; NaN where there are no data.

    A file that is there already is kept, and so are the strips of one that was under way: repeating the command
    finishes what was left. Written are the `joint` tokens where the system has both sensors, else those of the first.
    """
    chips = chips_of(samples)
    probe = dense_names(system, chips)
    name = modality or ("joint" if "joint" in probe else probe[0])
    if name not in probe:
        raise InputError(f"there are no dense features {name!r}; the system has {', '.join(probe)}")
    sweep = sweep_of(chips, system.patch_size, max(1, min(batch_size, 64)))

    def say(batch: Mapping[str, Any]) -> Tensor:
        return system.dense_features(batch)[name]

    training = system.training
    system.eval()
    written, kept, cells = [], 0, 0
    tags = {"EMBEDDING": name, "SYSTEM": type(system).__name__, "PATCH_PIXELS": system.patch_size}
    tags |= {"SYNTHETIC": chips.synthetic} if chips.synthetic else {}
    meaning = {"features": name, "weights": weights_digest(system), "cut": asdict(chips.cut)}
    for number in rows_in(chips):
        path = folder / raster_name(chips.rows[number])
        if path.is_file():
            kept += 1
            continue
        grid = write_sweep(path, system, chips, number, say, sweep, tags=tags, cog=cog, keep=meaning)
        written.append(path)
        cells += grid.height * grid.width
    system.train(training)
    figures = {"rasters": len(written), "kept": kept, "cells": cells, "features": name, "synthetic": chips.synthetic}
    said = [f"SYNTHETIC data: {chips.synthetic}"] if chips.synthetic else []
    more = f"; {kept} were there already" if kept else ""
    lines = (f"{folder}: {len(written)} rasters of {name} embeddings, {cells} cells{more}", *said)
    return Outcome(figures, lines, {"embeddings": folder})


def chips_of(samples: Any) -> Chips:
    """The chips behind a data set."""
    while isinstance(samples, Part):
        samples = samples.whole
    if not isinstance(samples, Chips):
        raise InputError("rasters are written of places alone: these samples are no chips of rasters")
    return samples


def rows_in(chips: Chips) -> list[int]:
    """The rows that gave chips, and those too small for one."""
    return list(range(len(chips.rows)))


def dense_names(system: Any, chips: Chips) -> list[str]:
    """What dense features a system has of these chips."""
    if not hasattr(system, "patch_size"):
        raise InputError(f"{type(system).__name__} has no features per place; croma, two-tower and optical-mae do")
    with torch.inference_mode():
        device = next((p.device for p in system.parameters()), torch.device("cpu"))
        from counterpoint.common.data.batch import to_device

        read = (chips[i] for i in range(len(chips)))
        first = next((sample for sample in read if not isinstance(sample, BadSample)), None)
        if first is None:
            raise InputError("not one chip of these places could be read")
        return list(system.eval().dense_features(to_device(chips.collate([first]), device)))


def map_classes(
    run: Path, manifest: Path | None, out: Path, split: str, checkpoint: str, batch_size: int, cog: bool
) -> Outcome:
    """Predictions of a finetuned head (`finetune --task dense`) on every pixel of whole places, as GeoTIFFs."""
    from counterpoint.common.runs.encode import open_split
    from counterpoint.common.trainers import FinetuneSystem
    from counterpoint.common.trainers.tasks import at_places
    from counterpoint.geospatial.data.legend import colour_of

    system, samples = open_split(run, checkpoint, split, manifest)
    if not isinstance(system, FinetuneSystem) or system.config.task != "dense":
        raise InputError(f"{run}: a map needs a head of land cover (finetune --task dense --labels landcover)")
    chips = chips_of(samples)
    sweep = sweep_of(chips, system.base.patch_size, max(1, min(batch_size, 64)))
    size = sweep.size

    def say(batch: Mapping[str, Any]) -> Tensor:
        return at_places(system.embed(batch)["logits"], (size, size)).softmax(-1)

    # Cells of one pixel: the margin keeps whole patches, so that no window's border is written.
    pixels = type(sweep)(sweep.size, 1, sweep.margin, sweep.batch_size)

    def finish(values: np.ndarray) -> np.ndarray:
        known = np.isfinite(values).all(0)
        best = np.where(np.isfinite(values), values, -1).argmax(0)
        return np.where(known, best, 255)[None]

    codes = {i: int(name) if str(name).isdigit() else i for i, name in enumerate(system.config.classes)}
    colours = {i: _rgb(colour_of(codes[i], chips.legend)) for i in codes}
    tags = {"CLASSES": ",".join(map(str, system.config.classes)), "RUN": str(run)}
    tags |= {f"CLASS_{code}": chips.legend[code] for code in codes.values() if code in chips.legend}
    tags |= {"SYNTHETIC": chips.synthetic} if chips.synthetic else {}
    written = []
    system.eval()
    for number in rows_in(chips):
        path = out / raster_name(chips.rows[number])
        if not path.is_file():
            write_sweep(
                path, system, chips, number, say, pixels, names=("class",), dtype="uint8", nodata=255, tags=tags,
                cog=cog, finish=finish, colours=colours,
            )  # fmt: skip
            written.append(str(path))
    lines = [f"{out}: {len(written)} maps of {len(codes)} classes, one pixel for each of the source"]
    lines += [f"SYNTHETIC data: {chips.synthetic}"] if chips.synthetic else []
    return Outcome({"maps": written, "synthetic": chips.synthetic}, tuple(lines), {"maps": out})


def _rgb(colour: str) -> tuple[int, int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16), 255
