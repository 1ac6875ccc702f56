r"""MDiCo: multi-modal co-learning with labels, for use with one sensor alone.

Mena, Ienco, Dantas, Interdonato, Dengel, "Multi-modal co-learning for Earth Observation", Machine Learning 114:279,
2025 (arXiv 2510.19579; official code fmenat/MDiCo f1630aa).

Each sensor has two encoders of the same form. The `unique` one's output is cut in two halves, *specific* and *unused*;
the `common` one's goes through a layer to the *shared* part. A head a sensor predicts from [specific, shared]; one
auxiliary head serves all sensors and both parts; two classifiers tell the sensor:

    L = L_main + L_aux + L_con + L_mod                                            (weights 1)
    L_main = mean over sensors of CE(head_m[specific_m, shared_m], y)
    L_aux  = mean over sensors of 1/2 [CE(aux(specific_m), y) + CE(aux(shared_m), y)]
    L_con  = sum over ordered pairs m != n of NT-Xent(shared_m, shared_n; 0.1)
    L_mod  = mean over sensors of 1/2 [CE(D1(specific_m), m) + CE(D2(unused_m), m)]

Departures: the released code gives D2 the *shared* part, which then learns to tell the sensor, against the contrast,
and leaves the unused half without any gradient; `released_heads` does the same, the default is the text's intent. The
published encoders are of time series (TempCNN) and of aerial images (ResNet-50); ours are four convolutions of a chip.

Where its terms stand:

    L_main, L_aux, L_mod    geospatial/models/mdico.py: MDiCoHeads.terms
    L_con                   common/losses/ntxent.py: NTXent
    parts                   geospatial/mdico.py: MDiCo.parts
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from counterpoint.common.data import Manifest
from counterpoint.common.errors import InputError
from counterpoint.common.trainers import Assets
from counterpoint.geospatial.base import RasterSystem, bands_asked, with_splits
from counterpoint.geospatial.configs import MDiCoConfig
from counterpoint.geospatial.data.chips import Chips
from counterpoint.geospatial.models.mdico import PARTS, ChipEncoder, MDiCoHeads, SharedPart


class MDiCo(RasterSystem):
    """Shared and specific parts of two sensors, and a classifier for each of them alone (see the module's text).

    The classes are those of the field `label` in training: a manifest's own column, or the commonest class of a chip's
    land cover.
    """

    Config = MDiCoConfig
    modalities = ("s1", "s2")
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {
            "data": {"scenes": 160, "scene_size": 96}, "width": 16, "dim": 64,
            "train": {"max_epochs": 15, "batch_size": 64},
        }
    }  # fmt: skip

    def __init__(self, config: MDiCoConfig, assets: Assets) -> None:
        super().__init__(config, assets)
        if len(self.form.bands) < 2:
            raise InputError("mdico takes both sensors in training (--data.sensors s1,s2)")
        if config.dim % 2:
            raise InputError(f"--dim is {config.dim}; its halves are parts, so it must be even")
        sensors = tuple(self.form.bands)

        def encoders() -> nn.ModuleDict:
            sizes = (config.width, config.dim, config.dropout)
            return nn.ModuleDict({s: ChipEncoder(self.channels(s), *sizes) for s in sensors})

        self.unique, self.common = encoders(), encoders()
        self.shared = nn.ModuleDict({s: SharedPart(config.dim) for s in sensors})
        self.heads = MDiCoHeads(sensors, config.dim // 2, len(self.classes), config.temperature, config.released_heads)
        weights = {k: getattr(config, k) for k in ("main", "auxiliary", "contrast", "discriminative")}
        self.loss_weights = {k: w for k, w in weights.items() if w}
        if not self.loss_weights:
            raise InputError("main, auxiliary, contrast and discriminative are all 0: nothing is left to learn from")

    @classmethod
    def learn(cls, config: MDiCoConfig, data: Manifest) -> Assets:
        """The form of the chips, and the classes of the training split."""
        assets = super().learn(config, data)
        table = with_splits(data).select(split="train")
        chips = Chips(table, cls.cut(config, bands_asked(config.data)), None, config.train.on_error)
        if "label" not in chips.columns:
            raise InputError(
                f"{config.data.manifest or 'the scenes'}: mdico learns from labels; import maps of land cover beside "
                "the pictures (--landcover), or add a column label"
            )
        classes = sorted({str(v) for v in chips.column("label") if v is not None})
        if len(classes) < 2:
            raise InputError(f"the training chips hold {len(classes)} class(es) of label; two or more are needed")
        return assets.replace(classes=classes)

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the logits."""
        return list(self.assets["classes"])

    def parts(self, batch: Mapping[str, Any]) -> dict[str, dict[str, Float[Tensor, "batch half"]]]:
        """Shared, specific and unused part of the sensors that the batch has."""
        half, found = self.config.dim // 2, {}
        for sensor in (s for s in self.form.bands if s in batch):
            unique = self.unique[sensor](batch[sensor])
            shared = self.shared[sensor](self.common[sensor](batch[sensor]))
            found[sensor] = {"shared": shared, "specific": unique[:, :half], "unused": unique[:, half:]}
        return found

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Every part of every sensor; the shared ones, which are contrasted, under the sensors' names."""
        found = self.parts(batch)
        flat = {f"{s}_{part}": p[part] for s, p in found.items() for part in PARTS[1:]}
        return {s: p["shared"] for s, p in found.items()} | flat

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        parts = {
            s: {"shared": embeddings[s]} | {part: embeddings[f"{s}_{part}"] for part in PARTS[1:]}
            for s in self.form.bands
        }
        terms = self.heads.terms(parts, self.targets(batch))
        return {name: term for name, term in terms.items() if name in self.loss_weights}

    def targets(self, batch: Mapping[str, Any]) -> Int[Tensor, " batch"]:
        """Class numbers; -1 for a missing label and for a class that training did not know."""
        known = {name: i for i, name in enumerate(self.classes)}
        device = next(self.parameters()).device
        return torch.tensor([known.get(str(v), -1) for v in batch["label"]], device=device)

    def predict(self, batch: Mapping[str, Any]) -> dict[str, Float[Tensor, "batch classes"]]:
        """Logits by each sensor alone: what the method is for."""
        return self.heads.predict(self.parts(batch))

    def encode(self, batch: Mapping[str, Any], modality: str | None = None) -> dict[str, Tensor]:
        """The shared parts at unit length."""
        found = {s: normalize(p["shared"], dim=-1) for s, p in self.parts(batch).items()}
        if modality is not None and modality not in found:
            raise InputError(f"there is no {modality} here; this batch has {', '.join(found)}")
        return found if modality is None else {modality: found[modality]}

    def features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """[specific, shared] of each sensor, which its head reads."""
        return {s: torch.cat([p["specific"], p["shared"]], -1) for s, p in self.parts(batch).items()}
