"""Windows of recordings to look at and listen to, captions to read."""

from __future__ import annotations

from typing import Any

import numpy as np

from counterpoint.common.report import Media

BANDS, FLOOR_DB = 64, 60.0


def picture(sample: dict[str, Any], modality: str, system: Any) -> Media:
    """A log-mel spectrogram of 60 dB, low bands below, with its sound; a caption is its words."""
    if modality == "caption":
        return Media(str(sample["said"]))
    from counterpoint.audio_speech.sounds.configs import MelConfig
    from counterpoint.audio_speech.sounds.mel import LogMel

    rate = system.config.data.sample_rate
    length = max(int(sample["length"]), 1)
    wave = sample["sound"][:length]
    size = min(max(int(0.025 * rate), 64), 2 * max(length - 1, 1))
    if length <= size // 2:
        return Media(str(sample["id"]), caption=caption(sample, modality, system))
    mel = LogMel(MelConfig(fft_size=size, hop=max(length // 300, 1), bands=min(BANDS, size // 4), fmin=50.0), rate)
    shown = 10 / np.log(10) * mel(wave[None].float())[0].numpy()
    shown = np.clip((shown - shown.max()) / FLOOR_DB + 1, 0, 1)
    image = shown.T[::-1].astype(np.float32).repeat(2, axis=0)
    return Media(
        str(sample["id"]), image=image, audio=(wave.numpy(), rate), caption=caption(sample, modality, system),
        cmap="magma",
    )  # fmt: skip


def caption(sample: dict[str, Any], modality: str, system: Any) -> str:
    """What is said of a recording, and where a window begins.

    >>> caption({"said": "a dog barks"}, "caption", None), caption({"said": "a bell", "seconds": 62.5}, "sound", None)
    ('a dog barks', 'a bell, from 1:02.5')
    """
    minutes, seconds = divmod(float(sample.get("seconds") or 0.0), 60)
    place = f"from {int(minutes)}:{seconds:04.1f}" if sample.get("seconds") and modality == "sound" else ""
    return ", ".join(filter(None, (str(sample.get("said") or ""), place)))
