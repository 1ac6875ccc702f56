r"""CAB-KWS: a bottleneck for keywords that speed and volume do not change and from which the sound can be told.

    L = w_s mean_d (b - b')^2 + w_r [ mean_f (g(b) - m)^2 + mean_f (g(b') - m)^2 ]

b and b' are the bottlenecks of a sound and of its faster or slower, louder or quieter twin, m the mean over time of
the sound's log-mel frames, g one linear layer. There are no negatives: the reconstruction stops the collapse.

Dai et al., "Contrastive Augmentation: An Unsupervised Learning Approach for Keyword Spotting in Speech Technology",
2024 (arXiv 2409.00356), after Luo et al., "Speech Augmentation Based Unsupervised Learning for Keyword Spotting", IJCNN
2022.

Our reading: no code is public, and what could be read says that the similarity of the bottlenecks of original and
augmented speech and the reconstruction of the audio are learnt together, with speed and volume as augmentations. The
squares, the weights, the ranges of the augmentations, the mean as what is told of either view, and a tower of
convolutions (the papers add attention) are ours.

Where its terms stand:

    L                   audio_speech/cab_kws.py: CABKWS.losses
    speed, volume       audio_speech/cab_kws.py: faster_and_louder
    tower               audio_speech/sounds/models.py: SoundTower
    query by example    audio_speech/sounds/spotting.py: StreamingScorer, detection
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from counterpoint.audio_speech.sounds.base import SoundSystem
from counterpoint.audio_speech.sounds.mel import LogMel
from counterpoint.audio_speech.sounds.models import SoundTower
from counterpoint.audio_speech.sounds.spotting_configs import CABKWSConfig
from counterpoint.common.trainers import Assets

SCALE = 1 / math.log(10)
"""Log-mel bands are told in bels, so that a term of the loss is of the order of one."""


def faster_and_louder(
    sound: Float[Tensor, "batch samples"],
    lengths: Int[Tensor, " batch"],
    speed: Float[Tensor, " batch"],
    decibels: Float[Tensor, " batch"],
) -> tuple[Float[Tensor, "batch samples"], Int[Tensor, " batch"]]:
    """Every sound at its own speed (pitch goes with it) and volume, and how long it is then, cut at the window's end.

    Between samples a line is drawn: x'(n) = x(speed n).

    >>> faster_and_louder(torch.arange(8.0)[None], torch.tensor([8]), torch.tensor([2.0]), torch.tensor([20.0]))
    (tensor([[ 0., 20., 40., 60.,  0.,  0.,  0.,  0.]]), tensor([4]))
    """
    samples = sound.shape[1]
    length = (lengths / speed).floor().long().clamp(1, samples)
    at = torch.arange(samples, device=sound.device) * speed[:, None].to(torch.float64)
    below = at.floor().long().clamp_max(samples - 1)
    part = (at - below).to(sound)
    low, high = sound.gather(1, below), sound.gather(1, (below + 1).clamp_max(samples - 1))
    gain = (10 ** (decibels / 20))[:, None]
    kept = torch.arange(samples, device=sound.device) < length[:, None]
    return (gain * (low + part * (high - low)) * kept).to(sound), length


class CABKWS(SoundSystem):
    """Batches hold `sound` `[batch, samples]` and `length`; an embedding is a window's bottleneck."""

    Config = CABKWSConfig
    presets = CABKWSConfig.presets

    def __init__(self, config: CABKWSConfig, assets: Assets | None = None) -> None:
        super().__init__(config, assets)
        self.mel = LogMel(config.mel, config.data.sample_rate)
        self.tower = SoundTower(config.tower, config.mel.bands)
        self.tell = nn.Linear(config.tower.dim, config.mel.bands)
        self.loss_weights = {"similarity": config.similarity, "reconstruction": config.reconstruction}

    def _frames(self, sound: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        return self.mel(sound.to(self.tell.weight)), 1 + length // self.config.mel.hop

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Bottlenecks of the sounds and of their twins, and the sounds' mean frames [batch, 1, bands] in bels."""
        config, sound, length = self.config, batch["sound"], batch["length"]
        low, high = config.speed
        speed = torch.empty(len(sound)).uniform_(low, high).to(sound)
        decibels = torch.empty(len(sound)).uniform_(*config.volume).to(sound)
        frames, count = self._frames(sound, length)
        twin = self._frames(*faster_and_louder(sound, length, speed, decibels))
        kept = (torch.arange(frames.shape[1], device=frames.device) < count[:, None])[..., None]
        mean = SCALE * (frames * kept).sum(1, keepdim=True) / count[:, None, None]
        return {"sound": self.tower(frames, count), "twin": self.tower(*twin), "mean": mean}

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One value per window of each term."""
        b, twin, mean = embeddings["sound"], embeddings["twin"], embeddings["mean"].detach()[:, 0]
        told = (self.tell(b) - mean).square().mean(1) + (self.tell(twin) - mean).square().mean(1)
        return {"similarity": (b - twin).square().mean(1), "reconstruction": told}

    def encode(self, batch: Mapping[str, Any], modality: str | None = None) -> dict[str, Tensor]:
        return {"sound": nn.functional.normalize(self.features(batch)["sound"], dim=-1)}

    def features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The bottleneck of every window as it is."""
        return {"sound": self.tower(*self._frames(batch["sound"], batch["length"]))}

    def dense_features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """[batch, places, channels] of the tower."""
        return {"sound": self.tower.places(self._frames(batch["sound"], batch["length"])[0])}
