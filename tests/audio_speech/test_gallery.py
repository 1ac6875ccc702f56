"""What people see of snippets and of their own files: captions in a musician's words, the moment marked, fair votes."""

from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from counterpoint.audio_speech.cli import vertical
from counterpoint.audio_speech.configs import AudioSheetConfig, Rendition
from counterpoint.audio_speech.engrave import engrave
from counterpoint.audio_speech.gallery import caption, picture
from counterpoint.audio_speech.pieces import chorale_folder
from counterpoint.audio_speech.queries import query
from counterpoint.audio_speech.snippets import SnippetDataset
from counterpoint.audio_speech.synth import synthesise
from counterpoint.common.data import collate
from counterpoint.common.errors import InputError
from counterpoint.common.runs.queries import samples_of_file

RATE = 22050
SYSTEM = SimpleNamespace(config=AudioSheetConfig(), assets=None)


@pytest.fixture(scope="module")
def chorale():
    return engrave(chorale_folder() / "bwv66.6.mxl")


@pytest.fixture(scope="module")
def recording(chorale, tmp_path_factory):
    """A chorale of 22.5 s, played at the tempo of the score."""
    wave = synthesise(chorale.notes, Rendition("piano"), RATE, 1)
    return wave / np.abs(wave).max(), tmp_path_factory.mktemp("sound")


def written(recording, name: str, wave: np.ndarray):
    path = recording[1] / name
    soundfile.write(path, wave, RATE, subtype="FLOAT")
    return path


def test_a_snippet_is_called_by_title_key_bars_and_time(snippets: SnippetDataset):
    for dataset in (snippets.test, snippets.unseen):
        for i in (0, 5, len(dataset) - 1):
            sample, moment = dataset[i], dataset.moments[i]
            score = dataset.pieces[moment.piece].engraving
            time, column = score.onsets[moment.onset]
            (bar,) = score.bars.heard(time + 1e-3, time + 2e-3)
            for modality, bars in (
                ("sheet", score.bars.seen(column - 100, column + 100)),
                ("audio", score.bars.heard(time - 2.1 * moment.rendition.tempo, time + 2.1 * moment.rendition.tempo)),
            ):
                assert bar in bars, "the moment's own bar"
                words = caption(sample, modality)
                assert words.startswith(dataset.pieces[moment.piece].id.replace("bwv", "BWV "))
                assert f", {score.bars.keys[bar]}, {score.bars.words(bars)}" in words
            begin, end = sample["time"].split("-")
            begin, end = (60 * int(part[:-3]) + int(part[-2:]) for part in (begin, end))
            assert begin - 1 <= time / moment.rendition.tempo <= end + 1
            assert end - begin <= 5
            assert str(moment.rendition) in caption(sample, "audio")
    batch = collate([snippets.test[0], snippets.test[1]])
    assert len(batch["bars heard"]) == 2
    assert "title" not in snippets.train[0], "training batches stay as they were"


def test_the_moment_is_marked_in_the_middle_of_either_picture(snippets: SnippetDataset):
    sample = snippets.test[3]
    page, sound = (picture(sample, modality) for modality in ("sheet", "audio"))
    assert page.label == sound.label == sample["title"]
    assert sample["title"] + ", " + page.caption == caption(sample, "sheet")
    coloured = np.flatnonzero((page.image.max(axis=2) - page.image.min(axis=2)).max(axis=0) > 0.1)
    assert coloured.tolist() == [99, 100, 101], "the onset stands in pixel 100 of 200"
    ink = page.image[:, 100, 0] < 0.6
    assert np.array_equal(ink, np.asarray(sample["sheet"])[:, 100] / 255 * 0.5 + 0.425 < 0.6), "ink shows through"
    white = np.flatnonzero((sound.image == 1).all(axis=2).sum(axis=0) > 50)
    assert white.tolist() == [84], "frame 42 of 84, at two pixels a frame"


def test_the_windows_of_a_recording_say_when_they_are(recording):
    found = query(written(recording, "take.wav", recording[0]), "audio", SYSTEM)
    times = [caption(window, "audio") for window in found["windows"]]
    assert times[0] == "take.wav, 0:00-0:04"
    assert times[-1].startswith("take.wav, 0:19-0:2")
    assert len(times) == 2 * (len(recording[0]) // RATE * 1000 // 4202) - 1
    short = query(written(recording, "short.wav", recording[0][: 3 * RATE]), "audio", SYSTEM)
    assert caption(short, "audio") == "short.wav, 0:00-0:03"
    assert "windows" not in short


def test_the_windows_of_a_score_say_their_bars(chorale):
    found = query(chorale_folder() / "bwv66.6.mxl", "sheet", SYSTEM)
    words = [caption(window, "sheet") for window in found["windows"]]
    assert words[0] == "bwv66.6.mxl, F# minor, bars 0-2"
    assert words[-1] == "bwv66.6.mxl, F# minor, bars 7-9"


def answers(path) -> np.ndarray:
    return np.stack([np.asarray(window["audio"]) for window in query(path, "audio", SYSTEM)["windows"]])


def test_level_and_polarity_change_no_query(recording, capsys):
    wave = recording[0][: 9 * RATE]
    full = answers(written(recording, "full.wav", wave))
    for name, other in (
        ("quiet", 0.01 * wave),
        ("quieter", 1e-3 * wave),
        ("stereo", np.stack([wave, wave], axis=1)),
        ("inverted", np.stack([wave, -wave], axis=1)),
        ("nearly", np.stack([0.5 * wave, -0.52 * wave], axis=1)),
    ):
        found = answers(written(recording, f"{name}.wav", other))
        assert np.abs(found - full).max() < 1e-3, name
    capsys.readouterr()
    samples = samples_of_file(vertical, SYSTEM, recording[1] / "inverted.wav", "audio")
    assert np.abs(np.stack([np.asarray(samples[i]["audio"]) for i in range(len(samples))]) - full).max() < 1e-3
    heard = capsys.readouterr().err
    assert heard.startswith("inverted.wav: its channels cancel each other"), "also told from the reader's own process"


def test_pauses_do_not_vote_and_do_not_make_a_recording_silent(recording):
    wave, rest = recording[0][: 9 * RATE], np.zeros(200 * RATE)
    full = answers(written(recording, "nine.wav", wave))
    path = written(recording, "late.wav", np.concatenate([rest, wave, rest]))
    found = query(path, "audio", SYSTEM)["windows"]
    starts = [window["time"].split("-")[0] for window in found]
    assert set(starts) <= {"3:16", "3:17", "3:18", "3:19", "3:20", "3:21", "3:22", "3:23", "3:24", "3:25", "3:26",
                           "3:27", "3:28", "3:29", "3:30"}  # fmt: skip
    assert max(np.asarray(window["audio"]).max() for window in found) == pytest.approx(full.max(), rel=0.05)
    for name, quiet in (("silence", np.zeros(9 * RATE)), ("dither", 1e-5 * np.ones(9 * RATE))):
        with pytest.raises(InputError, match=rf"{name}\.wav: is silent"):
            query(written(recording, f"{name}.wav", quiet), "audio", SYSTEM)
    click = np.concatenate([np.zeros(5 * RATE), [0.9], np.zeros(5 * RATE)])
    with pytest.raises(InputError, match=r"click\.wav: only 0\.\d s of the recording are not silent; give at least 2"):
        query(written(recording, "click.wav", click), "audio", SYSTEM)
    with pytest.raises(InputError, match=r"brief\.wav: the recording is too short \(1\.0 s\); give at least 2\.1 s"):
        query(written(recording, "brief.wav", wave[:RATE]), "audio", SYSTEM)
