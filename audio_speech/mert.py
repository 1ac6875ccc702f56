r"""MERT: masked frames of music are told from an acoustic teacher's codes and a musical teacher's spectrum.

    o = transformer(mask(convolutions(x'))),   x' the sound with parts of other sounds over it

    L = mean_t sum_k CE(cos(A_k o_t, e_k) / T, code_k(x)_t) + w mean_t,b (W o_t - CQT(x)_t,b)^2 + 10 mean(conv(x')^2)

t runs over the masked frames, k over the codebooks, b over the transform's bins; e_k are learnt vectors of the codes.
Teachers hear the clean sound.

Li et al., "MERT: Acoustic Music Understanding Model with Large-Scale Self-supervised Training", ICLR 2024; sizes,
rates, the penalty and the masks as in yizhilll/MERT 2314692, whose losses these equal.

Where this departs from it: the acoustic teacher is a residual codebook of log-mel frames, learnt from the training
recordings, where the paper has EnCodec's (no weights are needed, and codes say less of the fine structure). Windows
are brought to one level, short ones are filled up with silence that is neither masked nor attended to; there training
cuts all to the shortest. Masked frames are equally many, and sounds are mixed, within one rank's part of the batch.

Where its terms stand:

    CE of codes           audio_speech/sounds/masked.py: code_losses
    codes of the teacher  audio_speech/sounds/masked.py: learn_codes, residual_codes
    CQT                   audio_speech/sounds/cqt.py: constant_q
    masks, mixture        audio_speech/sounds/masked.py: mask_spans, mix_in_batch
    network               audio_speech/sounds/hubert.py: Hubert
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from counterpoint.audio_speech.sounds.base import SoundSystem
from counterpoint.audio_speech.sounds.configs import MelConfig
from counterpoint.audio_speech.sounds.cqt import constant_q, filter_lengths
from counterpoint.audio_speech.sounds.hubert import STRIDE, Hubert, frame_count
from counterpoint.audio_speech.sounds.masked import code_losses, learn_codes, mask_spans, mix_in_batch, residual_codes
from counterpoint.audio_speech.sounds.mel import LogMel
from counterpoint.audio_speech.sounds.mert_configs import MERTConfig
from counterpoint.audio_speech.sounds.samples import SoundWindows
from counterpoint.common.data import Manifest
from counterpoint.common.data.samples import BadSample
from counterpoint.common.errors import InputError
from counterpoint.common.progress import track
from counterpoint.common.trainers import Assets


class MERT(SoundSystem):
    """Batches hold `sound` `[batch, samples]` and `length`; an embedding is the mean over a window's frames and the
    transformer's layers."""

    Config = MERTConfig
    presets = MERTConfig.presets

    def __init__(self, config: MERTConfig, assets: Assets) -> None:
        super().__init__(config, assets)
        data, codes = config.data, config.codes
        if frame_count(data.samples) <= config.mask_length:
            raise InputError(
                f"a window of {data.seconds:g} s at {data.sample_rate} Hz gives {frame_count(data.samples)} frames, "
                f"too few to mask {config.mask_length} in a row; lengthen --data.seconds or lower --mask_length"
            )
        if config.cqt_weight:
            filter_lengths(config.cqt, data.sample_rate)
        self.mert = Hubert(config.encoder)
        width = config.encoder.width
        self.predictor = nn.Linear(width, codes.books * codes.dim)
        self.codes = nn.Parameter(torch.empty(codes.books, codes.size, codes.dim).uniform_())
        self.mel = LogMel(mel_config(config), data.sample_rate)
        self.register_buffer("books", torch.from_numpy(assets["codebooks"]), persistent=False)
        self.loss_weights = {"codes": 1.0, "penalty": config.penalty}
        if config.cqt_weight:
            self.cqt_head = nn.Linear(width, config.cqt.bins)
            self.loss_weights["cqt"] = config.cqt_weight

    @classmethod
    def learn(cls, config: MERTConfig, data: Manifest) -> Assets:
        """The acoustic teacher: residual codebooks of the training recordings' log-mel frames."""
        codes, train = config.codes, replace(config.train, on_error="skip")
        windows = SoundWindows(data.select("train"), config.data, train)
        mel, rng = LogMel(mel_config(config), config.data.sample_rate), np.random.default_rng(config.train.seed)
        found, count = [], 0
        for place in track(rng.permutation(len(windows)).tolist(), "learning the teacher's codes"):
            sample = windows[place]
            if isinstance(sample, BadSample):
                continue  # training meets it again, counts it and says why
            found.append(mel(sample["sound"][None])[0, : 1 + sample["length"] // STRIDE].numpy())
            count += len(found[-1])
            if count >= codes.frames:
                break
        if count < codes.size:
            raise InputError(
                f"the training recordings give {count} frames for {codes.size} codes; give more or longer ones, or "
                "lower --codes.size"
            )
        return Assets(codebooks=learn_codes(np.concatenate(found), codes.books, codes.size, config.train.seed))

    def initialize(self) -> None:
        """Start from published weights, where `weights` names them."""
        if self.config.weights:
            from counterpoint.audio_speech.sounds.hubert_weights import load_hubert

            load_hubert(self.mert, self.config.weights)

    # Training --------------------------------------------------------------------------------------------------------

    def teach(self, sound: Tensor, frames: int) -> tuple[Tensor, Tensor | None]:
        """Codes [batch, frames, books] and constant-Q spectrum [batch, frames, bins] of clean sounds."""
        config, rate = self.config, self.config.data.sample_rate
        with torch.no_grad():
            codes = residual_codes(self.mel(sound.to(self.books))[:, :frames], self.books)
            cqt = constant_q(sound, config.cqt, rate, STRIDE)[:, :frames] if config.cqt_weight else None
        return codes, cqt

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """`frames` [batch, frames, width] of the last layer; `masked` [batch, frames, 1], 1 where one was; `penalty`
        [batch]; `sound` [batch, width], the frames' mean, for the monitors."""
        config, length = self.config, batch["length"]
        low, high = (round(seconds * config.data.sample_rate) for seconds in config.noise_seconds)
        sound = batch["sound"].to(self.codes)
        mixed = mix_in_batch(sound, length, config.mixture, config.noises, (low, high)) if self.training else sound
        frames, count = self.mert.stem(mixed), frame_count(length)
        masked = self.draw_masks(count, frames.shape[1])
        there = _there(frames, count)
        last = self.mert(frames, masked, there)[-1]
        known = {"masked": masked[..., None].to(last), "sound": last.detach().mean(1)}
        return {"frames": last, "penalty": frames.square().mean((1, 2)), **known}

    def draw_masks(self, count: Tensor, frames: int) -> Tensor:
        """[batch, frames], which frames are masked of windows with `count` frames of sound."""
        return mask_spans(count, frames, self.config.mask_probability, self.config.mask_length)

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One value per window of each term."""
        config, frames, masked = self.config, embeddings["frames"], embeddings["masked"][..., 0] > 0
        codes, cqt = self.teach(batch["sound"], frames.shape[1])
        shown, rows = frames[masked], masked.nonzero()[:, 0]
        predicted = self.predictor(shown).unflatten(-1, (config.codes.books, -1))
        found = torch.stack(
            [
                code_losses(predicted[:, k], codes[masked][:, k], self.codes[k], config.temperature)
                for k in range(config.codes.books)
            ]
        ).sum(0)
        count = masked.sum(1).clamp_min(1)

        def of_rows(values: Tensor) -> Tensor:
            return values.new_zeros(len(frames)).index_add(0, rows, values) / count

        terms = {"codes": of_rows(found), "penalty": embeddings["penalty"]}
        if cqt is not None:
            terms["cqt"] = of_rows((self.cqt_head(shown) - cqt[masked].to(shown)).square().mean(1))
        return terms

    # Evaluation ------------------------------------------------------------------------------------------------------

    def layers(self, batch: Mapping[str, Any]) -> list[Tensor]:
        """[batch, frames, width] of what goes into the transformer and of every layer, nothing masked or mixed."""
        frames = self.mert.stem(batch["sound"].to(self.codes))
        return self.mert(frames, there=_there(frames, frame_count(batch["length"])))

    def dense_features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """[batch, frames, width], the mean of all layers, every 320 samples."""
        return {"sound": torch.stack(self.layers(batch)).mean(0)}

    def features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The mean over a window's frames and all layers."""
        frames = self.dense_features(batch)["sound"]
        kept = _kept(frames, frame_count(batch["length"]))[..., None]
        return {"sound": (frames * kept).sum(1) / kept.sum(1)}

    def encode(self, batch: Mapping[str, Any], modality: str | None = None) -> dict[str, Tensor]:
        return {"sound": normalize(self.features(batch)["sound"], dim=-1)}


def mel_config(config: MERTConfig) -> MelConfig:
    """The frames that the acoustic teacher hears: as many as the network's."""
    codes = config.codes
    return MelConfig(codes.fft_size, STRIDE, codes.bands, fmin=30.0)


def _kept(frames: Tensor, count: Tensor) -> Tensor:
    """[batch, frames], which of them are sound; the first one always is."""
    place = torch.arange(frames.shape[1], device=frames.device)
    return (place < count[:, None].to(frames.device)) | (place == 0)


def _there(frames: Tensor, count: Tensor) -> Tensor | None:
    kept = _kept(frames, count)
    return None if not torch.compiler.is_compiling() and bool(kept.all()) else kept  # no mask lets attention be fast
