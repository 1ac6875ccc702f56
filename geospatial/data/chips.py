"""Chips of places: many samples a manifest row, read window by window, never tiled to disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoint.common.data import Manifest
from counterpoint.common.data.contents import Contents, contents_of
from counterpoint.common.data.dataset import synthetic_part
from counterpoint.common.data.samples import BadSample, Samples, collate, options_hash, plain
from counterpoint.common.errors import InputError
from counterpoint.common.progress import note, track
from counterpoint.common.suggest import no_such
from counterpoint.geospatial.data.form import BandForm, physical
from counterpoint.geospatial.data.grid import Window
from counterpoint.geospatial.data.layers import KeptPaths, bands_of, read_landcover, read_sensor, row_grid
from counterpoint.geospatial.data.legend import class_name, legend_of

DRAWS = 20
"""Places at which a random chip is tried for enough valid pixels."""
STRIP = 128
"""Rows of a mask that are read at a time."""


@dataclass(frozen=True)
class ChipCut:
    """How rows are cut into chips.

    Attributes:
        bands: sensor -> bands by name.
        size, step: pixels of a chip's side, and between chips.
        random: draw each chip's place anew when it is read.
        min_valid: share of valid pixels, the least of all sensors, below which a chip is left out.
        clouds: count clouds as no data.
    """

    bands: Mapping[str, tuple[str, ...]]
    size: int
    step: int
    random: bool = False
    min_valid: float = 0.5
    clouds: bool = True


class Chips(Samples):
    """Chips of the rows of a manifest.

    A sample holds for each sensor `s1` or `s2` its bands [bands, size, size] in the file's own type and `s1_valid` or
    `s2_valid` [size, size]; with a map, `landcover` [size, size] (codes, -1 unknown); `row` and `col` in its grid,
    `lat`, `lon`, `season`, `label` (the commonest class of land cover, or the manifest's own label), `place`, the ids.
    `collate` makes a batch: dB or reflectance with the offset applied, scaled by the `form`'s statistics, float32, 0
    where nothing is valid.

    The identity of a random chip is its place in the list; where it is cut is drawn from the sample's own seed, and so
    is what `draw` adds to a sample for the step (`turn`, masks). Samples with a `turn` are flipped and turned.
    """

    def __init__(
        self,
        manifest: Manifest,
        cut: ChipCut,
        form: BandForm | None = None,
        on_error: str = "raise",
        max_bad: float = 0.01,
        draw: Callable[[dict], dict] | None = None,
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is 'raise' or 'skip', not {on_error!r}")
        self.manifest, self.cut, self.form, self.draw = manifest, cut, form, draw
        self.on_error, self.max_bad = on_error, max_bad
        self.synthetic = synthetic_part(manifest)
        self.legend = legend_of(manifest.meta)
        self.files = KeptPaths(manifest.folder)
        self.rows = [manifest.row(i) for i in range(len(manifest))]
        self.numbers = manifest.frame.index.to_numpy(dtype=np.int64)
        self.has_landcover = any(row.get("landcover") for row in self.rows)
        own = set(manifest.frame.columns)
        self.columns = (*manifest.frame.columns, *(["label"] if self.has_landcover and "label" not in own else []))
        for i, row in enumerate(self.rows):
            self._check(i, row)
        self.places = self._cut()

    def _check(self, i: int, row: Mapping[str, Any]) -> None:
        """Every row has the bands, the pixel size and the calibration asked for."""
        where = f"{self.manifest.path or 'manifest'}, row {self.numbers[i] + 1} (id {row['id']})"
        for sensor, names in self.cut.bands.items():
            have = bands_of(row, sensor)
            if missing := [name for name in names if name not in have]:
                what = (
                    f"has no {sensor} picture"
                    if not have
                    else f"has no band {missing[0]} of {sensor} (it has {', '.join(have)})"
                )
                raise InputError(
                    f"{where}: {what}; choose sensors and bands that all rows have (--data.sensors, "
                    f"--data.{sensor}_bands)"
                )
        if self.form is None:
            return
        if abs(float(row["side"]) - self.form.side) > 1e-6 * self.form.side:
            raise InputError(
                f"{where}: has pixels of {row['side']:g} m, and the system takes {self.form.side:g} m; resample it "
                "first (gdalwarp -tr)"
            )
        said = str(row.get("s1_calibration") or "unknown")
        if "s1" in self.cut.bands and {said, self.form.calibration} == {"sigma0", "gamma0"}:
            raise InputError(
                f"{where}: its radar is {said}, and the system takes {self.form.calibration}; convert it first"
            )

    def _cut(self) -> np.ndarray:
        """[chips, 3] position of the row, row and column in its grid."""
        size, step, found, small, poor, known = self.cut.size, self.cut.step, [], [], 0, 0
        rows = self.rows
        scans = [i for i, row in enumerate(rows) if self._partly(row)]
        marked = set(scans)
        for i in track(range(len(rows)), "looking for valid pixels", len(rows)) if scans else range(len(rows)):
            grid = row_grid(rows[i])
            if grid.height < size or grid.width < size:
                small.append(str(rows[i]["id"]))
                continue
            r, c = np.meshgrid(
                np.arange(0, grid.height - size + 1, step), np.arange(0, grid.width - size + 1, step), indexing="ij"
            )
            places = np.stack([np.full(r.size, i), r.ravel(), c.ravel()], 1)
            known += len(places)
            if i in marked:
                try:
                    keep = self._shares(i, places) >= self.cut.min_valid
                except InputError:  # told when the sample is read, by the rule of `on_error`
                    keep = np.ones(len(places), bool)
                poor += int((~keep).sum())
                places = places[keep]
            found.append(places)
        if small:
            note(f"{len(small)} of {len(rows)} rows are smaller than a chip of {size} pixels and give none: {small[0]}")
        if poor:
            note(f"{poor} of {known} chips hold less than {self.cut.min_valid:.0%} valid pixels and are left out")
        places = np.concatenate(found) if found else np.zeros((0, 3), np.int64)
        if not len(places):
            raise InputError(
                f"{self.manifest.path or 'manifest'}: not one chip of {size} pixels of which {self.cut.min_valid:.0%} "
                "are valid; choose a smaller --data.size or --data.min_valid"
            )
        return places.astype(np.int64)

    def _partly(self, row: Mapping[str, Any]) -> bool:
        """Whether not all of a row's pixels are known to be valid."""
        shares = [row.get(f"{sensor}_valid") for sensor in self.cut.bands]
        clouded = self.cut.clouds and "s2" in self.cut.bands and bool(row.get("clouds"))
        return clouded or any(share is None or share < 1 for share in shares)

    def _shares(self, i: int, places: np.ndarray) -> np.ndarray:
        """The share of valid pixels of chips, the least of all sensors."""
        row, size = self.rows[i], self.cut.size
        grid, least = row_grid(row), np.ones(len(places))
        r, (lefts, column) = places[:, 1], np.unique(places[:, 2], return_inverse=True)
        for sensor, names in self.cut.bands.items():
            # Of every row the valid pixels from the top down to it, in each chip's columns: no table of all pixels.
            above = np.zeros((grid.height + 1, len(lefts)), np.int64)
            for top in range(0, grid.height, STRIP):
                window = Window(top, 0, min(STRIP, grid.height - top), grid.width)
                values, valid = read_sensor(row, self.files, sensor, names, window, self.cut.clouds)
                valid = physical(sensor, values, valid, row)[1]
                left = np.zeros((window.height, grid.width + 1), np.int32)
                np.cumsum(valid, 1, out=left[:, 1:])
                above[top + 1 : top + 1 + window.height] = left[:, lefts + size] - left[:, lefts]
            np.cumsum(above, 0, out=above)
            least = np.minimum(least, (above[r + size, column] - above[r, column]) / size**2)
        return least

    # Samples ---------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.places)

    @cached_property
    def ids(self) -> list[str]:
        if self.cut.random:
            return [f"{self.rows[i]['id']}#{n}" for n, (i, _, _) in enumerate(self.places.tolist())]
        return [f"{self.rows[i]['id']}:{r}_{c}" for i, r, c in self.places.tolist()]

    @cached_property
    def groups(self) -> list[str]:
        return [str(self.rows[i]["group"]) for i in self.places[:, 0].tolist()]

    @cached_property
    def contents(self) -> Contents:
        """What is known of the rasters without reading them."""
        return contents_of(self.manifest)

    @property
    def hash(self) -> str:
        cut = {k: (dict(v) if isinstance(v, Mapping) else v) for k, v in vars(self.cut).items()}
        form = "" if self.form is None else self.form.assets().hash
        return options_hash(self.manifest.hash, **cut, form=form, files=self.contents.sizes)

    @property
    def written(self) -> str:
        return self.contents.written

    def row_of(self, position: int) -> int:
        """The number of the manifest's row that a chip was cut from."""
        return int(self.numbers[self.places[position, 0]])

    def column(self, name: str) -> list[Any]:
        if name == "label" and "label" not in self.manifest.frame:
            return self.labels
        if name not in self.columns:
            raise no_such("column", name, self.columns)
        values = [plain(value) for value in self.manifest.frame[name].tolist()]
        return [values[i] for i in self.places[:, 0].tolist()]

    @cached_property
    def labels(self) -> list[str | None]:
        """The commonest class of every chip's land cover, by name."""
        found = (self.landcover(position) for position in range(len(self)))
        return [None if codes is None else self._label(codes) for codes in found]

    def landcover(self, position: int) -> np.ndarray | None:
        """The codes of a chip's map alone, no picture read (of a random chip, at its place on the grid); None where the
        map cannot be read and `on_error` is `skip`."""
        i, r, c = self.places[position].tolist()
        try:
            return read_landcover(self.rows[i], self.files, self._window(r, c))
        except InputError as error:
            if self.on_error == "skip":
                return None
            raise InputError(self._told(i, error)) from error

    def _told(self, i: int, error: InputError) -> str:
        """What is wrong with a row, and what to do."""
        where = f"{self.manifest.path or 'manifest'}, row {int(self.numbers[i]) + 1} (id {self.rows[i]['id']})"
        return f"{where}: {error}; repair the row, or train with --train.on_error skip"

    def _label(self, codes: np.ndarray) -> str | None:
        known = codes[codes >= 0]
        return class_name(Counter(known.tolist()).most_common(1)[0][0], self.legend) if known.size else None

    def _window(self, row: int, col: int) -> Window:
        return Window(row, col, self.cut.size, self.cut.size)

    def read(self, position: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """sensor -> (values in the file's own type, valid) of a chip."""
        return self._read(self.places[position, 0], *self._place(position))

    def _read(self, i: int, r: int, c: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        row, window = self.rows[i], self._window(r, c)
        wanted = self.cut.bands.items()
        return {s: read_sensor(row, self.files, s, names, window, self.cut.clouds) for s, names in wanted}

    def _place(self, position: int) -> tuple[int, int]:
        """Row and column of a chip; of a random one drawn from torch's generator, which the loader seeds."""
        i, r, c = self.places[position].tolist()
        if not self.cut.random:
            return r, c
        row, size = self.rows[i], self.cut.size
        grid = row_grid(row)
        for _ in range(DRAWS):
            at = tuple(int(torch.randint(0, n - size + 1, ())) for n in (grid.height, grid.width))
            if not self._partly(row) or self._shares_at(i, *at) >= self.cut.min_valid:
                return at
        return r, c

    def _shares_at(self, i: int, r: int, c: int) -> float:
        found = self._read(i, r, c)
        return min(float(physical(s, *pair, self.rows[i])[1].mean()) for s, pair in found.items())

    def __getitem__(self, position: int) -> dict[str, Any] | BadSample:
        position = range(len(self))[position]
        i, index = int(self.places[position, 0]), position
        row, name, group = self.rows[i], self.ids[position], self.groups[position]
        try:
            r, c = self._place(position)
            sample: dict[str, Any] = {}
            for sensor, (values, valid) in self._read(i, r, c).items():
                sample[sensor] = torch.from_numpy(np.ascontiguousarray(values))
                sample[f"{sensor}_valid"] = torch.from_numpy(valid)
            label = row.get("label")
            if self.has_landcover:
                codes = read_landcover(row, self.files, self._window(r, c))
                sample["landcover"] = torch.from_numpy(codes)
                label = self._label(codes) if label is None else label
        except InputError as error:
            if self.on_error == "skip":
                return BadSample(index, name, str(error))
            raise InputError(self._told(i, error)) from error
        for sensor, fact, missing in (("s2", "s2_offset", 0), ("s1", "s1_unit", "db"), ("s1", "s1_zero", "nodata")):
            if sensor in sample:  # what its values mean, for whoever draws it
                sample[fact] = missing if row.get(fact) is None else row[fact]
        if self.draw is not None:
            sample |= self.draw(sample)
        return {
            **sample, "position": i, "row": r, "col": c, "lat": float(row["lat"]), "lon": float(row["lon"]),
            "season": str(row.get("season") or ""), "label": label, "place": _caption(row, r, c, self.cut.size),
            "index": index, "id": name, "group": group,
        }  # fmt: skip

    def collate(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A batch: see the class."""
        if self.form is None:
            return collate(samples)
        rest = [{k: v for k, v in s.items() if k not in self.cut.bands} for s in samples]
        batch = collate(rest)
        for sensor in self.cut.bands:
            values, masks = [], []
            for sample in samples:
                found, valid = physical(
                    sensor, sample[sensor].numpy(), sample[f"{sensor}_valid"].numpy(), self.rows[sample["position"]]
                )
                values.append(torch.from_numpy(found))
                masks.append(torch.from_numpy(valid))
            seen: Tensor = torch.stack(masks)
            batch[f"{sensor}_valid"] = seen
            batch[sensor] = self.form.scaled(sensor, torch.stack(values), seen)
        return turned(batch) if "turn" in batch else batch

    def measured(self, most: int) -> Iterator[dict[str, tuple[np.ndarray, np.ndarray]]]:
        """Evenly chosen chips as measurements (`physical`), for statistics."""
        chosen = np.unique(np.linspace(0, len(self) - 1, min(most, len(self))).astype(int))
        for position in track(chosen.tolist(), "band statistics", len(chosen)):
            i, r, c = self.places[position].tolist()
            try:
                found = self._read(i, r, c)
            except InputError:
                if self.on_error == "raise":
                    raise
                continue
            yield {sensor: physical(sensor, *pair, self.rows[i]) for sensor, pair in found.items()}


def turned(batch: dict[str, Any]) -> dict[str, Any]:
    """Every sample turned by `turn` mod 4 right angles and, from 4 on, flipped, all of its layers alike."""
    out = dict(batch)
    for name in ("s1", "s2", "s1_valid", "s2_valid", "landcover"):
        if name in batch:
            turns = (torch.rot90(x, int(t) % 4, (-2, -1)) for x, t in zip(batch[name], batch["turn"]))
            out[name] = torch.stack([x.flip(-1) if t >= 4 else x for x, t in zip(turns, batch["turn"])])
    return out


def _caption(row: Mapping[str, Any], r: int, c: int, size: int) -> str:
    """Where a chip lies, in words."""
    lat, lon, side = float(row["lat"]), float(row["lon"]), float(row["side"])
    where = f"{abs(lat):.2f}°{'N' if lat >= 0 else 'S'} {abs(lon):.2f}°{'E' if lon >= 0 else 'W'}"
    day = str(row.get("s2_time") or row.get("s1_time") or "")[:10]
    return ", ".join(filter(None, (where, day, f"{size * side / 1000:.1f} km")))
