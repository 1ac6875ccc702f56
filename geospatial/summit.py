r"""SUMMIT: segmenters of one sensor each, adapted as a pair to a new region, without labels and without the old places.

Simons, Raychaudhuri, Ahmed, You, Karydis, Roy-Chowdhury, "SUMMIT: Source-Free Adaptation of Uni-Modal Models to
Multi-Modal Targets", ICCV 2023; official code csimo005/SUMMIT e6fa287.

First, on labelled places, each sensor's segmenter learns alone:

    L = sum over sensors of CE(z_m, y)

Then (`source` names that run) both see the new places. Of the segmenters as they came, p_m are the probabilities:

    sure        p_m's class c where p_m >= min(median of the pixels of c, 0.9), else none
    agreement   the class that both sure segmenters give
    entropy     the sure class of (w_1 p_1 + w_2 p_2) / (w_1 + w_2),  w_m = exp(-H(p_m))
    test        of pixels without a label on which both disagree: the guess that alone is not rejected by
                N(f_m; own) <= k N(f_m; the other's), with Gaussians of the features of each labelled class

    L = CE(z_m, label) + 0.1 KL(softmax(z_other), detached || softmax(z'_m))     summed over both sensors

with z' a second head, at first equal to the first. The medians and the Gaussians are counted over the whole split in
passes without gradient.

Departures: the published segmenters are a U-net on pictures and a sparse one on points; ours are `MapToMap` on chips.
The official code tests the second sensor's guess against itself, puts 1 in the place of vanishing probabilities when it
adds them, and multiplies variances; here none of the three. It tests for agreement also pixels on which both agree
without being sure, which changes no label. It chooses between agreement and entropy by an estimate of the distance
between regions that it does not publish; here `fusion` says which. Pseudo-labels are those of the chip as it is turned,
by the segmenters as they came, which the official code writes to disk once.

Where its terms stand:

    pseudo-labels           geospatial/pseudo_labels.py: certain, agreed_labels, entropy_weighted, rejected, tested
    medians, Gaussians      geospatial/pseudo_labels.py: class_medians, class_moments
    L                       geospatial/summit.py: Summit.supervised, Summit.adapted
    figures                 geospatial/adaptation.py: adaptation_protocols
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from counterpoint.common.data import Manifest
from counterpoint.common.data.samplers import BatchSampler, SequentialSampler
from counterpoint.common.errors import InputError
from counterpoint.common.losses.sharing import Shared
from counterpoint.common.trainers import Assets, load_run
from counterpoint.common.trainers.stages import Stage
from counterpoint.geospatial.adaptation_configs import SummitConfig
from counterpoint.geospatial.base import RasterSystem, bands_asked, with_splits
from counterpoint.geospatial.data.chips import Chips
from counterpoint.geospatial.models.safeuav import MapToMap
from counterpoint.geospatial.protocols import class_codes, numbered
from counterpoint.geospatial.pseudo_labels import (
    BINS,
    IGNORE,
    agreed_labels,
    certain,
    class_medians,
    class_moments,
    class_sums,
    confidence_counts,
    entropy_weighted,
    rejected,
    tested,
)

SENSORS = ("s1", "s2")


class Segmenter(nn.Module):
    """A sensor's bands to features of every pixel, and two heads on them."""

    def __init__(self, bands: int, filters: int, classes: int) -> None:
        super().__init__()
        self.body, self.head = MapToMap(bands, filters), nn.Conv2d(filters, classes, 1)
        self.second = nn.Conv2d(filters, classes, 1)

    def forward(self, x: Float[Tensor, "batch bands rows cols"]) -> tuple[Tensor, Tensor, Tensor]:
        """(features, logits, logits of the second head)."""
        found = self.body(x)
        return found, self.head(found), self.second(found)


class Summit(RasterSystem):
    """Two segmenters, trained alone or adapted together (see the module's text).

    >>> Summit.Config().fusion
    'agreement'
    """

    Config = SummitConfig
    modalities = SENSORS
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {
            "data": {"size": 32, "scenes": 160, "scene_size": 96}, "filters": 8,
            "train": {"batch_size": 32, "max_epochs": 15},
        }
    }  # fmt: skip

    def __init__(self, config: SummitConfig, assets: Assets) -> None:
        super().__init__(config, assets)
        if len(self.form.bands) < 2:
            raise InputError("summit takes both sensors (--data.sensors s1,s2)")
        count = len(self.classes)
        sizes = {s: (self.channels(s), config.filters, count) for s in SENSORS}
        self.segmenters = nn.ModuleDict({s: Segmenter(*sizes[s]) for s in SENSORS})
        self.batch = Shared()
        if config.source:
            self.came = copy.deepcopy(self.segmenters).requires_grad_(False)
            self.register_buffer("counts", torch.zeros(3, count, BINS, dtype=torch.int64))
            self.register_buffer("sums", torch.zeros(2, 3, count, config.filters, dtype=torch.float64))
            weights = {"pseudo": config.pseudo, "cross": config.cross}
        else:
            for segmenter in self.segmenters.values():
                segmenter.second.requires_grad_(False)
            weights = {"segmentation": 1.0}
        self.loss_weights = {k: w for k, w in weights.items() if w}
        if not self.loss_weights:
            raise InputError("--pseudo and --cross are both 0: nothing is left to learn from")

    @classmethod
    def learn(cls, config: SummitConfig, data: Manifest) -> Assets:
        """The form of the chips and the codes of land cover: the training split's, or those of `source`."""
        if config.source:
            return cls.first(config).assets
        assets = super().learn(config, data)
        cut = cls.cut(config, bands_asked(config.data))
        chips = Chips(with_splits(data).select(split="train"), cut, None, config.train.on_error, config.train.max_bad)
        codes = class_codes(chips) if chips.has_landcover else []
        if len(codes) < 2:
            raise InputError(
                f"{config.data.manifest or 'the scenes'}: the training places show {len(codes)} classes of land cover; "
                "segmenters are trained on maps of two or more (--landcover), and adapted (--source RUN) without any"
            )
        return assets.replace(codes=codes)

    @classmethod
    def first(cls, config: SummitConfig) -> Summit:
        """The system that `source` names."""
        found = load_run(config.source, config.checkpoint)
        if not isinstance(found, cls):
            raise InputError(f"{config.source}: a run of {type(found).__name__}, not of summit")
        if found.config.filters != config.filters:
            raise InputError(f"--filters is {config.filters}, and the segmenters of {config.source} have "
                             f"{found.config.filters}")  # fmt: skip
        return found

    def initialize(self) -> None:
        """Take the segmenters of `source`; the second head starts as the first."""
        if self.config.source:
            weights = self.first(self.config).segmenters.state_dict()
            heads = {k.replace(".head.", ".second."): v for k, v in weights.items() if ".head." in k}
            for part in (self.segmenters, self.came):
                part.load_state_dict(weights | heads)

    @property
    def classes(self) -> list[int]:
        """Codes of the land cover, in the order of the logits."""
        return list(self.assets["codes"])

    @property
    def patch_size(self) -> int:
        """Features are those of pixels."""
        return 1

    def stages(self) -> tuple[Stage, ...]:
        """Supervised; or medians, Gaussians, and the adaptation."""
        if not self.config.source:
            return (Stage("segment"),)
        medians = Stage("medians", gradient_free=True, max_epochs=1)
        gaussians = (Stage("gaussians", gradient_free=True, max_epochs=1),) if self.config.test else ()
        return (medians, *gaussians, Stage("adapt"))

    def batch_sampler(self, dataset: Any, batch_size: int, seed: int) -> BatchSampler:
        """What is counted is counted over every chip, a last batch that is not full among them."""
        if self.stage.gradient_free:
            return SequentialSampler(len(dataset), batch_size, least=batch_size)
        return super().batch_sampler(dataset, batch_size, seed)

    def train(self, mode: bool = True) -> Summit:
        super().train(mode)
        if self.config.source:
            self.came.eval()
        return self

    # Pseudo-labels ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def guessed(self, batch: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(probabilities [pixels, classes], features [pixels, filters]) of each segmenter as it came."""
        probabilities, features = {}, {}
        for sensor, segmenter in self.came.items():
            found, logits, _ = segmenter(batch[sensor])
            probabilities[sensor] = logits.softmax(1).movedim(1, -1).flatten(0, 2)
            features[sensor] = found.movedim(1, -1).flatten(0, 2)
        return probabilities, features

    @staticmethod
    def seen(batch: Mapping[str, Any]) -> Bool[Tensor, " pixels"]:
        """Pixels that hold data of both sensors."""
        return (batch["s1_valid"] & batch["s2_valid"]).flatten()

    def confident(self, probabilities: Mapping[str, Tensor]) -> Int[Tensor, " pixels"]:
        """Pseudo-labels before the test."""
        one, two = probabilities["s1"], probabilities["s2"]
        medians = [class_medians(c) for c in self.counts]
        if self.config.fusion == "entropy":
            return certain(entropy_weighted(one, two), medians[2])
        return agreed_labels(certain(one, medians[0]), certain(two, medians[1]))

    def pseudo_labels(self, batch: Mapping[str, Any]) -> Int[Tensor, " pixels"]:
        """The pseudo-label of every pixel, `IGNORE` where there is none."""
        probabilities, features = self.guessed(batch)
        label = self.confident(probabilities)
        if self.config.test:
            one, two = (probabilities[s].argmax(1) for s in SENSORS)
            moments = [class_moments(s) for s in self.sums]
            rejections = (
                rejected(features["s1"], one, two, moments[0], self.config.ratio),
                rejected(features["s2"], two, one, moments[1], self.config.ratio),
            )
            label = tested(label, (one, two), rejections)
        return torch.where(self.seen(batch), label, IGNORE)

    @torch.no_grad()
    def observe(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Counts of confidence, then sums of the features of every class."""
        probabilities, features = self.guessed(batch)
        seen = self.seen(batch)
        one, two = (probabilities[s][seen] for s in SENSORS)
        if self.stage.name == "medians":
            mine = torch.stack([confidence_counts(p) for p in (one, two, entropy_weighted(one, two))])
            self.counts += self.gather_rows(mine[None]).sum(0).to(self.counts)
            return {"agreement": (one.argmax(1) == two.argmax(1)).double().mean()}
        label = self.confident({"s1": one, "s2": two})
        mine = torch.stack([class_sums(features[s][seen], label, len(self.classes)) for s in SENSORS])
        self.sums += self.gather_rows(mine[None]).sum(0).to(self.sums)
        return {"labelled": (label >= 0).double().mean()}

    # Losses -----------------------------------------------------------------------------------------------------------

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Mean features of both sensors, and the logits of every pixel by either head."""
        found = {}
        for sensor, segmenter in self.segmenters.items():
            features, logits, second = segmenter(batch[sensor])
            found |= {sensor: features.mean((2, 3)), f"{sensor}_logits": logits, f"{sensor}_second": second}
        return found

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = self.adapted(batch, embeddings) if self.config.source else self.supervised(batch, embeddings)
        return {name: found[name] for name in self.loss_weights}

    def supervised(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """CE of each sensor over the pixels that it sees and whose class is known."""
        target = self.targets(batch)
        terms = [
            self.over_pixels(embeddings[f"{s}_logits"], torch.where(batch[f"{s}_valid"].flatten(), target, IGNORE))
            for s in SENSORS
        ]
        return {"segmentation": sum(terms)}

    def adapted(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """CE to the pseudo-labels, and the divergence of second heads from the other sensor's first ones."""
        label, seen = self.pseudo_labels(batch), self.seen(batch)
        number = self.batch.summed(seen.sum()).clamp_min(1)
        pseudo, cross = 0.0, 0.0
        for sensor, other in zip(SENSORS, SENSORS[::-1]):
            pseudo = pseudo + self.over_pixels(embeddings[f"{sensor}_logits"], label)
            wanted = embeddings[f"{other}_logits"].detach().log_softmax(1)
            mine = embeddings[f"{sensor}_second"].log_softmax(1)
            apart = (wanted.exp() * (wanted - mine)).sum(1).flatten()
            cross = cross + (apart * seen).sum() * self.batch.world / number
        return {"pseudo": pseudo, "cross": cross}

    def over_pixels(
        self, logits: Float[Tensor, "batch classes rows cols"], target: Int[Tensor, " pixels"]
    ) -> Float[Tensor, ""]:
        """Cross-entropy, mean over the labelled pixels of the whole batch; 0 without any."""
        number = self.batch.summed((target >= 0).sum()).clamp_min(1)
        each = cross_entropy(logits.movedim(1, -1).flatten(0, 2), target, reduction="sum", ignore_index=IGNORE)
        return each * self.batch.world / number

    def targets(self, batch: Mapping[str, Any]) -> Int[Tensor, " pixels"]:
        """The class number of every pixel, `IGNORE` where it is unknown."""
        if "landcover" not in batch:
            raise InputError("these places have no map of land cover; segmenters are trained on maps of it")
        found = numbered(batch["landcover"].cpu(), self.classes).to(batch["s1"].device).flatten()
        return torch.where(found >= 0, found, IGNORE)

    # In use -----------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def predict(self, batch: Mapping[str, Any], adapted: bool = True) -> dict[str, Float[Tensor, "batch classes _ _"]]:
        """Probabilities of every pixel's class by each sensor that the batch has, and by their mean (`joint`); of the
        segmenters as they came where not `adapted`."""
        parts = self.segmenters if adapted else self.came
        found = {s: parts[s](batch[s])[1].softmax(1) for s in SENSORS if s in batch}
        return found | ({"joint": sum(found.values()) / 2} if len(found) > 1 else {})

    def dense_features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """What stands before the heads, a vector a pixel."""
        return {s: self.segmenters[s].body(batch[s]).movedim(1, -1) for s in SENSORS if s in batch}

    def features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The mean of the pixels' features."""
        return {s: x.mean((1, 2)) for s, x in self.dense_features(batch).items()}

    def encode(self, batch: Mapping[str, Any], modality: str | None = None) -> dict[str, Tensor]:
        """The features at unit length; nothing taught them to find one another."""
        found = {s: normalize(z, dim=-1) for s, z in self.features(batch).items()}
        if modality is not None and modality not in found:
            raise InputError(f"there is no {modality} here; this batch has {', '.join(found)}")
        return found if modality is None else {modality: found[modality]}
