"""A synthetic CT of trunk and abdomen with structured findings: where, what and how large, known to the voxel.

Ellipsoids and cylinders in body coordinates after a random tilt, shift and size; organs in HU without or with contrast;
eight findings, each present in a third of the patients; ribs and vessels in the lungs as distractors; then the
scanner's point spread and correlated noise. Nothing of it was measured: everything made from it says "synthetic".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from counterpoint.medical.configs import PhantomConfig

SYNTHETIC = "CT phantoms and their reports, made by a generator"
FINDINGS = (
    "lung nodule", "pleural effusion", "cardiomegaly", "fatty liver", "liver lesion", "renal cyst", "kidney stone",
    "aortic calcification",
)  # fmt: skip
LABELS = {
    "subcutaneous fat": 1, "muscle": 2, "right lung": 3, "left lung": 4, "cardiomegaly": 5, "fatty liver": 6,
    "spleen": 7, "right kidney": 8, "left kidney": 9, "spine": 10, "aorta": 11, "aortic calcification": 12,
    "lung nodule": 13, "pleural effusion": 14, "liver lesion": 15, "renal cyst": 16, "kidney stone": 17, "rib": 18,
    "vessel": 19,
}  # fmt: skip
"""Label of every structure; those of findings are what their sentences are about (the heart, the liver)."""
HELD_OUT = (("left", "lower", "ground-glass"), ("right", "upper", "calcified"))
"""Nodules (side, lobe, type) that no training volume has."""
TYPES = ("solid", "ground-glass", "calcified")
PRESENT = 1 / 3
_HU = {"solid": (20, 60), "ground-glass": (-650, -500), "calcified": (300, 600)}


@dataclass(frozen=True)
class Case:
    """One synthetic patient.

    Attributes:
        volume: [x, y, z] HU, int16; x leads to the patient's left, y to the back, z to the head (LPS).
        labels: [x, y, z] see `LABELS`.
        affine: [4, 4] to RAS+ millimetres.
        findings: finding -> present.
        attributes: finding -> side, lobe, type, size, diameter (mm).
        nuisance: phase, kernel, noise, habitus.
    """

    volume: np.ndarray
    labels: np.ndarray
    affine: np.ndarray
    findings: dict[str, bool]
    attributes: dict[str, dict[str, Any]] = field(default_factory=dict)
    nuisance: dict[str, Any] = field(default_factory=dict)


class _Body:
    """The canvas: HU and labels on a grid, and coordinates of the body in millimetres at every voxel."""

    def __init__(self, config: PhantomConfig, rng: np.random.Generator) -> None:
        n = config.size
        steps = (np.arange(n, dtype=np.float32) - (n - 1) / 2) * config.spacing
        x, y, z = np.meshgrid(steps, steps, steps, indexing="ij")
        yaw, pitch = np.deg2rad(rng.uniform(-8, 8)), np.deg2rad(rng.uniform(-6, 6))
        t = rng.uniform(-12, 12, 3)
        x, y, z = x - t[0], y - t[1], z - t[2]
        x, y = np.cos(yaw) * x + np.sin(yaw) * y, np.cos(yaw) * y - np.sin(yaw) * x
        y, z = np.cos(pitch) * y + np.sin(pitch) * z, np.cos(pitch) * z - np.sin(pitch) * y
        size = rng.uniform(0.88, 1.10)
        self.x, self.y, self.z = (np.asarray(a / size, dtype=np.float32) for a in (x, y, z))
        self.hu = np.full((n, n, n), -1000.0, dtype=np.float32)
        self.labels = np.zeros((n, n, n), dtype=np.uint8)
        self.rng = rng

    def ellipsoid(self, centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
        r = np.broadcast_to(radii, 3)
        d = ((self.x - centre[0]) / r[0]) ** 2 + ((self.y - centre[1]) / r[1]) ** 2 + ((self.z - centre[2]) / r[2]) ** 2
        return d <= 1

    def cylinder(self, rx: float, ry: float, cx: float = 0.0, cy: float = 0.0) -> np.ndarray:
        return ((self.x - cx) / rx) ** 2 + ((self.y - cy) / ry) ** 2 <= 1

    def tube(self, a: np.ndarray, b: np.ndarray, radius: float) -> np.ndarray:
        """Points within `radius` of the way from a to b, thinner towards b."""
        way = b - a
        t = ((self.x - a[0]) * way[0] + (self.y - a[1]) * way[1] + (self.z - a[2]) * way[2]) / float(way @ way)
        t = np.clip(t, 0, 1)
        apart = sum((c - a[i] - t * way[i]) ** 2 for i, c in enumerate((self.x, self.y, self.z)))
        return apart <= (radius * (1 - 0.5 * t)) ** 2

    def put(self, where: np.ndarray, hu: float, label: str, texture: float = 0.0) -> None:
        self.hu[where] = hu + (self.rng.normal(0, texture, int(where.sum())) if texture else 0.0)
        self.labels[where] = LABELS[label]

    def jitter(self, sd: float = 4.0) -> np.ndarray:
        return self.rng.normal(0, sd, 3)


def make_case(seed: int, config: PhantomConfig | None = None, training: bool = False) -> Case:
    """The patient of a seed; `training` never draws a held-out combination.

    >>> case = make_case(3, PhantomConfig(size=24, spacing=14.0))
    >>> case.volume.shape, case.volume.dtype, sorted(case.findings) == sorted(FINDINGS)
    ((24, 24, 24), dtype('int16'), True)
    """
    from scipy.ndimage import gaussian_filter

    config = config or PhantomConfig()
    rng = np.random.default_rng([seed, 20251129])
    body = _Body(config, rng)
    contrast = bool(rng.random() < 0.5)
    habitus = rng.uniform(0.95, 1.25)
    findings = {name: bool(rng.random() < PRESENT) for name in FINDINGS}
    attributes: dict[str, dict[str, Any]] = {}
    places = _organs(body, findings, contrast, habitus, config)
    _lesions(body, findings, attributes, places, config, training)
    sharp = bool(rng.random() < 0.5)
    hu = gaussian_filter(body.hu, 0.35 if sharp else 0.7)
    noise = gaussian_filter(rng.normal(0, 1, hu.shape).astype(np.float32), 0.2 if sharp else 0.6)
    sd = rng.uniform(*config.noise) * (1.5 if sharp else 1.0)
    hu = hu + sd * noise / noise.std()
    s = config.spacing
    affine = np.diag([-s, -s, s, 1.0])
    affine[:3, 3] = np.array([1, 1, -1]) * (config.size - 1) / 2 * s
    nuisance = {
        "phase": "contrast-enhanced" if contrast else "non-contrast", "kernel": "sharp" if sharp else "soft",
        "noise": round(float(sd), 2), "habitus": round(float(habitus), 3),
    }  # fmt: skip
    volume = np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
    return Case(volume, body.labels, affine, findings, attributes, nuisance)


def _organs(
    body: _Body, findings: dict[str, bool], contrast: bool, habitus: float, config: PhantomConfig
) -> dict[str, Any]:
    """Draw the healthy anatomy, the large heart and the fatty liver; returns where organs lie."""
    rng = body.rng
    body.put(body.cylinder(150 * habitus, 105 * habitus), rng.normal(-100, 8), "subcutaneous fat")
    body.put(body.cylinder(138, 93), rng.normal(50, 5), "muscle")
    places: dict[str, Any] = {}
    air = rng.normal(-830, 30)
    for side, sign, rx in (("right", -1, 50), ("left", 1, 47)):
        centre, radii = np.array([68.0 * sign, 0, 70]) + body.jitter(), np.array([rx, 71, 85]) * rng.uniform(0.92, 1.06)
        places[f"{side} lung"] = centre, radii
        body.put(body.ellipsoid(centre, radii), air, f"{side} lung", 15)
    if config.distractors:
        ring = (body.x / 138) ** 2 + (body.y / 93) ** 2
        level = np.abs((body.z + 0.25 * body.y + rng.uniform(0, 28)) % 28 - 14)
        rib = (ring > 0.74) & (ring < 0.92) & (level < 4.5) & (body.z > -10) & (body.z < 150)
        body.put(rib, rng.uniform(300, 500), "rib")
        for side, sign in (("right", -1), ("left", 1)):
            centre, radii = places[f"{side} lung"]
            hilum = np.array([28.0 * sign, 5, 55])
            for _ in range(3):
                way = rng.normal(size=3)
                end = centre + 0.75 * radii * way / np.linalg.norm(way)
                tube = body.tube(hilum, end, rng.uniform(5, 8)) & body.ellipsoid(centre, radii)
                body.put(tube, rng.normal(180 if contrast else 40, 10), "vessel")
    large = rng.uniform(1.3, 1.5) if findings["cardiomegaly"] else rng.uniform(0.9, 1.08)
    heart = np.array([18.0, -22, 38]) + body.jitter(), np.array([48.0, 42, 46]) * large
    body.put(body.ellipsoid(*heart), rng.normal(150 if contrast else 45, 8), "cardiomegaly")
    spleen_hu = rng.normal(110 if contrast else 50, 4)
    fatty = findings["fatty liver"]
    liver_hu = rng.normal((55 if contrast else 15) if fatty else (115 if contrast else 58), 5)
    liver = np.array([-55.0, -8, -40]) + body.jitter(), np.array([78.0, 72, 52]) * rng.uniform(0.92, 1.08)
    body.put(body.ellipsoid(*liver), liver_hu, "fatty liver", 6)
    spleen = np.array([92.0, 28, -30]) + body.jitter(), np.array([26.0, 34, 38]) * rng.uniform(0.9, 1.1)
    body.put(body.ellipsoid(*spleen), spleen_hu, "spleen")
    for side, sign in (("right", -1), ("left", 1)):
        kidney = np.array([58.0 * sign, 45, -95]) + body.jitter(), np.array([25.0, 22, 45]) * rng.uniform(0.92, 1.08)
        places[f"{side} kidney"] = kidney
        body.put(body.ellipsoid(*kidney), rng.normal(180 if contrast else 33, 5), f"{side} kidney")
    body.put(body.cylinder(20, 20, 0, 62), rng.normal(230, 30), "spine", 25)
    body.put(body.cylinder(13, 13, 14, 36), rng.normal(300 if contrast else 42, 10), "aorta")
    return places | {"liver": liver, "liver hu": liver_hu}


def _lesions(
    body: _Body,
    findings: dict[str, bool],
    attributes: dict[str, dict[str, Any]],
    places: dict[str, Any],
    config: PhantomConfig,
    training: bool,
) -> None:
    rng, scale = body.rng, config.lesions

    def side() -> tuple[str, int]:
        return ("right", -1) if rng.random() < 0.5 else ("left", 1)

    def diameter(low: float, high: float) -> tuple[float, dict[str, Any]]:
        d = rng.uniform(low, high)
        word = "small" if d < 22 else "moderate" if d < 30 else "large"
        return scale * d, {"diameter": round(float(scale * d), 1), "size": word}

    if findings["aortic calcification"]:
        ring = body.cylinder(13, 13, 14, 36) & ~body.cylinder(8, 8, 14, 36)
        for _ in range(int(rng.integers(2, 5))):
            z, angle = rng.uniform(-110, 110), rng.uniform(0, 2 * np.pi)
            arc = np.cos(np.arctan2(body.y - 36, body.x - 14) - angle) > 0.3
            body.put(ring & arc & (np.abs(body.z - z) < 10), rng.uniform(500, 900), "aortic calcification")
    if findings["lung nodule"]:
        where, sign = side()
        lobe = "upper" if rng.random() < 0.5 else "lower"
        kinds = [k for k in TYPES if not (training and (where, lobe, k) in HELD_OUT)]
        kind = str(rng.choice(kinds))
        d, sized = diameter(16, 36)
        centre, radii = places[f"{where} lung"]
        low, high = (0.15, 0.55) if lobe == "upper" else (-0.5, -0.15)
        offset = np.array([sign * rng.uniform(0.05, 0.45), rng.uniform(-0.5, 0.5), rng.uniform(low, high)])
        body.put(body.ellipsoid(centre + offset * radii, d / 2), rng.uniform(*_HU[kind]), "lung nodule")
        attributes["lung nodule"] = {"side": where, "lobe": lobe, "type": kind, **sized}
    if findings["pleural effusion"]:
        where, _ = side()
        centre, radii = places[f"{where} lung"]
        share = rng.uniform(0.15, 0.5)
        behind = (body.y > centre[1] + radii[1] * (1 - 1.6 * share)) & (body.z < centre[2] + radii[2] * 0.5)
        body.put(body.ellipsoid(centre, radii) & behind, rng.uniform(0, 20), "pleural effusion")
        attributes["pleural effusion"] = {"side": where, "size": "small" if share < 0.32 else "large"}
    if findings["liver lesion"]:
        kind = "cyst" if rng.random() < 0.5 else "metastasis"
        d, sized = diameter(18, 42)
        centre, radii = places["liver"]
        dark = places["liver hu"] - config.metastasis * rng.uniform(28, 45)
        hu = rng.uniform(0, 12) if kind == "cyst" else dark
        body.put(body.ellipsoid(centre + rng.uniform(-0.5, 0.5, 3) * radii, d / 2), hu, "liver lesion")
        attributes["liver lesion"] = {"type": kind, **sized}
    if findings["renal cyst"]:
        where, sign = side()
        d, sized = diameter(18, 36)
        centre, radii = places[f"{where} kidney"]
        offset = np.array([sign * 0.6 * radii[0], 0, rng.uniform(-0.5, 0.5) * radii[2]])
        body.put(body.ellipsoid(centre + offset, d / 2), rng.uniform(0, 15), "renal cyst")
        attributes["renal cyst"] = {"side": where, **sized}
    if findings["kidney stone"]:
        where, _ = side()
        centre, radii = places[f"{where} kidney"]
        middle = centre + np.array([0, 0, rng.uniform(-0.4, 0.4) * radii[2]])
        body.put(body.ellipsoid(middle, scale * rng.uniform(3.5, 5.5)), rng.uniform(700, 1200), "kidney stone")
        attributes["kidney stone"] = {"side": where}
