r"""CROMA: contrastive radar-optical masked autoencoders.

Fuller, Millard, Green, "CROMA: Remote Sensing Representations with Contrastive Radar-Optical Masked Autoencoders",
NeurIPS 2023; the official code (antofuller/CROMA 59505a6) publishes the model and both losses.

Each sensor's patches are masked by themselves; an encoder a sensor reads what is left, a joint encoder fuses both
(radar tokens ask the optical ones). With GAP the mean over a sensor's tokens, through an FFN and a linear layer to unit
length, and s = exp(logit scale), learnt and not bounded,

    L = L_con + L_mae                               (weights `contrast` and `reconstruction`; 1 and 1)
    L_con = 1/2 [CE(s o r^T, i) + CE(s r o^T, i)]
    L_mae = sum over sensors of the mean over its hidden patches of |decoded - x'|^2
    x' = (x - mean) / sqrt(var + 1e-6)              of a patch

Positions are known by 2D-ALiBi alone, so that chips and patches may have any size:

    attention bias of head h between patches p and q = -slope_h ||p - q||

Departures and readings: mean and variance of a patch are taken over the bands of both sensors together, as the official
code does (`target=sensor` takes those of each). The mask ratio, the epochs, the batch and the weights of the two terms
are not in the published file; ours are recalled. Band statistics are those of the training split, fixed, where the
official example takes those of the batch, which fails on uniform and cloudy images. The released pretraining gives the
joint encoder's self-attention among radar tokens the distances from radar to optical patches (`released_bias`); ours
are those among the radar patches. Without masks there is no difference. Patches of which less than half is data are
hidden first, asked by no other patch, and pixels that are no data are not reconstructed: on chips without them every
number is the official one. `fusion` ssma puts SSMA's gate (Valada et al., IJCV 2019) in the place of the joint encoder;
that it is learnt from the reconstruction is ours.

Where its terms stand:

    L_con                   common/losses/infonce.py: InfoNCE
    L_mae                   geospatial/croma_loss.py: reconstruction_errors
    decoder                 geospatial/croma_loss.py: Decoder
    2D-ALiBi, X-ALiBi       geospatial/models/alibi.py: alibi_bias
    independent masks       geospatial/models/masking.py: random_mask
    encoders                geospatial/models/croma.py: CromaNetwork
    gate (`fusion` ssma)    geospatial/models/ssma.py: SSMA
    published weights       geospatial/croma_weights.py: load_published
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from counterpoint.common.errors import InputError
from counterpoint.common.losses import InfoNCE
from counterpoint.common.losses.scale import LogitScale
from counterpoint.common.trainers import Assets
from counterpoint.common.trainers.contrast import contrast_of, contrast_terms
from counterpoint.geospatial.base import RasterSystem, valid_patches
from counterpoint.geospatial.configs import CromaConfig
from counterpoint.geospatial.croma_loss import Decoder, reconstruction_errors
from counterpoint.geospatial.models.croma import CromaNetwork, patch_grid
from counterpoint.geospatial.models.masking import PatchMask, patchify, random_mask
from counterpoint.geospatial.models.transformer import mean_tokens

OPTICAL_FIRST = ("s2", "s1")
"""The order of a patch's values in the decoder's output, as in the official code's stacked image."""
SMALL = {
    "data": {"size": 32, "scenes": 160, "scene_size": 96},
    "encoder": {"dim": 96, "depth": 4, "heads": 8, "patch_size": 4},
    "train": {"batch_size": 64, "max_epochs": 20},
    "optim": {"lr": 1e-3},
}
"""What every system of the vertical is on a laptop."""


class TwoSensors(RasterSystem):
    """What systems of both sensors share: images, masks of what holds data, unmasked tokens."""

    modalities = ("s1", "s2")

    def images(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The batch's images by sensor."""
        return {s: batch[s] for s in ("s1", "s2") if s in batch}

    def valid(self, batch: Mapping[str, Any], patch: int) -> dict[str, Tensor]:
        """[batch, patches] which patches hold data, by sensor."""
        return {s: valid_patches(batch[f"{s}_valid"], patch) for s in ("s1", "s2") if f"{s}_valid" in batch}

    def tokens(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Unmasked tokens by sensor, and `joint` ones where the system has them."""
        raise TypeError(f"{type(self).__name__} does not define tokens()")

    def dense_features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Tokens on their grid, [batch, rows, columns, width]."""
        images = next(iter(self.images(batch).values()))
        grid = patch_grid(images, self.patch_size)
        return {name: x.unflatten(1, grid) for name, x in self.tokens(batch).items()}

    @property
    def patch_size(self) -> int:
        """Pixels of a patch's side."""
        return self.config.encoder.patch_size

    def draw(self, sample: Mapping[str, Any], train: bool) -> dict[str, Any]:
        """How a chip is turned, and the noise that its masks are made of."""
        drawn = super().draw(sample, train)
        for sensor in ("s1", "s2"):
            if sensor in sample:
                rows, cols = patch_grid(sample[sensor], self.patch_size)
                drawn[f"{sensor}_noise"] = torch.rand(rows * cols)
        return drawn


class Croma(TwoSensors):
    """Contrast and reconstruction of masked radar and optical chips (see the module's text).

    >>> Croma.presets["large"]["encoder"]
    {'dim': 1024, 'depth': 24, 'heads': 16}
    """

    Config = CromaConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "large": {"encoder": {"dim": 1024, "depth": 24, "heads": 16}, "train": {"max_epochs": 600}},
        "small": {**SMALL, "decoder": {"dim": 64, "heads": 4}},
    }

    def __init__(self, config: CromaConfig, assets: Assets) -> None:
        super().__init__(config, assets)
        if len(self.form.bands) < 2:
            raise InputError("croma takes both sensors (--data.sensors s1,s2); optical-mae takes one")
        size, dim = config.encoder, config.encoder.dim
        bands = {sensor: self.channels(sensor) for sensor in ("s1", "s2")}
        if config.fusion == "ssma" and (config.weights or not config.reconstruction):
            raise InputError(
                "--fusion ssma learns from the reconstruction (--reconstruction above 0), and the published weights "
                "have no gate (--weights '')"
            )
        sizes = (dim, size.depth, size.heads, size.patch_size)
        self.network = CromaNetwork(bands, *sizes, config.released_bias, config.fusion)
        if config.contrast:
            self.s1_projection, self.s2_projection = nn.Linear(dim, dim), nn.Linear(dim, dim)
            scale = LogitScale(config.temperature, max_scale=math.inf, min_scale=0.0)
            self.contrast = contrast_of(config, InfoNCE(scale))
        if config.reconstruction:
            values = sum(bands.values()) * size.patch_size**2
            light = config.decoder
            self.decoder = Decoder(dim, light.dim, light.depth, light.heads, values)
        if not (config.contrast or config.reconstruction):
            raise InputError("contrast and reconstruction are both 0: nothing is left to learn from")
        name = self.contrast.name if config.contrast and config.objective else "contrast"
        self.loss_weights = {k: w for k, w in ((name, config.contrast), ("reconstruction", config.reconstruction)) if w}

    def initialize(self) -> None:
        """Start from the published weights, where `weights` names them."""
        if self.config.weights:
            from counterpoint.geospatial.croma_weights import load_published

            load_published(self.network, self.config.weights)

    def masks(self, batch: Mapping[str, Any], valid: Mapping[str, Tensor]) -> dict[str, PatchMask]:
        """An independent random mask of each sensor; patches without data are hidden first."""
        return {s: random_mask(batch[f"{s}_noise"], self.config.mask_ratio, valid.get(s)) for s in ("s1", "s2")}

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Projections of both sensors' masked encodings, and the error of reconstruction of every sample."""
        images, valid = self.images(batch), self.valid(batch, self.patch_size)
        masks = self.masks(batch, valid)
        tokens = self.network.encode(images, masks, valid, joint=bool(self.config.reconstruction))
        found = {}
        if self.config.contrast:
            seen = {s: valid[s].gather(1, masks[s].keep) for s in valid}
            found = self.projected({s: tokens[s] for s in images}, seen)
        if self.config.reconstruction:
            found["error"] = self.error(batch, images, masks, tokens["joint"])
        return found

    def projected(self, tokens: Mapping[str, Tensor], seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What is contrasted: mean token, FFN, linear layer."""
        heads = {"s1": self.s1_projection, "s2": self.s2_projection}
        return {s: heads[s](self.network.encoder(s).represent(x, seen.get(s))) for s, x in tokens.items()}

    def error(
        self, batch: Mapping[str, Any], images: Mapping[str, Tensor], masks: Mapping[str, PatchMask], joint: Tensor
    ) -> Float[Tensor, " batch"]:
        """Each sample's error of reconstruction, both sensors added."""
        patch = self.patch_size
        predicted = self.decoder(joint, masks["s1"], *patch_grid(images["s1"], patch))
        targets = {s: patchify(images[s], patch) for s in OPTICAL_FIRST}
        whole = all(bool(batch[f"{s}_valid"].all()) for s in OPTICAL_FIRST)
        pixels = None
        if not whole:
            pixels = {
                s: patchify(batch[f"{s}_valid"].unsqueeze(1).expand_as(images[s]).float(), patch) > 0.5
                for s in OPTICAL_FIRST
            }
        return sum(reconstruction_errors(predicted, targets, masks, pixels, self.config.target).values())

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The contrast, and the reconstruction of every sample."""
        terms = {}
        if self.config.contrast:
            views = {s: embeddings[s] for s in ("s1", "s2")}
            terms |= contrast_terms(self.contrast, "contrast", views, batch)
        if self.config.reconstruction:
            terms["reconstruction"] = embeddings["error"]
        return terms

    def tokens(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Unmasked tokens of the sensors that the batch has, and with both the `joint` ones."""
        return self.network.encode(self.images(batch), None, self.valid(batch, self.patch_size))

    def encode(self, batch: Mapping[str, Any], modality: str | None = None) -> dict[str, Tensor]:
        """Of the unmasked chips: projections at unit length, by which radar and optical find each other; without a
        contrast the representations."""
        images, valid = self.images(batch), self.valid(batch, self.patch_size)
        if modality is not None:
            if modality not in images:
                raise InputError(f"there is no {modality} here; this batch has {', '.join(images)}")
            images = {modality: images[modality]}
        tokens = self.network.encode(images, None, valid, joint=False)
        if self.config.contrast:
            found = self.projected(tokens, valid)
        else:
            found = {s: self.network.encoder(s).represent(x, valid.get(s)) for s, x in tokens.items()}
        return {s: nn.functional.normalize(z, dim=-1) for s, z in found.items()}

    def features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Representations for probes and heads: of each sensor the mean token through its FFN, of both (`joint`) the
        mean joint token, as published."""
        valid, tokens = self.valid(batch, self.patch_size), self.tokens(batch)
        found = {s: self.network.encoder(s).represent(tokens[s], valid.get(s)) for s in tokens if s != "joint"}
        return found | ({"joint": mean_tokens(tokens["joint"], valid.get("s1"))} if "joint" in tokens else {})
