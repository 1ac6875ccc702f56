"""The model's inputs made from the saved recipe's words alone, with numpy: they equal the reader's."""

import json

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from counterpoint.audio_speech.audio_sheet import AudioSheet
from counterpoint.audio_speech.configs import AudioSheetConfig
from counterpoint.audio_speech.queries import query
from counterpoint.common.trainers import create_system, override, save_pretrained


@pytest.fixture(scope="module")
def system():
    small = {"channels": (4, 4, 8, 8), "data.frames": 42, "data.spectrogram.fmax": 5000.0}
    config = override(AudioSheetConfig(), small)
    return create_system(AudioSheet, config).eval()


@pytest.fixture(scope="module")
def recipe(system, tmp_path_factory):
    """What stands beside the weights, and in an exported file's metadata."""
    folder = save_pretrained(system, tmp_path_factory.mktemp("model"))
    return json.loads((folder / "preprocessing.json").read_text())


def heard(wave, told):
    """The spectrogram of one channel, as the recipe says it."""
    rate, size, per_octave = told["sample_rate"], told["fft_size"], told["bands_per_octave"]
    hop = int(rate / told["frame_rate"]) + 1
    blocks = wave[: len(wave) // 1102 * 1102].reshape(-1, 1102).astype(float)
    levels = np.sqrt((blocks**2).mean(1))
    loud = np.percentile(levels, 95)
    if loud < 1e-3 * levels.max():
        loud = np.percentile(levels[levels >= 1e-3 * levels.max()], 95)
    wave = wave * (0.1 / loud)
    centres = [440 * 2 ** (k / per_octave) for k in range(-20 * per_octave, 20 * per_octave)]
    bins = sorted({round(c * size / rate) for c in centres if told["fmin"] <= c <= told["fmax"]})
    at = np.arange(size // 2)
    filters = [np.interp(at, [a, b, c], [0, 1, 0], left=0, right=0) for a, b, c in zip(bins, bins[1:], bins[2:])]
    filters = np.stack([f / f.sum() for f in filters], 1)
    frames = -(-len(wave) // hop)
    padded = np.concatenate([np.zeros(size // 2), wave, np.zeros(size)])
    n = np.arange(size)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / (size - 1))
    spectra = [np.abs(np.fft.rfft(padded[i * hop : i * hop + size] * window))[: size // 2] for i in range(frames)]
    return np.log10(1 + np.stack(spectra) @ filters)


def about(rows, place, wide, beyond):
    first = round(place) - wide // 2
    outside = np.full(rows.shape[1], beyond, rows.dtype)
    return np.stack([rows[i] if 0 <= i < len(rows) else outside for i in range(first, first + wide)])


@pytest.mark.parametrize("seconds", [1.3, 2.05])
def test_a_recordings_window_is_made_from_the_recipe(system, recipe, tmp_path, seconds):
    """Two channels, one click, another level than the training's; shorter and longer than a window."""
    said = recipe["inputs"]["audio"]
    assert said["axes"] == ["batch", "frames", "bands"]
    rate = recipe["spectrogram"]["sample_rate"]
    t = np.arange(int(seconds * rate)) / rate
    rng = np.random.default_rng(0)
    left = 0.02 * np.sin(2 * np.pi * 440 * t) * (t > 0.2) + 1e-3 * rng.normal(size=len(t))
    right = 0.05 * np.sin(2 * np.pi * 1319 * t) * (t > 0.6)
    left[5000] = 0.9
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), rate, subtype="FLOAT")
    mine = heard(np.stack([left, right], 1).astype(np.float32).mean(1), recipe["spectrogram"])
    wide = recipe["frames"]
    theirs = query(tmp_path / "a.wav", "audio", system)["audio"].numpy()
    places = [len(mine) / 2] if len(mine) < 2 * wide else np.linspace(wide / 2, len(mine) - wide / 2, 3)
    mine = about(mine, places[len(places) // 2], wide, 0.0)
    assert mine.shape == theirs.shape
    np.testing.assert_allclose(mine, theirs, atol=2e-5)
    with torch.no_grad():
        found, expected = (system.encode({"audio": torch.tensor(x, dtype=torch.float32)[None]}) for x in (mine, theirs))
    torch.testing.assert_close(found["audio"], expected["audio"], atol=1e-4, rtol=0)


def test_a_pictures_window_is_made_from_the_recipe(system, recipe, tmp_path):
    """Narrower than a window: paper beyond its ends."""
    assert recipe["inputs"]["sheet"]["axes"] == ["batch", "height", "width"]
    high, wide = recipe["engraving"]["height"], recipe["sheet_width"]
    page = np.random.default_rng(0).integers(0, 256, (high, wide - 31), dtype=np.uint8)
    Image.fromarray(page).save(tmp_path / "p.png")
    theirs = query(tmp_path / "p.png", "sheet", system)["sheet"].numpy()
    assert np.array_equal(about(page.T, page.shape[1] / 2, wide, 255).T, theirs)
