"""What the systems over recordings share: their data, and how a batch's sounds reach them."""

from __future__ import annotations

from typing import Any, ClassVar

from counterpoint.audio_speech.features import LEVEL
from counterpoint.audio_speech.sounds.configs import SoundConfig
from counterpoint.audio_speech.sounds.samples import read_manifest, sound_datasets
from counterpoint.audio_speech.sounds.words import CaptionWords
from counterpoint.common.data import Manifest
from counterpoint.common.trainers import Assets, ContrastiveSystem, Datasets
from counterpoint.common.trainers.inputs import Input

SOUND = Input(
    "float32 samples of a window: the mean of the recording's channels (one of them where they cancel each other) at "
    "`sample_rate` hertz (polyphase resampling), times a number that brings the root mean square of its loud parts to "
    f"{LEVEL:g}: the 95th percentile over whole blocks of 1102 samples, of the blocks within 60 dB of the loudest "
    "alone where that percentile is below them; zeros behind its end; all zero where they are below 3e-5.",
    ("samples",),
)
LENGTH = Input("int64, how many samples of the window are sound")


class SoundSystem(ContrastiveSystem):
    """Batches hold `sound` `[batch, samples]` and `length` `[batch]`."""

    modalities: ClassVar[tuple[str, ...]] = ("sound",)
    inputs: ClassVar[dict[str, Input]] = {"sound": SOUND, "length": LENGTH}

    @classmethod
    def read(cls, config: Any, assets: Assets | None = None) -> Manifest:
        """The manifest of recordings, or the generator's."""
        return read_manifest(config.data)

    @property
    def sounds(self) -> SoundConfig:
        """How recordings become windows."""
        return self.config.data

    @property
    def vocabulary(self) -> CaptionWords | None:
        """The words of captions; None where the system reads none."""
        return None

    def datasets(self) -> Datasets:
        return sound_datasets(self.data, self.sounds, self.config.train, self.vocabulary)

    def evaluation_datasets(self) -> Datasets:
        """The splits with training windows where they are, so that a run is encoded the same every time."""
        return sound_datasets(self.data, self.sounds, self.config.train, self.vocabulary, moving=False)
