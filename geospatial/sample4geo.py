r"""Sample4Geo: two views of a place find one another, against its neighbours and its look-alikes.

Deuser, Habel, Oswald, "Sample4Geo: Hard Negative Sampling For Cross-View Geo-Localisation", ICCV 2023; official code
Skyy93/Sample4Geo 498c651.

One encoder with shared weights reads both views; with f its features at unit length, s = exp(logit scale), learnt from
1 / 0.07 and not bounded, and e = 0.1,

    L = 1/2 [CE_e(s f_1 f_2^T, i) + CE_e(s f_2 f_1^T, i)]
    CE_e: cross-entropy to the target (1 - e) [j = i] + e / B

Batches are of neighbours: an anchor, its 32 nearest, and 32 of the ranks up to 128. Nearest is on the ground at first,
and from epoch 4 on, every 4 epochs, by the cosine between a sample's first view and all others' second ones.

Departures: the paper's views are a panorama and an aerial picture, both in three colours; ours are radar and optical
chips (`views` sensors), or one sensor at two times. A sensor has a stem of its own, since their bands differ; all that
follows is shared (`shared` false: nothing is). The official encoder starts from ImageNet weights, ours from random
ones. Of one ground at several times in a batch, the others are no negatives of each; where every ground stands in a
batch once, as in the official data, the loss is the official one. Places without data do not count in the mean. The
official clipping of every gradient's value at 100 is left out.

Where its terms stand:

    L                       common/losses/infonce.py: InfoNCE
    batches                 common/data/neighbour_batches.py: NeighbourBatchSampler, nearest_places
    look-alikes             common/trainers/neighbour_batches.py: NeighbourBatches.alike
    encoder                 geospatial/models/convnext.py: ConvNeXt
    two times               geospatial/times.py: TimePairs
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from counterpoint.common.data.dataset import group_codes
from counterpoint.common.errors import InputError
from counterpoint.common.losses import InfoNCE
from counterpoint.common.losses.scale import LogitScale
from counterpoint.common.trainers import Assets, Datasets
from counterpoint.common.trainers.contrast import contrast_of, contrast_terms
from counterpoint.geospatial.base import RasterSystem, valid_patches
from counterpoint.geospatial.cross_view_configs import Sample4GeoConfig
from counterpoint.geospatial.models.convnext import ConvNeXt
from counterpoint.geospatial.times import TIMES, TimePairs


class Sample4Geo(RasterSystem):
    """Contrast of two views of a place in batches of neighbours (see the module's text).

    >>> Sample4Geo.Config().train.plugins
    {'neighbour_batches': {'similar_every': 4, 'similar_start': 4}}
    """

    Config = Sample4GeoConfig
    modalities = ("s1", "s2")
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {
            "data": {"size": 32, "scenes": 160, "scene_size": 96},
            "encoder": {"depths": [1, 1, 2], "widths": [32, 64, 128], "patch_size": 2},
            "train": {
                "batch_size": 64,
                "max_epochs": 20,
                "plugins": {
                    "neighbour_batches": {
                        "near": 8, "far": 8, "ranks": 32, "similar_every": 4, "similar_start": 4,
                    }
                },
            },
        }
    }  # fmt: skip

    def __init__(self, config: Sample4GeoConfig, assets: Assets) -> None:
        super().__init__(config, assets)
        sensors, sizes = tuple(self.form.bands), config.encoder
        if config.views == "sensors" and len(sensors) < 2:
            raise InputError("sample4geo pairs two sensors (--data.sensors s1,s2), or two times of one (--views times)")
        if config.views == "times":
            if len(sensors) > 1:
                raise InputError("--views times pairs two times of one sensor (--data.sensors s1, or s2)")
            self.modalities = TIMES
        parts = [sensors] if config.shared or len(sensors) == 1 else [(s,) for s in sensors]
        self.encoders = nn.ModuleList(
            ConvNeXt({s: self.channels(s) for s in part}, sizes.depths, sizes.widths, sizes.patch_size)
            for part in parts
        )
        scale = LogitScale(config.temperature, max_scale=math.inf, min_scale=0.0)
        self.contrast = contrast_of(config, InfoNCE(scale, label_smoothing=config.label_smoothing))

    def datasets(self) -> Datasets:
        """Chips of both sensors, or of one at two times."""
        found = super().datasets()
        if self.config.views == "sensors":
            return found
        parts = {s: getattr(found, s) for s in ("train", "val", "test")}
        return Datasets(**{s: None if part is None else TimePairs(part, s == "train") for s, part in parts.items()})

    def evaluation_datasets(self) -> Datasets:
        """As trained on; of two times the first and the last."""
        found = super().evaluation_datasets()
        if self.config.views == "times":
            return Datasets(TimePairs(found.train.whole, train=False), found.val, found.test)
        return found

    @property
    def patch_size(self) -> int:
        """Pixels of the side of a place of the last map."""
        return self.encoders[0].stride

    def sensor_of(self, view: str) -> str:
        """The sensor of a view."""
        return next(iter(self.form.bands)) if view in TIMES else view

    def encoder(self, view: str) -> ConvNeXt:
        """The encoder of a view."""
        return next(e for e in self.encoders if self.sensor_of(view) in e.stems)

    def maps(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The last map of every view that the batch has; of chips of one time under the sensor's name."""
        views = [v for v in (*TIMES, *self.form.bands) if v in batch]
        return {view: self.encoder(view)(batch[view], self.sensor_of(view)) for view in views}

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The mean over each view's map, normalised over its channels."""
        found = {}
        for view, x in self.maps(batch).items():
            seen = valid_patches(batch[f"{view}_valid"], self.patch_size)
            found[view] = self.encoder(view).represent(x, seen)
        return found

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return contrast_terms(self.contrast, "contrast", embeddings, batch, group=self.grounds(batch))

    def grounds(self, batch: Mapping[str, Any]) -> Int[Tensor, " batch"]:
        """Equal numbers for chips of one place's grid at the same rows and columns, whatever their time."""
        device = next(self.parameters()).device
        numbers = (batch[name].tolist() for name in ("lat", "lon", "row", "col") if name in batch)
        names = list(map(str, zip(batch["group"], *numbers)))
        return group_codes(names).to(device)

    def dense_features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The maps, [batch, rows, columns, width]."""
        return {view: x.movedim(1, -1) for view, x in self.maps(batch).items()}

    def encode(self, batch: Mapping[str, Any], modality: str | None = None) -> dict[str, Tensor]:
        """The embeddings at unit length."""
        found = {view: normalize(z, dim=-1) for view, z in self.embed(batch).items()}
        if modality is not None and modality not in found:
            raise InputError(f"there is no {modality} here; this batch has {', '.join(found)}")
        return found if modality is None else {modality: found[modality]}
