"""Pictures and sounds as data URIs, so that a report is one file."""

from __future__ import annotations

import base64
import importlib.util
import io
import wave
from dataclasses import dataclass

import numpy as np

ImageLike = object  # array [H, W] or [H, W, 3|4], tensor, PIL image, PNG/JPEG bytes, or SVG text


@dataclass(frozen=True)
class Media:
    """One thing to look at or listen to in a gallery.

    Attributes:
        label: what it is, shown under it and read to screen readers.
        image: array [H, W] (coloured by `cmap`) or [H, W, 3], tensor, PIL image, PNG or JPEG bytes, or SVG text.
        audio: (samples in -1..1 [T] or [T, channels], sampling rate in Hz), or encoded bytes (WAV, MP3, OGG).
        caption: further words (score, piece, bars).
        correct: whether it is a right answer; None says nothing.
        rank: its rank among what was searched, where that is not its place in the row.
    """

    label: str
    image: ImageLike | None = None
    audio: object | None = None
    caption: str = ""
    correct: bool | None = None
    cmap: str = "gray"
    rank: int | None = None


def image_uri(image: ImageLike, cmap: str = "gray") -> str:
    """Encode a picture as a data URI; numbers are scaled to their own range, NaN becomes the lowest.

    >>> image_uri(np.zeros((2, 2)))[:22]
    'data:image/png;base64,'
    """
    if isinstance(image, str):
        if not image.lstrip().startswith("<"):
            raise ValueError("an image given as text must be SVG markup")
        return _uri("image/svg+xml", image.encode())
    if isinstance(image, bytes):
        if image.startswith(b"\x89PNG"):
            return _uri("image/png", image)
        if image.startswith(b"\xff\xd8"):
            return _uri("image/jpeg", image)
        raise ValueError("image bytes must be PNG or JPEG")
    from PIL import Image

    picture = image if isinstance(image, Image.Image) else Image.fromarray(_pixels(image, cmap))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return _uri("image/png", buffer.getvalue())


def audio_uri(audio: object) -> str:
    """Encode sound as a data URI: MP3 when soundfile is there (a tenth of the size), else 16-bit WAV.

    >>> audio_uri((np.zeros(800), 8000)).split(";")[0] in ("data:audio/mpeg", "data:audio/wav")
    True
    """
    if isinstance(audio, bytes):
        kinds = {b"RIFF": "audio/wav", b"OggS": "audio/ogg", b"fLaC": "audio/flac"}
        return _uri(kinds.get(audio[:4], "audio/mpeg"), audio)
    samples, rate = audio  # type: ignore[misc]
    wave_form = np.asarray(getattr(samples, "cpu", lambda: samples)(), dtype=np.float32)
    if wave_form.ndim not in (1, 2) or len(wave_form) == 0:
        raise ValueError(f"audio must be samples [T] or [T, channels], got shape {wave_form.shape}")
    wave_form = np.nan_to_num(wave_form).clip(-1, 1)
    if importlib.util.find_spec("soundfile") and rate in (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000):
        import soundfile

        buffer = io.BytesIO()
        soundfile.write(buffer, wave_form, int(rate), format="MP3")
        return _uri("audio/mpeg", buffer.getvalue())
    return _uri("audio/wav", wav_bytes(wave_form, int(rate)))


def wav_bytes(samples: np.ndarray, rate: int) -> bytes:
    """16-bit PCM WAV of samples in -1..1, [T] or [T, channels].

    >>> len(wav_bytes(np.zeros(10), 8000))
    64
    """
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((samples * 32767).round().astype("<i2").tobytes())
    return buffer.getvalue()


def _pixels(image: ImageLike, cmap: str) -> np.ndarray:
    array = np.asarray(getattr(image, "cpu", lambda: image)())
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or array.size == 0:
        raise ValueError(f"an image must be [H, W] or [H, W, 3 or 4], got shape {array.shape}")
    if array.dtype == np.uint8 and not (array.ndim == 2 and cmap != "gray"):
        return array
    values = array.astype(np.float64)
    low, high = (np.nanmin(values), np.nanmax(values)) if np.isfinite(values).any() else (0.0, 1.0)
    if array.ndim == 3 and low >= 0 and high <= 1:
        low, high = 0.0, 1.0  # colours in 0..1 keep their exposure
    values = np.nan_to_num((values - low) / (high - low if high > low else 1.0)).clip(0, 1)
    if array.ndim == 2:
        import matplotlib

        values = matplotlib.colormaps[cmap](values)[..., :3]
    return (values * 255).round().astype(np.uint8)


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
