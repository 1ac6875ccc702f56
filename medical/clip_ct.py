r"""clip-ct: volumes and reports in one space, the baseline of the vertical.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021, on CT volumes.
Reports that say the same are no negatives of each other: with n_i rows of the batch that have the report of row i,

    l_i = log sum_j exp(s v_i.t_j) - 1/n_i sum_{j: report j = report i} s v_i.t_j,

and the loss is the mean of both directions. Beside it every different sentence of the batch is matched with the volumes
of whose reports it is a part (Zhai et al., SigLIP, ICCV 2023, with several positives):

    L_sent = mean_i 1/|S| sum_k softplus(-y_ik (a v_i.u_k + b)),   y_ik = 1 where report i has sentence k, else -1.

The text tower is shared by reports and sentences. Networks and the sentence term are ours, no paper's.

Where its terms stand:

    InfoNCE, soft targets  common/losses/infonce.py: InfoNCE
    learnt temperature     common/losses/scale.py: LogitScale
    sentence term          medical/clip_ct.py: sentence_loss
    towers                 medical/models.py: VolumeEncoder, ReportEncoder
    tokenizer              medical/tokens.py: learn_tokenizer
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from counterpoint.common.data.dataset import group_codes
from counterpoint.common.data.manifest import SPLITS
from counterpoint.common.kernels import Mix, SameLabel, Weighted, pair_sum, target_scores
from counterpoint.common.losses import InfoNCE, LogitScale
from counterpoint.common.losses.choice import Chosen
from counterpoint.common.trainers import Assets, ContrastiveSystem, Datasets
from counterpoint.common.trainers.contrast import contrast_of, contrast_terms
from counterpoint.common.trainers.inputs import Input
from counterpoint.medical.configs import ClipCTConfig
from counterpoint.medical.data import CTReports, load_ct
from counterpoint.medical.grounding import hires_cam
from counterpoint.medical.models import ReportEncoder, VolumeEncoder, pool_stages
from counterpoint.medical.reported import ReportedSamples
from counterpoint.medical.reports import plain_words
from counterpoint.medical.tokens import ReportTokenizer, learn_tokenizer

CT = Input(
    "float32 HU (slope and intercept applied once), axes turned to the patient's right, front and head (RAS, nearest "
    "axes), clipped to `recipe.low` and `recipe.high`, Gaussian low-pass with sigma = (spacing ratio - 1) / 2 voxels "
    "along axes that get coarser, linear interpolation to `recipe.spacing` mm, `recipe.size` voxels about the centre, "
    "`recipe.outside` beyond the volume.",
    ("x", "y", "z"),
)
REPORT = Input(
    "int64 word pieces of the asset `tokenizer.json`, of the `sections` of the report: [CLS], then the pieces of every "
    "sentence with [SEP] behind it, cut to `tokens` (then the last is [SEP]), padded with 0.",
    ("length",),
)


SENTENCE_OF = Input("int64 sentence of every word piece of `report`, from 0; -1 for padding.", ("length",))


class ReportSystem(ContrastiveSystem):
    """What systems over scans with reports share: the data, the tokenizer as an asset, and soft targets."""

    modalities: ClassVar[tuple[str, ...]] = ("ct", "report")
    inputs: ClassVar[dict[str, Input]] = {"ct": CT, "report": REPORT, "sentence_of": SENTENCE_OF}

    @classmethod
    def read(cls, config: Any, assets: Assets | None = None) -> Any:
        return load_ct(config.data, config.train.on_error, config.train.max_bad)

    @classmethod
    def learn(cls, config: Any, data: Any) -> Assets:
        """The word pieces of the training split's reports."""
        texts = [text for row in data.rows("train") for text in data.reports[row]]
        return Assets(**{"tokenizer.json": learn_tokenizer(texts, config.data.vocabulary)})

    @property
    def tokenizer(self) -> ReportTokenizer:
        return ReportTokenizer(self.assets["tokenizer.json"])

    def samples_of(self, split: str, **options: Any) -> ReportedSamples:
        """A split of the data."""
        train = self.config.train
        return CTReports(self.data, split, self.config.data, self.tokenizer, train.on_error, train.max_bad, **options)

    def splits_of(self, **options: Any) -> Datasets:
        """The splits that there are."""
        there = set(self.data.manifest.frame["split"])
        return Datasets(*(self.samples_of(s, **options) if s in there else None for s in SPLITS))

    def datasets(self) -> Datasets:
        """Scans with a report: nothing is learnt from one without."""
        return self.splits_of(told=True)

    def evaluation_datasets(self) -> Datasets:
        """All scans, with label maps for heads."""
        return self.splits_of(labelled=True)

    def encode(self, batch: Mapping[str, Any], modality: str | None = None) -> dict[str, Tensor]:
        """Normalised embeddings; of one modality the other's network does not run."""
        mine = {self.modalities[0]: self.modalities[:1], "report": ("report", "sentence_of")}
        kept = batch if modality is None else {name: batch[name] for name in mine[modality]}
        return super().encode(kept, modality)

    def soft_targets(self, batch: Mapping[str, Any]) -> Mix:
        """Rows with one report share the target of each of them, evenly; also across ranks."""
        codes = report_codes(batch, self.device)
        ones, same = torch.ones(len(codes), 1, device=codes.device), SameLabel(codes, codes)
        _, counts = self.loss.target(ones, ones, same)  # counted where the loss contrasts: in the batch, or over ranks
        return Mix(((1.0 / counts, same),))


def report_codes(batch: Mapping[str, Any], device: torch.device) -> Tensor:
    """[batch] integers, equal for reports that say the same."""
    return group_codes([plain_words(text) for text in batch["text"]]).to(device)


def jitter(ct: Float[Tensor, "batch x y z"], most: int, outside: float) -> Float[Tensor, "batch x y z"]:
    """Each volume moved by up to `most` voxels along every axis; `outside` comes in at the other end."""
    if not most:
        return ct
    padded = nn.functional.pad(ct, [most] * 6, value=outside)
    starts = torch.randint(0, 2 * most + 1, (len(ct), 3)).tolist()
    x, y, z = ct.shape[1:]
    return torch.stack([v[a : a + x, b : b + y, c : c + z] for v, (a, b, c) in zip(padded, starts)])


class ClipCT(ReportSystem):
    """A 3D network and a text transformer under InfoNCE with soft targets and a sentence-wise term.

    Batches hold `ct` [batch, x, y, z] in HU, `report` and `sentence_of` [batch, length]; training batches also
    `text` and `sentences`.
    """

    Config = ClipCTConfig
    presets = ClipCTConfig.presets

    def __init__(self, config: ClipCTConfig, assets: Assets | None = None) -> None:
        super().__init__(config, assets)
        self.ct = VolumeEncoder(config.windows, config.channels, config.dim)
        length = max(config.data.tokens, config.data.sentence_tokens)
        self.report = ReportEncoder(len(self.tokenizer), length, config.text, config.dim)
        self.loss = contrast_of(config, InfoNCE(LogitScale(config.temperature)))
        self.sentence_scale = LogitScale(0.1)
        self.sentence_bias = nn.Parameter(torch.tensor(-2.0))

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        found = {}
        if "ct" in batch:
            ct = jitter(batch["ct"].float(), self.config.shift if self.training else 0, self.config.data.recipe.outside)
            found["ct"] = self.ct(ct)
        if "report" in batch:
            found["report"] = self.report(batch["report"], batch["sentence_of"])
        return found

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        views = {name: embeddings[name] for name in self.modalities}
        if isinstance(self.loss, Chosen):
            terms = contrast_terms(self.loss, "info_nce", views, batch, group=report_codes(batch, self.device))
        else:
            terms = contrast_terms(self.loss, "info_nce", views, batch, targets=self.soft_targets(batch))
        if self.config.sentence_weight and len(batch["sentences"].tokens):
            sentences = self.report(batch["sentences"].tokens)
            scale, bias = self.sentence_scale(), self.sentence_bias
            term = sentence_loss(embeddings["ct"], sentences, batch["sentences"].said, scale, bias)
            terms["sentences"] = self.config.sentence_weight * term
        return terms

    def features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Volumes before the projection, reports after it."""
        found = {}
        if "ct" in batch:
            found["ct"] = self.ct.pooled(batch["ct"].float())
        if "report" in batch:
            found["report"] = self.report(batch["report"], batch["sentence_of"])
        return found

    def similarity_map(self, ct: Float[Tensor, "1 x y z"], texts: Mapping[str, Tensor]) -> Float[Tensor, "texts i j k"]:
        """The share of every place in the similarity of the volume with each text (HiResCAM of both stages)."""
        stages = self.ct.maps(ct)
        volume = normalize(self.ct.project(pool_stages(*stages)), dim=-1)
        text = normalize(self.report(texts["report"], texts["sentence_of"]).detach(), dim=-1)
        return hires_cam(stages, text @ volume[0], stages[0].shape[2:])

    def dense_features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Of every voxel of the middle stage (a quarter of the resolution), brought to the volume's own grid."""
        middle, _ = self.ct.maps(batch["ct"].float())
        whole = nn.functional.interpolate(middle, size=batch["ct"].shape[1:], mode="trilinear", align_corners=False)
        return {"ct": whole.permute(0, 2, 3, 4, 1)}


def sentence_loss(
    volumes: Float[Tensor, "batch dim"],
    sentences: Float[Tensor, "sentences dim"],
    said: Bool[Tensor, "batch sentences"],
    scale: float | Tensor,
    bias: Tensor,
) -> Float[Tensor, " batch"]:
    """mean_k softplus(-y_ik (scale v_i.u_k + bias)) of every volume; of several ranks each contrasts its own sentences.

    With softplus(-x) = softplus(x) - x the pairs that belong together are a sum of their logits, taken off the engine's
    sum over all pairs.

    >>> v = torch.eye(2)
    >>> sentence_loss(v, v, torch.eye(2).bool(), 1.0, torch.tensor(0.0)).tolist()  # (softplus(-1) + softplus(0)) / 2
    [0.5032044649124146, 0.5032044649124146]
    """
    v, u = normalize(volumes.float(), dim=-1), normalize(sentences.float(), dim=-1)
    every = pair_sum(v, u, fn="softplus", scale=scale, row_bias=bias.float().expand(len(v)))
    most = max(int(said.sum(1).max()), 1)
    weight, place = said.to(v.dtype).topk(most, dim=1)
    score, mass = target_scores(v, u, Weighted(place, weight))
    return (every - scale * score - bias * mass) / said.shape[1]
