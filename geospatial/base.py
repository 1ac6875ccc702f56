"""What the vertical's systems share: chips of the configured places, their form, augmentation, and patch masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from counterpoint.common.data import Manifest, check_leakage
from counterpoint.common.data.cache import Cache
from counterpoint.common.data.manifest import SPLITS
from counterpoint.common.errors import InputError
from counterpoint.common.trainers import Assets, ContrastiveSystem, Datasets
from counterpoint.common.trainers.inputs import Input
from counterpoint.geospatial.bands import SENSORS, band_list, sensor_of
from counterpoint.geospatial.configs import RasterConfig
from counterpoint.geospatial.data.chips import ChipCut, Chips
from counterpoint.geospatial.data.form import BandForm, learnt
from counterpoint.geospatial.data.layers import bands_of

VERSION = 1
"""Of the simulator: a change of what it draws is another set of scenes in the cache."""
_SCALED = (
    "brought to pixels of `assets.side` metres, bands `assets.bands` in that order, scaled band by band with the fixed "
    "statistics `assets.{sensor}_mean` and `assets.{sensor}_std`: clip is ((value - mean) / std + 2) / 4 cut to 0..1, "
    "standard is (value - mean) / std; 0 where `{sensor}_valid` is False"
)
_AXES, _FREE = ("bands", "rows", "columns"), ("rows", "columns")
INPUTS = {
    "s1": Input("float32 radar backscatter in dB, " + _SCALED.format(sensor="s1"), _AXES, _FREE),
    "s2": Input(
        "float32 reflectance x 10000 (offset of the baseline applied), " + _SCALED.format(sensor="s2"), _AXES, _FREE
    ),
    "s1_valid": Input("which pixels are radar data", _AXES[1:], _FREE),
    "s2_valid": Input("which pixels are optical data: no nodata, no cloud, no shadow", _AXES[1:], _FREE),
}


def scenes_of(config: RasterConfig) -> Manifest:
    """The configured manifest; without one that of the simulator, whose rasters are made once in the cache."""
    if config.manifest:
        table = Manifest.load(config.manifest)
        if not len(table):
            raise InputError(f"{config.manifest}: the manifest has no rows; import rasters into it (data import)")
        check_leakage(table)
        return table
    from counterpoint.geospatial.scene_files import write_scenery

    sizes = {"scenes": config.scenes, "size": config.scene_size, "seasons": config.seasons, "clouds": config.cloudy,
             "seed": config.seed}  # fmt: skip
    folder = Cache().get_or_make({"scenes": sizes, "version": VERSION}, "-scenes", lambda p: write_scenery(p, **sizes))
    return Manifest.load(folder / "manifest.parquet")


def bands_asked(config: RasterConfig) -> dict[str, tuple[str, ...]]:
    """sensor -> bands by name, checked."""
    if not config.sensors or not set(config.sensors) <= set(SENSORS) or len(set(config.sensors)) < len(config.sensors):
        raise InputError(f"data.sensors is {', '.join(config.sensors) or 'empty'}; it names s1, s2 or both")
    found = {sensor: band_list(getattr(config, f"{sensor}_bands")) for sensor in sorted(config.sensors)}
    for sensor, names in found.items():
        if not names or sensor_of(names) != sensor:
            raise InputError(f"data.{sensor}_bands is {', '.join(names) or 'empty'}; it names bands of {sensor}")
    return found


class RasterSystem(ContrastiveSystem):
    """A system over chips of places, which `config.data` names. Its assets are the form of the training chips
    (`BandForm`): bands by name, pixel size, calibration, fixed band statistics; other scenes are brought to it."""

    inputs: ClassVar[dict[str, Input]] = INPUTS

    @classmethod
    def read(cls, config: Any, assets: Assets | None = None) -> Manifest:
        """The configured places."""
        return scenes_of(config.data)

    @classmethod
    def learn(cls, config: Any, data: Manifest) -> Assets:
        """Bands, pixel size, calibration and band statistics of the training split."""
        table = with_splits(data).select(split="train")
        bands, frame = bands_asked(config.data), table.frame
        sides = sorted({float(side) for side in frame["side"]})
        if len(sides) > 1:
            raise InputError(
                f"training rows have pixels of {sides[0]:g} m and of {sides[1]:g} m; resample one (gdalwarp -tr)"
            )
        calibrations = (
            sorted({str(c or "unknown") for c in frame["s1_calibration"]})
            if "s1" in bands and "s1_calibration" in frame
            else []
        )
        if {"sigma0", "gamma0"} <= set(calibrations):
            raise InputError("training rows hold radar in sigma0 and in gamma0; convert them to one")
        known = [c for c in calibrations if c != "unknown"]
        chips = Chips(table, cls.cut(config, bands), None, config.train.on_error, config.train.max_bad)
        form = learnt(
            chips.measured(config.data.statistics), bands, sides[0], (known or ["unknown"])[0], config.data.scaling
        )
        return form.assets()

    @classmethod
    def cut(cls, config: Any, bands: Mapping[str, tuple[str, ...]], random: bool = False) -> ChipCut:
        """How rows are cut."""
        data = config.data
        return ChipCut(bands, data.size, data.step or data.size, random, data.min_valid, data.clouds)

    @property
    def form(self) -> BandForm:
        """The form in which the system takes scenes."""
        return BandForm.of(self.assets)

    def datasets(self) -> Datasets:
        """Chips of the three splits; a split without rows is None. Rows that lack a sensor as a whole split do without
        it where the system can."""
        table, config = with_splits(self.data), self.config
        parts = {}
        for split in SPLITS:
            if not (table.frame["split"] == split).any():
                parts[split] = None
                continue
            part = table.select(split=split)
            bands = self.bands_in(part, split)
            random = split == "train" and config.data.sampler == "random"
            options = (config.train.on_error, config.train.max_bad)
            draw = partial(self.draw, train=split == "train")
            parts[split] = Chips(part, self.cut(config, bands, random), self.form, *options, draw)
        if parts["train"] is None:
            raise InputError(f"{config.data.manifest}: no row belongs to split train; run `data split` on it first")
        return Datasets(**parts)

    def bands_in(self, part: Manifest, split: str) -> dict[str, tuple[str, ...]]:
        """The bands to read of a split: those of the sensors that its rows have."""
        bands = dict(self.form.bands)
        if split == "train":
            return bands
        rows = [part.row(i) for i in range(len(part))]
        have = {s: names for s, names in bands.items() if any(bands_of(row, s) for row in rows)}
        return have or bands

    def draw(self, sample: Mapping[str, Any], train: bool) -> dict[str, Any]:
        """What a sample's step draws at random; here how it is turned, in training."""
        turns = train and getattr(self.config, "flips", False)
        return {"turn": int(torch.randint(0, 8, ()))} if turns else {}

    def channels(self, sensor: str) -> int:
        """Bands of a sensor."""
        return len(self.form.bands[sensor])

    def evaluation_datasets(self) -> Datasets:
        """As trained on, but training chips on the grid, so that their names say where they lie."""
        found = self.datasets()
        if self.config.data.sampler != "random":
            return found
        train = found.train
        cut = self.cut(self.config, train.cut.bands)
        return Datasets(Chips(train.manifest, cut, self.form, train.on_error, train.max_bad), found.val, found.test)


def with_splits(table: Manifest) -> Manifest:
    """Rows without any split count as training."""
    if (table.frame["split"] == "").all():
        return replace(table, frame=table.frame.assign(split="train"))
    return table


def valid_patches(valid: Tensor, patch: int, least: float = 0.5) -> Tensor:
    """[batch, patches] which patches have at least this share of valid pixels."""
    share = avg_pool2d(valid.float()[:, None], patch)
    return (share >= least).flatten(1)
