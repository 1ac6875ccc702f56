r"""M3AE: radiographs and reports, each restored from what is left of it and from the other.

Chen et al., "Multi-Modal Masked Autoencoders for Medical Vision-and-Language Pre-Training", MICCAI 2022. As released
(zhjohnchan/M3AE at 14da377), with equal weights,

    L = L_mlm + L_mim + L_itm.

- L_mlm: of 15 % of a report's pieces, by whole words (80 % [MASK], 10 % another piece, 10 % as they are), the
  cross-entropy of the piece, from the last states of the text stream; the picture is whole.
- L_mim: 75 % of the patches are taken away; mean squared error over these of each patch, brought to mean 0 and variance
  1 (x - mean) / sqrt(var + 1e-6), var with n - 1; restored from the picture stream BEFORE block `mim_layer` of the
  fusion; the report is whole.
- L_itm: half of the batch (rounded down) keeps its picture, the others get another one; cross-entropy of belonging or
  not, from tanh(W x) of both streams' first states. The released code has no hard negatives: any picture of the data.

Where we differ: the other picture is one of another patient with another report (there any, also the own one). States
of the whole text and the whole picture are computed once a step and shared by the terms (there each computes its own,
which differs by the draws of dropout alone). CLIP's and RoBERTa's weights, from which the released run starts, are not
loaded: all weights are drawn. With RoBERTa's vocabulary the released masking by "whole words" falls back to pieces.

M3AE has no contrast: `encode` gives the first states of each tower, at unit length, which nothing draws together across
modalities. What tells picture and report apart is the head of L_itm (`matches`); `evaluate` does not score
it yet.

Where its terms stand:

    L_mlm          medical/m3ae.py: M3AE, whole_words
    L_mim          medical/m3ae.py: M3AE, masked_patch_loss
    L_itm          medical/m3ae.py: M3AE
    networks       medical/m3ae_network.py: PatchTower, WordTower, CoAttention, PatchRestorer, PiecePredictor
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from counterpoint.common.errors import InputError
from counterpoint.common.trainers import Assets
from counterpoint.medical.clip_xr import RadiographSystem
from counterpoint.medical.m3ae_network import (
    CoAttention,
    PatchRestorer,
    PatchTower,
    PiecePredictor,
    WordTower,
    init_bert,
    split_patches,
)
from counterpoint.medical.radiograph_configs import M3AEConfig
from counterpoint.medical.radiograph_data import RadiographReports, load_picture
from counterpoint.medical.reports import plain_words
from counterpoint.medical.tokens import MASK, PAD, SPECIAL

MEAN, SPREAD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the three channels that CLIP's picture tower reads."""


class PicturePairs(RadiographReports):
    """Radiographs with a report, and to each the picture of another patient with another report (`other`)."""

    def __getitem__(self, position: int) -> dict[str, Any]:
        sample = super().__getitem__(position)
        others = np.flatnonzero((self._patients != self._patients[position]) & (self._texts != self._texts[position]))
        if not len(others):
            raise InputError(f"split {self.split}: no other patient with another report than {self.ids[position]}")
        chosen = int(others[int(torch.randint(len(others), ()))])
        return {**sample, "other": load_picture(self.data.volumes[self.rows[chosen]])}

    @cached_property
    def _patients(self) -> np.ndarray:
        return np.unique(np.array(self.groups), return_inverse=True)[1]

    @cached_property
    def _texts(self) -> np.ndarray:
        """Rows whose first reports say the same have one number."""
        texts = [plain_words(self.data.reports[row][0]) for row in self.rows]
        return np.unique(np.array(texts), return_inverse=True)[1]


class M3AE(RadiographSystem):
    """Two towers, co-attention, and three heads.

    Batches hold `xr` [batch, rows, columns] in 0..1 and `report` [batch, length]; training batches also `other`.
    """

    Config = M3AEConfig
    presets = M3AEConfig.presets

    def __init__(self, config: M3AEConfig, assets: Assets | None = None) -> None:
        super().__init__(config, assets)
        if config.train.micro_batch_size is not None:
            raise InputError(
                "--train.micro_batch_size: m3ae restores parts of pictures and reports, which cached gradients do not "
                "keep; leave it out"
            )
        size, words, width = config.data.recipe.size, len(self.tokenizer), config.width
        text, heads, drop = config.text, config.heads, config.dropout
        self.xr = PatchTower(size, config.patch, config.picture_width, config.picture_layers, config.picture_heads)
        self.report = WordTower(words, config.data.tokens, text.width, text.layers, text.heads, text.dropout)
        fused = {
            "report": nn.Linear(text.width, width), "xr": nn.Linear(config.picture_width, width),
            "kinds": nn.Embedding(2, width), "report_pooler": nn.Linear(width, width),
            "xr_pooler": nn.Linear(width, width),
        }  # fmt: skip
        for name in ("report_layers", "xr_layers"):
            fused[name] = nn.ModuleList(CoAttention(width, heads, drop) for _ in range(config.fusion_layers))
        self.fusion = nn.ModuleDict(fused)
        self.predict = PiecePredictor(width, words)
        self.match = nn.Linear(2 * width, 2)
        self.restore = PatchRestorer(
            width, size // config.patch, config.patch, config.decoder_width, config.decoder_layers, config.decoder_heads
        )
        for part in (self.report, self.fusion, self.predict, self.match):
            part.apply(init_bert)
        for part in (self.restore.embed, self.restore.out):
            part.apply(init_bert)
        self.register_buffer("starts", self.tokenizer.word_starts(), persistent=False)
        for name, values in (("mean", MEAN), ("spread", SPREAD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def samples_of(self, split: str, told: bool = False, **options: Any) -> RadiographReports:
        train, data = self.config.train, self.config.data
        kind = PicturePairs if told else RadiographReports
        return kind(self.data, split, data, self.tokenizer, train.on_error, train.max_bad, told=told, **options)

    # The networks ----------------------------------------------------------------------------------------------------

    def pictures(self, xr: Float[Tensor, "batch rows columns"]) -> Float[Tensor, "batch 3 rows columns"]:
        """Grey values as CLIP's three channels."""
        return (xr[:, None] - self.mean) / self.spread

    def see(self, xr: Float[Tensor, "batch rows columns"]) -> Float[Tensor, "batch places width"]:
        """States of whole pictures, as the fusion reads them."""
        return self.enter("xr", self.xr(self.xr.patches(self.pictures(xr))))

    def read_words(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length width"]:
        """States of texts, as the fusion reads them."""
        return self.enter("report", self.report(tokens))

    def enter(self, modality: str, states: Tensor) -> Tensor:
        """Into the fusion's width, with a learnt vector of the modality added."""
        return self.fusion[modality](states) + self.fusion["kinds"].weight[int(modality == "xr")]

    def fuse(
        self, words: Tensor, places: Tensor, kept: Bool[Tensor, "batch length"], until: int = -1
    ) -> tuple[Tensor, Tensor]:
        """(text stream, picture stream) before block `until`, or after the last."""
        x, y = words, places
        for number, (text, picture) in enumerate(zip(self.fusion["report_layers"], self.fusion["xr_layers"])):
            if number == until:
                break
            x, y = text(x, y, kept, None), picture(y, x, None, kept)
        return x, y

    def matches(self, words: Tensor, places: Tensor, kept: Bool[Tensor, "batch length"]) -> Float[Tensor, "batch 2"]:
        """Logits of not belonging together, and of belonging together."""
        x, y = self.fuse(words, places, kept)
        pooled = [self.fusion["report_pooler"](x[:, 0]).tanh(), self.fusion["xr_pooler"](y[:, 0]).tanh()]
        return self.match(torch.cat(pooled, 1))

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        found = {}
        if "xr" in batch:
            self._places = self.see(batch["xr"])
            found["xr"] = self._places[:, 0]
        if "report" in batch:
            self._words = self.read_words(batch["report"])
            found["report"] = self._words[:, 0]
        return found

    # The terms -------------------------------------------------------------------------------------------------------

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weights, tokens = self.config.weights, batch["report"]
        terms: dict[str, Tensor] = {}
        if weights.mlm:
            shown, asked = whole_words(tokens, self.starts, len(self.tokenizer), self.config.mlm_ratio)
            terms["mlm"] = weights.mlm * self.mlm_loss(shown, asked, tokens, self._places)
        if weights.mim:
            noise = torch.rand(len(tokens), (self.config.data.recipe.size // self.config.patch) ** 2).to(tokens.device)
            terms["mim"] = weights.mim * self.mim_loss(batch["xr"], noise, self._words, tokens != PAD)
        if weights.itm:
            belong = torch.arange(len(tokens)) < len(tokens) // 2
            belong = belong[torch.randperm(len(tokens))].to(tokens.device)
            terms["itm"] = weights.itm * self.itm_loss(belong, batch["other"], self._words, self._places, tokens != PAD)
        return terms

    def mlm_loss(
        self,
        shown: Int[Tensor, "batch length"],
        asked: Bool[Tensor, "batch length"],
        tokens: Int[Tensor, "batch length"],
        places: Tensor,
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy of the pieces asked for; 0 where none is (a batch without a word)."""
        states = self.fuse(self.read_words(shown), places, tokens != PAD)[0]
        if not asked.any():
            return states.sum() * 0.0
        logits = self.predict(states[asked])
        return F.cross_entropy(logits, tokens[asked])

    def mim_loss(
        self, xr: Tensor, noise: Float[Tensor, "batch patches"], words: Tensor, kept: Bool[Tensor, "batch length"]
    ) -> Float[Tensor, ""]:
        """The patches of least noise are kept, the others restored."""
        pictures, patch = self.pictures(xr), self.config.patch
        order = noise.argsort(1)
        restore, count = order.argsort(1), int(noise.shape[1] * (1 - self.config.mim_ratio))
        every = self.xr.patches(pictures)
        part = every.gather(1, order[:, :count, None].expand(-1, -1, every.shape[2]))
        states = self.fuse(words, self.enter("xr", self.xr(part)), kept, self.config.mim_layer)[1]
        made = self.restore(states, restore)
        target = split_patches(pictures, patch)
        return masked_patch_loss(made, target, restore >= count, self.config.normalize_patches)

    def itm_loss(
        self,
        belong: Bool[Tensor, " batch"],
        other: Float[Tensor, "batch rows columns"],
        words: Tensor,
        places: Tensor,
        kept: Bool[Tensor, "batch length"],
    ) -> Float[Tensor, ""]:
        """Cross-entropy of belonging together; where it is false the picture is `other`."""
        shown = places.clone()
        shown[~belong] = self.see(other[~belong]).to(shown.dtype)
        return F.cross_entropy(self.matches(words, shown, kept), belong.long())


def masked_patch_loss(
    made: Float[Tensor, "batch patches values"],
    target: Float[Tensor, "batch patches values"],
    asked: Bool[Tensor, "batch patches"],
    normalize: bool = True,
) -> Float[Tensor, ""]:
    """Mean squared error over the patches asked for, each brought to mean 0 and variance 1.

    >>> masked_patch_loss(torch.zeros(1, 2, 2), torch.tensor([[[1.0, 1.0], [2.0, 4.0]]]), torch.tensor([[False, True]]),
    ...                   normalize=False)
    tensor(10.)
    """
    if normalize:
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    return ((made - target) ** 2).mean(-1)[asked].mean()


def whole_words(
    tokens: Int[Tensor, "batch length"], starts: Bool[Tensor, " vocabulary"], vocabulary: int, ratio: float = 0.15
) -> tuple[Int[Tensor, "batch length"], Bool[Tensor, "batch length"]]:
    """(tokens with some replaced, which are to be predicted): words are drawn until `ratio` of a text's pieces, or
    one, are; a word that would go beyond is passed over. Of the pieces 80 % become [MASK], 10 % any piece.

    Drawn on the CPU, so that a run is the same on every device.
    """
    asked = torch.zeros(tokens.shape, dtype=torch.bool)
    for row, pieces in enumerate(tokens.cpu()):
        there = (pieces >= len(SPECIAL)).nonzero()[:, 0].tolist()
        words: list[list[int]] = []
        for place in there:
            if words and not bool(starts[pieces[place]]) and words[-1][-1] == place - 1:
                words[-1].append(place)
            else:
                words.append([place])
        most, taken = max(1, round(ratio * len(there))), 0
        for i in torch.randperm(len(words)).tolist():
            if taken + len(words[i]) <= most:
                asked[row, words[i]] = True
                taken += len(words[i])
    how = torch.rand(tokens.shape)
    other = torch.randint(len(SPECIAL), max(vocabulary, len(SPECIAL) + 1), tokens.shape).to(tokens.device)
    asked, masked, changed = (m.to(tokens.device) for m in (asked, asked & (how < 0.8), asked & (how >= 0.9)))
    return torch.where(changed, other, torch.where(masked, MASK, tokens)), asked
