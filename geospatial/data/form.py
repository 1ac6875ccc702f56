"""The form in which a system takes scenes: bands by name, pixel size, units, and fixed band statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoint.common.errors import InputError
from counterpoint.common.trainers import Assets

LEAST_POWER = 1e-10
"""Linear power at and below which a radar value is no measurement (-100 dB)."""


@dataclass(frozen=True)
class BandForm:
    """What travels with the weights.

    Attributes:
        bands: sensor -> its bands in the order in which the network takes them.
        mean, std: sensor -> [bands], of the valid pixels of training chips, in dB and in reflectance x 10000.
        side: pixel size in metres.
        calibration: of the radar (`sigma0`, `gamma0`, `unknown`).
        scaling: `clip` or `standard`.
    """

    bands: Mapping[str, tuple[str, ...]]
    mean: Mapping[str, np.ndarray]
    std: Mapping[str, np.ndarray]
    side: float
    calibration: str = "unknown"
    scaling: str = "clip"

    def assets(self) -> Assets:
        """As a run keeps it."""
        arrays = {f"{sensor}_{what}": getattr(self, what)[sensor] for sensor in self.bands for what in ("mean", "std")}
        return Assets(bands={k: list(v) for k, v in self.bands.items()}, side=self.side, calibration=self.calibration,
                      scaling=self.scaling, **arrays)  # fmt: skip

    @classmethod
    def of(cls, assets: Mapping[str, Any]) -> BandForm:
        """The form that a run keeps."""
        bands = {sensor: tuple(names) for sensor, names in assets["bands"].items()}
        found = {what: {s: np.asarray(assets[f"{s}_{what}"], np.float64) for s in bands} for what in ("mean", "std")}
        return cls(bands, found["mean"], found["std"], float(assets["side"]), assets["calibration"], assets["scaling"])

    def scaled(self, sensor: str, values: Tensor, valid: Tensor) -> Tensor:
        """Physical values [..., bands, rows, columns] as the network takes them; 0 where `valid` is False, which the
        masks say too."""
        mean = torch.as_tensor(self.mean[sensor], dtype=values.dtype)[:, None, None]
        std = torch.as_tensor(self.std[sensor], dtype=values.dtype)[:, None, None].clamp_min(1e-6)
        found = (values - mean) / std
        if self.scaling == "clip":
            found = ((found + 2) / 4).clamp(0, 1)
        return torch.where(valid.unsqueeze(-3), found, torch.zeros_like(found))

    def unscaled(self, sensor: str, values: Tensor) -> Tensor:
        """The inverse of `scaled`, up to what was cut off."""
        mean = torch.as_tensor(self.mean[sensor], dtype=values.dtype)[:, None, None]
        std = torch.as_tensor(self.std[sensor], dtype=values.dtype)[:, None, None]
        return mean + std * (4 * values - 2 if self.scaling == "clip" else values)


def physical(
    sensor: str, values: np.ndarray, valid: np.ndarray, row: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of a file as float32 measurements: dB, or reflectance x 10000 with the offset applied; and which are
    data. Values that are no data are 0. No data are Sentinel-2's digital number 0 in any band, a float picture's
    pixel that is 0 in every band, power that is not above 0, and exact zeros in decibel unless the row's `s1_zero` is
    `value` (`geospatial.data.meaning`)."""
    found = values.astype(np.float32)
    if sensor == "s1" and row.get("s1_unit") == "linear":
        good = (found > LEAST_POWER).all(0)
        valid = valid & good
        found = 10 * np.log10(np.maximum(np.where(np.isfinite(found), found, 0), LEAST_POWER))
    elif sensor == "s1" and row.get("s1_zero") != "value":
        valid = valid & (values != 0).all(0)
    if sensor == "s2":
        valid = valid & (values != 0).any(0)
        if values.dtype.kind in "iu":  # 0 is no data by the product's definition, whether the file says so or not
            valid = valid & (values != 0).all(0)
        found = found + np.float32(row.get("s2_offset") or 0)
    return np.where(valid, found, np.float32(0)).astype(np.float32), valid


class Moments:
    """Mean and variance of bands, chip by chip, in float64.

    >>> m = Moments(1)
    >>> m.add(np.ones((1, 1, 2)), np.ones((1, 2), bool)); m.add(np.full((1, 1, 2), 3.0), np.ones((1, 2), bool))
    >>> m.mean, m.std
    (array([2.]), array([1.]))
    """

    def __init__(self, bands: int) -> None:
        self.count, self.mean, self.m2 = 0, np.zeros(bands), np.zeros(bands)

    def add(self, values: np.ndarray, valid: np.ndarray) -> None:
        """[bands, rows, columns] and which pixels are data."""
        seen = values[:, valid].astype(np.float64)
        n = seen.shape[1]
        if not n:
            return
        mean = seen.mean(1)
        delta, total = mean - self.mean, self.count + n
        self.m2 += ((seen - mean[:, None]) ** 2).sum(1) + delta**2 * self.count * n / total
        self.mean = self.mean + delta * n / total
        self.count = total

    @property
    def std(self) -> np.ndarray:
        return np.sqrt(self.m2 / max(self.count, 1))


def learnt(
    chips: Iterator[Mapping[str, tuple[np.ndarray, np.ndarray]]], bands: Mapping[str, tuple[str, ...]], side: float,
    calibration: str, scaling: str,
) -> BandForm:  # fmt: skip
    """The form of training chips: sensor -> (physical values, valid), one dictionary a chip."""
    moments = {sensor: Moments(len(names)) for sensor, names in bands.items()}
    for chip in chips:
        for sensor, (values, valid) in chip.items():
            moments[sensor].add(values, valid)
    for sensor, found in moments.items():
        flat = [name for name, s in zip(bands[sensor], found.std) if s == 0]
        if not found.count:
            raise InputError(f"the training chips have not one valid pixel of {sensor}")
        if flat:
            raise InputError(f"band {flat[0]} of {sensor} has the same value everywhere in the training chips")
    return BandForm(bands, {s: m.mean for s, m in moments.items()}, {s: m.std for s, m in moments.items()}, side,
                    calibration, scaling)  # fmt: skip
