"""The baselines that a method for two sensors has to beat: one sensor reconstructed, and two contrasted alone.

`OpticalMAE` is CROMA's optical encoder and decoder without radar and without a contrast (He et al., "Masked
Autoencoders Are Scalable Vision Learners", CVPR 2022, with 2D-ALiBi in the encoder); `SensorTowers` is CROMA's two
encoders contrasted on unmasked chips, without reconstruction (Radford et al., CLIP, 2021). Pixels without an encoder
stand beside every system in the protocol of land cover (`geospatial/protocols.py`).

Where its terms stand:

    contrast of two towers  common/losses/infonce.py: InfoNCE
    reconstruction          geospatial/croma_loss.py: reconstruction_errors, Decoder
    masks                   geospatial/models/masking.py: random_mask
    encoders                geospatial/models/croma.py: SensorEncoder, CromaNetwork
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.functional import normalize

from counterpoint.common.errors import InputError
from counterpoint.common.losses import InfoNCE
from counterpoint.common.losses.scale import LogitScale
from counterpoint.common.trainers import Assets
from counterpoint.common.trainers.contrast import contrast_of, contrast_terms
from counterpoint.geospatial.configs import OpticalMAEConfig, SensorTowersConfig
from counterpoint.geospatial.croma import SMALL, TwoSensors
from counterpoint.geospatial.croma_loss import Decoder, reconstruction_errors
from counterpoint.geospatial.models.croma import SensorEncoder, patch_grid
from counterpoint.geospatial.models.masking import patchify, random_mask


class OpticalMAE(TwoSensors):
    """Reconstruction of the hidden patches of one sensor (see the module's text).

    >>> OpticalMAE.modalities
    ('s2',)
    """

    Config = OpticalMAEConfig
    modalities = ("s2",)
    presets: ClassVar[dict[str, dict[str, Any]]] = {"small": {**SMALL, "decoder": {"dim": 64, "heads": 4}}}

    def __init__(self, config: OpticalMAEConfig, assets: Assets) -> None:
        super().__init__(config, assets)
        if tuple(self.form.bands) != ("s2",):
            raise InputError("optical-mae takes the optical sensor alone (--data.sensors s2)")
        size, light = config.encoder, config.decoder
        self.encoder = SensorEncoder(self.channels("s2"), size.dim, size.depth, size.heads, size.patch_size)
        self.encoder.gap = nn.Identity()  # the reconstruction would train no FFN behind the mean
        values = self.channels("s2") * size.patch_size**2
        self.decoder = Decoder(size.dim, light.dim, light.depth, light.heads, values)

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The representation of the masked chip, and its error of reconstruction."""
        images, patch = batch["s2"], self.patch_size
        valid = self.valid(batch, patch)["s2"]
        mask = random_mask(batch["s2_noise"], self.config.mask_ratio, valid)
        tokens = self.encoder(images, mask, valid)
        predicted = self.decoder(tokens, mask, *patch_grid(images, patch))
        pixels = None
        if not bool(batch["s2_valid"].all()):
            pixels = {"s2": patchify(batch["s2_valid"].unsqueeze(1).expand_as(images).float(), patch) > 0.5}
        error = reconstruction_errors(predicted, {"s2": patchify(images, patch)}, {"s2": mask}, pixels)["s2"]
        return {"s2": self.encoder.represent(tokens, valid.gather(1, mask.keep)), "error": error}

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"reconstruction": embeddings["error"]}

    def tokens(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        return {"s2": self.encoder(batch["s2"], None, self.valid(batch, self.patch_size)["s2"])}

    def features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The mean token."""
        return {"s2": self.encoder.represent(self.tokens(batch)["s2"], self.valid(batch, self.patch_size)["s2"])}

    def encode(self, batch: Mapping[str, Any], modality: str | None = None) -> dict[str, Tensor]:
        if modality not in (None, "s2"):
            raise InputError(f"modality {modality!r} is unknown; this system has s2")
        return {"s2": normalize(self.features(batch)["s2"], dim=-1)}


class SensorTowers(TwoSensors):
    """Contrast of two encoders on whole chips (see the module's text).

    >>> SensorTowers.Config().objective
    ''
    """

    Config = SensorTowersConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {"small": SMALL}

    def __init__(self, config: SensorTowersConfig, assets: Assets) -> None:
        super().__init__(config, assets)
        if len(self.form.bands) < 2:
            raise InputError("two-tower takes both sensors (--data.sensors s1,s2)")
        size = config.encoder
        for sensor, depth in (("s1", max(size.depth // 2, 1)), ("s2", size.depth)):
            encoder = SensorEncoder(self.channels(sensor), size.dim, depth, size.heads, size.patch_size)
            setattr(self, f"{sensor}_encoder", encoder)
            setattr(self, f"{sensor}_projection", nn.Linear(size.dim, size.dim))
        scale = LogitScale(config.temperature, max_scale=math.inf, min_scale=0.0)
        self.contrast = contrast_of(config, InfoNCE(scale))

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Projections of both sensors."""
        return {s: getattr(self, f"{s}_projection")(z) for s, z in self.features(batch).items()}

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return contrast_terms(self.contrast, "contrast", embeddings, batch)

    def tokens(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        valid = self.valid(batch, self.patch_size)
        return {s: getattr(self, f"{s}_encoder")(x, None, valid[s]) for s, x in self.images(batch).items()}

    def features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """What stands before the projections."""
        valid = self.valid(batch, self.patch_size)
        return {s: getattr(self, f"{s}_encoder").represent(x, valid[s]) for s, x in self.tokens(batch).items()}
