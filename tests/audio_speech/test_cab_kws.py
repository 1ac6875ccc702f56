"""CAB-KWS and keywords by example: the loss, the views, the curve, and sound in pieces."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from counterpoint.audio_speech.cab_kws import CABKWS, faster_and_louder
from counterpoint.audio_speech.sounds.spotting import (
    StreamingScorer,
    det_curve,
    detection,
    equal_error_rate,
    protocols,
)
from counterpoint.audio_speech.sounds.spotting_configs import CABKWSConfig
from counterpoint.common.errors import InputError
from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.trainers import override

SMALL = {
    "data": {"sample_rate": 8000, "seconds": 0.25},
    "mel": {"fft_size": 128, "hop": 40, "bands": 12},
    "tower": {"channels": [4, 8], "dim": 6},
}


def system(**changes):
    torch.manual_seed(0)
    return CABKWS(override(CABKWSConfig(), {**SMALL, **changes})).eval()


def batch(rows=4):
    generator = torch.Generator().manual_seed(1)
    length = torch.tensor([2000, 1500] * (rows // 2))
    sound = 0.1 * torch.randn(rows, 2000, generator=generator)
    return {"sound": sound * (torch.arange(2000) < length[:, None]), "length": length}


def tones():
    """Sixteen sounds that differ."""
    frequencies = torch.linspace(200, 3500, 16)[:, None]
    sound = 0.1 * torch.sin(2 * math.pi * frequencies * torch.arange(2000) / 8000)
    return {"sound": sound + 0.001 * torch.randn(16, 2000), "length": torch.full((16,), 2000)}


class TestLoss:
    def test_it_is_the_written_one(self):
        net, given = system(), batch()
        torch.manual_seed(3)
        found = net.losses(given, embeddings := net.embed(given))
        b, twin = embeddings["sound"], embeddings["twin"]
        frames = net.mel(given["sound"]) / math.log(10)
        for i, length in enumerate(given["length"].tolist()):
            mean = frames[i, : 1 + length // 40].mean(0)
            told = ((net.tell(b[i]) - mean) ** 2).mean() + ((net.tell(twin[i]) - mean) ** 2).mean()
            torch.testing.assert_close(found["reconstruction"][i], told)
            torch.testing.assert_close(embeddings["mean"][i, 0], mean)
            torch.testing.assert_close(found["similarity"][i], ((b[i] - twin[i]) ** 2).mean())

    def test_a_twin_as_recorded_is_the_sound(self):
        net, given = system(speed=[1.0, 1.0], volume=[0.0, 0.0]), batch()
        assert net.losses(given, net.embed(given))["similarity"].abs().max() < 1e-10

    def test_without_reconstruction_the_bottleneck_collapses(self):
        """What the second term is for: the spread of b falls to nothing without it."""
        spread = {}
        for weight in (0.0, 1.0):
            net = system(reconstruction=weight).train()
            given, optimizer = tones(), torch.optim.Adam(net.parameters(), lr=1e-2)
            for _ in range(60):
                loss = net.total(net.losses(given, net.embed(given)))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            spread[weight] = float(net.eval().features(given)["sound"].std(0).mean())
        assert spread[0.0] < 0.3 * spread[1.0]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [({"speed": [1.1, 0.9]}, "--speed is"), ({"similarity": 0.0, "reconstruction": 0.0}, "nothing to learn")],
    )
    def test_settings_are_checked(self, changes, message):
        with pytest.raises(InputError, match=message):
            override(CABKWSConfig(), changes)


class TestViews:
    def test_a_tone_becomes_higher_and_shorter(self):
        tone = torch.sin(2 * math.pi * 200 * torch.arange(4000) / 8000)[None]
        found, length = faster_and_louder(tone, torch.tensor([4000]), torch.tensor([1.25]), torch.tensor([-6.0]))
        assert int(length) == 3200
        assert not found[0, 3200:].any()
        peak = torch.fft.rfft(found[0, :3200]).abs().argmax() * 8000 / 3200
        assert float(peak) == pytest.approx(250, abs=2)
        assert float(found.abs().max()) == pytest.approx(10 ** (-6 / 20), rel=0.01)

    def test_slower_sounds_are_cut_at_the_window(self):
        found, length = faster_and_louder(torch.ones(1, 100), torch.tensor([100]), torch.tensor([0.5]), torch.zeros(1))
        assert int(length) == 100
        assert found.eq(1).all()


class TestCurve:
    def test_equals_sklearn(self):
        from sklearn.metrics import roc_curve

        rng = np.random.default_rng(0)
        target, scores = rng.random(300) < 0.3, rng.integers(0, 20, 300) / 20.0
        scores = scores + 0.3 * target
        alarms, misses = det_curve(scores, target)
        false, hits, _ = roc_curve(target, scores, drop_intermediate=False)
        np.testing.assert_allclose(alarms, false)
        np.testing.assert_allclose(misses, 1 - hits)

    def test_equal_errors_of_two_normal_scores(self):
        """Two normal distributions d apart have EER = Phi(-d / 2)."""
        rng = np.random.default_rng(0)
        scores = np.concatenate([rng.standard_normal(200000), rng.standard_normal(200000) + 2])
        target = np.arange(400000) >= 200000
        assert equal_error_rate(*det_curve(scores, target)) == pytest.approx(0.158655, abs=2e-3)

    def test_a_score_that_says_nothing_has_chance(self):
        found = detection(np.zeros((50, 4)), np.eye(4, dtype=bool)[np.arange(50) % 4], n_boot=0)
        assert found.metrics == pytest.approx({"EER": 0.5, "misses": 0.95})
        assert found.metrics == pytest.approx(found.chance)


def test_windows_without_a_label_are_left_out_and_counted():
    """`None` and `nan` are no keywords: nobody knows what such a window says."""

    def run(missing):
        generator = torch.Generator().manual_seed(0)
        vectors = torch.nn.functional.normalize(torch.randn(12, 4, generator=generator), dim=1)
        labels = [1.0, 2.0, None if missing else 3.0] * 3 + [1.0, float("nan") if missing else 3.0, 2.0]
        part = SimpleNamespace(labels=labels, vectors={"sound": vectors}, groups=["a", "b"] * 6)
        run = OpenRun(None, {"train": part, "test": part}, label="word").drawing(0, 0)
        run._encoded = {"train": part, "test": part}
        return run

    found = protocols(run(missing=True))["keywords by example"]
    assert (found.trials, found.targets) == (8 * 2, 8)
    assert "4 of 12 windows carry no label and are left out" in found.notes[1]
    assert protocols(run(missing=False))["keywords by example"].trials == 12 * 3


class TestStream:
    def test_scores_do_not_depend_on_the_pieces(self):
        net, rng = system(), np.random.default_rng(0)
        sound = (0.1 * rng.standard_normal(9000)).astype(np.float32)
        sound[5000:7000] = batch()["sound"][0].numpy()
        whole = StreamingScorer(net, [sound[5000:7000]], hop=250).push(sound)
        scorer, pieces = StreamingScorer(net, [sound[5000:7000]], hop=250), []
        for start in range(0, 9000, 333):
            pieces += scorer.push(sound[start : start + 333])
        assert [end for end, _ in whole] == [end for end, _ in pieces] == list(range(2000, 9001, 250))
        np.testing.assert_allclose([s for _, s in pieces], [s for _, s in whole], atol=1e-5)
        assert max(whole, key=lambda found: found[1])[0] == 7000
        assert dict(whole)[7000] == pytest.approx(1.0, abs=1e-5)

    def test_silence_and_short_examples(self):
        scorer = StreamingScorer(system(), [np.ones(300, dtype=np.float32)])
        assert scorer.push(np.zeros(1999)) == []
        assert all(math.isfinite(score) for _, score in scorer.push(np.zeros(5000)))
        with pytest.raises(ValueError, match="at least one example"):
            StreamingScorer(system(), [])
