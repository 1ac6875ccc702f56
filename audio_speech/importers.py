"""The user's own scores: checked one by one, copied beside a manifest, grouped by tune, split."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np

from counterpoint.audio_speech.configs import EngravingConfig, Rendition, SheetDataConfig, SpectrogramConfig
from counterpoint.audio_speech.engrave import engrave
from counterpoint.audio_speech.kinds import MIDI_SUFFIXES, SCORE_SUFFIXES
from counterpoint.audio_speech.midi import midi_to_musicxml
from counterpoint.audio_speech.pieces import melody, same_tune
from counterpoint.audio_speech.render import Job, Piece, play, render
from counterpoint.audio_speech.snippets import FRACTIONS, chorale_manifest
from counterpoint.audio_speech.sounds.importers import check_recording
from counterpoint.common.data import Manifest, split_by_group
from counterpoint.common.data.importing import find_files, name_files, plain_reason, read_files, save_manifest
from counterpoint.common.data.names import file_name
from counterpoint.common.data.places import Folder
from counterpoint.common.errors import InputError
from counterpoint.common.progress import track
from counterpoint.common.vertical import ImportReport, Rejected


def import_folder(source: Path, out: Path, *, by_tune: bool = True, seed: int = 0, workers: int = 2) -> ImportReport:
    """Copy every usable score below `source` into `out/scores` and write `out/manifest.parquet`."""
    out = Path(out)
    found = find_files(source, (*SCORE_SUFFIXES, *MIDI_SUFFIXES))
    names, rejected = name_files(found.files, found.root), list(found.rejected)
    (out / "scores").mkdir(parents=True, exist_ok=True)
    take = partial(_take, folder=out / "scores", names=names)
    taken = dict(read_files(take, found.files, rejected, description="reading scores", workers=workers))
    jobs = [Job(names[file], score) for file, score in taken.items()]
    sources = {names[file]: file for file in taken}
    made = render(jobs, EngravingConfig(), SpectrogramConfig(), workers=workers, description="engraving")
    for piece, job in zip(made, jobs):
        if not isinstance(piece, Piece):
            file = sources[job.id]
            rejected.append(Rejected(str(file), plain_reason(plain_reason(piece.reason, job.score), file)))
            job.score.unlink(missing_ok=True)
    pieces = [piece for piece in made if isinstance(piece, Piece)]
    scores = {job.id: f"scores/{job.score.name}" for job in jobs}
    tunes = same_tune({p.id: melody(p.engraving.notes) for p in pieces}) if by_tune else {}
    rows = [
        {
            "id": piece.id,
            "group": tunes.get(piece.id, piece.id),
            "title": piece.engraving.title,
            "key": piece.engraving.bars.key([0]),
            "bars": len(piece.engraving.bars.names),
            "score": scores[piece.id],
            "source": str(sources[piece.id]),
            "onsets": len(piece.engraving.onsets),
            "seconds": round(piece.engraving.seconds, 3),
        }
        for piece in pieces
    ]
    groups = len({row["group"] for row in rows})
    words = "Audio will be synthesised from the scores: what is trained on them is trained on synthetic audio."
    enough = groups >= len(FRACTIONS)
    if not enough:
        words += f" {groups} tune(s) are too few to split into train, val and test; all rows are unsplit."
    return save_manifest(
        out, rows, rejected, meta={"source": str(source), "audio": "synthetic"}, note=words if rows else "",
        finish=(lambda manifest: split_by_group(manifest, FRACTIONS, seed)) if enough else None,
    )  # fmt: skip


def check_row(row: dict, root: Path | Folder) -> None:
    """Raise with the reason when a row's score cannot be engraved, or its recording not be read."""
    if row.get("file") and not row.get("score"):
        check_recording(row, root)
        return
    if not row.get("score"):
        raise InputError("no score named in column 'score', and no recording in column 'file'")
    engrave(root / row["score"])


def render_folder(
    out: Path, *, pieces: int = 20, rendition: str = "piano@1.0", manifest: Path | None = None, workers: int = 2
) -> ImportReport:
    """Write score, strip, audio and notes of every piece into folders below `out`, with a manifest."""
    import soundfile
    from PIL import Image

    out, config, how = Path(out), SheetDataConfig(pieces=pieces, workers=workers), Rendition.parse(rendition)
    table = Manifest.load(manifest) if manifest else chorale_manifest(config)
    listed = [table.row(i) for i in range(len(table))]
    jobs = [Job(row["id"], table.file(row["score"])) for row in listed]
    made = render(jobs, config.engraving, config.spectrogram, workers=workers, description="engraving")
    for folder in ("scores", "strips", "audio", "notes"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    rows, rejected = [], []
    for row, job, piece in track(zip(listed, jobs, made), "writing", len(jobs)):
        if not isinstance(piece, Piece):
            rejected.append(Rejected(str(job.score), piece.reason))
            continue
        name, rate = file_name(piece.id), config.spectrogram.sample_rate
        files = {
            "score": f"scores/{name}{job.score.suffix}",
            "strip": f"strips/{name}.png",
            "audio": f"audio/{name}.flac",
            "notes": f"notes/{name}.csv",
        }
        shutil.copyfile(job.score, out / files["score"])
        Image.fromarray(piece.engraving.strip).save(out / files["strip"])
        wave = play(piece.engraving.notes, how, rate, 0.0, piece.engraving.seconds / how.tempo + 1.0)
        soundfile.write(out / files["audio"], wave, rate)
        notes = piece.engraving.notes.copy()
        notes[:, :2] /= how.tempo
        head = "onset_seconds,offset_seconds,midi_pitch,pixel_column"
        np.savetxt(out / files["notes"], notes, "%.3f", ",", header=head, comments="")
        rows.append({"id": piece.id, "group": row["group"], "split": row["split"], **files})
    saved = Manifest.from_rows(rows, out, {**table.meta, "rendition": str(how)}).save(out / "manifest.parquet")
    return ImportReport(saved.path, len(rows), tuple(rejected), f"synthetic audio ({how}) rendered from real scores")


def _take(file: Path, folder: Path, names: dict[Path, str]) -> Path:
    name = file_name(names[file])
    suffix = file.suffix.lower()
    if suffix in MIDI_SUFFIXES:
        return midi_to_musicxml(file, folder / f"{name}.musicxml")
    target = folder / f"{name}{suffix}"
    if not (target.exists() and target.samefile(file)):
        shutil.copyfile(file, target)
    return target
