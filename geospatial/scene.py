"""Synthetic scenes with known causes: one ground, seen by radar and by an optical sensor, each with its troubles.

A scene is drawn from a latent ground: a map of land cover L (smoothed Gaussian fields, one a class, with the priors of
its biome; crops stand in Voronoi fields), elevation (fractal noise), moisture m and phenology p. Given (L, m, p,
terrain) the two sensors are independent: haze, clouds and sunlight are the optical sensor's alone, speckle and wind the
radar's. What both share is what a contrast may learn.

    optical   reflectance x 10000 = class spectrum (p, m) x cos(i) / cos(sun) x texture + haze + noise; bands of 20 and
              60 m are block means; clouds are opaque blobs with shadows
    radar     dB of (class mean + 3 (m - 1/2) on soil - 0.1 dB a degree of incidence + wind on water), times speckle
              Gamma(4.4 looks) in linear power, correlated by 0.3 between VV and VH

Class means are rounded values of the literature; the ranges bracket those of real Sentinel tiles.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import gaussian_filter, shift
from scipy.spatial import cKDTree

from counterpoint.geospatial.bands import BANDS, S2_12
from counterpoint.geospatial.data.legend import SIMULATED

SYNTHETIC = "scenes of a simulator, no place on Earth"
BIOMES: dict[str, tuple[float, ...]] = {
    # water trees grass crop built bare snow wetland
    "coast": (0.34, 0.14, 0.12, 0.12, 0.14, 0.06, 0.00, 0.08),
    "boreal": (0.14, 0.50, 0.10, 0.02, 0.02, 0.03, 0.04, 0.15),
    "temperate farm": (0.04, 0.18, 0.16, 0.50, 0.07, 0.03, 0.00, 0.02),
    "city": (0.06, 0.10, 0.12, 0.06, 0.58, 0.06, 0.00, 0.02),
    "arid": (0.02, 0.03, 0.26, 0.10, 0.06, 0.52, 0.00, 0.01),
    "alpine": (0.04, 0.28, 0.22, 0.02, 0.03, 0.15, 0.24, 0.02),
}
RELIEF = {"coast": 60.0, "boreal": 80.0, "temperate farm": 60.0, "city": 30.0, "arid": 150.0, "alpine": 700.0}
"""Height differences in metres over about a kilometre."""
_SPECTRA = {
    "water": (900, 800, 650, 450, 400, 330, 300, 260, 230, 150, 110, 80),
    "trees": (350, 330, 520, 330, 750, 2000, 2500, 2600, 2750, 2700, 1300, 600),
    "grass": (600, 650, 900, 1000, 1500, 2200, 2450, 2550, 2700, 2700, 2500, 1700),
    "crop": (450, 480, 800, 550, 1200, 2700, 3300, 3450, 3600, 3500, 2000, 1100),
    "built": (1200, 1300, 1450, 1550, 1700, 1850, 1950, 2000, 2100, 2100, 2300, 2100),
    "bare": (1300, 1500, 1900, 2300, 2500, 2650, 2750, 2800, 2950, 2900, 3600, 3100),
    "snow": (8500, 8500, 8300, 8200, 8100, 7900, 7700, 7500, 7200, 6500, 800, 600),
}
_TEXTURE = {"water": 0.05, "trees": 0.12, "grass": 0.08, "crop": 0.06, "built": 0.15, "bare": 0.08, "snow": 0.05,
            "wetland": 0.10}  # fmt: skip
_BACKSCATTER = {  # VV, VH in dB
    "water": (-20.0, -27.0), "trees": (-9.0, -14.5), "grass": (-13.0, -20.0), "crop": (-11.0, -17.0),
    "built": (-3.0, -10.5), "bare": (-12.5, -21.0), "snow": (-14.0, -22.0), "wetland": (-8.0, -15.0),
}  # fmt: skip
LOOKS = 4.4
SUN = (np.radians(45.0), np.radians(135.0))  # zenith, azimuth
OFFSET_NUMBERS = 1000


@dataclass(frozen=True)
class Scene:
    """One ground as both sensors see it.

    Attributes:
        landcover: codes 1..8 (`SIMULATED`, place + 1).
        s2: reflectance x 10000 of `S2_12`, without the offset.
        s1: VV and VH in dB, sigma0.
        cloud: 1 cloud, 2 shadow, 0 clear.
        shared, optical, radar: the causes by name: what both sensors see, and what one alone does.
    """

    landcover: Int[np.ndarray, "rows cols"]
    s2: Int[np.ndarray, "12 rows cols"]
    s1: Float[np.ndarray, "2 rows cols"]
    cloud: Int[np.ndarray, "rows cols"]
    shared: dict[str, float] = field(default_factory=dict)
    optical: dict[str, float] = field(default_factory=dict)
    radar: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Ground:
    """What lies below both sensors at one place, whatever the time."""

    biome: str
    landcover: Int[np.ndarray, "rows cols"]
    fields: Int[np.ndarray, "rows cols"]
    elevation: Float[np.ndarray, "rows cols"]
    wetness: float


def smooth_noise(rng: np.random.Generator, size: int, length: float) -> Float[np.ndarray, "size size"]:
    """Gaussian noise of unit variance, correlated over `length` pixels."""
    z = gaussian_filter(rng.standard_normal((size, size)), length, mode="reflect")
    return (z - z.mean()) / max(float(z.std()), 1e-9)


def draw_ground(rng: np.random.Generator, size: int, biome: str, wetness: float) -> Ground:
    """The ground of a place: land cover, fields, elevation."""
    prior = np.asarray(BIOMES[biome]) * rng.gamma(8.0, 1 / 8.0, len(SIMULATED)) + 1e-9
    prior /= prior.sum()
    length = rng.uniform(4.0, 14.0)
    scores = np.stack([smooth_noise(rng, size, length) for _ in SIMULATED])
    # Thresholds that give each class about its prior: the argmax of Gaussians with these shifts.
    shifts = np.log(prior)
    landcover = (scores + 0.9 * shifts[:, None, None]).argmax(0)
    count = max(4, size * size // 500)
    seeds = rng.uniform(0, size, (count, 2))
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size), indexing="ij"), -1).reshape(-1, 2)
    fields = cKDTree(seeds).query(grid)[1].reshape(size, size)
    elevation = sum(smooth_noise(rng, size, size / 2 ** (i + 2)) / 2**i for i in range(4))
    return Ground(biome, landcover, fields, RELIEF[biome] / 4 * elevation, wetness)


def draw_change(rng: np.random.Generator, ground: Ground, share: float) -> tuple[Ground, Bool[np.ndarray, "rows cols"]]:
    """The ground at a later time, and where its land cover is another one: about this share of the fields have become
    of one class each, drawn from those that people make or clear."""
    count = int(ground.fields.max()) + 1
    becomes = rng.choice([SIMULATED.index(name) for name in ("trees", "grass", "crop", "built", "bare")], count)
    turned = (rng.random(count) < share)[ground.fields]
    landcover = np.where(turned, becomes[ground.fields], ground.landcover)
    return replace(ground, landcover=landcover), landcover != ground.landcover


def draw_landscape(
    rng: np.random.Generator, ground: Ground, greenness: float = 0.7, clouds: bool = False, metres: float = 10.0
) -> Scene:
    """One look of both sensors at a ground.

    Args:
        greenness: phenology of the season, 0 (bare) to 1 (full green).
        clouds: draw clouds and their shadows.
    """
    size = ground.landcover.shape[0]
    moisture = np.clip(ground.wetness + 0.15 * smooth_noise(rng, size, 12.0) + 0.1 * rng.standard_normal(), 0, 1)
    per_field = np.clip(greenness + 0.25 * rng.standard_normal(ground.fields.max() + 1), 0, 1)
    phenology = per_field[ground.fields]
    slope, aspect = _relief(ground.elevation, metres)
    haze, sun_factor = float(rng.uniform(0, 800)), _illumination(slope, aspect)
    s2 = _optical(rng, ground, moisture, phenology, sun_factor, haze)
    cloud = np.zeros((size, size), dtype=np.int64)
    if clouds:
        s2, cloud = _clouded(rng, s2)
    wind, wet_snow = float(rng.uniform(0, 6)), float(rng.uniform(0, 1))
    s1 = _radar(rng, ground, moisture, phenology, slope, aspect, wind, wet_snow)
    shared = {"moisture": float(moisture.mean()), "phenology": float(phenology.mean())}
    shared |= {name: float((ground.landcover == k).mean()) for k, name in enumerate(SIMULATED)}
    optical = {"haze": haze, "clouds": float((cloud > 0).mean())}
    return Scene(ground.landcover + 1, s2, s1, cloud, shared, optical, {"wind": wind})


def _relief(elevation: np.ndarray, metres: float) -> tuple[np.ndarray, np.ndarray]:
    south, east = np.gradient(elevation, metres)
    return np.arctan(np.hypot(south, east)), np.arctan2(-east, south)


def _illumination(slope: np.ndarray, aspect: np.ndarray) -> np.ndarray:
    zenith, azimuth = SUN
    cos_i = np.cos(zenith) * np.cos(slope) + np.sin(zenith) * np.sin(slope) * np.cos(azimuth - aspect)
    return np.clip(cos_i / np.cos(zenith), 0.4, 1.4)


def _optical(
    rng: np.random.Generator, ground: Ground, m: np.ndarray, p: np.ndarray, light: np.ndarray, haze: float
) -> np.ndarray:
    spectra = {name: np.asarray(values, float) for name, values in _SPECTRA.items()}
    size = m.shape[0]
    values = np.empty((len(S2_12), size, size))
    for k, name in enumerate(SIMULATED):
        here = ground.landcover == k
        pk, mk = p[here][None], m[here][None]
        if name == "crop":
            found = pk * spectra["crop"][:, None] + (1 - pk) * spectra["bare"][:, None]
        elif name == "grass":
            found = (0.5 + 0.5 * pk) * spectra["grass"][:, None] + 0.5 * (1 - pk) * spectra["bare"][:, None]
        elif name == "wetland":
            wet = np.clip(mk, 0.2, 0.8)
            found = (1 - wet) * spectra["trees"][:, None] + wet * spectra["water"][:, None]
        elif name == "bare":
            found = (1.1 - 0.3 * mk) * spectra["bare"][:, None]
        else:
            found = np.repeat(spectra[name][:, None], here.sum(), 1)
        values[:, here] = found
    spread = np.asarray([_TEXTURE[name] for name in SIMULATED])[ground.landcover]
    values *= (1 + spread * smooth_noise(rng, size, 1.2)) * light
    waves = np.asarray([BANDS[name].wavelength for name in S2_12])
    values += haze * (waves[0] / waves)[:, None, None] ** 1.3
    for i, name in enumerate(S2_12):
        factor = int(BANDS[name].metres // 10)
        if factor > 1:
            values[i] = _blocks(values[i], factor)
    values += 20 * rng.standard_normal(values.shape)
    return np.clip(np.rint(values), 1, 20000).astype(np.int64)


def _blocks(image: np.ndarray, factor: int) -> np.ndarray:
    """Means of blocks, repeated."""
    size = image.shape[0]
    padded = np.pad(image, (0, -size % factor), mode="edge")
    n = len(padded) // factor
    means = padded.reshape(n, factor, n, factor).mean((1, 3))
    return np.repeat(np.repeat(means, factor, 0), factor, 1)[:size, :size]


def _clouded(rng: np.random.Generator, s2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    size = s2.shape[1]
    cover = smooth_noise(rng, size, size / 10) > rng.uniform(0.2, 1.2)
    moved = rng.integers(size // 16, size // 6 + 1, 2)
    shadow = (shift(cover.astype(float), moved, order=0, cval=0.0) > 0.5) & ~cover
    bright = rng.uniform(3000, 9000) * (1 + 0.1 * smooth_noise(rng, size, 3.0))
    seen = np.where(shadow, np.rint(0.5 * s2).astype(np.int64), s2)
    seen = np.where(cover, np.clip(np.rint(bright), 1, 20000).astype(np.int64), seen)
    return np.maximum(seen, 1), np.where(cover, 1, np.where(shadow, 2, 0))


def _radar(
    rng: np.random.Generator, ground: Ground, m: np.ndarray, p: np.ndarray, slope: np.ndarray, aspect: np.ndarray,
    wind: float, wet_snow: float,
) -> np.ndarray:  # fmt: skip
    cover = ground.landcover
    mean = np.stack([np.asarray([_BACKSCATTER[n][i] for n in SIMULATED])[cover] for i in range(2)])
    place = {name: cover == k for k, name in enumerate(SIMULATED)}
    bare = np.asarray(_BACKSCATTER["bare"])[:, None, None]
    mean = np.where(place["crop"], p * mean + (1 - p) * bare, mean)
    mean = mean + np.where(place["water"], wind, 0.0)
    mean = mean - np.where(place["snow"], wet_snow * np.asarray([4.0, 3.0])[:, None, None], 0.0)
    soil = place["grass"] | place["crop"] | place["bare"]
    mean = mean + np.where(soil, 3 * (m - 0.5), 0.0)
    incidence = np.degrees(np.arctan(np.tan(slope) * np.cos(aspect - np.radians(80.0))))
    mean = mean - 0.1 * incidence
    points = np.where(place["built"], 1.5 * rng.standard_normal(cover.shape).clip(-1, 4), 0.0)
    mean = mean + points  # in dB: a lognormal tail of bright corners
    shared = rng.gamma(LOOKS, 1 / LOOKS, cover.shape)
    # Half-normal scores would change the marginals: a mixture of pixels keeps both Gamma and the correlation of 0.3.
    same = rng.random(cover.shape) < 0.3
    speckle = np.stack([shared, np.where(same, shared, rng.gamma(LOOKS, 1 / LOOKS, cover.shape))])
    return np.clip(mean + 10 * np.log10(speckle), -35.0, 10.0).astype(np.float32)


def clear(scene: Scene) -> Bool[np.ndarray, "rows cols"]:
    """Where no cloud or shadow stands."""
    return scene.cloud == 0


def draw_places(rng: np.random.Generator, count: int) -> list[tuple[float, float, str, float]]:
    """Latitude, longitude, biome and wetness of places on a jittered grid; neighbours are alike, for all drift
    smoothly."""
    side = int(np.ceil(np.sqrt(count)))
    fields = np.stack([smooth_noise(rng, max(side, 2), max(side / 6, 0.7)) for _ in BIOMES])
    wet = smooth_noise(rng, max(side, 2), max(side / 5, 0.7))
    names = list(BIOMES)
    found = []
    for i in range(count):
        r, c = divmod(i, side)
        lat, lon = 44.0 + 0.2 * r + rng.uniform(-0.05, 0.05), 9.2 + 0.2 * c + rng.uniform(-0.05, 0.05)
        wetness = float(np.clip(0.5 + 0.18 * wet[r, c], 0.05, 0.95))
        found.append((float(lat), float(lon), names[int(fields[:, r, c].argmax())], wetness))
    return found
