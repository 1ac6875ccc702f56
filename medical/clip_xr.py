"""clip-xr: radiographs and reports in one space, the baseline of the systems that read radiographs.

The objective is that of clip-ct without its sentence term: with n_i rows of the batch that have the report of row i,

    l_i = log sum_j exp(s v_i.t_j) - 1/n_i sum_{j: report j = report i} s v_i.t_j,

and the loss is the mean of both directions (Radford et al., "Learning Transferable Visual Models From Natural Language
Supervision", ICML 2021). Networks and sizes are ours, no paper's.

Where its terms stand:

    InfoNCE, soft targets  common/losses/infonce.py: InfoNCE
    soft targets           medical/clip_ct.py: ReportSystem
    picture tower          medical/clip_xr.py: PictureEncoder
    text tower             medical/models.py: ReportEncoder
    recipe                 medical/radiograph_data.py: to_picture
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from counterpoint.common.losses import InfoNCE, LogitScale
from counterpoint.common.losses.choice import Chosen
from counterpoint.common.trainers import Assets, Datasets
from counterpoint.common.trainers.contrast import contrast_of, contrast_terms
from counterpoint.common.trainers.inputs import Input
from counterpoint.medical.clip_ct import REPORT, SENTENCE_OF, ReportSystem, report_codes
from counterpoint.medical.models import ReportEncoder
from counterpoint.medical.radiograph_configs import ClipXRConfig
from counterpoint.medical.radiograph_data import RadiographData, RadiographReports, load_radiographs

XR = Input(
    "float32 grey values in 0..1, as the file shows them (VOI LUT or window applied, MONOCHROME1 turned over: bright "
    "lets little through), percentiles `recipe.low` and `recipe.high` to 0 and 1 where they are not 0 and 100, "
    "bilinear with a low-pass to `recipe.size` pixels along the shorter (`crop`) or longer (`pad`) side, the middle "
    "kept, 0 beyond the picture.",
    ("rows", "columns"),
)


class RadiographSystem(ReportSystem):
    """What systems over radiographs with reports share."""

    modalities: ClassVar[tuple[str, ...]] = ("xr", "report")
    inputs: ClassVar[dict[str, Input]] = {"xr": XR, "report": REPORT, "sentence_of": SENTENCE_OF}

    @classmethod
    def read(cls, config: Any, assets: Assets | None = None) -> RadiographData:
        return load_radiographs(config.data, config.train.on_error, config.train.max_bad)

    def samples_of(self, split: str, **options: Any) -> RadiographReports:
        train, data = self.config.train, self.config.data
        return RadiographReports(self.data, split, data, self.tokenizer, train.on_error, train.max_bad, **options)

    def evaluation_datasets(self) -> Datasets:
        """All radiographs, also those without a report."""
        return self.splits_of()


class PictureEncoder(nn.Module):
    """Strided residual stages; mean and maximum of the last, and its mean by regions of a 3 x 3 grid, which keeps what
    is where. Batch normalisation, as in `VolumeEncoder`."""

    def __init__(self, channels: Sequence[int], dim: int) -> None:
        super().__init__()
        stages, before = [], 1
        for width in channels:
            stages += [_stage(before, width), _Residual(width)]
            before = width
        self.stages = nn.Sequential(*stages)
        self.width = 11 * before
        self.project = nn.Sequential(nn.Linear(self.width, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))

    def pooled(self, xr: Float[Tensor, "batch rows columns"]) -> Float[Tensor, "batch features"]:
        """What the projection reads."""
        x = self.stages((xr[:, None] - 0.5) / 0.25)
        regions = F.interpolate(x, size=(3, 3), mode="area").flatten(1)
        return torch.cat([x.mean((2, 3)), x.amax((2, 3)), regions], 1)

    def forward(self, xr: Float[Tensor, "batch rows columns"]) -> Float[Tensor, "batch dim"]:
        return self.project(self.pooled(xr))


def _stage(before: int, width: int) -> nn.Sequential:
    conv = nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        conv = [nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2)]
        self.body = nn.Sequential(conv[0], nn.BatchNorm2d(width), nn.ReLU(), conv[1], nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


def shift_pictures(xr: Float[Tensor, "batch rows columns"], most: int) -> Float[Tensor, "batch rows columns"]:
    """Each picture moved by up to `most` pixels along both axes; black comes in at the other end."""
    if not most:
        return xr
    padded = F.pad(xr, [most] * 4)
    rows, columns = xr.shape[1:]
    starts = torch.randint(0, 2 * most + 1, (len(xr), 2)).tolist()
    return torch.stack([x[a : a + rows, b : b + columns] for x, (a, b) in zip(padded, starts)])


class ClipXR(RadiographSystem):
    """A 2D network and a text transformer under InfoNCE with soft targets.

    Batches hold `xr` [batch, rows, columns] in 0..1, `report` and `sentence_of` [batch, length]; training batches also
    `text`.
    """

    Config = ClipXRConfig
    presets = ClipXRConfig.presets

    def __init__(self, config: ClipXRConfig, assets: Assets | None = None) -> None:
        super().__init__(config, assets)
        self.xr = PictureEncoder(config.channels, config.dim)
        self.report = ReportEncoder(len(self.tokenizer), config.data.tokens, config.text, config.dim)
        self.loss = contrast_of(config, InfoNCE(LogitScale(config.temperature)))

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        found = {}
        if "xr" in batch:
            found["xr"] = self.xr(shift_pictures(batch["xr"], self.config.shift if self.training else 0))
        if "report" in batch:
            found["report"] = self.report(batch["report"], batch["sentence_of"])
        return found

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        views = {name: embeddings[name] for name in self.modalities}
        chosen = isinstance(self.loss, Chosen)
        known = {"group": report_codes(batch, self.device)} if chosen else {"targets": self.soft_targets(batch)}
        return contrast_terms(self.loss, "info_nce", views, batch, **known)

    def features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Pictures before the projection, reports after it."""
        found = {}
        if "xr" in batch:
            found["xr"] = self.xr.pooled(batch["xr"])
        if "report" in batch:
            found["report"] = self.report(batch["report"], batch["sentence_of"])
        return found
