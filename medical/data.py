"""Volumes and their reports as samples: volumes brought to the recipe once and kept, reports as a pool of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoint.common.data import BadSample, Cache, Manifest
from counterpoint.common.data.importing import plain_reason
from counterpoint.common.data.isolation import isolated_map
from counterpoint.common.data.left_out import leave_out
from counterpoint.common.data.manifest import SPLITS
from counterpoint.common.data.places import Folder
from counterpoint.common.data.samples import options_hash
from counterpoint.common.data.splits import check_leakage
from counterpoint.common.errors import InputError
from counterpoint.common.progress import track
from counterpoint.common.vertical import Rejected
from counterpoint.medical.configs import CTDataConfig, RecipeConfig
from counterpoint.medical.reading import row_labels, row_reports, row_volume
from counterpoint.medical.reported import ReportedSamples
from counterpoint.medical.simulate import cached_phantoms
from counterpoint.medical.volume import Volume, labels_to_recipe, to_recipe

PREPARED = 2
"""Of how volumes are brought to a recipe: another number makes them anew."""


@dataclass(frozen=True)
class CTData:
    """What a configuration names: rows whose volumes could be read, the prepared volumes, the texts of the reports.

    Attributes:
        manifest: the rows.
        volumes: of every row, the file of the prepared volume.
        reports: of every row, the texts.
        labels: of every row, the file of the prepared label map; None where it has none.
        left_out: split -> rows that could not be read.
    """

    manifest: Manifest
    volumes: tuple[Path, ...]
    reports: tuple[tuple[str, ...], ...]
    left_out: Mapping[str, Sequence[BadSample]]
    labels: tuple[Path | None, ...] = ()

    def rows(self, split: str) -> list[int]:
        """Places of a split's rows."""
        return np.flatnonzero((self.manifest.frame["split"] == split).to_numpy()).tolist()

    def label_map(self, row: int, recipe: RecipeConfig) -> Tensor:
        """[x, y, z] the label of every voxel of a row on the recipe's grid; -1 throughout where it has no map."""
        if (file := self.labels[row]) is None:
            return torch.full(tuple(recipe.size), -1, dtype=torch.int64)
        return torch.from_numpy(load_prepared(file)[0].astype(np.int64))


def load_ct(config: CTDataConfig, on_error: str = "raise", max_bad: float = 0.01) -> CTData:
    """Read every volume of the manifest (or of the generator), bring it to the recipe, read the reports.

    Prepared volumes are kept in the cache under the file's identity and the recipe. Reading is done in worker
    processes.

    Raises:
        InputError: a row cannot be read and `on_error` is `raise`, or too many cannot; rows without a split; a patient
            in two splits.
    """
    if config.manifest:
        manifest = Manifest.load(config.manifest)
        where = config.manifest
    else:
        sizes = {"train": config.volumes, "val": config.val_volumes, "test": config.test_volumes}
        manifest = cached_phantoms(sizes, config.seed, config.phantom, config.workers, config.cache)
        where = "generated volumes"
    read = partial(_prepared, folder=manifest.folder, recipe=config.recipe, cache=config.cache)
    part, made, left_out = read_rows(manifest, read, where, config.workers, on_error, max_bad)
    volumes, reports, labels = zip(*made) if made else ((), (), ())
    return CTData(part, volumes, tuple(map(tuple, reports)), left_out, labels)


def read_rows(
    manifest: Manifest, read: Callable[[dict[str, Any]], Any], where: str, workers: int, on_error: str, max_bad: float
) -> tuple[Manifest, list[Any], dict[str, tuple[BadSample, ...]]]:
    """Every row through `read` in worker processes: the rows that could be read, what was made of each, and split ->
    the rows that could not."""
    check_leakage(manifest)
    rows = [manifest.row(i) for i in range(len(manifest))]
    if not any(row.get("split") for row in rows):
        raise InputError(f"{where}: rows without a split; run `counterpoint medical data split` on it first")
    numbers = manifest.frame.index.tolist()
    found = isolated_map(read, rows, workers=workers, chunk=4, name=lambda row: str(row["id"]))
    made, bad = [], []
    for (row, got), number in zip(track(found, "reading scans", len(rows)), numbers):
        if isinstance(got, Rejected):
            bad.append((row["split"], BadSample(number, str(row["id"]), plain_reason(got.reason, Path(got.source)))))
        made.append(got)
    leave_out([b for _, b in bad], len(rows), on_error, max_bad, where)
    kept = [i for i, got in enumerate(made) if not isinstance(got, Rejected)]
    left_out = {name: tuple(b for split, b in bad if split == name) for name in SPLITS}
    part = replace(manifest, frame=manifest.frame.iloc[kept])
    return part, [made[i] for i in kept], left_out


def _prepared(
    row: dict[str, Any], folder: Folder, recipe: RecipeConfig, cache: str
) -> tuple[Path, list[str], Path | None]:
    """In a worker: the file of a row's prepared volume, made if it is not in the cache, its reports, and the file of
    its prepared label map where it has one."""
    if not isinstance(row.get("volume"), str):
        raise InputError("no file named in column 'volume'")
    file = Path(folder / row["volume"])
    reports = row_reports(row, folder)
    reading = {name: str(row.get(name) or "") for name in ("modality", "hu", "slope", "intercept")}
    store, known = Cache(cache or None), {"version": PREPARED, "recipe": asdict(recipe)}
    key = {"kind": "medical-volume", **known, **file_identity(file), **reading}
    path = store.get_or_make(key, ".npz", lambda p: _keep(p, to_recipe(row_volume(row, folder), recipe)))
    if not isinstance(row.get("labels"), str) or not row["labels"]:
        return path, reports, None
    maps = Path(folder / row["labels"])
    key = {"kind": "medical-labels", **known, "volume": file_identity(file), **file_identity(maps)}
    return path, reports, store.get_or_make(key, ".npz", lambda p: _keep_labels(p, row, folder, recipe))


def file_identity(file: Path) -> dict[str, Any]:
    """What says that a file is the one that was read before."""
    stat = os.stat(file)
    return {"file": str(file.resolve()), "size": stat.st_size, "mtime": stat.st_mtime_ns}


def _keep_labels(path: Path, row: dict[str, Any], folder: Folder, recipe: RecipeConfig) -> None:
    """The nearest voxel's label on the recipe's grid."""
    truth = row_labels(row, folder)
    made = labels_to_recipe(truth, recipe)
    with path.open("wb") as file:
        np.savez(file, data=made.data, affine=made.affine)


def _keep(path: Path, volume: Volume) -> None:
    """HU as int16: finer differences are below any scanner's noise. Values of fractions stay float32."""
    data = volume.data
    whole = float(data.min()) >= -(2**15) and float(data.max()) < 2**15 and float(data.max() - data.min()) > 256
    kept = np.rint(data).astype(np.int16) if whole else data.astype(np.float32)
    with path.open("wb") as file:
        np.savez(file, data=kept, affine=volume.affine)


def load_prepared(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(values, affine) of a prepared volume."""
    with np.load(path, allow_pickle=False) as archive:
        return archive["data"], archive["affine"]


class CTReports(ReportedSamples):
    """The volumes of a split with a drawn one of their reports.

    A sample holds `ct` [x, y, z] in the recipe's values, `affine`, `report` (tokens) and `text` of a report, or an
    empty one where there is none; for training also the sentences; where `labelled`, and where the data have label
    maps, `labels` [x, y, z].
    """

    scan = "ct"

    def __init__(self, *given: Any, labelled: bool = False, **options: Any) -> None:
        super().__init__(*given, **options)
        self.labelled = labelled

    def __getitem__(self, position: int) -> dict[str, Any]:
        row = self.rows[position]
        data, affine = load_prepared(self.data.volumes[row])
        maps = (
            {"labels": self.data.label_map(row, self.config.recipe)}
            if self.labelled and "labels" in self.columns
            else {}
        )
        return {
            **self.known(position), **maps, "ct": torch.from_numpy(data.astype(np.float32)),
            "affine": torch.from_numpy(affine),
        }  # fmt: skip

    @cached_property
    def hash(self) -> str:
        table = replace(self.manifest, frame=self.frame)
        options = {
            "sizes": self.contents.sizes, "recipe": asdict(self.config.recipe), "prepared": PREPARED,
            "reports": [self.data.reports[r] for r in self.rows], "sections": self.config.sections,
            "length": self.config.tokens,
        }  # fmt: skip
        return options_hash(table.hash, **options)
