r"""CLAP: sounds and what is said of them in one space.

    L = 1/2 [CE(s a t', i) + CE(s t a', i)],   a, t unit embeddings of sound and caption, s = 1 / T learnt (at most 100)

Wu et al., "Large-scale Contrastive Language-Audio Pretraining with Feature Fusion and Keyword-to-Caption Augmentation",
ICASSP 2023; Elizalde et al., "CLAP: Learning Audio Concepts from Natural Language Supervision", ICASSP 2023.

Where this departs from them: the towers are ours (convolutions over a log-mel spectrogram, a transformer over words
whose vocabulary is that of the training captions; the papers start from pretrained HTSAT or PANN, and RoBERTa). Other
recordings of which the same is said are no negatives (`same_caption=negatives` is the released loss). Long recordings
are cut into windows where the paper fuses their parts.

Where its terms stand:

    InfoNCE                common/losses/infonce.py: InfoNCE
    learnt temperature     common/losses/scale.py: LogitScale
    log-mel spectrogram    audio_speech/sounds/mel.py: LogMel
    towers                 audio_speech/sounds/models.py: SoundTower, TextTower
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

from torch import Tensor, nn

from counterpoint.audio_speech.sounds.base import LENGTH, SOUND, SoundSystem
from counterpoint.audio_speech.sounds.configs import CLAPConfig
from counterpoint.audio_speech.sounds.mel import LogMel
from counterpoint.audio_speech.sounds.models import SoundTower, TextTower
from counterpoint.audio_speech.sounds.samples import captions_of_row
from counterpoint.audio_speech.sounds.words import CaptionWords, learn_words
from counterpoint.common.data import Manifest
from counterpoint.common.data.dataset import group_codes
from counterpoint.common.data.vocabulary import PAD, UNKNOWN
from counterpoint.common.losses import InfoNCE, LogitScale
from counterpoint.common.models import Projector
from counterpoint.common.trainers import Assets
from counterpoint.common.trainers.contrast import contrast_of, contrast_terms
from counterpoint.common.trainers.inputs import Input

CAPTION = Input(
    "int64 places in the asset `words` of a caption's words: lower case, runs of letters, digits, underscores and "
    f"apostrophes; {UNKNOWN} for a word that is not there, {PAD} behind the last one; as many as `text.words`.",
    ("words",),
)


class CLAP(SoundSystem):
    """Batches hold `sound` and `length`, `caption` `[batch, words]`, or both."""

    Config = CLAPConfig
    presets = CLAPConfig.presets
    modalities: ClassVar[tuple[str, ...]] = ("sound", "caption")
    inputs: ClassVar[dict[str, Input]] = {"sound": SOUND, "length": LENGTH, "caption": CAPTION}

    def __init__(self, config: CLAPConfig, assets: Assets) -> None:
        super().__init__(config, assets)
        self.mel = LogMel(config.mel, config.data.sample_rate)
        self.audio = SoundTower(config.audio, config.mel.bands)
        self.text = TextTower(config.text, len(assets["words"]))
        self.heads = nn.ModuleDict(
            {
                "sound": Projector(config.audio.dim, config.dim, config.dim, norm="none"),
                "caption": Projector(config.text.width, config.dim, config.dim, norm="none"),
            }
        )
        self.loss = contrast_of(config, InfoNCE(LogitScale(config.temperature)))

    @classmethod
    def learn(cls, config: CLAPConfig, data: Manifest) -> Assets:
        """The vocabulary of the training captions."""
        rows = data.select("train").frame.to_dict("records")
        return Assets(words=learn_words(t for row in rows for t in captions_of_row(row, config.data.caption, data)))

    @classmethod
    def extend(cls, assets: Assets, config: CLAPConfig, data: Manifest) -> Assets:
        known = assets["words"]
        new = [word for word in cls.learn(config, data)["words"] if word not in set(known)]
        return assets.replace(words=[*known, *new])

    def grow(self, assets: Assets) -> None:
        """New words get vectors of their own; old ones keep theirs."""
        old = self.text.words
        self.text.words = nn.Embedding(len(assets["words"]), old.embedding_dim, padding_idx=PAD)
        self.text.words.weight.data[: len(old.weight)] = old.weight.data

    @cached_property
    def vocabulary(self) -> CaptionWords:
        return CaptionWords(self.assets["words"], self.config.text.words)

    def frames(self, batch: Mapping[str, Any]) -> Tensor:
        """How many frames of every spectrogram are sound."""
        return 1 + batch["length"] // self.config.mel.hop

    def features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The towers' outputs before the projectors."""
        found = {}
        if "sound" in batch:
            found["sound"] = self.audio(self.mel(batch["sound"].to(self.text.places)), self.frames(batch))
        if "caption" in batch:
            found["caption"] = self.text(batch["caption"])
        return found

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        return {name: self.heads[name](z) for name, z in self.features(batch).items()}

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        codes = group_codes(batch["said"]).to(embeddings["sound"].device)
        group = {"group": codes} if self.config.same_caption == "leave_out" else {}
        return contrast_terms(self.loss, "info_nce", embeddings, batch, **group)

    def dense_features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """[batch, places, channels] of the sound's tower, before its linear layer."""
        return {"sound": self.audio.places(self.mel(batch["sound"].to(self.text.places)))}
