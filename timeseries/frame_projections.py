r"""Frame projections: contrast a window with its own projections on frames, without augmentations.

"Learning Without Augmenting: Unsupervised Time Series Representation Learning via Frame Projections", NeurIPS 2025.

Three views of one window: time (the signal), Fourier (its coefficients on the orthonormal basis) and Gabor (magnitudes
on an overcomplete frame), each with its encoder and projector, e_1, e_2, e_3 of unit length:

    L = sum over the three pairs NT-Xent(e_a, e_b; T) + 1/B mean_{i, d} [ |P_f(e_1) - e_2| + |P_g(e_1) - e_3| ]

B counts the batch's rows (of all ranks that share it): as in the official code the L1 terms are means over all entries
and divided by B once more, so that at large batches the contrast alone decides. In a second stage the encoders are
frozen and two mappers learn the frozen Fourier and Gabor embeddings from the time embedding (L1, constant learning
rate). Evaluation joins [mapped Fourier, time, mapped Gabor]: only the time encoder runs.

Loss, predictors, mappers, projectors and training follow the official code (eth-siplab/Learning-with-FrameProjections
4461e91). Encoders and frame do not: residual networks of one or two dimensions where it has a 1-D ResNet of eight
blocks, a 2-D U-Net and a Fourier encoder, and a Gabor frame with known bounds where it has complex Morlet wavelets.

Where its terms stand:

    NT-Xent(e_a, e_b; T)   common/losses/ntxent.py: NTXent
    |P(e_1) - e_v|_1       timeseries/frame_projections.py: FrameProjections.losses
    mappers (L1)           timeseries/frame_projections.py: FrameProjections.losses
    Fourier projection     timeseries/frames.py: fourier
    Gabor projection       timeseries/frames.py: GaborFrame
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from counterpoint.common.kernels.unit import unit
from counterpoint.common.losses import NTXent, Shared
from counterpoint.common.trainers import Assets, Stage
from counterpoint.common.trainers.configs import ScheduleConfig
from counterpoint.common.trainers.contrast import contrast_of, contrast_terms
from counterpoint.timeseries.backbones import WindowEncoder, named_encoder, window_vectors
from counterpoint.timeseries.base import SignalSystem
from counterpoint.timeseries.configs import FrameProjectionsConfig
from counterpoint.timeseries.encoders import StepEncoder
from counterpoint.timeseries.frames import GaborFrame, fourier


class Residual(nn.Module):
    """x + conv(relu(norm(conv(relu(norm(x)))))), halving the length (or both sides) when `stride` is 2."""

    def __init__(self, inputs: int, outputs: int, stride: int, two_dimensional: bool = False):
        super().__init__()
        conv = nn.Conv2d if two_dimensional else nn.Conv1d
        size = 3 if two_dimensional else 7
        self.body = nn.Sequential(
            nn.GroupNorm(min(8, inputs), inputs), nn.ReLU(), conv(inputs, outputs, size, stride, size // 2),
            nn.GroupNorm(min(8, outputs), outputs), nn.ReLU(), conv(outputs, outputs, size, 1, size // 2),
        )  # fmt: skip
        self.shortcut = conv(inputs, outputs, 1, stride) if stride != 1 or inputs != outputs else nn.Identity()

    def forward(self, x: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch outputs *smaller"]:
        return self.body(x) + self.shortcut(x)


class FrameEncoder(nn.Module):
    """Four residual stages and a mean over space: of [batch, channels, length] or [batch, channels, atoms, time]."""

    def __init__(self, channels: int, width: int, two_dimensional: bool = False):
        super().__init__()
        conv = nn.Conv2d if two_dimensional else nn.Conv1d
        widths = [width, width, 2 * width, 2 * width]
        stages = [conv(channels, width, 3, 2 if two_dimensional else 1, 1)]
        for before, after in zip([width, *widths[:-1]], widths):
            stages.append(Residual(before, after, 2, two_dimensional))
        self.body = nn.Sequential(*stages)
        self.dim = widths[-1]

    def forward(self, x: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch dim"]:
        return self.body(x).flatten(2).mean(2)


class LatentMapping(nn.Module):
    """An embedding to one of the same width: convolution along its entries at stride 2, ReLU, and its transpose."""

    def __init__(self, hidden: int):
        super().__init__()
        self.down = nn.Conv1d(1, hidden, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose1d(hidden, 1, 3, stride=2, padding=1, output_padding=1)

    def forward(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        return self.up(self.down(z[:, None]).relu())[:, 0, : z.shape[1]]


class _Named(nn.Module):
    """An encoder of another name in the place of the residual one: [batch, channels, time] -> [batch, dim]."""

    def __init__(self, encoder: StepEncoder | WindowEncoder):
        super().__init__()
        self.encoder, self.dim = encoder, encoder.dim

    def forward(self, x: Float[Tensor, "batch channels time"]) -> Float[Tensor, "batch dim"]:
        return window_vectors(self.encoder, x.transpose(1, 2))


def _time_encoder(config: FrameProjectionsConfig, channels: int, assets: Assets) -> nn.Module:
    """The residual network, or an encoder by name that is as wide, as the mappers and the L1 terms need it."""
    if config.encoder is None:
        return FrameEncoder(channels, config.width)
    return _Named(named_encoder(replace(config.encoder, dim=2 * config.width), channels, assets))


def _two_layers(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, inputs), nn.ReLU(), nn.Linear(inputs, outputs))


VIEWS = ("time", "fourier", "gabor")


class FrameProjections(SignalSystem):
    """Three-view contrast and the mapper stage (see the module's text)."""

    Config = FrameProjectionsConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {
            "width": 16,
            "dim": 64,
            "frequencies": 16,
            "train": {"batch_size": 64, "max_epochs": 15},
            "mapper_epochs": 10,
            "mapper_channels": 16,
            "data": {"patients": 20},
        }
    }

    def __init__(self, config: FrameProjectionsConfig, assets: Assets) -> None:
        super().__init__(config, assets)
        channels, width, dim = self.channels, config.width, config.dim
        self.gabor = GaborFrame(config.frequencies, config.cycles)
        self.encoders = nn.ModuleDict(
            {
                "time": _time_encoder(config, channels, assets),
                "fourier": FrameEncoder(2 * channels, width),
                "gabor": FrameEncoder(channels, width, two_dimensional=True),
            }
        )
        self.projectors = nn.ModuleDict({v: _two_layers(self.encoders[v].dim, dim) for v in VIEWS})
        self.predictors = nn.ModuleDict({v: LatentMapping(64) for v in VIEWS[1:]})
        self.mappers = nn.ModuleDict({v: LatentMapping(config.mapper_channels) for v in VIEWS[1:]})
        self.objective = contrast_of(config, NTXent(config.temperature))
        consistency = config.consistency
        self.loss_weights = {f"predict_{v}": consistency for v in VIEWS[1:]}

    def stages(self) -> Sequence[Stage]:
        """Align the views, then learn the mappers with everything else frozen."""
        own = ("objective",) if any(True for _ in self.objective.parameters()) else ()
        contrast = Stage("frames", trains=("encoders", "projectors", "predictors", *own))
        if not self.config.mapper_epochs:
            return (contrast,)
        constant = replace(self.config.optim, schedule=ScheduleConfig(kind="constant", warmup=0))
        return contrast, Stage("mappers", trains=("mappers",), optim=constant, max_epochs=self.config.mapper_epochs)

    def views(self, x: Float[Tensor, "batch time channels"]) -> dict[str, Tensor]:
        """The three views, channels first; gaps count as 0."""
        x = x.nan_to_num()
        return {
            "time": x.transpose(1, 2),
            "fourier": fourier(x).permute(0, 1, 3, 2).flatten(1, 2),
            # Magnitudes span decades; their logarithm does not let the strongest band drown the others.
            "gabor": torch.log1p(self.gabor(x)).permute(0, 3, 1, 2),
        }

    def hidden(self, x: Float[Tensor, "batch time channels"]) -> dict[str, Tensor]:
        """Encoder outputs of the three views."""
        return {name: self.encoders[name](view) for name, view in self.views(x).items()}

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Unit projections of the three views; in the mapper stage the encoders' outputs and the mapped ones."""
        if self.stage.name == "mappers":
            with torch.no_grad():
                hidden = self.hidden(batch["x"])
            mapped = {f"mapped_{v}": self.mappers[v](hidden["time"]) for v in VIEWS[1:]}
            return {**{v: hidden[v] for v in VIEWS[1:]}, **mapped}
        hidden = self.hidden(batch["x"])
        return {v: unit(self.projectors[v](hidden[v]), dim=-1) for v in VIEWS}

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.stage.name == "mappers":
            return {f"map_{v}": (embeddings[f"mapped_{v}"] - embeddings[v]).abs().mean(1) for v in VIEWS[1:]}
        if self.config.objective:
            terms = contrast_terms(self.objective, "", {v: embeddings[v] for v in VIEWS}, batch)
        else:
            terms = {
                f"{a}_{b}": self.objective.row_losses(embeddings[a], embeddings[b])
                for a, b in (("time", "fourier"), ("time", "gabor"), ("fourier", "gabor"))
            }
        time = embeddings["time"]
        rows = max(Shared().count(time), 1)
        for view in VIEWS[1:]:
            terms[f"predict_{view}"] = (self.predictors[view](time) - embeddings[view]).abs().mean(1) / rows
        return terms

    def represent(self, x: Float[Tensor, "batch time channels"]) -> Float[Tensor, "batch dim"]:
        """[mapped Fourier, time, mapped Gabor]: the time encoder and two small mappers."""
        time = self.encoders["time"](x.nan_to_num().transpose(1, 2))
        if not self.config.mapper_epochs:
            return time
        return torch.cat([self.mappers["fourier"](time), time, self.mappers["gabor"](time)], 1)
