"""VELVET-Med: volumes and reports compared whole, by regions and sentences, and by patches and words, beside masked
modelling of both.

Zhang et al., "VELVET-Med: Vision and Efficient Language Pre-training for Volumetric Imaging Tasks in Medicine", arXiv
2508.12108. Only the abstract is public to us: single-modality self-supervision inside the vision-language objective, a
language encoder "TriBERT" of several levels, and hierarchical contrast. Everything below it is OUR READING, no fact of
the paper: levels, masks, temperatures, weights, networks.

    L = w_mim L_mim + w_mlm L_mlm + a_r L_rep + a_s L_sent + a_w L_word,

- L_mim: blocks of the volume (a share `mask_ratio`) are covered by a learnt value; the patch map predicts the windows'
  values, mean absolute error over covered voxels alone (SimMIM, Xie et al., CVPR 2022);
- L_mlm: 15 % of the words, of which 80 % become [MASK], 10 % another word, 10 % stay; cross-entropy (Devlin et al.,
  2019);
- L_rep: symmetric InfoNCE of volume and report, equal reports as soft targets;
- L_sent, L_word: symmetric cross-entropy over local scores (`local_contrast`) of sentences at regions (learnt queries),
  and of words that mean something at patches.

Every term is switched off by its weight 0; with only `report` left the system is report-level InfoNCE over the same
networks.

Where its terms stand:

    L_mim, L_mlm           medical/velvet_med.py: masked_volume_loss, masked_words
    L_rep                  common/losses/infonce.py: InfoNCE
    L_sent, L_word         medical/local_contrast.py: local_scores, score_contrast
    TriBERT                medical/tribert.py: TriBERT
    image networks         medical/taps.py: ConvTaps, SwinTaps
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from counterpoint.common.errors import InputError
from counterpoint.common.losses import InfoNCE, LogitScale
from counterpoint.common.losses.choice import Chosen
from counterpoint.common.models import Projector
from counterpoint.common.trainers import Assets
from counterpoint.common.trainers.contrast import contrast_of, contrast_terms
from counterpoint.medical.clip_ct import ReportSystem, jitter, report_codes
from counterpoint.medical.configs import VelvetMedConfig
from counterpoint.medical.local_contrast import local_scores, score_contrast
from counterpoint.medical.taps import taps_of
from counterpoint.medical.tokens import MASK, SPECIAL, content_pieces
from counterpoint.medical.tribert import Levels, TriBERT


class VelvetMed(ReportSystem):
    """Taps of a 3D network at three levels against TriBERT's words, sentences and report.

    Batches hold `ct` [batch, x, y, z] in HU, `report` and `sentence_of` [batch, length]; training batches also `text`.
    """

    Config = VelvetMedConfig
    presets = VelvetMedConfig.presets

    def __init__(self, config: VelvetMedConfig, assets: Assets | None = None) -> None:
        super().__init__(config, assets)
        if config.train.micro_batch_size is not None:
            raise InputError(
                "--train.micro_batch_size: velvet-med compares parts of volumes and reports, which cached gradients do "
                "not keep; leave it out"
            )
        tokenizer, d = self.tokenizer, config.dim
        self.ct = taps_of(config)
        self.report = TriBERT(len(tokenizer), config.data.tokens, config.data.sentences, config.text)
        widths = {"volume": self.ct.volume_width, "region": self.ct.region_width, "patch": self.ct.patch_width}
        widths |= dict.fromkeys(("report", "sentence", "word"), config.text.width)
        self.heads = nn.ModuleDict({k: Projector(w, 2 * d, d, norm="none") for k, w in widths.items()})
        self.loss = contrast_of(config, InfoNCE(LogitScale(config.temperature)))
        self.local_scale = LogitScale(config.temperature)
        self.cover = nn.Parameter(torch.zeros(len(config.windows)))
        self.restore = nn.Conv3d(self.ct.patch_width, len(config.windows) * self.ct.stride**3, 1)
        self.word_bias = nn.Parameter(torch.zeros(len(tokenizer)))
        self.register_buffer("content", content_pieces(tokenizer), persistent=False)

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        found = {}
        if "ct" in batch:
            ct = jitter(batch["ct"].float(), self.config.shift if self.training else 0, self.config.data.recipe.outside)
            self._seen = self.ct(self.ct.windows(ct))
            self._covered = ct
            found["ct"] = self.heads["volume"](self._seen.volume)
        if "report" in batch:
            self._words, self._read = batch["report"], self.report(batch["report"], batch["sentence_of"])
            found["report"] = self.heads["report"](self._read.report)
        return found

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weights = self.config.weights
        codes = report_codes(batch, self.device)
        views = {name: embeddings[name] for name in self.modalities}
        terms: dict[str, Tensor] = {}
        if weights.report:
            known = {"group": codes} if isinstance(self.loss, Chosen) else {"targets": self.soft_targets(batch)}
            found = contrast_terms(self.loss, "report", views, batch, **known)
            terms |= {name: weights.report * term for name, term in found.items()}
        same = (codes[:, None] == codes[None]).float()
        target = same / same.sum(1, keepdim=True)
        for name, weight in (("sentence", weights.sentence), ("word", weights.word)):
            if weight:
                scores = self._local(name, self._read)
                terms[name] = weight * score_contrast(scores, self.local_scale(), target)
        if weights.mim:
            terms["mim"] = weights.mim * self._masked_volumes(self._covered)
        if weights.mlm:
            terms["mlm"] = weights.mlm * self._masked_words(batch["report"], batch["sentence_of"])
        return terms

    def _local(self, level: str, read: Levels) -> Float[Tensor, "volumes reports"]:
        config, seen = self.config, self._seen
        if level == "sentence":
            parts, mask, places, head = read.sentences, read.sentence_mask, seen.region, "region"
        else:
            parts, places, head = read.words, seen.patch, "patch"
            mask = read.word_mask & self.content[self._tokens(read)]
        text = "sentence" if level == "sentence" else "word"
        return local_scores(
            self.heads[text](parts), mask, self.heads[head](places), config.local_temperature, config.part_temperature
        )

    def _tokens(self, read: Levels) -> Int[Tensor, "batch length"]:
        return self._words[:, : read.words.shape[1]]

    def _masked_volumes(self, ct: Float[Tensor, "batch x y z"]) -> Float[Tensor, " batch"]:
        shown = self.ct.windows(ct)
        covered = block_mask(ct.shape, self.config.mask_block, self.config.mask_ratio, ct.device)
        cover = self.cover.to(shown).view(1, -1, 1, 1, 1)
        seen = self.ct(torch.where(covered[:, None], cover, shown))
        return masked_volume_loss(self.restore(seen.patch_map), shown, covered, self.ct.stride)

    def _masked_words(
        self, tokens: Int[Tensor, "batch length"], sentence_of: Int[Tensor, "batch length"]
    ) -> Float[Tensor, ""]:
        shown, asked = masked_words(tokens, len(self.report.pieces.weight), self.config.word_ratio)
        states = self.report(shown, sentence_of).words
        asked = asked[:, : states.shape[1]]
        if not asked.any():
            return states.sum() * 0.0
        logits = states[asked] @ self.report.pieces.weight.T + self.word_bias
        return F.cross_entropy(logits.float(), tokens[:, : states.shape[1]][asked])

    def features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Before the projections: the volume tap and the report's state."""
        found = {}
        if "ct" in batch:
            found["ct"] = self.ct(self.ct.windows(batch["ct"].float())).volume
        if "report" in batch:
            found["report"] = self.report(batch["report"], batch["sentence_of"]).report
        return found

    @torch.no_grad()
    def similarity_map(self, ct: Float[Tensor, "1 x y z"], texts: Mapping[str, Tensor]) -> Float[Tensor, "texts i j k"]:
        """The mean over a text's words of their cosine with every patch, in the space of the term of words."""
        seen = self.ct(self.ct.windows(ct)).patch_map
        patch = F.normalize(self.heads["patch"](seen.flatten(2).transpose(1, 2)), dim=-1)[0]
        read = self.report(texts["report"], texts["sentence_of"])
        words = F.normalize(self.heads["word"](read.words), dim=-1)
        mask = read.word_mask & self.content[texts["report"][:, : words.shape[1]]]
        mask = torch.where(mask.any(1, keepdim=True), mask, read.word_mask)
        mean = (words * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp_min(1)
        return (mean @ patch.T).view(len(mean), *seen.shape[2:])

    def dense_features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Of every voxel: the patch map, brought to the volume's own grid."""
        seen = self.ct(self.ct.windows(batch["ct"].float())).patch_map
        whole = F.interpolate(seen, size=batch["ct"].shape[1:], mode="trilinear", align_corners=False)
        return {"ct": whole.permute(0, 2, 3, 4, 1)}


def block_mask(
    shape: tuple[int, ...], block: int, ratio: float, device: torch.device | str = "cpu"
) -> Bool[Tensor, "batch x y z"]:
    """A share `ratio` of the blocks of every volume, drawn without replacement; the last block of an axis may be cut.

    >>> block_mask((2, 8, 8, 8), 4, 0.5).float().mean().item()
    0.5
    """
    batch, *size = shape
    grid = [-(-n // block) for n in size]
    cells = grid[0] * grid[1] * grid[2]
    order = torch.rand(batch, cells).argsort(1)
    chosen = torch.zeros(batch, cells, dtype=torch.bool).scatter_(1, order[:, : round(ratio * cells)], True)
    mask = chosen.view(batch, *grid)
    for axis in (1, 2, 3):
        mask = mask.repeat_interleave(block, axis)
    return mask[:, : size[0], : size[1], : size[2]].to(device)


def masked_volume_loss(
    predicted: Float[Tensor, "batch out i j k"],
    shown: Float[Tensor, "batch windows x y z"],
    covered: Bool[Tensor, "batch x y z"],
    stride: int,
) -> Float[Tensor, " batch"]:
    """Mean absolute error over the covered voxels of every volume; what was to be seen does not count.

    A place of the map predicts the `stride` voxels along each axis from its own on: channels are [windows, stride,
    stride, stride].
    """
    b, w = shown.shape[:2]
    i, j, k = predicted.shape[2:]
    s = stride
    whole = predicted.view(b, w, s, s, s, i, j, k).permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(b, w, i * s, j * s, k * s)
    whole = whole[:, :, : shown.shape[2], : shown.shape[3], : shown.shape[4]]
    error = (whole.float() - shown.float()).abs() * covered[:, None]
    return error.sum((1, 2, 3, 4)) / (w * covered.sum((1, 2, 3))).clamp_min(1)


def masked_words(
    tokens: Int[Tensor, "batch length"], vocabulary: int, ratio: float = 0.15
) -> tuple[Int[Tensor, "batch length"], Bool[Tensor, "batch length"]]:
    """(tokens with some replaced, which are to be predicted): of a share `ratio` of the pieces that are no special
    ones, 80 % become [MASK], 10 % a random piece, 10 % stay."""
    asked = (torch.rand(tokens.shape) < ratio).to(tokens.device) & (tokens >= len(SPECIAL))
    how = torch.rand(tokens.shape).to(tokens.device)
    other = torch.randint(len(SPECIAL), vocabulary, tokens.shape).to(tokens.device)
    shown = torch.where(asked & (how < 0.8), MASK, tokens)
    return torch.where(asked & (how >= 0.9), other, shown), asked
