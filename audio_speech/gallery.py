"""Snippets to look at and listen to: printed bars, spectrograms, short sounds; and users' files as queries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from counterpoint.audio_speech.configs import Rendition, SheetDataConfig
from counterpoint.audio_speech.engrave import SCORE_SUFFIXES, engrave
from counterpoint.audio_speech.features import analyse, read_audio
from counterpoint.audio_speech.render import Job, Piece, play, render
from counterpoint.audio_speech.snippets import audio_window, sheet_window
from counterpoint.common.data import Manifest
from counterpoint.common.errors import InputError
from counterpoint.common.report import GalleryRow, Media, Report
from counterpoint.common.vertical import Outcome

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff")
MOST_WINDOWS = 200


def picture(sample: dict[str, Any], modality: str) -> Media:
    """One snippet: the printed window, or the spectrogram with its synthetic sound."""
    label = str(sample.get("id", ""))
    if modality == "sheet":
        return Media(label, image=np.asarray(sample["sheet"]))
    spectrum = np.asarray(sample["audio"]).T[::-1]
    large = spectrum.repeat(2, axis=0).repeat(2, axis=1)
    sound = sample["sound"].wave() if "sound" in sample else None
    return Media(label, image=large, audio=sound, cmap="magma")


def modality_of(file: Path) -> str | None:
    """What a file is by its kind: `audio`, `sheet` (a score or a picture), or None.

    >>> modality_of(Path("recording.FLAC")), modality_of(Path("score.mxl"))
    ('audio', 'sheet')
    """
    suffix = Path(file).suffix.lower()
    if suffix in AUDIO_SUFFIXES:
        return "audio"
    return "sheet" if suffix in (*SCORE_SUFFIXES, *IMAGE_SUFFIXES) else None


def query(file: Path, modality: str, system: Any) -> dict[str, Any]:
    """A user's file as one sample: its middle window, and under `windows` all of it, overlapping by half.

    `audio` takes WAV, FLAC, OGG and MP3; `sheet` takes a score, or a picture of one two-staff system (scaled to the
    training height). A file of one window has no `windows`.

    Raises:
        InputError: unreadable, silent, or a sound shorter than half a window.
    """
    file, data = Path(file), system.config.data
    sample: dict[str, Any] = {"index": 0, "id": file.name, "group": file.name}
    if modality == "audio":
        spectrum, wide = analyse(read_audio(file, data.spectrogram.sample_rate), data.spectrogram), data.frames
        rate = data.spectrogram.frames_per_second
        if len(spectrum) < wide / 2:
            raise InputError(
                f"{file.name}: the recording is too short ({len(spectrum) / rate:.1f} s); give at least "
                f"{wide / 2 / rate:.1f} s, half a window"
            )
        long, cut = len(spectrum), lambda centre: audio_window(spectrum, centre, wide)
    elif modality == "sheet":
        if not file.is_file():
            raise InputError(f"{file}: no such file")
        if file.suffix.lower() in SCORE_SUFFIXES:
            strip = engrave(file, data.engraving).strip
        else:
            strip = _read_picture(file, data.engraving.height)
        long, wide = strip.shape[1], data.sheet_width
        cut = lambda centre: sheet_window(strip, centre, wide)  # noqa: E731
    else:
        raise InputError(f"modality {modality!r} is unknown; audio-sheet has sheet and audio")
    count = min(max(2 * (long // wide) - 1, 1), MOST_WINDOWS)
    found = {**sample, modality: torch.from_numpy(cut(long / 2))}
    if count > 1:
        centres = np.linspace(wide / 2, long - wide / 2, count)
        found["windows"] = [{**sample, modality: torch.from_numpy(cut(centre))} for centre in centres]
    return found


def _read_picture(file: Path, height: int) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    if file.suffix.lower() not in IMAGE_SUFFIXES:
        known = ", ".join((*SCORE_SUFFIXES, *IMAGE_SUFFIXES))
        raise InputError(f"{file.name}: {file.suffix or 'no suffix'} is neither score nor picture; taken are {known}")
    try:
        with Image.open(file) as opened:
            page = opened.convert("L")
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"{file.name}: not a readable picture ({error})") from None
    width = max(1, round(page.width * height / page.height))
    return np.asarray(page.resize((width, height), Image.Resampling.LANCZOS))


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
        facts = f"{len(piece.engraving.onsets)} onsets, {piece.engraving.seconds:.1f} s, tune {row['group']}"
        page.gallery(facts, [
            GalleryRow(
                Media(f"first {seconds:.0f} s", image=frames.astype(np.float32).T[::-1], audio=sound, cmap="magma"),
                [Media("the score", image=strip)],
            )
        ])  # fmt: skip
        lines.append(f"{row['id']}: {facts}")
    written = page.write(out)
    return Outcome({"pieces": len(rows)}, (*lines, f"wrote {written}"), {"preview": written})
