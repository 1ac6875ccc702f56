"""Snippets to look at and listen to: printed bars and spectrograms with the moment marked, short sounds, captions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.audio_speech.configs import Rendition, SheetDataConfig
from counterpoint.audio_speech.render import Job, Piece, play, render
from counterpoint.common.data import Manifest
from counterpoint.common.errors import InputError
from counterpoint.common.report import GalleryRow, Media, Report
from counterpoint.common.vertical import Outcome

_RED = np.array([0.85, 0.1, 0.1])


def picture(sample: dict[str, Any], modality: str, system: Any = None) -> Media:
    """One snippet: the printed window, or the spectrogram with its sound. A line marks the moment it is about, which is
    the middle of either."""
    title, *place = _words(sample, modality)
    if modality == "sheet":
        page = np.asarray(sample["sheet"])[..., None] / 255 * np.ones(3)
        middle = page.shape[1] // 2
        page[:, middle - 1 : middle + 2] = 0.5 * page[:, middle - 1 : middle + 2] + 0.5 * _RED
        return Media(title, image=page, caption=", ".join(place))
    sound = sample["sound"].wave() if "sound" in sample else None
    return Media(title, image=_spectrum(np.asarray(sample["audio"])), audio=sound, caption=", ".join(place))


def _spectrum(frames: np.ndarray) -> np.ndarray:
    """Low notes below, two pixels a frame and band, a broken line in the middle frame."""
    import matplotlib

    shown = frames.astype(np.float64) / (frames.max() or 1.0)
    image = matplotlib.colormaps["magma"](shown.T[::-1])[..., :3].repeat(2, axis=0).repeat(2, axis=1)
    image[np.arange(len(image)) % 8 < 5, 2 * (len(frames) // 2)] = 1.0
    return image


def caption(sample: dict[str, Any], modality: str, system: Any = None) -> str:
    """Where a snippet stands, in a musician's words.

    >>> place = {"key": "A minor", "bars printed": "bars 5-8", "bars heard": "bars 6-7", "time": "0:12-0:16"}
    >>> caption({"title": "Jesu, meine Freude", **place}, "sheet")
    'Jesu, meine Freude, A minor, bars 5-8'
    >>> caption({"title": "take 3.wav", "time": "0:12-0:16"}, "audio")
    'take 3.wav, 0:12-0:16'
    """
    return ", ".join(_words(sample, modality))


def _words(sample: dict[str, Any], modality: str) -> list[str]:
    """Title, key, bars; of sound also when, and how it is played."""
    time = " ".join(filter(None, (sample.get("time"), sample.get("played") and f"({sample['played']})")))
    bars = ("bars printed",) if modality == "sheet" else ("bars heard",)
    place = [sample.get(name) or "" for name in ("key", *bars)] + ([time] if modality == "audio" else [])
    return [str(sample.get("title") or sample.get("id", "")), *filter(None, place)]


def preview_page(manifest: Path, out: Path, pieces: int, rendition: str) -> Outcome:
    """Strips, spectrograms and sound of the first pieces of a manifest."""
    table, how, config = Manifest.load(manifest), Rendition.parse(rendition), SheetDataConfig()
    rows = [table.row(i) for i in range(min(pieces, len(table)))]
    if not rows or not rows[0].get("score"):
        raise InputError(f"{manifest}: no column 'score'; make the manifest with `data import`")
    jobs = [Job(row["id"], table.file(row["score"]), (how,)) for row in rows]
    made = render(jobs, config.engraving, config.spectrogram, workers=config.workers)
    page = Report("Scores and their sound", f"{manifest}: {len(rows)} of {len(table)} pieces, {how}", synthetic=True)
    page.text("The scores are as given; the audio is synthesised from them. Red columns mark onsets.")
    lines = []
    for row, piece in zip(rows, made):
        page.section(str(row["id"]))
        if not isinstance(piece, Piece):
            page.text(piece.reason)
            lines.append(f"{row['id']}: {piece.reason}")
            continue
        strip = np.repeat(piece.engraving.strip[:, :1000, None], 3, axis=2)
        columns = piece.engraving.onsets[:, 1].round().astype(int)
        strip[-8:, columns[columns < strip.shape[1]]] = (200, 0, 0)
        seconds = min(15.0, piece.engraving.seconds / how.tempo)
        rate = config.spectrogram.sample_rate
        sound = (play(piece.engraving.notes, how, rate, 0.0, seconds), rate)
        frames = piece.spectrograms[how][: round(seconds * config.spectrogram.frames_per_second)]
        score = piece.engraving
        key = f"{score.bars.key([0])}, " if score.bars.key([0]) else ""
        facts = f"{key}{len(score.bars.names)} bars, {len(score.onsets)} onsets, {score.seconds:.1f} s"
        facts += f", tune {row['group']}"
        page.gallery(facts, [
            GalleryRow(
                Media(f"first {seconds:.0f} s", image=frames.astype(np.float32).T[::-1], audio=sound, cmap="magma"),
                [Media("the score", image=strip)],
            )
        ])  # fmt: skip
        lines.append(f"{row['id']}: {facts}")
    written = page.write(out)
    return Outcome({"pieces": len(rows)}, (*lines, f"wrote {written}"), {"preview": written})
