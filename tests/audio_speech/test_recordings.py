"""Whole recordings: read in stretches as if at once, followed through a piece, judged against others."""

import numpy as np
import pytest
import soundfile
import torch

from counterpoint.audio_speech.audio_sheet import AudioSheet
from counterpoint.audio_speech.configs import AudioSheetConfig, SpectrogramConfig
from counterpoint.audio_speech.features import analyse
from counterpoint.audio_speech.long_audio import long_spectrogram
from counterpoint.audio_speech.recordings import (
    PrintedCollection,
    chance_of,
    follow,
    identify_recording,
    overlapping_windows,
    steady_stretches,
)
from counterpoint.audio_speech.sounds.reading import read_audio
from counterpoint.common.errors import InputError
from counterpoint.common.trainers import fit, override


def music(seconds, rate, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    wave = sum(np.sin(2 * np.pi * f * t) * (np.sin(f * t / 50) > 0) for f in rng.uniform(100, 2000, 6))
    return (0.1 * wave + 0.001 * rng.standard_normal(len(t))).astype(np.float32)


@pytest.mark.parametrize(
    ("rate", "seconds", "block", "ending"),
    [(22050, 7.3, 2.0, "flac"), (44100, 5.0, 1.0, "mp3"), (48000, 6.1, 1.5, "flac"), (8000, 3.0, 60, "flac")],
)
def test_a_recording_read_in_stretches_has_the_frames_of_one_read_at_once(tmp_path, rate, seconds, block, ending):
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, np.stack([music(seconds, rate), music(seconds, rate, 1)], 1), rate)
    config = SpectrogramConfig()
    whole = analyse(read_audio(path, config.sample_rate), config)
    found = long_spectrogram(path, config, block)
    assert found.shape == whole.shape
    np.testing.assert_allclose(found, whole, atol=2e-5)


def test_lengths_at_every_edge_of_a_stretch_and_of_a_frame(tmp_path):
    config = SpectrogramConfig()
    for samples in (300, 1103, 2048, 22050, 44100, 44101, 44100 + 1103):
        path = tmp_path / f"{samples}.wav"
        soundfile.write(path, music(3, 22050)[:samples], 22050, subtype="FLOAT")
        np.testing.assert_allclose(long_spectrogram(path, config, 1.0), analyse(read_audio(path), config), atol=2e-5)


def test_a_silent_or_missing_recording_is_refused_by_name(tmp_path):
    soundfile.write(tmp_path / "quiet.wav", np.zeros(8000), 8000)
    with pytest.raises(InputError, match=r"quiet\.wav: is silent"):
        long_spectrogram(tmp_path / "quiet.wav", SpectrogramConfig())
    with pytest.raises(InputError, match="none.wav"):
        long_spectrogram(tmp_path / "none.wav", SpectrogramConfig())


def test_the_path_goes_through_the_piece_and_back_at_a_repeat():
    seconds = np.arange(0, 40, 1.0)
    times = np.arange(20) * 2.0
    where = np.concatenate([np.arange(0, 20, 2), np.arange(0, 20, 2)])  # the first twenty seconds, twice
    cosines = torch.zeros(20, 40)
    cosines[torch.arange(20), torch.from_numpy(where)] = 1.0
    path = follow(cosines, seconds, times)
    assert path.tolist() == where.tolist()
    assert steady_stretches(path, seconds, times) == [(0, 9), (10, 19)]


def test_one_misleading_window_is_passed_over():
    seconds, times = np.arange(0, 40, 1.0), np.arange(12) * 2.0
    cosines = torch.zeros(12, 40)
    cosines[torch.arange(12), 2 * torch.arange(12)] = 0.8
    cosines[5, 10], cosines[5, 35] = 0.5, 0.9
    assert steady_stretches(follow(cosines, seconds, times), seconds, times) == [(0, 11)]


def votes(share, again, windows=10):
    """Of two pieces with a snippet each, the first gets these shares of the votes, of either count."""
    return np.array([[[0]] * round(s * windows) + [[1]] * (windows - round(s * windows)) for s in (share, again)])


def collection(shares):
    others = tuple(votes(*both) for both in shares)
    return PrintedCollection(None, torch.eye(2), np.array([0, 1]), np.zeros(2), np.zeros(2), others)


def test_p_counts_recordings_of_pieces_that_are_not_there():
    known = collection([(0.6, 0.6)] * 30 + [(0.9, 0.7)] * 9)
    assert chance_of(votes(1.0, 1.0), known) == pytest.approx(1 / 40)
    assert chance_of(votes(0.9, 1.0), known) == pytest.approx(10 / 40)
    assert chance_of(votes(1.0, 0.1), known) == 1.0, "a hum: all votes for one piece, none for what changes"
    assert chance_of(votes(1.0, 1.0), collection([(0.6, 0.6)] * 18)) is None, "too few to reach 0.05"


def test_pauses_are_no_windows():
    spectrum = np.zeros((400, 5), dtype=np.float32)
    spectrum[200:] = 0.5
    centres, windows = overlapping_windows(spectrum, 84)
    assert len(centres) == len(windows)
    assert centres.min() > 200 - 42
    assert len(overlapping_windows(spectrum[:30], 84)[0]) == 0


@pytest.mark.slow
def test_a_run_names_the_piece_or_says_why_it_is_not_judged(small_data, tmp_path):
    config = override(AudioSheetConfig(), AudioSheetConfig.presets["small"])
    run = tmp_path / "run"
    changes = {"train.out": str(run), "train.max_steps": 1, "sheet_stage.max_steps": 1, "audio_stage.max_steps": 1,
               "train.batch_size": 8}  # fmt: skip
    config = override(config, {f"data.{k}": v for k, v in vars(small_data).items() if k in (
        "pieces", "renditions", "renditions_per_piece", "test_snippets", "val_snippets", "workers",
        "cache")} | changes)  # fmt: skip
    system = AudioSheet(config)
    fit(system)
    soundfile.write(tmp_path / "take.wav", music(20, 22050), 22050)
    out = identify_recording(run, tmp_path / "take.wav", top=3)
    assert out.figures["pieces"] == 12
    assert out.figures["p"] is None
    assert out.figures["piece"] is None
    assert "not judged" in out.figures["verdict"]
    assert len(out.figures["ranked"]) == 3
    assert [r["share"] for r in out.figures["ranked"]] == sorted(
        (r["share"] for r in out.figures["ranked"]), reverse=True
    )
    assert identify_recording(run, tmp_path / "take.wav", top=3).figures == out.figures, "from the cache as anew"
    every = identify_recording(run, tmp_path / "take.wav", top=1000).figures["ranked"]
    assert all(r["votes"] for r in every), "pieces without a vote are not ranked"
    soundfile.write(tmp_path / "short.wav", music(7.0, 22050), 22050)
    with pytest.raises(InputError, match=r"short\.wav: 1 windows .* 8\.4 s"):
        identify_recording(run, tmp_path / "short.wav")
    with pytest.raises(InputError, match="--top is 0"):
        identify_recording(run, tmp_path / "take.wav", top=0)
