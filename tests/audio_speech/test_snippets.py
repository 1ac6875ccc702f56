"""Rendered pieces, their cache, and the snippet pairs cut from them."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from counterpoint.audio_speech.configs import EngravingConfig, Rendition, SheetDataConfig, SpectrogramConfig
from counterpoint.audio_speech.features import spectrogram
from counterpoint.audio_speech.pieces import chorale_files
from counterpoint.audio_speech.render import Failed, Job, choose_renditions, render
from counterpoint.audio_speech.snippets import audio_window, load_snippets, sheet_window, spread
from counterpoint.common.data import Cache, Manifest
from counterpoint.common.errors import InputError, LeakageError


def test_no_tune_stands_in_two_splits(snippets):
    sides = snippets.manifest.frame.groupby("group")["split"].nunique()
    assert (sides == 1).all()
    for dataset, split in ((snippets.train, "train"), (snippets.val, "val"), (snippets.test, "test")):
        frame = snippets.manifest.frame
        assert set(dataset.piece_ids) <= set(frame[frame["split"] == split]["id"])


def test_the_unseen_performance_is_the_same_moments_otherwise_played(snippets, small_data):
    for known, unseen in zip(snippets.test.moments, snippets.unseen.moments):
        assert (known.piece, known.onset) == (unseen.piece, unseen.onset)
        assert str(unseen.rendition) == small_data.unseen_rendition
    trained = {str(m.rendition) for m in snippets.train.moments}
    assert small_data.unseen_rendition not in trained
    assert torch.equal(snippets.test[3]["sheet"], snippets.unseen[3]["sheet"])
    assert not torch.equal(snippets.test[3]["audio"], snippets.unseen[3]["audio"])


def test_audio_and_sheet_are_centred_on_the_same_onset(snippets):
    """The window's middle frame is where the note begins to sound: the change of the spectrum is largest there."""
    onset_like = []
    for i in range(len(snippets.test)):
        moment = snippets.test.moments[i]
        frames = snippets.test[i]["audio"].numpy()
        rise = np.maximum(np.diff(frames, axis=0), 0).sum(axis=1)
        middle = len(frames) // 2
        if moment.onset > 0:
            onset_like.append(rise[middle - 2 : middle + 2].max() > np.median(rise))
    assert np.mean(onset_like) > 0.95


def test_training_windows_have_the_evaluation_window_in_their_middle(snippets, small_data):
    wide = snippets.train[5]
    moment = snippets.train.moments[5]
    exact = type(snippets.train)(snippets.train.pieces, snippets.train.tunes, [moment], small_data)[0]
    m = snippets.train.sheet_margin
    assert torch.equal(wide["sheet"][:, m:-m], exact["sheet"])
    m = snippets.train.audio_margin
    assert torch.equal(wide["audio"][m:-m], exact["audio"])


def test_performances_of_one_onset_share_their_moment(snippets):
    numbers = {}
    for i, moment in enumerate(snippets.train.moments[:300]):
        numbers.setdefault(snippets.train.only()[i]["moment"], set()).add((moment.piece, moment.onset))
    assert all(len(places) == 1 for places in numbers.values())


def test_beyond_the_ends_there_is_paper_and_silence():
    strip = np.zeros((4, 10), dtype=np.uint8)
    assert (sheet_window(strip, 0.0, 6)[:, :3] == 255).all()
    assert (sheet_window(strip, 9.0, 6)[:, 4:] == 255).all()
    assert (sheet_window(strip, 5.0, 6) == 0).all()
    assert (sheet_window(strip, 100.0, 6) == 255).all()
    frames = np.ones((10, 3), dtype=np.float16)
    assert audio_window(frames, 0.0, 6).sum(axis=1).tolist() == [0, 0, 0, 3, 3, 3]


def test_the_pool_is_spread_evenly(snippets):
    members = sorted({m.piece for m in snippets.test.moments})
    counts = [sum(m.piece == i for m in snippets.test.moments) for i in members]
    assert sum(counts) == 24
    assert max(counts) - min(counts) <= 1
    pieces = snippets.test.pieces
    everything = spread(pieces, members, Rendition("piano"), 10**6)
    assert len(everything) == sum(len(pieces[i].engraving.onsets) for i in members)
    assert len(set(everything)) == len(everything)


def test_a_share_of_the_pairs_leaves_the_unimodal_snippets_whole(small_data, snippets):
    tenth = load_snippets(replace(small_data, pairs_fraction=0.1))
    assert len(tenth.train) == len(snippets.train)
    assert abs(len(tenth.pairs) - 0.1 * len(snippets.pairs)) <= 1
    assert set(tenth.pairs.moments) < set(snippets.pairs.moments)


def test_a_sound_plays_what_the_spectrogram_shows(snippets, small_data):
    sample = snippets.test[4]
    wave, rate = sample["sound"].wave()
    assert rate == 22050
    again = spectrogram(wave, small_data.spectrogram)[5:-5]
    shown = sample["audio"].numpy()[5 : 5 + len(again)]
    assert np.corrcoef(again[: len(shown)].ravel(), shown.ravel())[0, 1] > 0.98


def test_nothing_is_made_twice_and_a_changed_setting_is_made_anew(tmp_path):
    cache, file = Cache(tmp_path), chorale_files(1)[0]
    job = Job(file.stem, file, (Rendition("flute"),))

    def files() -> dict:
        return {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.suffix in (".npz", ".npy")}

    first = render([job], EngravingConfig(), SpectrogramConfig(), cache, workers=1)
    made = files()
    assert len(made) == 2
    second = render([job], EngravingConfig(), SpectrogramConfig(), cache, workers=1)
    assert files() == made
    assert np.array_equal(first[0].engraving.strip, second[0].engraving.strip)
    render([job], EngravingConfig(), SpectrogramConfig(fmax=4000.0), cache, workers=1)
    assert len(files()) == 3, "another analysis of the same engraving"
    render([job], EngravingConfig(font="Bravura"), SpectrogramConfig(), cache, workers=1)
    assert len(files()) == 4, "another engraving of the same notes sounds the same"


@pytest.mark.slow
def test_two_programs_may_fill_one_cache_together(tmp_path):
    program = (
        "from counterpoint.audio_speech.configs import *; from counterpoint.audio_speech.snippets import *\n"
        "d = load_snippets(SheetDataConfig(pieces=12, renditions_per_piece=1, cache=%r, workers=2))\n"
        "print(sum(float(d.test[i]['audio'].sum()) for i in range(20)))"
    )
    # Programs on standard input have no file: workers must not need to import the caller.
    both = [
        subprocess.Popen([sys.executable, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        process.stdin.write(program.replace("%r", repr(str(tmp_path))))
        process.stdin.close()
    answers = [process.stdout.read() for process in both]
    assert all(process.wait() == 0 for process in both)
    assert answers[0] == answers[1] != ""


def test_an_unreadable_score_is_named_or_left_out(tmp_path, small_data):
    for file in chorale_files(6):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "broken.mxl").write_bytes(b"PK")
    rows = [
        {"id": f.stem, "score": f.name, "split": ("train", "val", "test")[i % 3]}
        for i, f in enumerate(sorted(tmp_path.glob("*.mxl")))
    ]
    path = tmp_path / "manifest.csv"
    Manifest.from_rows(rows, tmp_path).save(path)
    config = replace(small_data, manifest=str(path))
    with pytest.raises(InputError, match="broken.mxl"):
        load_snippets(config)
    with pytest.raises(InputError, match="broken.mxl"):
        load_snippets(config, on_error="skip", max_bad=0.01)
    data = load_snippets(config, on_error="skip", max_bad=0.5)
    assert [f.id for f in data.failed] == ["broken"]
    assert len(data.manifest) == 6
    lost = next(i for i, row in enumerate(rows) if row["id"] == "broken")
    parts = {"train": data.train, "val": data.val, "test": data.test}
    assert {n: [(b.id, b.index) for b in p.left_out] for n, p in parts.items() if p.left_out} == {
        rows[lost]["split"]: [("broken", lost)]
    }
    for part in parts.values():
        assert [rows[part.row_of(i)]["id"] for i in range(len(part))] == part.piece_ids
    assert isinstance(data.failed[0], Failed)
    for row in rows:
        row["group"] = "one tune"
    Manifest.from_rows(rows, tmp_path).save(path)
    with pytest.raises(LeakageError):
        load_snippets(config)
    for row in rows:
        row |= {"group": row["id"], "split": ""}
    Manifest.from_rows(rows, tmp_path).save(path)
    with pytest.raises(InputError, match="data split"):
        load_snippets(config)


def test_renditions_go_by_the_name_alone():
    known = [Rendition(t, v) for t in ("piano", "organ", "flute") for v in (0.9, 1.1)]
    chosen = {n: choose_renditions(n, known, 2) for n in map(str, range(50))}
    assert all(len(set(c)) == 2 for c in chosen.values())
    assert chosen["7"] == choose_renditions("7", known[::-1], 2)
    assert {r for c in chosen.values() for r in c} == set(known)


def test_impossible_settings_are_refused():
    with pytest.raises(InputError, match="pairs_fraction"):
        SheetDataConfig(pairs_fraction=0.0)
    with pytest.raises(InputError, match="unseen_rendition"):
        SheetDataConfig(unseen_rendition="organ@0.9")
