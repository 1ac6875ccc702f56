"""Systems without data, closed-form weights, and small scenes for the vertical's tests."""

import zlib

import numpy as np
import torch

from counterpoint.common.trainers import override
from counterpoint.geospatial.bands import S1_2, S2_12
from counterpoint.geospatial.data.form import BandForm


def form(sensors=("s1", "s2"), scaling="clip", bands=None):
    names = bands or {"s1": S1_2, "s2": S2_12}
    names = {s: names[s] for s in sensors}
    mean = {s: np.full(len(n), -12.0 if s == "s1" else 1500.0) for s, n in names.items()}
    std = {s: np.full(len(n), 4.0 if s == "s1" else 800.0) for s, n in names.items()}
    return BandForm(names, mean, std, 10.0, "sigma0", scaling)


def system_of(cls, changes=None, sensors=("s1", "s2"), **options):
    """A system with assets of our own making, which reads no data."""
    config = override(cls.Config(), {"data.sensors": sensors, **(changes or {})})
    return cls(config, form(sensors, **options).assets())


def closed_form(name, shape):
    """The weights of the frozen official runs: a sine, with a phase from the tensor's official name."""
    count = int(np.prod(shape))
    wave = 0.2 * torch.sin(0.37 * torch.arange(count, dtype=torch.float64) + zlib.crc32(name.encode()) % 1000)
    return (1 + wave if "norm" in name and name.endswith("weight") else wave).reshape(shape)


def batch_of(images, seed=0, patch=4):
    """A batch of images that are all data, with the noise of masks."""
    generator = torch.Generator().manual_seed(seed)
    out = {"index": torch.arange(len(next(iter(images.values()))))}
    out["id"] = [str(i) for i in out["index"].tolist()]
    out["group"] = out["id"]
    for sensor, x in images.items():
        n = (x.shape[-2] // patch) * (x.shape[-1] // patch)
        out |= {sensor: x, f"{sensor}_valid": torch.ones(len(x), *x.shape[-2:], dtype=torch.bool)}
        out[f"{sensor}_noise"] = torch.rand(len(x), n, generator=generator, dtype=x.dtype)
    return out
