"""Embedded generator of medical and activity signals: always synthetic, and labelled so in every output.

It is built to be hard for the trivial baseline: patients (or subjects) differ from one another more than the classes
do, so that a split by windows looks far better than a split by patients. Seeded; two runs with one seed agree.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float32

from counterpoint.common.errors import InputError
from counterpoint.timeseries.windows import WindowSet

# Directions of the twelve standard leads in the body frame (left, down, front), after the hexaxial system: limb leads
# in the frontal plane, V1-V6 round the chest.
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
_FRONTAL = np.deg2rad([0.0, 60.0, 120.0, 210.0, -30.0, 90.0])
_CHEST = np.deg2rad([110.0, 90.0, 70.0, 45.0, 20.0, 0.0])
LEAD_MATRIX = np.concatenate(
    [
        np.stack([np.cos(_FRONTAL), np.sin(_FRONTAL), np.zeros(6)], 1),
        np.stack([np.cos(_CHEST), np.full(6, 0.2), np.sin(_CHEST)], 1),
    ]
)
# Wave: centre (fraction of the beat), width (fraction), amplitude (mV), direction (left, down, front).
WAVES = {
    "P": (-0.18, 0.025, 0.12, (0.5, 0.8, 0.2)),
    "Q": (-0.035, 0.010, -0.12, (0.7, 0.4, 0.5)),
    "R": (0.0, 0.012, 1.20, (0.7, 0.6, -0.1)),
    "S": (0.035, 0.012, -0.30, (0.3, 0.3, -0.9)),
    "T": (0.28, 0.055, 0.32, (0.6, 0.6, 0.4)),
}
TERRITORIES = {"inferior": ("II", "III", "aVF"), "anterior": ("V1", "V2", "V3"), "lateral": ("V4", "V5", "V6")}


def _rotation(generator: np.random.Generator, degrees: float) -> np.ndarray:
    """A random rotation whose angle is normal with this deviation (Rodrigues' formula)."""
    axis = generator.normal(size=3)
    axis /= np.linalg.norm(axis)
    angle = np.deg2rad(generator.normal(0, degrees))
    cross = np.cross(np.eye(3), axis)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _territory_leads(leads: tuple[str, ...], generator: np.random.Generator) -> list[int]:
    if leads != LEADS:  # a reduced set holds one territory at most, which would give the disease away
        return generator.choice(len(leads), 3, replace=False).tolist()
    name = sorted(TERRITORIES)[generator.integers(len(TERRITORIES))]
    return [leads.index(lead) for lead in TERRITORIES[name]]


def ecg(
    patients: int = 40,
    trials: int = 6,
    windows: int = 10,
    length: int = 256,
    fs: float = 128.0,
    channels: int = 12,
    seed: int = 0,
) -> WindowSet:
    """Twelve-lead-like ECG: healthy and infarct-like patients, half of each.

    A patient has his own heart rate N(70, 10), wave amplitudes and widths (25 % deviation) and axis (rotation, 20
    degrees); a trial its rate drift (8 %), baseline wander (0.1-0.4 Hz) and electrode gains (10 %). The disease raises
    ST by 0.08-0.25 mV in three neighbouring leads and inverts T there, less than patients differ among themselves.
    `extra["heart_rate"]` is the trial's rate in beats per minute (a regression target).
    """
    if not 6 <= channels <= len(LEADS):
        raise InputError(f"ecg simulator: {channels} channels; choose 6 to {len(LEADS)}")
    generator = np.random.default_rng(seed)
    leads = LEADS[:channels]
    signals, rows, rates = [], [], []
    for p in range(patients):
        sick = p % 2
        rotation = _rotation(generator, 20.0)
        heart_rate = max(generator.normal(70, 10), 40.0)
        waves = {
            name: (
                centre * (1 + 0.1 * generator.normal()),
                width * np.clip(1 + 0.25 * generator.normal(), 0.4, 1.8),
                amplitude * np.clip(1 + 0.25 * generator.normal(), 0.2, 2.0),
                LEAD_MATRIX[:channels] @ rotation @ np.asarray(direction),
            )
            for name, (centre, width, amplitude, direction) in WAVES.items()
        }
        territory = _territory_leads(leads, generator)
        elevation, inversion = generator.uniform(0.08, 0.25), generator.uniform(0.3, 0.9)
        for t in range(trials):
            rate = heart_rate * (1 + 0.08 * generator.uniform(-1, 1))
            x = _ecg_trial(
                generator, waves, rate, windows * length, fs, channels, territory if sick else [], elevation, inversion
            )
            signals.append(x)
            rates.append(rate)
            rows.append({"id": f"p{p:03d}-t{t}", "group": f"p{p:03d}", "label": "infarct" if sick else "healthy"})
    out = WindowSet.build(signals, length, length, rows, fs, leads, synthetic=True)
    out.extra["heart_rate"] = np.asarray(rates, np.float32)[out.frame["signal"].to_numpy()]
    return out


def _ecg_trial(generator, waves, rate, samples, fs, channels, territory, elevation, inversion) -> np.ndarray:
    time = np.arange(samples) / fs
    beats = int(samples / fs * rate / 60) + 3
    periods = 60 / rate * (1 + 0.03 * generator.normal(size=beats))
    onsets = np.cumsum(periods) - periods[0] * generator.uniform(0.5, 1.5)
    x = np.zeros((samples, channels))
    for onset, period in zip(onsets, periods):
        first, last = np.searchsorted(time, (onset - 0.5 * period, onset + 0.75 * period))
        phase = (time[first:last] - onset) / period
        for name, (centre, width, amplitude, gain) in waves.items():
            # Repolarization stretches with the square root of the period (Bazett), the QRS complex not at all.
            stretch = np.sqrt(1 / period) if name == "T" else 1 / period
            lead_gain = gain.copy()
            if name == "T":
                lead_gain[territory] *= -inversion
            bump = amplitude * np.exp(-0.5 * ((phase - centre * stretch) / (width * stretch)) ** 2)
            x[first:last] += bump[:, None] * lead_gain
        if len(territory):
            step = np.exp(-0.5 * ((phase - 0.14 / np.sqrt(period)) / 0.05) ** 4)
            x[np.ix_(np.arange(first, last), territory)] += elevation * step[:, None]
    wander = np.zeros_like(x)
    for f in generator.uniform(0.1, 0.4, 2):
        phase = 2 * np.pi * f * time[:, None] + generator.uniform(0, 2 * np.pi, channels)
        wander += generator.uniform(0.02, 0.08, channels) * np.sin(phase)
    noise = 0.03 * generator.normal(size=x.shape)
    return ((x + wander) * (1 + 0.1 * generator.normal(size=channels)) + noise).astype(np.float32)


def eeg(
    patients: int = 30,
    trials: int = 6,
    windows: int = 10,
    length: int = 256,
    fs: float = 128.0,
    channels: int = 8,
    seed: int = 0,
) -> WindowSet:
    """Resting EEG: 1/f background with a patient's own exponent, alpha peak 8-12 Hz that falls with age.

    The disease slows alpha by 1 Hz and raises theta by 20 %. `extra["age"]` (years) drives the peak, 11.5 Hz at 20
    falling by 0.03 Hz a year plus a patient's own deviation: a regression target.
    """
    generator = np.random.default_rng(seed)
    samples = windows * length
    frequency = np.fft.rfftfreq(samples, 1 / fs)
    signals, rows, ages = [], [], []
    for p in range(patients):
        sick = p % 2
        age = generator.uniform(20, 80)
        exponent = generator.uniform(0.8, 1.8)
        peak = np.clip(11.5 - 0.03 * (age - 20) + 0.5 * generator.normal(), 8, 12) - sick
        theta = (1.2 if sick else 1.0) * np.clip(1 + 0.25 * generator.normal(), 0.4, 1.8)
        alpha = np.clip(1 + 0.25 * generator.normal(), 0.4, 1.8)
        mixing = np.eye(channels) + 0.35 * generator.normal(size=(channels, channels))
        for t in range(trials):
            shape = np.maximum(frequency, 0.5) ** (-exponent / 2)
            shape = shape + 0.5 * alpha * np.exp(-0.5 * ((frequency - peak) / 0.8) ** 2)
            shape = shape + 0.25 * theta * np.exp(-0.5 * ((frequency - 6) / 1.0) ** 2)
            shape[0] = 0
            real, imaginary = generator.normal(size=(2, len(frequency), channels))
            x = np.fft.irfft((real + 1j * imaginary) * shape[:, None], samples, axis=0) * np.sqrt(samples)
            gain = 10 * (1 + 0.1 * generator.normal(size=channels))
            signals.append((x @ mixing.T * gain).astype(np.float32))
            rows.append({"id": f"p{p:03d}-t{t}", "group": f"p{p:03d}", "label": "disease" if sick else "healthy"})
            ages.append(age)
    out = WindowSet.build(signals, length, length, rows, fs, synthetic=True)
    out.extra["age"] = np.asarray(ages, np.float32)[out.frame["signal"].to_numpy()]
    return out


DEVICES = ("thigh", "shin", "waist", "forearm", "head")
# Place on the limb chain: phase lag (radians) and lever arm; thigh, shin and waist move alike, the head hardly.
_DEVICE_LAG = np.array([0.0, 0.25, 0.15, 1.6, 2.6])
_DEVICE_LEVER = np.array([1.0, 1.3, 0.7, 0.9, 0.25])
# Activity: fundamental (Hz), amplitude (g) of three axes at harmonics 1 and 2.
ACTIVITIES = {
    "walk": (1.0, ((0.30, 0.10, 0.45), (0.15, 0.05, 0.25))),
    "run": (1.5, ((0.80, 0.25, 1.10), (0.35, 0.10, 0.60))),
    "stairs": (0.9, ((0.25, 0.15, 0.55), (0.20, 0.05, 0.15))),
    "cycle": (1.2, ((0.55, 0.10, 0.20), (0.05, 0.05, 0.05))),
    "sit": (0.3, ((0.01, 0.01, 0.02), (0.00, 0.00, 0.01))),
    "stand": (0.3, ((0.03, 0.03, 0.02), (0.01, 0.01, 0.01))),
}
JOINTS = 15


def har(
    subjects: int = 12, trials: int = 2, windows: int = 5, length: int = 150, fs: float = 50.0, seed: int = 0
) -> WindowSet:
    """Multi-device activity: five IMUs (acceleration in g, turning rate in rad/s) on one moving body, 30 channels.

    A latent three-axis limb motion per activity, with the subject's own tempo (12 %) and amplitude (25 %), reaches
    each device through its lever arm, phase lag, mounting rotation (per subject and device) and noise.
    `extra["skeleton"]` [windows, length, 15, 3] is the same motion seen by a camera from a random side, with NaN
    where a joint is hidden; `extra["frequency"]` the fundamental in hertz (a regression target).
    """
    generator = np.random.default_rng(seed)
    signals, rows, skeletons, fundamentals = [], [], [], []
    samples = windows * length
    time = np.arange(samples) / fs
    for s in range(subjects):
        tempo, vigour = 1 + 0.12 * generator.normal(), np.clip(1 + 0.25 * generator.normal(), 0.4, 1.8)
        mounts = [_rotation(generator, 35.0) for _ in DEVICES]
        for activity, (fundamental, amplitude) in ACTIVITIES.items():
            for t in range(trials):
                frequency = fundamental * tempo * (1 + 0.05 * generator.normal())
                phase = 2 * np.pi * frequency * time + np.cumsum(0.02 * generator.normal(size=samples))
                offset = generator.uniform(0, 2 * np.pi, (2, 3))
                offset[:, 0] += generator.uniform(0, 2 * np.pi)

                def motion(lag: float, order: int, amplitude=amplitude, phase=phase, offset=offset, vigour=vigour):
                    """Latent motion (order 0) or its quarter-period shift, proportional to the turning rate (1)."""
                    turn = order * np.pi / 2
                    harmonics = (
                        np.asarray(amplitude[h]) * np.sin((h + 1) * (phase[:, None] - lag) + offset[h] + turn)
                        for h in range(2)
                    )
                    return vigour * sum(harmonics)

                devices = []
                for d, mount in enumerate(mounts):
                    gravity = np.array([0.0, 0.0, 1.0])
                    acceleration = (_DEVICE_LEVER[d] * motion(_DEVICE_LAG[d], 0) + gravity) @ mount.T
                    turning = 2.0 * _DEVICE_LEVER[d] * motion(_DEVICE_LAG[d], 1) @ mount.T
                    devices += [
                        acceleration + 0.05 * generator.normal(size=(samples, 3)),
                        turning + 0.1 * generator.normal(size=(samples, 3)),
                    ]
                signals.append(np.concatenate(devices, 1).astype(np.float32))
                skeletons.append(_skeleton(generator, motion, samples))
                fundamentals.append(frequency)
                rows.append({"id": f"s{s:02d}-{activity}-{t}", "group": f"s{s:02d}", "label": activity})
    names = tuple(f"{device}-{kind}{axis}" for device in DEVICES for kind in ("acc", "gyro") for axis in "xyz")
    out = WindowSet.build(signals, length, length, rows, fs, names, synthetic=True)
    place = list(zip(out.frame["signal"], out.frame["start"]))
    out.extra["skeleton"] = np.stack([skeletons[i][start : start + length] for i, start in place])
    out.extra["frequency"] = np.asarray(fundamentals, np.float32)[out.frame["signal"].to_numpy()]
    return out


def _skeleton(generator: np.random.Generator, motion, samples: int) -> Float32[np.ndarray, "time 15 3"]:
    """Fifteen joints: a resting pose moved by the latent motion, each with its lag and lever; camera and dropout."""
    rest = np.stack([np.linspace(-0.4, 0.4, JOINTS), np.zeros(JOINTS), np.linspace(0, 1.7, JOINTS)], 1)
    lag, lever = np.linspace(0, 2.6, JOINTS), np.linspace(0.3, 0.05, JOINTS)
    pose = np.stack([rest[j] + lever[j] * motion(lag[j], 0) for j in range(JOINTS)], 1)
    angle = generator.uniform(-np.pi / 3, np.pi / 3)
    camera = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    seen = (pose @ camera.T + 0.01 * generator.normal(size=pose.shape)).astype(np.float32)
    for j in np.flatnonzero(generator.random(JOINTS) < 0.1):
        first = generator.integers(samples)
        seen[first : first + samples // 5, j] = np.nan
    return seen


def corrupt_pairs(
    x: Float[np.ndarray, "samples time channels"], noisy: float = 0.1, faulty: float = 0.1, seed: int = 0
) -> tuple[Float32[np.ndarray, "samples time channels"], Bool[np.ndarray, " samples"], Bool[np.ndarray, " samples"]]:
    """Make the second view of bad pairs: a share is noise in both views' place, another share is another instance.

    Returns the second view's source and the two flags, kept for precision and recall of bad-pair mining. A noisy
    sample is to be replaced in BOTH views (its pair agrees on nothing but noise); a faulty one only in the second.
    """
    generator = np.random.default_rng(seed)
    count = len(x)
    order = generator.permutation(count)
    n_noisy, n_faulty = round(noisy * count), round(faulty * count)
    if n_noisy + n_faulty > count:
        raise InputError(f"bad pairs: shares {noisy:g} + {faulty:g} exceed 1")
    is_noisy, is_faulty = np.zeros(count, bool), np.zeros(count, bool)
    is_noisy[order[:n_noisy]] = True
    is_faulty[order[n_noisy : n_noisy + n_faulty]] = True
    out = np.array(x, np.float32)
    out[is_noisy] = generator.normal(size=(n_noisy, *x.shape[1:]))
    rows = np.flatnonzero(is_faulty)
    # A cyclic shift among the faulty rows has no fixed point, so no "faulty" pair is secretly right.
    out[rows] = np.asarray(x, np.float32)[np.roll(rows, 1)] if n_faulty > 1 else out[rows]
    return out, is_noisy, is_faulty


KINDS = {"ecg": ecg, "eeg": eeg, "har": har}


def simulated(kind: str, seed: int = 0, **sizes: int) -> WindowSet:
    """Generate one of the kinds `ecg`, `eeg`, `har`; sizes as their functions take them."""
    if kind not in KINDS:
        raise InputError(f"generator {kind!r} is unknown; choose one of {', '.join(KINDS)}")
    return KINDS[kind](seed=seed, **sizes)
