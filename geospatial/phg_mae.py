r"""PHG-MAE: whole modalities are hidden at random, one network predicts them all, and many masks make an ensemble.

Pirvu, Leordeanu, "Probabilistic Hyper-Graphs using Multiple Randomly Masked Autoencoders for Semi-supervised
Multi-modal Multi-task Learning", 2025 (arXiv 2510.10068). The network is the one that the authors release with their
distilled models (Meehai/video-representations-extractor ddcb105), equal in numbers; their training we did not find.

Let x_m be the modalities of a chip (groups of bands: visible, infrared, radar, ...) and y its land cover. A hyper-edge
is a set S of shown modalities; one is drawn for each chip and step. The channels of all modalities and of the land
cover lie beside one another; those outside of S, and the land cover always, are 0, which is the mean:

    (x'_1, ..., x'_M, z) = f(x_m [m in S], 0)
    L = sum_m mean over valid pixels of |x'_m - x_m|^2 + CE(z, y)                      (weights 1)

There is no pretraining and no finetuning: both parts are learnt in one loop; chips without land cover have the first.
In use K sets S are drawn, and the mean of their K softmaxes is the prediction; how far they lie apart is its spread:

    p = 1/K sum_k softmax(z_k),      spread = mean over classes of the deviation over k,     disagreement = share of the
    masks whose class is not p's

Departures and readings: that every set is drawn alike, that visible light is always shown, the equal weights and the
optimiser are ours, from the abstract. The modalities are bands of sensors, where the paper's are experts' maps
of a picture. The distillation of the ensemble to a small network is not built.

Where its terms stand:

    f                       geospatial/models/safeuav.py: SafeUAV, MapToMap
    S, L                    geospatial/phg_mae.py: PHGMAE.draw, PHGMAE.losses
    p and its spread        geospatial/phg_mae.py: PHGMAE.ensemble, PHGMAE.together
    figures of masks        geospatial/mask_ensembles.py: mask_ensembles
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from counterpoint.common.data import Manifest
from counterpoint.common.errors import InputError
from counterpoint.common.trainers import Assets
from counterpoint.geospatial.base import RasterSystem, bands_asked, with_splits
from counterpoint.geospatial.data.chips import Chips
from counterpoint.geospatial.hyper_graph_configs import MODALITIES, PHGMAEConfig
from counterpoint.geospatial.models.safeuav import SafeUAV
from counterpoint.geospatial.protocols import class_codes, numbered


class MaskedPrediction(NamedTuple):
    """What K masks say of the land cover: mean probabilities, their spread, and the share of masks that disagree."""

    probabilities: Float[Tensor, "batch classes rows cols"]
    spread: Float[Tensor, "batch rows cols"]
    disagreement: Float[Tensor, "batch rows cols"]


class PHGMAE(RasterSystem):
    """One network for every set of shown modalities (see the module's text).

    >>> PHGMAE.Config().always
    ('visible',)
    """

    Config = PHGMAEConfig
    modalities = ("s1", "s2")
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {
            "data": {"size": 32, "scenes": 160, "scene_size": 96}, "filters": 8,
            "train": {"batch_size": 32, "max_epochs": 20},
        }
    }  # fmt: skip

    def __init__(self, config: PHGMAEConfig, assets: Assets) -> None:
        super().__init__(config, assets)
        self.groups = modality_groups(self.form.bands)
        names = list(self.groups)
        wanted = [name for name in config.always if name != "none"]
        if missing := [name for name in wanted if name not in names]:
            raise InputError(f"--always names {missing[0]}, of which no band is read; there are {', '.join(names)}")
        self.register_buffer("fixed", torch.tensor([name in wanted for name in names]), persistent=False)
        owner = [names.index(modality_of(band)) for bands in self.form.bands.values() for band in bands]
        self.register_buffer("owner", torch.tensor(owner), persistent=False)
        channels = len(owner) + len(self.classes)
        self.network = SafeUAV(channels, channels, config.filters)
        weights = {"reconstruction": config.reconstruction, "task": config.task if self.classes else 0.0}
        self.loss_weights = {k: w for k, w in weights.items() if w}
        if not self.loss_weights:
            raise InputError(
                "--reconstruction is 0 and there is no map of land cover: nothing is left to learn from (import maps "
                "with --landcover)"
            )

    @classmethod
    def learn(cls, config: PHGMAEConfig, data: Manifest) -> Assets:
        """The form of the chips, and the codes of the training split's land cover."""
        assets = super().learn(config, data)
        table = with_splits(data).select(split="train")
        chips = Chips(
            table, cls.cut(config, bands_asked(config.data)), None, config.train.on_error, config.train.max_bad
        )
        return assets.replace(codes=class_codes(chips) if chips.has_landcover and config.task else [])

    @property
    def classes(self) -> list[int]:
        """Codes of the land cover, in the order of the logits."""
        return list(self.assets["codes"])

    @property
    def patch_size(self) -> int:
        """Features are those of pixels."""
        return 1

    def draw(self, sample: Mapping[str, Any], train: bool) -> dict[str, Any]:
        """How a chip is turned, and which modalities are shown."""
        return {**super().draw(sample, train), "shown": self.drawn(1)[0]}

    def drawn(self, count: int, generator: torch.Generator | None = None) -> Bool[Tensor, "count modalities"]:
        """Sets of shown modalities; where none is shown, one is drawn."""
        fixed = self.fixed.cpu()
        chance = torch.rand(count, len(fixed), generator=generator)
        spare = torch.randint(len(fixed), (count,), generator=generator)
        shown = fixed | (chance < self.config.shown)
        shown[torch.arange(count), spare] |= ~shown.any(1)
        return shown

    # The network ------------------------------------------------------------------------------------------------------

    def stacked(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """(bands, which of their pixels are data, which modalities are there) of a batch; absent sensors are 0."""
        images, valid, there = [], [], []
        like = next(batch[s] for s in self.form.bands if s in batch)
        for sensor, bands in self.form.bands.items():
            x = batch.get(sensor)
            if x is None:
                x = like.new_zeros(len(like), len(bands), *like.shape[-2:])
            seen = batch.get(f"{sensor}_valid")
            seen = torch.zeros_like(x[:, 0], dtype=torch.bool) if seen is None else seen
            images.append(x)
            valid.append(seen[:, None].expand_as(x))
            there += [sensor in batch] * len(bands)
        present = [bool(there[self.owner.tolist().index(m)]) for m in range(len(self.groups))]
        return torch.cat(images, 1), torch.cat(valid, 1), torch.tensor(present, device=like.device)

    def predicted(
        self, images: Float[Tensor, "batch bands rows cols"], shown: Bool[Tensor, "batch modalities"]
    ) -> tuple[Tensor, Tensor]:
        """(all bands, logits of the land cover) from the modalities shown."""
        return self.split(self.network(self.masked(images, shown)))

    def split(self, found: Float[Tensor, "batch channels rows cols"]) -> tuple[Tensor, Tensor]:
        """The bands, and the logits of the land cover behind them."""
        return found[:, : len(self.owner)], found[:, len(self.owner) :]

    def masked(self, images: Tensor, shown: Bool[Tensor, "batch modalities"]) -> Tensor:
        """The network's input: hidden bands 0, and so the places of the land cover."""
        kept = images * shown[:, self.owner, None, None]
        empty = images.new_zeros(len(images), len(self.classes), *images.shape[-2:])
        return torch.cat([kept, empty], 1)

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The mean over the network's bottom, the error of every sample, and that of its land cover."""
        images, valid, _ = self.stacked(batch)
        found = self.network.encoder.bottom(self.masked(images, batch["shown"]))
        bands, logits = self.split(self.network.decoder(self.network.encoder.rise(*found)))
        found = {"joint": found[-1].mean((2, 3)), "reconstruction": self.errors(bands, images, valid)}
        if self.classes and "landcover" in batch:
            found["task"] = self.task_errors(logits, batch["landcover"])
        return found

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: embeddings[name] for name in self.loss_weights if name in embeddings}

    def errors(self, bands: Tensor, images: Tensor, valid: Tensor) -> Float[Tensor, " batch"]:
        """Mean squared error over the valid values of every modality, added over the modalities."""
        wrong, weight = (bands - images).square(), valid.to(images.dtype)
        total = torch.zeros(len(images), dtype=images.dtype, device=images.device)
        for m in range(len(self.groups)):
            own = self.owner == m
            total = total + (wrong * weight)[:, own].sum((1, 2, 3)) / weight[:, own].sum((1, 2, 3)).clamp_min(1)
        return total

    def task_errors(self, logits: Tensor, codes: Tensor) -> Float[Tensor, " batch"]:
        """Cross-entropy, mean over the pixels whose class is known; 0 where none is."""
        target = numbered(codes.cpu(), self.classes).to(logits.device)
        known = (target >= 0).sum((1, 2)).clamp_min(1)
        return cross_entropy(logits, target, reduction="none", ignore_index=-1).sum((1, 2)) / known

    # In use -----------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def ensemble(self, batch: Mapping[str, Any], masks: int = 0, seed: int = 0) -> MaskedPrediction:
        """The land cover by `masks` sets of the modalities that the batch has, the same ones for every chip."""
        return self.together(self.by_masks(batch, masks, seed))

    @torch.no_grad()
    def by_masks(
        self, batch: Mapping[str, Any], masks: int = 0, seed: int = 0
    ) -> Float[Tensor, "masks batch classes rows cols"]:
        """The land cover's probabilities by each set of modalities."""
        if not self.classes:
            raise InputError("this run has learnt no land cover: train it on places with maps of it (--landcover)")
        images, _, there = self.stacked(batch)
        sets = self.drawn(masks or self.config.masks, torch.Generator().manual_seed(seed)).to(images.device) & there
        sets |= there & ~sets.any(1, keepdim=True)
        return torch.stack([self.predicted(images, s.expand(len(images), -1))[1].softmax(1) for s in sets])

    @staticmethod
    def together(each: Float[Tensor, "masks batch classes rows cols"]) -> MaskedPrediction:
        """What the sets say as one."""
        mean = each.mean(0)
        apart = (each.argmax(2) != mean.argmax(1)).to(mean.dtype).mean(0)
        return MaskedPrediction(mean, each.std(0, correction=0).mean(1), apart)

    @torch.no_grad()
    def with_all(self, batch: Mapping[str, Any]) -> Float[Tensor, "batch classes rows cols"]:
        """Probabilities of the land cover in one pass, all modalities of the batch shown."""
        images, _, there = self.stacked(batch)
        return self.predicted(images, there.expand(len(images), -1))[1].softmax(1)

    def views(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The network's input by each sensor alone, and by both together (`joint`)."""
        images, _, there = self.stacked(batch)
        sensors = [s for s in self.form.bands if s in batch]
        found = {}
        for sensor in sensors:
            own = torch.tensor([MODALITIES[g][0] in SENSOR_BANDS[sensor] for g in self.groups], device=images.device)
            found[sensor] = self.masked(images, own.expand(len(images), -1))
        if len(sensors) > 1:
            found["joint"] = self.masked(images, there.expand(len(images), -1))
        return found

    def dense_features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """What stands before the last layer, a vector a pixel."""
        return {name: self.network.encoder(x).movedim(1, -1) for name, x in self.views(batch).items()}

    def features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The mean over the bottom of the network."""
        return {name: self.network.encoder.bottom(x)[-1].mean((2, 3)) for name, x in self.views(batch).items()}

    def encode(self, batch: Mapping[str, Any], modality: str | None = None) -> dict[str, Tensor]:
        """The features of each sensor at unit length; nothing taught them to find one another."""
        found = {s: normalize(z, dim=-1) for s, z in self.features(batch).items() if s != "joint"}
        if modality is not None and modality not in found:
            raise InputError(f"there is no {modality} here; this batch has {', '.join(found)}")
        return found if modality is None else {modality: found[modality]}


SENSOR_BANDS = {"s1": MODALITIES["radar"], "s2": tuple(b for n, bs in MODALITIES.items() if n != "radar" for b in bs)}


def modality_of(band: str) -> str:
    """The modality that a band belongs to.

    >>> modality_of("B08"), modality_of("VH")
    ('infrared', 'radar')
    """
    return next(name for name, bands in MODALITIES.items() if band in bands)


def modality_groups(bands: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """modality -> its bands among those that are read.

    >>> modality_groups({"s1": ("VV",), "s2": ("B04", "B12")})
    {'visible': ('B04',), 'shortwave': ('B12',), 'radar': ('VV',)}
    """
    every = [band for names in bands.values() for band in names]
    found = {name: tuple(b for b in every if b in group) for name, group in MODALITIES.items()}
    return {name: own for name, own in found.items() if own}
