"""Log-mel, CPC and CLAP: numbers of torchaudio and of the released code, and what an embedding depends on."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from counterpoint.audio_speech.clap import CLAP
from counterpoint.audio_speech.cpc import CPC, draw_negatives, predictive_loss
from counterpoint.audio_speech.sounds.binding import protocols, swapped
from counterpoint.audio_speech.sounds.configs import CLAPConfig, CPCConfig, MelConfig, SoundConfig
from counterpoint.audio_speech.sounds.importers import import_sound_files
from counterpoint.audio_speech.sounds.mel import FLOOR, LogMel
from counterpoint.audio_speech.sounds.models import WaveEncoder
from counterpoint.audio_speech.sounds.samples import SoundWindows, read_manifest, sound_datasets
from counterpoint.audio_speech.sounds.scenes import HELD_OUT, scene_caption, write_scenes
from counterpoint.audio_speech.sounds.words import CaptionWords, learn_words
from counterpoint.common.data import Manifest
from counterpoint.common.data.samples import answers
from counterpoint.common.errors import InputError
from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.trainers import create_system, override
from counterpoint.common.trainers.configs import TrainConfig

sys.path.insert(0, str(Path(__file__).parent))
from sound_files import speech

ORACLES = Path(__file__).parent / "oracles"


def det(shape, a, b):
    return torch.sin(a * torch.arange(math.prod(shape), dtype=torch.float64) + b).reshape(shape)


class TestLogMel:
    """`mel.json`: torchaudio 2.11.0's MelSpectrogram of three sines, frames 0, 1, 10, 20 and 0, 5, 10."""

    @pytest.mark.parametrize(
        ("key", "config", "rate", "frames"),
        [("a", MelConfig(256, 80, 20, 50.0, 3800.0), 8000, [0, 1, 10, 20]), ("b", MelConfig(), 16000, [0, 5, 10])],
    )
    def test_equals_torchaudio(self, key, config, rate, frames):
        t = torch.arange(1600, dtype=torch.float64)
        wave = ((0.05 * t).sin() + 0.3 * (0.61 * t + 1).sin() + 0.1 * (2.2 * t).sin()).float()
        expected = torch.tensor(json.loads((ORACLES / "mel.json").read_text())[key])
        found = LogMel(config, rate)(wave[None])[0, frames].exp() - FLOOR
        torch.testing.assert_close(found, expected, rtol=2e-4, atol=1e-5 * float(expected.max()))

    def test_silence_has_the_floor(self):
        assert torch.allclose(LogMel(MelConfig(), 16000)(torch.zeros(1, 800)), torch.tensor(math.log(FLOOR)))


class TestCPCNumbers:
    """`cpc.json`: facebookresearch/CPC_audio b98a1bd, criterion with linear predictors, encoder of width 4."""

    expected = json.loads((ORACLES / "cpc.json").read_text())

    def test_loss_and_gradients_are_the_released_codes(self):
        latents, context = det((3, 11, 6), 0.37, 0.2), det((3, 11, 5), 0.53, 1.1)
        weights = [det((6, 5), 0.91, 0.3 * k) for k in range(4)]
        for t in (latents, context, *weights):
            t.requires_grad_()
        predictions = [context[:, :7] @ w.T for w in weights]
        losses = predictive_loss(predictions, latents, torch.tensor(self.expected["negatives"]))
        torch.testing.assert_close(losses, torch.tensor(self.expected["losses"], dtype=torch.float64))
        losses.sum().backward()
        for found, key in ((latents.grad[0, 0], 0), (latents.grad[2, 5], 1)):
            torch.testing.assert_close(found, torch.tensor(self.expected["z_grad"][key], dtype=torch.float64))
        torch.testing.assert_close(context.grad[1, 3], torch.tensor(self.expected["c_grad"], dtype=torch.float64))
        torch.testing.assert_close(weights[2].grad[1], torch.tensor(self.expected["w_grad"], dtype=torch.float64))

    def test_encoder_is_the_released_codes(self):
        encoder = WaveEncoder(4).double()
        for i, layer in enumerate(encoder.layers):
            layer.weight.data = 0.5 * det(layer.weight.shape, 0.7, 0.1 * i)
            layer.bias.data = det(layer.bias.shape, 0.2, 0.3 * i)
        found = encoder(det((2, 800), 0.13, 0.4))[1]
        torch.testing.assert_close(found, torch.tensor(self.expected["encoder"], dtype=torch.float64))

    def test_drawn_negatives_are_of_another_time(self):
        drawn = draw_negatives(4, 9, 5, 50)
        assert drawn.shape == (4, 50, 5)
        assert not (drawn % 9 == torch.arange(5)).any()
        assert set((drawn // 9).unique().tolist()) == {0, 1, 2, 3}

    def test_all_latents_are_all_negatives(self):
        latents, predictions = det((2, 6, 3), 0.3, 0.1), [det((2, 4, 3), 0.7, k) for k in range(2)]
        found = predictive_loss(predictions, latents)
        keys = latents.reshape(-1, 3)
        for k, prediction in enumerate(predictions, 1):
            terms = [
                torch.logsumexp(keys @ prediction[b, t] / 3, 0) - prediction[b, t] @ latents[b, t + k] / 3
                for b in range(2)
                for t in range(4)
            ]
            torch.testing.assert_close(found[k - 1], torch.stack(terms).mean())


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    report = import_sound_files(speech(folder / "in"), folder / "out", pattern="{digit}_{speaker}_{take}", workers=1)
    return SoundConfig(str(report.manifest), sample_rate=8000, seconds=0.3, caption="the digit {digit}")


SMALL = {
    "audio": {"channels": [4, 8], "dim": 16},
    "text": {"width": 16, "layers": 1, "heads": 2, "dropout": 0.0},
    "mel": {"fft_size": 128, "hop": 80, "bands": 20, "fmax": 4000.0},
    "dim": 8,
}


def clap(config: SoundConfig) -> CLAP:
    return create_system(CLAP, replace(override(CLAPConfig(), SMALL), data=config)).eval()


class TestSamples:
    def test_windows_of_a_long_recording(self, digits):
        manifest = read_manifest(digits)
        windows = SoundWindows(manifest, replace(digits, seconds=0.1), TrainConfig())
        assert len(windows) == 12 * 3 + 12 * 4  # 0.3 and 0.35 s
        assert windows.ids[0] == "0_voice0_0:0.00"
        assert windows[0]["sound"].shape == (800,)
        assert len(set(windows.ids)) == len(windows)
        assert {windows.row_of(i) for i in range(len(windows))} == set(range(24))

    def test_a_short_recording_is_filled_up(self, digits):
        sample = SoundWindows(read_manifest(digits), replace(digits, seconds=1.0), TrainConfig())[0]
        assert sample["sound"].shape == (8000,)
        assert sample["length"] == 2400
        assert not sample["sound"][2400:].any()

    def test_level_does_not_count(self, digits):
        sample = SoundWindows(read_manifest(digits), digits, TrainConfig())[0]
        assert abs(float(sample["sound"].square().mean().sqrt()) / 0.1 - 1) < 0.1

    def test_equal_captions_are_one_with_several_answers(self, digits):
        manifest = read_manifest(digits)
        vocabulary = CaptionWords(learn_words(["the digit 0", "the digit 1", "the digit 2"]), 8)
        train = sound_datasets(manifest, digits, TrainConfig(), vocabulary).train
        captions = train.pools["caption"]
        assert sorted(captions.ids) == ["the digit 0", "the digit 1", "the digit 2"]
        links = answers(train, "caption", "sound")
        assert links.shape == (3, len(train))
        assert len(set(links.pairs)) == len(train)

    def test_no_caption_and_no_form_of_words(self, digits):
        with pytest.raises(InputError, match=r"has no caption; give a column `caption`, or say what to make one of"):
            clap(replace(digits, caption=""))

    def test_a_form_of_unknown_columns(self, digits):
        with pytest.raises(InputError, match=r"unknown column 'digits'; did you mean 'digit'"):
            clap(replace(digits, caption="{digits}"))

    def test_a_missing_file_names_its_row(self, digits, tmp_path):
        table = Manifest.load(digits.manifest)
        rows = [{**table.row(i), "file": "gone.wav"} for i in range(3)]
        made = Manifest.from_rows(rows, tmp_path).save(tmp_path / "manifest.parquet")
        with pytest.raises(InputError, match=r"row 1 \(id 0_voice0_0\).*no such file.*on_error skip"):
            SoundWindows(Manifest.load(made.path), digits, TrainConfig())[0]


class TestSystems:
    def test_silence_behind_a_sound_does_not_count(self, digits):
        system = clap(digits)
        sound = torch.randn(1, 2400)
        short = {"sound": torch.nn.functional.pad(sound, (0, 4800)), "length": torch.tensor([2400])}
        longer = {"sound": torch.nn.functional.pad(sound, (0, 9600)), "length": torch.tensor([2400])}
        torch.testing.assert_close(system.encode(short)["sound"], system.encode(longer)["sound"])

    def test_padding_behind_a_caption_does_not_count(self, digits):
        system = clap(digits)
        a, b = torch.tensor([[2, 3, 4, 0, 0]]), torch.tensor([[2, 3, 4, 0, 0, 0, 0]])
        torch.testing.assert_close(system.encode({"caption": a})["caption"], system.encode({"caption": b})["caption"])

    def test_the_vocabulary_is_the_training_captions(self, digits):
        words = clap(digits).assets["words"]
        assert set(words[5:]) == {"the", "digit", "0", "1", "2"}

    def test_equal_captions_are_no_negatives(self, digits):
        system = clap(digits)
        z = {"sound": torch.eye(8)[:2], "caption": torch.eye(8)[:2]}
        batch = {"said": ["a", "a"], "index": torch.arange(2)}
        assert float(system.losses(batch, z)["info_nce"].mean()) == pytest.approx(0.0, abs=1e-6)
        system.config = replace(system.config, same_caption="negatives")
        assert float(system.losses(batch, z)["info_nce"].mean()) > 0

    def test_cpc_needs_enough_latents(self, digits):
        with pytest.raises(InputError, match=r"gives 15 latents, too few to predict 14 ahead; lengthen"):
            create_system(CPC, CPCConfig(data=digits, steps=14))

    def test_cpc_hears_the_past_alone(self, digits):
        system = create_system(CPC, CPCConfig(data=digits, width=8, context=8, steps=4)).eval()
        wave = torch.randn(1, 2400)
        changed = wave.clone()
        changed[:, 1600:] = 0.0
        before, after = (system.embed({"sound": w})["context"] for w in (wave, changed))
        torch.testing.assert_close(before[:, :8], after[:, :8])
        assert not torch.allclose(before[:, -1], after[:, -1])


def test_scenes_hold_out_combinations(tmp_path):
    report = write_scenes(tmp_path, 40, seed=0)
    table = Manifest.load(report.manifest)
    assert "SYNTHETIC" in report.note
    assert table.meta["synthetic"].startswith("synthetic")
    for i in range(len(table)):
        row = table.row(i)
        pair = tuple(sorted((row["first"], row["second"] or "")))
        assert (pair in HELD_OUT) is (row["split"] != "train")
        assert row["caption"].count(f" {row['order']} ") == (1 if row["order"] else 0) or not row["order"]
    again = write_scenes(tmp_path / "again", 40, seed=0)
    first, second = (Path(r.manifest).parent / "sounds" / "scene00003.flac" for r in (report, again))
    assert first.read_bytes() == second.read_bytes()
    assert np.isfinite(len(first.read_bytes()))


@pytest.mark.parametrize("task", ["order", "attribute"])
def test_quadruples_differ_by_one_swap(task):
    for seed in range(20):
        first, second, order = swapped(np.random.default_rng(seed), task)
        one, other = (scene_caption(events, order) for events in (first, second))
        assert one != other
        assert sorted(one.split()) == sorted(other.split())
        assert sorted(e.pitch for e in first) == sorted(e.pitch for e in second)
        assert tuple(sorted(e.kind for e in first)) in HELD_OUT


def test_binding_needs_the_words(digits):
    system = clap(digits)
    found = protocols(OpenRun.of(system))
    assert "lack the words of its scenes" in found["binding of order"].reason
