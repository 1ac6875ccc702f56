"""Additive synthesis: a score's notes to a waveform, several timbres, any tempo. All of it is synthetic audio.

A note is a sum of partials, each with its own decay, under an attack and release envelope:

    note(t) = attack(t) * release(t) * sum_h a_h exp(-d_h t) sin(2 pi f_h t),   f_h = h f_0 sqrt(1 + B h^2)

A (pitch, timbre) pair is synthesised once and cut to length per note, so a chorale costs a few dozen tones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from counterpoint.audio_speech.configs import Rendition
from counterpoint.common.errors import InputError

REVISION = 1  # raise when the same notes and rendition would give another waveform


VIBRATO_RATE = 5.5  # hertz


@dataclass(frozen=True)
class Timbre:
    """How an instrument sounds.

    Attributes:
        partials: amplitudes of the harmonics 1, 2, ...
        decay: of the first partial per second; 0 is a sustained tone.
        decay_growth: further decay per harmonic number above the first, per second.
        attack: rise time in seconds.
        release: time constant of the tail after the note in seconds.
        inharmonicity: `B` of a stiff string.
        vibrato: depth in cents at 5.5 Hz.
        reverb: decay time of the room in seconds; 0 is a dry recording.
        noise: amplitude of the recording's noise floor.
    """

    partials: tuple[float, ...]
    decay: float = 0.0
    decay_growth: float = 0.0
    attack: float = 0.01
    release: float = 0.05
    inharmonicity: float = 0.0
    vibrato: float = 0.0
    reverb: float = 0.0
    noise: float = 1e-4


TIMBRES: dict[str, Timbre] = {
    "piano": Timbre((1.0, 0.6, 0.35, 0.22, 0.14, 0.09, 0.05, 0.03), 1.4, 0.5, 0.004, 0.08, 2e-4),
    "organ": Timbre((1.0, 0.8, 0.25, 0.55, 0.08, 0.2, 0.03, 0.25), 0.0, 0.0, 0.03, 0.04, reverb=0.6),
    "strings": Timbre(tuple(1 / h for h in range(1, 11)), 0.0, 0.0, 0.09, 0.12, vibrato=12.0, noise=5e-4),
    "flute": Timbre((1.0, 0.25, 0.12, 0.03, 0.01), 0.0, 0.0, 0.06, 0.06, vibrato=8.0, noise=2e-3),
    "reed": Timbre((0.6, 0.15, 0.8, 0.12, 0.55, 0.1, 0.3, 0.06, 0.15), 0.1, 0.0, 0.04, 0.05, reverb=0.9, noise=1e-3),
    "harpsichord": Timbre((0.7, 0.9, 0.8, 0.7, 0.5, 0.45, 0.3, 0.25, 0.2, 0.12), 2.2, 0.15, 0.002, 0.03, 5e-5),
}


def timbre(name: str) -> Timbre:
    """The timbre of that name, or an `InputError` listing those there are."""
    if name not in TIMBRES:
        raise InputError(f"timbre {name!r} is unknown; choose from {', '.join(TIMBRES)}")
    return TIMBRES[name]


@lru_cache(maxsize=2048)
def tone(pitch: int, name: str, sample_rate: int, seconds: int) -> Float[np.ndarray, " samples"]:
    """One note of a timbre held for `seconds`, within [-1, 1], without its release."""
    voice = TIMBRES[name]
    f0 = 440.0 * 2.0 ** ((pitch - 69) / 12)
    t = np.arange(seconds * sample_rate) / sample_rate
    wobble = 2.0 ** (voice.vibrato / 1200) - 1.0
    cycles = f0 * t
    if wobble:
        cycles -= wobble * f0 / (2 * np.pi * VIBRATO_RATE) * np.cos(2 * np.pi * VIBRATO_RATE * t)
    t = t.astype(np.float32)
    wave = np.zeros(len(t), dtype=np.float32)
    for h, amplitude in enumerate(voice.partials, start=1):
        stretch = h * np.sqrt(1.0 + voice.inharmonicity * h * h)
        if stretch * f0 >= 0.45 * sample_rate:
            break
        turn = stretch * cycles
        turn -= np.floor(turn)
        partial = np.sin(np.float32(2 * np.pi) * turn.astype(np.float32))
        rate = voice.decay + voice.decay_growth * (h - 1)
        if rate:
            partial *= np.exp(np.float32(-rate) * t)
        wave += np.float32(amplitude) * partial
    wave *= np.minimum(t / np.float32(voice.attack), np.float32(1.0))
    wave /= sum(voice.partials)
    wave.setflags(write=False)
    return wave


def synthesise(
    notes: Float[np.ndarray, "notes 4"], rendition: Rendition, sample_rate: int = 22050, seed: int = 0
) -> Float[np.ndarray, " samples"]:
    """Play notes (onset s, offset s, MIDI pitch, anything) and return a float32 waveform within [-1, 1].

    Times are divided by the tempo; the waveform ends one second after the last note. `seed` fixes the small differences
    of loudness between notes and the noise floor.

    >>> wave = synthesise(np.array([[0.0, 1.0, 69.0, 0.0]]), Rendition("flute", 2.0))
    >>> len(wave) / 22050
    1.5
    """
    voice = timbre(rendition.timbre)
    if rendition.tempo <= 0:
        raise InputError(f"tempo {rendition.tempo} of rendition {rendition} is not positive")
    generator = np.random.default_rng(seed)
    tail = max(4 * voice.release, 0.01)
    length = round((notes[:, 1].max() / rendition.tempo + 1.0) * sample_rate)
    wave = np.zeros(length, dtype=np.float32)
    release = np.exp(-np.arange(int(tail * sample_rate)) / (voice.release * sample_rate)).astype(np.float32)
    loudness = generator.uniform(0.7, 1.0, len(notes)).astype(np.float32)
    for (onset, offset, pitch, *_), level in zip(notes, loudness):
        start = round(onset / rendition.tempo * sample_rate)
        held = round((offset - onset) / rendition.tempo * sample_rate)
        needed = held + len(release)
        seconds = 1 << (needed // sample_rate).bit_length()  # powers of two: few lengths of a tone are ever made
        source = tone(int(pitch), rendition.timbre, sample_rate, seconds)[: min(needed, length - start)]
        target = wave[start : start + len(source)]
        target[:held] += level * source[:held]
        after = source[held:]
        target[held:] += level * after * release[: len(after)]
    if voice.reverb:
        wave = reverberate(wave, voice.reverb, sample_rate, generator)
    wave *= 0.9 / max(float(np.abs(wave).max()), 1e-9)
    wave += voice.noise * generator.standard_normal(length, dtype=np.float32)
    return np.clip(wave, -1.0, 1.0)


def reverberate(
    wave: Float[np.ndarray, " samples"], seconds: float, sample_rate: int, generator: np.random.Generator
) -> Float[np.ndarray, " samples"]:
    """Add a room: convolution with exponentially decaying noise that falls by 60 dB in `seconds`, 30 % wet."""
    from scipy.signal import oaconvolve

    t = np.arange(int(seconds * sample_rate)) / sample_rate
    room = generator.standard_normal(len(t)) * np.exp(-6.9 * t / seconds)
    room /= np.sqrt(np.sum(room**2))
    wet = oaconvolve(wave, room.astype(np.float32))[: len(wave)]
    return (0.7 * wave + 0.3 * wet).astype(np.float32)
