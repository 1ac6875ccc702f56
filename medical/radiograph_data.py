"""Radiographs and their reports as samples: pictures brought to the recipe once and kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from counterpoint.common.data import Cache, Manifest
from counterpoint.common.data.places import Folder
from counterpoint.common.data.samples import options_hash
from counterpoint.common.errors import InputError
from counterpoint.medical.data import CTData, file_identity, read_rows
from counterpoint.medical.projection import cached_radiographs
from counterpoint.medical.radiograph_configs import PictureRecipeConfig, RadiographDataConfig
from counterpoint.medical.reading import row_radiograph, row_reports
from counterpoint.medical.reported import ReportedSamples

PREPARED_PICTURES = 1
"""Of how pictures are brought to a recipe: another number makes them anew."""


@dataclass(frozen=True)
class RadiographData(CTData):
    """What a configuration names: rows whose pictures could be read, the files of the prepared pictures (`volumes`),
    the texts of the reports."""


def to_picture(grey: np.ndarray, recipe: PictureRecipeConfig) -> np.ndarray:
    """[rows, columns] in 0..1 -> [size, size] in 0..1, true to scale; interpolated with a low-pass where it gets
    coarser.

    >>> float(to_picture(np.ones((40, 20)), PictureRecipeConfig(size=20, fit="pad")).mean())   # half of it is black
    0.5
    """
    from PIL import Image

    values = grey.astype(np.float32)
    if recipe.low > 0 or recipe.high < 100:
        black, white = np.percentile(values, (recipe.low, recipe.high))
        if not white > black:
            raise InputError(
                f"its {recipe.low:g}th and {recipe.high:g}th percentiles are alike ({black:g}), so that nothing of it "
                "is left; widen --data.recipe.low and high, or leave the picture out"
            )
        values = np.clip((values - black) / (white - black), 0, 1)
    height, width = values.shape
    scale = recipe.size / (min(height, width) if recipe.fit == "crop" else max(height, width))
    size = [max(round(n * scale), 1) for n in (width, height)]
    shown = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR))
    out = np.zeros((recipe.size, recipe.size), dtype=np.float32)
    put, cut = zip(*(_middle(n, recipe.size) for n in shown.shape))
    out[put] = shown[cut]
    return out


def _middle(length: int, size: int) -> tuple[slice, slice]:
    """Where a line of `length` pixels lies in one of `size`, and which part of it: middle on middle."""
    put, cut = max(size - length, 0) // 2, max(length - size, 0) // 2
    kept = min(length, size)
    return slice(put, put + kept), slice(cut, cut + kept)


def load_radiographs(config: RadiographDataConfig, on_error: str = "raise", max_bad: float = 0.01) -> RadiographData:
    """Read every radiograph of the manifest (or of the generator), bring it to the recipe, read the reports.

    Prepared pictures are kept in the cache under the file's identity and the recipe. Reading is done in worker
    processes.

    Raises:
        InputError: a row cannot be read and `on_error` is `raise`, or too many cannot; rows without a split; a patient
            in two splits.
    """
    if config.manifest:
        manifest, where = Manifest.load(config.manifest), config.manifest
    else:
        sizes = {"train": config.volumes, "val": config.val_volumes, "test": config.test_volumes}
        manifest = cached_radiographs(sizes, config.seed, config.phantom, config.workers, config.cache)
        where = "generated radiographs"
    read = partial(_prepared, folder=manifest.folder, recipe=config.recipe, cache=config.cache)
    part, made, left_out = read_rows(manifest, read, where, config.workers, on_error, max_bad)
    pictures, reports = zip(*made) if made else ((), ())
    return RadiographData(part, pictures, tuple(map(tuple, reports)), left_out)


def _prepared(
    row: dict[str, Any], folder: Folder, recipe: PictureRecipeConfig, cache: str
) -> tuple[Path, list[str]]:
    """In a worker: the file of a row's prepared picture, made if it is not in the cache, and its reports."""
    if not isinstance(row.get("image"), str):
        what = "a volume, which clip-ct, velvet-med and gemini read" if row.get("volume") else "nothing"
        raise InputError(f"no file named in column 'image' (it names {what})")
    key = {
        "kind": "radiograph", "version": PREPARED_PICTURES, "recipe": asdict(recipe),
        **file_identity(Path(folder / row["image"])),
    }  # fmt: skip
    path = Cache(cache or None).get_or_make(key, ".npy", lambda p: _keep(p, row, folder, recipe))
    return path, row_reports(row, folder)


def _keep(path: Path, row: dict[str, Any], folder: Folder, recipe: PictureRecipeConfig) -> None:
    """As 16 bits: no detector has more."""
    try:
        made = to_picture(row_radiograph(row, folder).data, recipe)
    except InputError as error:
        raise InputError(f"{row['image']}: {error}") if row["image"] not in str(error) else error from None
    with path.open("wb") as file:
        np.save(file, np.rint(made * 65535).astype(np.uint16))


def load_picture(path: Path) -> torch.Tensor:
    """[size, size] in 0..1 of a prepared picture."""
    return torch.from_numpy(np.load(path, allow_pickle=False).astype(np.float32) / 65535)


class RadiographReports(ReportedSamples):
    """The radiographs of a split with a drawn one of their reports: `xr` [rows, columns] in 0..1, `report` (tokens),
    `sentence_of`, `text`."""

    scan = "xr"

    def __getitem__(self, position: int) -> dict[str, Any]:
        known = self.known(position)
        known.pop("sentences")
        return {**known, "xr": load_picture(self.data.volumes[self.rows[position]])}

    @cached_property
    def hash(self) -> str:
        table = replace(self.manifest, frame=self.frame)
        options = {
            "sizes": self.contents.sizes, "recipe": asdict(self.config.recipe), "prepared": PREPARED_PICTURES,
            "reports": [self.data.reports[r] for r in self.rows], "sections": self.config.sections,
            "length": self.config.tokens,
        }  # fmt: skip
        return options_hash(table.hash, **options)
