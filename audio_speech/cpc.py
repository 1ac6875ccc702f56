r"""CPC: what sounds next? A context of the past tells the coming latents from others.

    z = encoder(samples),   c_t = LSTM(z_<=t),   s_k(t, j) = (W_k c_t) . z_j / D

    L = sum_k mean_t [ log sum_j exp s_k(t, j) - s_k(t, t + k) ]

for k = 1 ... `steps` and the t that have all of them; j runs over all latents of the batch, on all ranks, or, with
`negatives`, over so many drawn ones and the right one, as in the released code (128): the same for all k, from any
window of the batch, at any time but t's own.

van den Oord, Li, Vinyals, "Representation Learning with Contrastive Predictive Coding", 2018; sizes and scores after
Riviere et al., "Unsupervised pretraining transfers well across languages", ICASSP 2020 (facebookresearch/CPC_audio
b98a1bd), whose predictors are one-layer transformers by default where the paper's (and ours) are linear; that code
draws a batch's windows from one speaker, ours from all.

Where its terms stand:

    L, s_k, drawn negatives   audio_speech/cpc.py: predictive_loss, draw_negatives
    log-sum-exp over a batch  common/kernels/api.py: contrast_stats
    encoder                   audio_speech/sounds/models.py: WaveEncoder, ChannelNorm
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from counterpoint.audio_speech.sounds.base import SoundSystem
from counterpoint.audio_speech.sounds.configs import CPCConfig
from counterpoint.audio_speech.sounds.models import WaveEncoder
from counterpoint.common.errors import InputError
from counterpoint.common.kernels import Index, contrast_stats
from counterpoint.common.losses.sharing import Shared
from counterpoint.common.trainers import Assets

RESIDUAL = 0.01
"""Deviation of the rows of W_k behind the first ones, where the latents are wider than the context."""


def draw_negatives(batch: int, length: int, anchors: int, count: int) -> Int[Tensor, "batch count anchors"]:
    """Places in [batch x length] latents: any window, any time but the anchor's own."""
    window = torch.randint(0, batch, (batch, count, anchors))
    shift = torch.randint(1, length, (batch, count, anchors))
    return window * length + (shift + torch.arange(anchors)) % length


def predictive_loss(
    predictions: Sequence[Float[Tensor, "batch anchors dim"]],
    latents: Float[Tensor, "batch length dim"],
    negatives: Int[Tensor, "batch count anchors"] | None = None,
    backend: str | None = None,
) -> Float[Tensor, steps]:
    """The cross-entropy of every step ahead, the mean over windows and anchors.

    `predictions[k - 1]` at anchor t is told from others as the latent at t + k. Without `negatives` the others are all
    latents, those of other ranks too where `engine_settings` says so; with them those at these places of the windows
    laid end to end.

    >>> predictive_loss([torch.zeros(2, 4, 3)], torch.zeros(2, 5, 3))  # log of ten latents
    tensor([2.3026])
    """
    over = Shared(backend=backend)
    batch, length, dim = latents.shape
    anchors = predictions[0].shape[1]
    keys, found = latents.reshape(-1, dim), []
    if negatives is not None:
        # Each anchor has columns of its own: the engine would meet all latents to keep these, so they are dense.
        drawn = keys[negatives]
    else:
        windows = torch.arange(batch, device=keys.device)[:, None] * length
        first = (windows + torch.arange(anchors, device=keys.device)).reshape(-1) + over.own(keys).start
    for k, prediction in enumerate(predictions, 1):
        if negatives is None:
            across = {"distributed": over.distributed, "backend": over.backend}
            stats = contrast_stats(
                prediction.reshape(-1, dim), keys, scale=1 / dim, positive=Index(first + k), **across
            )
            found.append(over.mean(stats.lse - stats.positive))
            continue
        right = (prediction * latents[:, k : k + anchors]).mean(-1)
        wrong = torch.einsum("bad,bcad->bca", prediction, drawn) / dim
        found.append(over.mean(torch.cat([right[:, None], wrong], 1).logsumexp(1) - right))
    return torch.stack(found)


class CPC(SoundSystem):
    """Batches hold `sound` `[batch, samples]` and `length`; an embedding is the mean context over a window's sound."""

    Config = CPCConfig
    presets = CPCConfig.presets

    def __init__(self, config: CPCConfig, assets: Assets | None = None) -> None:
        super().__init__(config, assets)
        steps = config.data.samples // WaveEncoder.stride
        if steps <= config.steps + 1:
            raise InputError(
                f"a window of {config.data.seconds:g} s at {config.data.sample_rate} Hz gives {steps} latents, too few "
                f"to predict {config.steps} ahead; lengthen --data.seconds or lower --steps"
            )
        self.encoder = WaveEncoder(config.width)
        self.context = nn.LSTM(config.width, config.context, batch_first=True)
        self.predictors = nn.ModuleList(
            nn.Linear(config.context, config.width, bias=False) for _ in range(config.steps)
        )
        if config.width > config.context:
            for predictor in self.predictors:
                nn.init.normal_(predictor.weight[: config.context])
                nn.init.normal_(predictor.weight[config.context :], std=RESIDUAL)

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Contexts and latents [batch, length, ...] of every window."""
        latents = self.encoder(batch["sound"].to(self.predictors[0].weight))
        return {"context": self.context(latents)[0], "latent": latents}

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        config, context, latents = self.config, embeddings["context"], embeddings["latent"]
        count, length = latents.shape[:2]
        anchors = length - config.steps
        drawn = draw_negatives(count, length, anchors, config.negatives) if config.negatives else None
        predictions = [predictor(context[:, :anchors]) for predictor in self.predictors]
        drawn = drawn if drawn is None else drawn.to(latents.device)
        return {"predictive": predictive_loss(predictions, latents, drawn).sum()}

    def encode(self, batch: Mapping[str, Any], modality: str | None = None) -> dict[str, Tensor]:
        return {"sound": normalize(self.features(batch)["sound"], dim=-1)}

    def features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The mean context over a window's sound."""
        context = self.dense_features(batch)["sound"]
        kept = (
            torch.arange(context.shape[1], device=context.device)[None] < batch["length"][:, None] / WaveEncoder.stride
        )
        kept = kept[..., None] | (torch.arange(context.shape[1], device=context.device) == 0)[None, :, None]
        return {"sound": (context * kept).sum(1) / kept.sum(1)}

    def dense_features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """[batch, length, context] of every 160 samples."""
        return {"sound": self.embed(batch)["context"]}
