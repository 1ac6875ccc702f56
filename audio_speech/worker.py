"""What worker processes do to a score: engrave it, and play it. Nothing here loads torch: they start at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from counterpoint.audio_speech.configs import EngravingConfig, Rendition, SpectrogramConfig
from counterpoint.audio_speech.engrave import engrave_to, load_engraving
from counterpoint.audio_speech.features import analyse
from counterpoint.audio_speech.synth import synthesise
from counterpoint.common.data.archives import check_zip
from counterpoint.common.data.importing import require_file

SCORE_BYTES = 256 << 20
"""A compressed score may always expand to this size."""


def engrave_score(score: Path, config: EngravingConfig, target: Path) -> None:
    """Engrave a score into `target`; an archive is measured and expanded once before the engraver sees it."""
    if require_file(score).suffix.lower() == ".mxl":
        check_zip(score, limit=SCORE_BYTES, whole=True)
    engrave_to(score, config, target)


def perform_to(engraving: Path, rendition: Rendition, config: SpectrogramConfig, seed: int, target: Path) -> None:
    """Play an engraved score and write the performance's float16 spectrogram as `.npy`."""
    wave = synthesise(load_engraving(engraving).notes, rendition, config.sample_rate, seed)
    with Path(target).open("wb") as file:
        np.save(file, analyse(wave, config).astype(np.float16), allow_pickle=False)
