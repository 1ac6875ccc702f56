"""Pieces made ready for training: engraved, played, analysed; every step cached by content, in several processes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from counterpoint.audio_speech import features, synth
from counterpoint.audio_speech.configs import EngravingConfig, Rendition, SpectrogramConfig
from counterpoint.audio_speech.engrave import Engraving, engraving_key, load_engraving
from counterpoint.audio_speech.worker import engrave_score, perform_to
from counterpoint.common.data.cache import Cache
from counterpoint.common.data.isolation import Isolated
from counterpoint.common.errors import InputError
from counterpoint.common.progress import track


@dataclass(frozen=True)
class Job:
    """One score, the performances wanted of it, and its title where the score is not to be asked."""

    id: str
    score: Path
    renditions: tuple[Rendition, ...] = ()
    title: str = ""


@dataclass(frozen=True)
class Piece:
    """One score, engraved and played.

    Attributes:
        engraving: the printed strip and its notes.
        spectrograms: rendition -> `[frames, bands]` float16.
        title: the job's, else the score's, else the id.
    """

    id: str
    engraving: Engraving
    spectrograms: dict[Rendition, np.ndarray] = field(default_factory=dict)
    title: str = ""


@dataclass(frozen=True)
class Failed:
    """A score that could not be rendered, and why."""

    id: str
    score: Path
    reason: str


def render(
    jobs: Sequence[Job],
    engraving: EngravingConfig,
    spectrogram: SpectrogramConfig,
    cache: Cache | None = None,
    workers: int = 2,
    description: str = "engraving and playing",
) -> list[Piece | Failed]:
    """Render every job, in order. Nothing is made twice; a score that cannot be read comes back as `Failed`.

    Threads of this process hold the cache's locks; the work itself is done by worker processes, started only when
    something is missing.
    """
    cache = cache or Cache()
    with Isolated(workers) as work, ThreadPoolExecutor(max(workers, 1)) as threads:
        made = threads.map(lambda job: _render_one(job, engraving, spectrogram, cache, work), jobs)
        return list(track(made, description, len(jobs)))


def play(notes: np.ndarray, rendition: Rendition, sample_rate: int, start: float, seconds: float) -> np.ndarray:
    """The waveform behind a part of a spectrogram: `seconds` from `start`, silence beyond the ends."""
    wave = synth.synthesise(notes, rendition, sample_rate, _seed(notes, rendition))
    first, count = round(start * sample_rate), round(seconds * sample_rate)
    excerpt = np.zeros(count, dtype=np.float32)
    low, high = max(first, 0), min(first + count, len(wave))
    if high > low:
        excerpt[low - first : high - first] = wave[low:high]
    return excerpt


class Sound:
    """A stretch of a performance that is synthesised when somebody wants to hear it.

    Not a dataclass: those are taken apart when a batch travels to its device.
    """

    def __init__(
        self, notes: np.ndarray, rendition: Rendition, sample_rate: int, start: float, seconds: float
    ) -> None:
        self.notes, self.rendition, self.sample_rate = notes, rendition, sample_rate
        self.start, self.seconds = start, seconds

    def wave(self) -> tuple[np.ndarray, int]:
        """Samples and sampling rate."""
        return play(self.notes, self.rendition, self.sample_rate, self.start, self.seconds), self.sample_rate


def _render_one(
    job: Job, engraving: EngravingConfig, spectrogram: SpectrogramConfig, cache: Cache, work: Isolated
) -> Piece | Failed:
    try:
        key = engraving_key(job.score, engraving)
        path = cache.get_or_make(key, ".npz", lambda target: work.call(engrave_score, job.score, engraving, target))
    except FileNotFoundError:
        return Failed(job.id, job.score, f"{job.score}: no such file")
    except InputError as error:
        return Failed(job.id, job.score, str(error))
    score, played = load_engraving(path), {}
    for rendition in job.renditions:
        seed = _seed(score.notes, rendition)
        made = cache.get_or_make(
            spectrogram_key(score, rendition, spectrogram),
            ".npy",
            lambda target, r=rendition, s=seed: work.call(perform_to, path, r, spectrogram, s, target),
        )
        played[rendition] = np.load(made, allow_pickle=False)
    return Piece(job.id, score, played, job.title or score.title or job.id)


def spectrogram_key(engraving: Engraving, rendition: Rendition, config: SpectrogramConfig) -> dict:
    """Everything a performance's spectrogram depends on: the notes' sound, the timbre's recipe, the analysis."""
    sounding = np.ascontiguousarray(engraving.notes[:, :3])
    return {
        "what": "spectrogram",
        "revision": [synth.REVISION, features.REVISION],
        "notes": hashlib.sha256(sounding.tobytes()).hexdigest(),
        "rendition": asdict(rendition),
        "timbre": asdict(synth.timbre(rendition.timbre)),
        "config": asdict(config),
    }


def _seed(notes: np.ndarray, rendition: Rendition) -> int:
    sounding = np.ascontiguousarray(notes[:, :3]).tobytes()
    return int.from_bytes(hashlib.sha256(sounding + str(rendition).encode()).digest()[:8], "big")


def choose_renditions(name: str, renditions: Iterable[Rendition], count: int) -> tuple[Rendition, ...]:
    """The performances of a training piece: a choice of `count` by the piece's name.

    >>> choose_renditions("bwv66.6", [Rendition("organ"), Rendition("flute")], 5)
    (Rendition(timbre='flute', tempo=1.0), Rendition(timbre='organ', tempo=1.0))
    """
    ranked = sorted(renditions, key=lambda r: hashlib.sha256(f"{name} {r}".encode()).digest())
    return tuple(sorted(ranked[:count]))
