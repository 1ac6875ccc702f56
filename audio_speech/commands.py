"""The vertical's own verbs as typed functions; their signatures are the command line, so imports are inside."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from counterpoint.common.vertical import ImportReport, Outcome


def import_scores(source: Path, out: Path, by_tune: bool = True, seed: int = 0, workers: int = 2) -> ImportReport:
    """Turn SOURCE (a score, or a folder of scores) into a manifest with a split; scores are copied beside it.

    Taken are MusicXML, MXL and MEI with one or two staves or four voices, and MIDI. A MIDI file has no notation: its
    notes are quantised to sixteenths and triplets and laid on two staves that part at middle C; performed timing,
    loudness, pedal, voices and spelling are lost. What cannot be used is listed with its reason.

    Args:
        source: a score file, or a folder that is searched with all folders below.
        out: folder that receives manifest.parquet and the scores.
        by_tune: group scores whose melodies are alike, so that settings of one tune are never parted by a split.
        seed: seed of the split.
        workers: processes that engrave.
    """
    from counterpoint.audio_speech.importers import import_folder

    return import_folder(source, out, by_tune=by_tune, seed=seed, workers=workers)


def import_sounds(
    source: Path,
    out: Path,
    table: Path | None = None,
    file: str = "",
    pattern: str = "",
    folders: str = "",
    group: str = "",
    seed: int = 0,
    workers: int = 2,
) -> ImportReport:
    """Turn SOURCE (a recording, or a folder of them) into a manifest with a split; the files stay where they are.

    WAV, FLAC, OGG, MP3 and AIFF of any rate and channels are read through. Left out, with the reason, are files that
    are cut off, empty, silent, cannot be decoded or have samples that are not finite; clipped ones and ones whose
    channels cancel each other are taken and told. Captions, labels, speakers and segments come from names, folders and
    a table; a `metadata.csv`, `.jsonl` or `.parquet` in SOURCE is found by itself.

    Args:
        source: a recording, or a folder that is searched with all folders below.
        out: folder that receives manifest.parquet.
        table: CSV, TSV, JSONL or Parquet with a row a recording (or a segment: `start`, `end` in seconds; or a caption:
            `caption`, or `caption_1`, `caption_2` ...); other columns become the manifest's.
        file: the table's column that names the recordings, by path or by name.
        pattern: facts in file names, as in `{label}_{speaker}_{take}`.
        folders: facts that folders stand for, as in `speaker/chapter`.
        group: column whose values are never parted by a split; by default speaker, artist, track or the file.
        seed: seed of the split, where the table has none.
        workers: processes that read.
    """
    from counterpoint.audio_speech.sounds.importers import import_sound_files

    return import_sound_files(
        source, out, table=table, file=file, pattern=pattern, folders=folders, group=group, seed=seed, workers=workers
    )


def import_kaldi(
    source: Path, out: Path, root: Path | None = None, group: str = "", seed: int = 0, workers: int = 2
) -> ImportReport:
    """Turn SOURCE (a Kaldi data folder: wav.scp; segments, text, utt2spk where they are there) into a manifest.

    Commands in wav.scp are refused, nothing is executed.

    Args:
        source: the folder of wav.scp.
        out: folder that receives manifest.parquet.
        root: folder that relative paths of wav.scp start from; SOURCE unless given.
        group: column whose values are never parted by a split; by default the speaker.
        seed: seed of the split.
        workers: processes that read.
    """
    from counterpoint.audio_speech.sounds.importers import import_kaldi_folder

    return import_kaldi_folder(source, out, root=root, group=group, seed=seed, workers=workers)


def simulate(
    out: Path,
    what: Literal["scores", "scenes"] = "scores",
    pieces: int = 20,
    rendition: str = "piano@1.0",
    manifest: Path | None = None,
    scenes: int = 600,
    seed: int = 0,
    workers: int = 2,
) -> ImportReport:
    """Render real scores to files: score, printed strip (PNG), synthetic audio (FLAC), notes with onsets (CSV).

    With `--what scenes`: synthetic scenes of one or two sounds with captions (which, how, in which order), for `clap`
    and `cpc`; combinations of kinds are held out for validation and test.

    Args:
        out: folder that receives manifest.parquet and the files.
        what: scores or scenes.
        pieces: how many of the chorales of the music21 package; 0 is all of them.
        rendition: timbre@tempo of the synthetic audio.
        manifest: render these scores (from `data import`) and not the chorales.
        scenes: how many scenes.
        seed: seed of the scenes.
        workers: processes that engrave.
    """
    if what == "scenes":
        from counterpoint.audio_speech.sounds.scenes import write_scenes

        return write_scenes(out, scenes, seed)
    from counterpoint.audio_speech.importers import render_folder

    return render_folder(out, pieces=pieces, rendition=rendition, manifest=manifest, workers=workers)


def preview(manifest: Path, out: Path = Path("preview.html"), pieces: int = 8, rendition: str = "piano@1.0") -> Outcome:
    """Look at the scores of MANIFEST and listen to them: one HTML page with strips, onsets, spectrograms and sound.

    Args:
        manifest: made by `data import` or `data simulate`.
        out: the HTML file to write.
        pieces: how many pieces to show.
        rendition: timbre@tempo of the synthetic audio.
    """
    from counterpoint.audio_speech.gallery import preview_page

    return preview_page(manifest, out, pieces, rendition)


def identify_piece(
    run: Path,
    file: Path,
    manifest: Path | None = None,
    checkpoint: Literal["best", "last"] = "best",
    top: int = 5,
) -> Outcome:
    """Say which piece of RUN's collection the recording FILE (WAV, FLAC, OGG or MP3, of any length) plays, and where in
    it: windows of the whole recording vote. Says "no piece of the collection" where recordings of pieces that are not
    in it, measured on the validation pieces, reach such a share of the votes too.

    Args:
        run: a run of audio-sheet.
        file: the recording.
        manifest: another collection than the run's own data (from `data import scores`).
        checkpoint: which weights.
        top: how many pieces to list.
    """
    from counterpoint.audio_speech.recordings import identify_recording

    return identify_recording(run, file, manifest, checkpoint, top)


def demo(
    out: Path = Path("runs/audio-demo"),
    preset: Literal["small", "full"] = "small",
    pieces: int = 0,
    steps: int = 0,
    seed: int = 0,
    workers: int = 2,
) -> Outcome:
    """Learn which bars of printed music belong to what is heard, on Bach chorales, and show it in one HTML report.

    Scores are real (the music21 package); their audio is synthetic. Rendered scores are cached, so that a second run
    starts at once.

    Args:
        out: folder of the run and its report.html.
        preset: `small` for a laptop, `full` for the paper's sizes (hours on a CPU; a GPU is used when there is one).
        pieces: how many of the chorales to use; 0 is all of them.
        steps: training steps of every stage; 0 is the preset's.
        seed: seed of weights, batches and augmentations.
        workers: processes that engrave and synthesise.
    """
    from counterpoint.audio_speech.demo import run_demo

    return run_demo(out, preset=preset, pieces=pieces, steps=steps, seed=seed, workers=workers)
