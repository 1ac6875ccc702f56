"""Audio-sheet: printed music and sound in one space, each tower first taught alone.

Carvalho, Washüttl, Widmer, "Self-Supervised Contrastive Learning for Robust Audio-Sheet Music Retrieval Systems",
ACM MMSys 2023; towers and features of Dorfer et al. 2018.

1. Each modality alone (SimCLR): two random views of a snippet, tower `f`, head `g`, NT-Xent over the 2B views

       z = g(f(view)),    L = mean_i [ log sum_{j != i} exp(z_i.z_j / T) - z_i.z_i+ / T ],   T = 0.5;

   the heads are then dropped.
2. Both together: a sheet snippet and the audio snippet about the same onset are a pair. The batch's embeddings are
   projected by the CCA of the batch itself (gradients go through it), and the sheet snippets ask:

       L = mean_{i != j} max(0, 0.6 - (s_ii - s_ij)),    s the cosine of projected sheet i and audio j

   (`alignment: hinge`, the default). `alignment: info_nce`, which the small preset has, is symmetric InfoNCE with a
   learnt temperature on the embeddings themselves.
3. A CCA projection of both embeddings, fitted on training pairs, serves retrieval. The official code fits it once after
   training; here it is fitted before every validation, so that it belongs to the weights of every checkpoint.

Where this departs from the official code: after 30 epochs without a better validation it goes on from the best weights
at half the learning rate, five times; here the training ends then. Batch CCA is computed in float64, over all ranks.

Where its terms stand:

    NT-Xent of stage 1     common/losses/ntxent.py: NTXent
    hinge of stage 2       common/losses/hinge.py: TripletHinge
    CCA of the batch       audio_speech/models.py: batch_cca
    InfoNCE of stage 2     common/losses/infonce.py: InfoNCE
    learnt temperature     common/losses/scale.py: LogitScale
    CCA projection         audio_speech/models.py: CCAProjection
    views                  audio_speech/augment.py: sheet_view, audio_view
    towers                 audio_speech/models.py: VGGTower
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from counterpoint.audio_speech.augment import audio_view, sheet_view
from counterpoint.audio_speech.configs import AudioSheetConfig, UnimodalStageConfig
from counterpoint.audio_speech.features import LEVEL
from counterpoint.audio_speech.models import CCAProjection, VGGTower
from counterpoint.audio_speech.snippets import SnippetData, load_snippets
from counterpoint.common.data.encoding import encode_rows
from counterpoint.common.data.samplers import BatchSampler, ShuffleSampler
from counterpoint.common.errors import InputError
from counterpoint.common.losses import InfoNCE, LogitScale, NTXent, TripletHinge
from counterpoint.common.models import Projector
from counterpoint.common.trainers import Assets, ContrastiveSystem, Datasets, Stage
from counterpoint.common.trainers.contrast import contrast_of, contrast_terms
from counterpoint.common.trainers.inputs import Input

SHEET = Input(
    "uint8 grey of a strip of printed music, 255 is paper and 0 ink: one system engraved as `engraving` says, or a "
    "picture of one, `engraving.height` pixels high (Lanczos, the width in proportion); `sheet_width` columns about "
    "the place, the first of them round(place) - sheet_width // 2; paper beyond the ends.",
    ("height", "width"),
)
AUDIO = Input(
    "float32 spectrogram: the mean of the channels at `spectrogram.sample_rate` hertz (polyphase resampling), scaled "
    f"so that the root mean square of its loud parts is {LEVEL:g}: the 95th percentile over whole blocks of 1102 "
    "samples, of the blocks within 60 dB of the loudest alone where that percentile is below them; frame n is the "
    "symmetric Hann window of `spectrogram.fft_size` samples that begins fft_size / 2 before sample n * hop, hop = "
    "int(sample_rate / frame_rate) + 1, as many frames as hops begin in the sound, 0 beyond its ends; magnitudes of "
    "the lower fft_size / 2 bins through triangular filters of unit sum: centres are 440 Hz * 2 ** (k / "
    "`spectrogram.bands_per_octave`), k whole, from `fmin` to `fmax`, each moved to the nearest bin and those that "
    "meet counted once; every centre but the first and the last has a filter that rises from 0 at the centre below to "
    "1 at its own and falls to 0 at the centre above; log10(1 + value). `frames` rows about the place (in frames), the "
    "first of them round(place) - frames // 2; 0 beyond the ends.",
    ("frames", "bands"),
)


class AudioSheet(ContrastiveSystem):
    """Two VGG towers, self-supervised one by one, then aligned.

    Batches hold `sheet` `[batch, height, width]` uint8 and `audio` `[batch, frames, bands]`, either or both; training
    batches have margins about the window for the augmentations.
    """

    Config = AudioSheetConfig
    presets = AudioSheetConfig.presets
    modalities: ClassVar[tuple[str, ...]] = ("sheet", "audio")
    inputs: ClassVar[dict[str, Input]] = {"sheet": SHEET, "audio": AUDIO}

    def __init__(self, config: AudioSheetConfig, assets: Assets | None = None) -> None:
        super().__init__(config, assets)
        self.towers = torch.nn.ModuleDict({m: VGGTower(config.channels, config.dim) for m in self.modalities})
        self.towers.to(memory_format=torch.channels_last)
        self.heads = torch.nn.ModuleDict(
            {m: Projector(config.dim, config.head_hidden, config.dim, norm="none") for m in self.modalities}
        )
        self.ssl_loss = NTXent(config.ssl_temperature)
        hinge = config.alignment == "hinge"
        published = TripletHinge(config.margin) if hinge else InfoNCE(LogitScale(config.temperature))
        self.loss = contrast_of(config, published, tokens=True)
        self.projects = hinge and not config.objective
        self.cca = CCAProjection(config.dim)

    # Data and stages -------------------------------------------------------------------------------------------------

    @classmethod
    def read(cls, config: AudioSheetConfig, assets: Assets | None = None) -> SnippetData:
        """Pieces and snippets, rendered."""
        return load_snippets(config.data, config.train.on_error, config.train.max_bad)

    def datasets(self) -> Datasets:
        if self.unimodal:
            return Datasets(self.data.train.only(self.unimodal))
        return Datasets(self.data.pairs, self.data.val, self.data.test)

    def stages(self) -> Sequence[Stage]:
        stages = [
            self._unimodal_stage(modality, getattr(self.config, f"{modality}_stage")) for modality in self.modalities
        ]
        learnt = ("towers.", *(["loss."] if any(True for _ in self.loss.parameters()) else []))
        return [*(stage for stage in stages if stage is not None), Stage("align", trains=learnt)]

    def _unimodal_stage(self, modality: str, stage: UnimodalStageConfig) -> Stage | None:
        if not stage.max_epochs and not stage.max_steps:
            return None
        return Stage(
            modality,
            trains=(f"towers.{modality}.", f"heads.{modality}."),
            optim=replace(self.config.optim, lr=stage.lr),
            max_epochs=stage.max_epochs or None,
            max_steps=stage.max_steps or None,
            batch_size=stage.batch_size,
        )

    @property
    def unimodal(self) -> str:
        """The modality of the running unimodal stage, or nothing."""
        return self.stage.name if self.stage.name in self.modalities else ""

    def batch_sampler(self, dataset: Any, batch_size: int, seed: int) -> BatchSampler:
        return ShortEpochs(len(dataset), batch_size, seed, self.config.steps_per_epoch)

    # Views, embeddings, losses ---------------------------------------------------------------------------------------

    def view(self, batch: Mapping[str, Any], modality: str, augment: Any = None) -> Tensor:
        """The tower's input: the window itself, or a random view of it. Random numbers are the trainer's."""
        if modality == "sheet":
            return sheet_view(batch["sheet"], self.config.data.sheet_width, augment)
        return audio_view(batch["audio"].float(), self.config.data.frames, augment)

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        if self.unimodal:
            augment = self.config.sheet_views if self.unimodal == "sheet" else self.config.audio_views
            views = torch.cat([self.view(batch, self.unimodal, augment) for _ in range(2)])
            first, second = self.heads[self.unimodal](self.towers[self.unimodal](views)).chunk(2)
            return {f"{self.unimodal} view 1": first, f"{self.unimodal} view 2": second}
        augment = (self.config.align_sheet, self.config.align_audio) if self.training else (None, None)
        tokens = getattr(getattr(self.loss, "form", None), "kind", "") == "tokens"
        return {
            modality: tower.tokens(view) if tokens else tower(view)
            for modality, tower, view in (
                (m, self.towers[m], self.view(batch, m, how)) for m, how in zip(self.modalities, augment) if m in batch
            )
        }

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # Other performances of the same onset are no negatives.
        if self.unimodal:
            return contrast_terms(self.ssl_loss, "nt_xent", embeddings, batch, group=batch["moment"])
        if self.projects:
            embeddings = self._projected(*embeddings.values())
        return contrast_terms(self.loss, self.config.alignment, embeddings, batch, group=batch["moment"])

    def _projected(self, sheet: Tensor, audio: Tensor) -> dict[str, Tensor]:
        """Through the CCA of the batch, of all ranks; outside of training, through the one that stands."""
        if not self.training:
            return {"sheet": self.cca(sheet, "x"), "audio": self.cca(audio, "y")}
        own, everyone = self.loss.own(sheet), self.loss.union(sheet)
        # With fewer pairs several correlations are 1 by necessity, and the directions arbitrary.
        if len(everyone) <= 2 * self.config.dim:
            raise InputError(
                f"the hinge stands behind the CCA of a batch, which takes more than {2 * self.config.dim} pairs (twice "
                f"the dimensions), got {len(everyone)}: raise train.batch_size, or take alignment=info_nce"
            )
        x, y = self.cca.follow(everyone, self.loss.union(audio))
        return {"sheet": x[own], "audio": y[own]}

    def encode(self, batch: Mapping[str, Any], modality: str | None = None) -> dict[str, Tensor]:
        """Normalised embeddings of the modalities the batch has, through the CCA projection (the identity unless
        fitted)."""
        wanted = [m for m in self.modalities if m in batch and modality in (None, m)]
        raw = {m: self.towers[m](self.view(batch, m)) for m in wanted}
        return {m: normalize(self.cca(z, "x" if m == "sheet" else "y"), dim=-1) for m, z in raw.items()}

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        if not self.unimodal and self.config.cca_pairs:
            self.fit_cca(self.config.cca_pairs)

    @torch.no_grad()
    def fit_cca(self, pairs: int = 25_000, batch_size: int = 256, seed: int = 0) -> None:
        """Fit the CCA projection on so many training pairs (fewer, if there are not so many)."""
        dataset = self.data.pairs
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:pairs].tolist()
        if len(order) > self.config.dim:
            found = encode_rows(self, dataset, order, what=self._raw, batch_size=batch_size).vectors
            self.cca.fit(*(found[m].to(self.device) for m in self.modalities))

    def _raw(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Tower outputs before the projection."""
        return {m: self.towers[m](self.view(batch, m)) for m in self.modalities}


class ShortEpochs(ShuffleSampler):
    """A new random order every epoch, of which an epoch takes the first `steps` batches (0: all of them).

    >>> len(ShortEpochs(100, 10, seed=0, steps=3)), len(ShortEpochs(100, 10, seed=0, steps=0))
    (3, 10)
    """

    def __init__(self, n: int, batch_size: int, seed: int, steps: int) -> None:
        super().__init__(n, batch_size, seed)
        self.steps = steps

    def __len__(self) -> int:
        return min(super().__len__(), self.steps or super().__len__())
