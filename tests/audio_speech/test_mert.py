"""MERT: its losses and masks, the network's layout and numbers, the constant-Q transform, and a run."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from counterpoint.audio_speech.mert import MERT
from counterpoint.audio_speech.sounds.configs import SoundConfig
from counterpoint.audio_speech.sounds.cqt import constant_q
from counterpoint.audio_speech.sounds.hubert import Hubert, frame_count
from counterpoint.audio_speech.sounds.hubert_weights import load_hubert
from counterpoint.audio_speech.sounds.masked import (
    code_losses,
    learn_codes,
    mask_spans,
    mix_in_batch,
    residual_codes,
)
from counterpoint.audio_speech.sounds.mert_configs import CQTConfig, FrameTransformerConfig, MERTConfig
from counterpoint.common.errors import InputError
from counterpoint.common.trainers import Assets, create_system, override

ORACLES = Path(__file__).parent / "oracles"
TINY = FrameTransformerConfig(8, 16, 2, 2, 32, dropout=0.0, layer_drop=0.0, place_kernel=4, place_groups=2)


def det(shape, a, b):
    return torch.sin(a * torch.arange(math.prod(shape), dtype=torch.float64) + b).reshape(shape)


def sounds(n):
    t = torch.arange(n, dtype=torch.float64)
    tones = (0.05 * t).sin() + 0.3 * (0.61 * t + 1).sin() + 0.1 * (2.2 * t).sin()
    return torch.stack([tones, (0.00002 * t * t).sin() * 0.5 + 0.2 * torch.sin(1.7 * t)]).float()


class TestConstantQ:
    """`cqt.json`: nnAudio 0.3.4, at MERT's settings and at smaller ones."""

    @pytest.mark.parametrize(
        ("key", "config", "rate", "hop", "samples"),
        [("small", CQTConfig(60, 12, 60.0), 8000, 160, 4000), ("mert", CQTConfig(), 24000, 320, 24000)],
    )
    def test_equals_nnaudio(self, key, config, rate, hop, samples):
        expected = json.loads((ORACLES / "cqt.json").read_text())[key]
        found = constant_q(sounds(samples), config, rate, hop)
        assert found.shape == (2, 1 + samples // hop, config.bins)
        values = torch.tensor(expected["values"])
        part = found[:, expected["frames"]][:, :, expected["bins"]]
        torch.testing.assert_close(part, values, rtol=1e-4, atol=1e-5 * float(values.max()))

    def test_equals_the_sum_it_stands_for(self):
        """One bin at one frame, written out."""
        wave, config = sounds(3000)[:1], CQTConfig(14, 7, 200.0)
        q = 1 / (2 ** (1 / 7) - 1)
        frequency = 200 * 2 ** (5 / 7)
        size = math.ceil(q * 8000 / frequency)
        t = np.arange(size) - (size + 1) // 2
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
        heard = wave[0].numpy()[9 * 160 + t]
        wanted = abs((heard * window * np.exp(-2j * np.pi * frequency / 8000 * t)).sum()) * size**0.5 / window.sum()
        assert float(constant_q(wave, config, 8000, 160)[0, 9, 5]) == pytest.approx(wanted, rel=1e-4)

    def test_too_many_bins_are_refused(self):
        with pytest.raises(InputError, match=r"--cqt\.bins: the highest of 336 bins lies at 4\d+ Hz"):
            constant_q(torch.zeros(1, 8000), CQTConfig(), 8000, 160)


class TestLosses:
    def test_codes_equal_hubert_s_nce(self):
        """The released code's `compute_nce` (the right code first and left out of the others), then cross-entropy."""
        predicted, table = det((7, 5), 0.37, 0.2).requires_grad_(), det((6, 5), 0.91, 1.1).requires_grad_()
        codes = torch.tensor([0, 3, 5, 3, 1, 2, 0])
        right, all_codes = table[codes], table[:, None].expand(-1, 7, -1)
        logits = torch.cosine_similarity(predicted, torch.cat([right[None], all_codes]), dim=-1) / 0.1
        same = (right == all_codes).all(-1)
        logits = torch.cat([logits[:1], logits[1:].masked_fill(same, -torch.inf)]).T
        wanted = torch.nn.functional.cross_entropy(logits, torch.zeros(7, dtype=torch.long), reduction="none")
        found = code_losses(predicted, codes, table, 0.1)
        torch.testing.assert_close(found, wanted)
        ours = torch.autograd.grad(found.sum(), (predicted, table))
        for a, b in zip(ours, torch.autograd.grad(wanted.sum(), (predicted, table))):
            torch.testing.assert_close(a, b)

    def test_terms_are_means_over_masked_frames(self):
        """CE and squared error over masked frames, the penalty over all, as the released criterion divides them."""
        system = tiny_system().eval()
        batch = {"sound": sounds(8000) * 0.3, "length": torch.tensor([8000, 6000])}
        torch.manual_seed(0)
        embeddings = system.embed(batch)
        terms = system.losses(batch, embeddings)
        frames, masked = embeddings["frames"], embeddings["masked"][..., 0] > 0
        codes, cqt = system.teach(batch["sound"], frames.shape[1])
        rows = [frames[b, t] for b, t in masked.nonzero()]
        total_ce, total_cqt = 0.0, 0.0
        for (b, t), x in zip(masked.nonzero(), rows):
            parts = system.predictor(x).split(system.config.codes.dim)
            for k, part in enumerate(parts):
                logits = torch.cosine_similarity(part[None], system.codes[k]) / 0.1
                total_ce -= logits.log_softmax(0)[codes[b, t, k]]
            total_cqt += (system.cqt_head(x) - cqt[b, t]).square().mean()
        assert masked[0].sum() == masked[1].sum()
        torch.testing.assert_close(terms["codes"].mean(), total_ce / len(rows))
        torch.testing.assert_close(terms["cqt"].mean(), total_cqt / len(rows))
        pen = system.mert.stem(batch["sound"]).square().mean()
        torch.testing.assert_close(terms["penalty"].mean(), pen)
        assert system.loss_weights == {"codes": 1.0, "penalty": 10.0, "cqt": 1.0}

    def test_what_is_masked_is_not_heard(self):
        """A masked frame's own convolution output cannot reach any layer."""
        net = Hubert(TINY).eval()
        frames, masked = torch.randn(1, 20, 8), torch.zeros(1, 20, dtype=torch.bool)
        masked[0, 4:9] = True
        changed = frames.clone()
        changed[0, 4:9] = torch.randn(5, 8)
        assert torch.equal(net(frames, masked)[-1], net(changed, masked)[-1])


class TestMasks:
    def test_spans_are_fairseq_s(self):
        """About probability x length / span spans of 374 frames, which meet; equally many masked in every window."""
        torch.manual_seed(0)
        masked = mask_spans(torch.full((64,), 374), 374, 0.8, 5)
        counts = masked.sum(1)
        assert len(counts.unique()) == 1
        share = float(counts[0]) / 374
        assert 0.48 < share < 0.58  # 1 - e^-.8 = .55, the fewest of 64 windows
        edges = torch.nn.functional.pad(masked.int(), (1, 1)).diff(dim=1)
        assert int((edges == 1).sum()) < 64 * 60

    def test_short_windows_stay_within_their_sound(self):
        masked = mask_spans(torch.tensor([30, 3, 0]), 30, 0.5, 10)
        assert not masked[1, 3:].any()
        assert not masked[2].any()


class TestMixture:
    def test_parts_of_the_others_are_added_and_nothing_of_itself(self):
        torch.manual_seed(0)
        sound = torch.stack([torch.full((100,), 1.0), torch.full((100,), 10.0), torch.full((100,), 100.0)])
        mixed = mix_in_batch(sound, torch.full((3,), 100), 1.0, (1, 1), (20, 20))
        for row, own in zip(mixed, (1.0, 10.0, 100.0)):
            added = (row - own).round()
            assert int((added != 0).sum()) == 20
            assert own not in added[added != 0].unique().tolist()

    def test_never_and_alone(self):
        sound = torch.rand(2, 50)
        assert torch.equal(mix_in_batch(sound, torch.full((2,), 50), 0.0, (1, 3), (10, 20)), sound)
        assert torch.equal(mix_in_batch(sound[:1], torch.full((1,), 50), 1.0, (1, 3), (10, 20)), sound[:1])

    def test_sounds_shorter_than_a_part(self):
        sound = torch.rand(2, 50)
        sound[:, 8:] = 0
        mixed = mix_in_batch(sound, torch.tensor([8, 5]), 1.0, (2, 2), (10, 20))
        assert not mixed[1, 5:].equal(mixed[1, :5])
        assert not mixed[0, 8:].any()


class TestTeacher:
    def test_each_book_takes_what_the_ones_before_left(self):
        rng = np.random.default_rng(0)
        frames = rng.standard_normal((2000, 4)).astype(np.float32)
        books = learn_codes(frames, 4, 16)
        codes, left = residual_codes(torch.from_numpy(frames), torch.from_numpy(books)), frames
        errors = []
        for k in range(4):
            distance = ((left[:, None] - books[k][None]) ** 2).sum(-1)
            assert np.mean(distance.argmin(1) == codes[:, k].numpy()) > 0.999  # rounding may part near ties
            left = left - books[k][codes[:, k].numpy()]
            errors.append(float((left**2).mean()))
        assert errors == sorted(errors, reverse=True)
        assert errors[3] < 0.35 * errors[0]


class TestNetwork:
    @pytest.mark.parametrize("norm_first", [False, True])
    def test_equals_transformers_hubert(self, norm_first):
        """The weights of a HubertModel load as they are, and every layer's frames are its own."""
        from transformers import HubertConfig, HubertModel

        reference = HubertModel(hf(HubertConfig, TINY, norm_first)).eval()
        net = Hubert(replace(TINY, norm_first=norm_first)).eval()
        net.load_state_dict(reference.state_dict())
        wave = sounds(4000)
        with torch.no_grad():
            wanted = reference(wave, output_hidden_states=True)
            found = net(net.stem(wave))
        # the last of `hidden_states` stands before the final normalisation where norms come first
        for ours, theirs in zip(found[:-1], wanted.hidden_states):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[-1], wanted.last_hidden_state, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(("preset", "million"), [(None, 94.37), ("330m", 315.43)])
    def test_published_sizes(self, preset, million):
        """Keys, shapes and numbers of parameters of the published layout, at both sizes."""
        from transformers import HubertConfig, HubertModel

        config = MERTConfig() if preset is None else override(MERTConfig(), MERTConfig.presets[preset])
        encoder = config.encoder
        with torch.device("meta"):
            net, reference = Hubert(encoder), HubertModel(hf(HubertConfig, encoder, encoder.norm_first))
        shapes = {k: v.shape for k, v in net.state_dict().items()}
        assert shapes == {k: v.shape for k, v in reference.state_dict().items()}
        assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(million, abs=0.01)

    def test_padding_is_not_attended_to(self):
        net = Hubert(TINY).eval()
        frames = torch.randn(1, 30, 8)
        there = (torch.arange(30) < 20)[None]
        changed = frames.clone()
        changed[:, 20:] = 5.0
        torch.testing.assert_close(net(frames, there=there)[-1][:, :20], net(changed, there=there)[-1][:, :20])

    @pytest.mark.parametrize("samples", [400, 719, 720, 24000, 120000])
    def test_frame_count(self, samples):
        assert Hubert(TINY).stem(torch.zeros(1, samples)).shape[1] == frame_count(samples)
        assert int(frame_count(torch.tensor([samples]))) == frame_count(samples)

    def test_published_files(self, tmp_path):
        """Old names of the weight norm and prefixes are known; a file of another size is refused by name."""
        net, other = Hubert(TINY), Hubert(TINY)
        old = {f"hubert.{k}": v for k, v in net.state_dict().items()}
        for new, was in (("original0", "weight_g"), ("original1", "weight_v")):
            name = f"hubert.encoder.pos_conv_embed.conv.parametrizations.weight.{new}"
            old[f"hubert.encoder.pos_conv_embed.conv.{was}"] = old.pop(name)
        save_file(old | {"lm_head.weight": torch.zeros(3)}, tmp_path / "model.safetensors")
        torch.save(old, tmp_path / "pytorch_model.bin")
        for file in ("model.safetensors", "pytorch_model.bin"):
            other.load_state_dict(Hubert(TINY).state_dict())
            load_hubert(other, tmp_path / file)
            assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), other.state_dict().values()))
        with pytest.raises(InputError, match=r"has the shape \[16\], and this network \[32\]"):
            load_hubert(Hubert(replace(TINY, width=32)), tmp_path / "model.safetensors")
        (tmp_path / "bad.bin").write_bytes(b"no weights")
        with pytest.raises(InputError, match="no file of tensors"):
            load_hubert(other, tmp_path / "bad.bin")


def hf(kind, config, norm_first):
    return kind(
        hidden_size=config.width, num_hidden_layers=config.layers, num_attention_heads=config.heads,
        intermediate_size=config.hidden, conv_dim=[config.channels] * 7, do_stable_layer_norm=norm_first,
        num_conv_pos_embeddings=config.place_kernel, num_conv_pos_embedding_groups=config.place_groups,
        feat_extract_norm="group", conv_bias=False,
    )  # fmt: skip


SMALL = {
    "data": {"sample_rate": 8000, "seconds": 1.0, "scenes": 30},
    "encoder": {"channels": 8, "width": 16, "layers": 2, "heads": 2, "hidden": 32, "dropout": 0.0, "layer_drop": 0.0,
                "place_kernel": 4, "place_groups": 2},
    "codes": {"books": 2, "size": 8, "dim": 4, "bands": 20, "frames": 2000, "fft_size": 512},
    "cqt": {"bins": 24, "per_octave": 12, "fmin": 110.0},
}  # fmt: skip


def tiny_system():
    torch.manual_seed(0)
    config = override(MERTConfig(), SMALL)
    books = torch.randn(2, 8, 20, generator=torch.Generator().manual_seed(0)).numpy()
    return MERT(config, Assets(codebooks=books))


class TestSystem:
    def test_codebooks_are_learnt_from_the_training_recordings(self):
        system = create_system(MERT, override(MERTConfig(), SMALL))
        books = system.assets["codebooks"]
        assert books.shape == (2, 8, 20)
        again = MERT.learn(system.config, MERT.read(system.config))
        assert np.array_equal(books, again["codebooks"])
        assert "books" not in system.state_dict()  # an asset, not a weight

    def test_few_frames_are_refused(self):
        config = override(MERTConfig(), {**SMALL, "codes": {**SMALL["codes"], "size": 5000}})
        with pytest.raises(InputError, match=r"give \d+ frames for 5000 codes"):
            create_system(MERT, config)

    def test_short_windows_are_refused(self):
        with pytest.raises(InputError, match="too few to mask 5 in a row"):
            MERT(override(MERTConfig(), {"data": SoundConfig(seconds=0.05)}), Assets(codebooks=np.zeros((8, 9, 128))))

    def test_an_embedding_is_the_mean_over_the_frames_of_the_sound(self):
        system = tiny_system().eval()
        sound = sounds(8000) * 0.2
        short = {"sound": sound, "length": torch.tensor([8000, 4000])}
        dense = system.dense_features(short)["sound"]
        assert dense.shape == (2, frame_count(8000), 16)
        found = system.features(short)["sound"]
        torch.testing.assert_close(found[1], dense[1, : frame_count(4000)].mean(0))
        torch.testing.assert_close(system.encode(short)["sound"].norm(dim=1), torch.ones(2))

    def test_it_learns(self):
        """Masked codes of one batch are told better after some steps, and clean sounds are the teachers' alone."""
        system = tiny_system().train()
        batch = {"sound": sounds(8000) * 0.3, "length": torch.full((2,), 8000)}
        optimizer = torch.optim.Adam(system.parameters(), lr=5e-3)
        seen = []
        for _ in range(40):
            terms = system.losses(batch, system.embed(batch))
            loss = system.total(terms)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen.append(float(terms["codes"].mean()))
        assert np.mean(seen[-5:]) < 0.7 * np.mean(seen[:5])

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"noises": [3, 1]}, r"--noises is \[3, 1\]"),
            ({"encoder.heads": 5}, "must be divisible by heads"),
            ({"mask_probability": 0.0}, "--mask_probability is 0.0"),
        ],
    )
    def test_settings_are_checked(self, changes, message):
        with pytest.raises(InputError, match=message):
            override(MERTConfig(), changes)
