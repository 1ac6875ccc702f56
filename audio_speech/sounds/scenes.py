"""Synthetic scenes of one or two sounds, and what one would say of them: which, how, in which order.

Six kinds of sounds, each high or low, short or long. Two sounds follow one another or sound together; the caption says
so. Held out for testing are combinations of kinds that no training scene has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from counterpoint.common.data import Manifest
from counterpoint.common.data.cache import Cache
from counterpoint.common.vertical import ImportReport

RATE = 16000
SAID = "synthetic scenes (tones and noises of a generator, captions of a grammar)"
KINDS: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "beep": lambda t, f, rng: np.sin(2 * np.pi * f * t),
    "buzz": lambda t, f, rng: np.sign(np.sin(2 * np.pi * f / 4 * t)) * 0.6,
    "hiss": lambda t, f, rng: _band(rng.standard_normal(len(t)), f),
    "siren": lambda t, f, rng: np.sin(2 * np.pi * (f * t + 0.15 * f / 3 / (2 * np.pi) * np.sin(2 * np.pi * 3 * t))),
    "rattle": lambda t, f, rng: _band(rng.standard_normal(len(t)), f) * (np.sin(2 * np.pi * 14 * t) > 0.3),
    "bell": lambda t, f, rng: sum(np.sin(2 * np.pi * f * m * t) * np.exp(-(2 + m) * t) for m in (1.0, 2.76, 5.4)),
}
PITCHES = {"low": 330.0, "high": 1400.0}
LENGTHS = {"short": 0.25, "long": 0.75}
ORDERS = ("before", "and")
HELD_OUT = frozenset({("beep", "hiss"), ("bell", "buzz"), ("rattle", "siren")})
"""Pairs of kinds that only validation and test scenes have."""
SECONDS = 2.0


def _band(noise: np.ndarray, centre: float) -> np.ndarray:
    spectrum = np.fft.rfft(noise)
    f = np.fft.rfftfreq(len(noise), 1 / RATE)
    return np.fft.irfft(spectrum * np.exp(-((np.log2((f + 1) / centre)) ** 2) / 0.18), len(noise)) * 3


@dataclass(frozen=True)
class Event:
    """One sound of a scene."""

    kind: str
    pitch: str
    length: str

    def __str__(self) -> str:
        return f"a {self.length} {self.pitch} {self.kind}"


def scene_caption(events: Sequence[Event], order: str) -> str:
    """What one would say.

    >>> scene_caption([Event("beep", "low", "short"), Event("bell", "high", "long")], "before")
    'a short low beep before a long high bell'
    """
    return f" {order} ".join(map(str, events))


def play_scene(events: Sequence[Event], order: str, rng: np.random.Generator) -> np.ndarray:
    """Samples of a scene; pitches, lengths, levels, places and the noise vary with the draw."""
    wave, at = np.zeros(round(SECONDS * RATE)), float(rng.uniform(0.02, 0.15))
    for event in events:
        n = round(LENGTHS[event.length] * rng.uniform(0.85, 1.15) * RATE)
        t = np.arange(n) / RATE
        sound = KINDS[event.kind](t, PITCHES[event.pitch] * rng.uniform(0.88, 1.12), rng)
        edge = np.minimum(np.minimum(t, t[::-1]) / 0.01, 1.0)
        part = wave[round(at * RATE) : round(at * RATE) + n]
        part += (sound * edge)[: len(part)] * rng.uniform(0.5, 1.0)
        if order == "before":
            at += n / RATE + float(rng.uniform(0.05, 0.15))
    wave += rng.standard_normal(len(wave)) * 10 ** rng.uniform(-3.0, -1.8)
    return (0.25 * wave / np.abs(wave).max()).astype(np.float32)


def draw_events(rng: np.random.Generator, held_out: bool, least: int = 1) -> list[Event]:
    """One or two sounds of different kinds; of a pair whether it is held out."""
    while True:
        kinds = rng.choice(list(KINDS), 2, replace=False).tolist()
        if least == 1 and rng.random() < 0.3 and not held_out:
            kinds = kinds[:1]
        if len(kinds) == 1 or (tuple(sorted(kinds)) in HELD_OUT) is held_out:
            break
    return [Event(kind, str(rng.choice(list(PITCHES))), str(rng.choice(list(LENGTHS)))) for kind in kinds]


def draw_scene(rng: np.random.Generator, held_out: bool) -> tuple[np.ndarray, dict[str, str]]:
    """Samples, and what is known of them: `caption`, `first`, `second`, `order`."""
    events = draw_events(rng, held_out)
    order = str(rng.choice(ORDERS)) if len(events) == 2 else ""
    known = {"caption": scene_caption(events, order), "first": events[0].kind, "order": order}
    return play_scene(events, order, rng), known | {"second": events[1].kind if len(events) == 2 else ""}


def write_scenes(out: Path, scenes: int, seed: int) -> ImportReport:
    """Write `scenes` scenes as FLAC with a manifest: 70 % for training, held-out combinations for the rest."""
    import soundfile

    out = Path(out)
    (out / "sounds").mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(scenes):
        rng = np.random.default_rng([seed, i])
        split = "train" if i % 10 < 7 else "val" if i % 10 == 7 else "test"
        wave, known = draw_scene(rng, held_out=split != "train")
        file = out / "sounds" / f"scene{i:05d}.flac"
        soundfile.write(file, wave, RATE)
        rows.append(
            {"id": file.stem, "group": file.stem, "split": split, "file": f"sounds/{file.name}", "start": 0.0,
             "seconds": SECONDS, "sample_rate": RATE, "channels": 1, "channel": 0, **known}
        )  # fmt: skip
    manifest = Manifest.from_rows(rows, out, {"synthetic": SAID}).save(out / "manifest.parquet")
    return ImportReport(manifest.path, len(rows), note=f"SYNTHETIC: {SAID}")


def generated(scenes: int, seed: int) -> Manifest:
    """The embedded scenes, kept in the cache."""
    key = {"scenes": scenes, "seed": seed, "code": hashlib.sha256(Path(__file__).read_bytes()).hexdigest()}
    folder = Cache().get_or_make(key, "", lambda path: write_scenes(path, scenes, seed))
    return Manifest.load(folder / "manifest.parquet")
