"""GEMINI: voxels of two patients that correspond have alike features, and a deformation that is learnt says which do.

He et al., "Homeomorphism Prior for False Positive and Negative Problem in Medical Image Dense Contrastive
Representation Learning", IEEE TPAMI 2025; official code YutingHe-list/GEMINI. Of two volumes A and B under one random
affine map:

    f_A, f_B     features of every voxel (UNet);      flow = deformer(f_A, f_B)
    L_gvs = 1 - mean_mask NCC(warp(A, flow), B)       geometric visual similarity, window 9^3
    L_gss = .1 cos(warp(f_A, sg(flow)), f_B) + 1 cos(warp(sg(f_A), flow), sg(f_B)),  cos = 1 - masked mean cosine
    L_smo = mean of squared differences of the flow
    L     = L_gvs + .8 L_gss + .4 L_smo, in both directions, + 100 MSE(restore(distorted A), A)

The mask is where the warped volume has data. Stopped gradients (sg) part what the features learn from what the flow
learns.

Where this departs from the official code: zero flow is the identity here (see `flow`); restoration is a term of the
same step, there a step of its own; a flow can be integrated (`integration`), so that it hardly folds. Nothing
guarantees that the published one does not: `evaluate` says which share of the places is folded.

Where its terms stand:

    L_gvs, L_smo, cosine   medical/flow.py: ncc_loss, smoothness, cosine_loss
    L_gss                  medical/gemini.py: semantic_similarity
    warp, integration      medical/flow.py: warp, integrate
    UNet, deformer         medical/unet.py: UNet
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from counterpoint.common.data.manifest import SPLITS
from counterpoint.common.data.samplers import BatchSampler, ShuffleSampler
from counterpoint.common.errors import InputError
from counterpoint.common.trainers import Assets, ContrastiveSystem, Datasets
from counterpoint.common.trainers.inputs import Input
from counterpoint.medical.configs import GeminiConfig
from counterpoint.medical.data import CTData, load_ct
from counterpoint.medical.flow import cosine_loss, integrate, ncc_loss, smoothness, warp
from counterpoint.medical.scenes import Scenes
from counterpoint.medical.unet import UNet

VOLUME = Input(
    "float32 values of a volume in the recipe's form (RAS, `recipe.spacing`, `recipe.size`), clipped to `recipe.low` "
    "and `recipe.high`, then (value - lowest) / (highest - lowest) of the volume itself.",
    ("x", "y", "z"),
)


class Gemini(ContrastiveSystem):
    """A UNet whose voxels correspond across patients. Batches hold `volume` [batch, x, y, z] in 0..1; the first half
    of a batch are deformed to the second, and back."""

    Config = GeminiConfig
    presets = GeminiConfig.presets
    modalities: ClassVar[tuple[str, ...]] = ("volume",)
    inputs: ClassVar[dict[str, Input]] = {"volume": VOLUME}

    def __init__(self, config: GeminiConfig, assets: Assets | None = None) -> None:
        super().__init__(config, assets)
        if config.train.batch_size % 2 or config.train.micro_batch_size is not None:
            raise InputError(
                "gemini deforms volumes to one another in pairs: --train.batch_size must be even, and "
                "--train.micro_batch_size left out"
            )
        self.unet = UNet(1, config.channels)
        width = config.channels[0]
        self.deformer = UNet(2 * width, config.deformer)
        self.flow = nn.Conv3d(config.deformer[0], 3, 3, padding=1)
        nn.init.normal_(self.flow.weight, std=1e-5)
        nn.init.zeros_(self.flow.bias)
        self.restore = nn.Sequential(
            nn.Conv3d(width, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.LeakyReLU(0.2), nn.Conv3d(16, 1, 1)
        )

    @classmethod
    def read(cls, config: GeminiConfig, assets: Assets | None = None) -> CTData:
        return load_ct(config.data, config.train.on_error, config.train.max_bad)

    def datasets(self, labelled: bool = False) -> Datasets:
        there, config = set(self.data.manifest.frame["split"]), self.config.data
        return Datasets(*(Scenes(self.data, s, config, labelled) if s in there else None for s in SPLITS))

    def evaluation_datasets(self) -> Datasets:
        """With label maps, for heads."""
        return self.datasets(labelled=True)

    def batch_sampler(self, dataset: Any, batch_size: int, seed: int) -> BatchSampler:
        return ShuffleSampler(len(dataset), batch_size, seed)

    def deform(
        self, fa: Float[Tensor, "batch channels x y z"], fb: Float[Tensor, "batch channels x y z"]
    ) -> Float[Tensor, "batch 3 x y z"]:
        """The flow by which A is warped to B, in voxels."""
        return integrate(self.flow(self.deformer(torch.cat([fa, fb], 1))), self.config.integration)

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The mean of the voxels' features (the losses compare voxels, not these)."""
        return {"volume": self.unet(batch["volume"][:, None].float()).mean((2, 3, 4))}

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        x, config = batch["volume"][:, None].float(), self.config
        x = x if len(x) > 1 else torch.cat([x, x])  # a last batch of one
        half = len(x) // 2
        a, b = x[:half], x[half : 2 * half]
        if self.training:
            both = random_affine(torch.cat([a, b], 1), config.degrees, config.scale)
            a, b = both[:, :1], both[:, 1:]
        fa, fb = self.unet(a), self.unet(b)
        terms = {name: x.new_zeros(()) for name in ("gvs", "gss", "smo")}
        for source, target, fs, ft in ((a, b, fa, fb), (b, a, fb, fa)):
            flow = self.deform(fs, ft)
            mask = warp(torch.ones_like(source), flow, "nearest").detach()
            terms["gvs"] = terms["gvs"] + ncc_loss(warp(source, flow), target, mask, config.window)
            terms["gss"] = terms["gss"] + config.gss * semantic_similarity(fs, ft, flow, mask)
            terms["smo"] = terms["smo"] + config.smo * smoothness(flow)
        if config.restore:
            restored = self.restore(self.unet(distorted(a)))
            terms["restore"] = config.restore * F.mse_loss(restored, a)
        return terms

    def features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        return self.embed(batch)

    def dense_features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Of every voxel, at full resolution."""
        return {"volume": self.unet(batch["volume"][:, None].float()).permute(0, 2, 3, 4, 1)}


def semantic_similarity(
    fa: Float[Tensor, "batch channels x y z"],
    fb: Float[Tensor, "batch channels x y z"],
    flow: Float[Tensor, "batch 3 x y z"],
    mask: Float[Tensor, "batch 1 x y z"],
) -> Float[Tensor, ""]:
    """L_gss of one direction: features are drawn together along a flow that stands still, ten times weaker than
    the flow along features that stand still."""
    features = cosine_loss(warp(fa, flow.detach()), fb, mask)
    moving = cosine_loss(warp(fa.detach(), flow), fb.detach(), mask)
    return 0.1 * features + moving


def random_affine(
    x: Float[Tensor, "batch channels x y z"], degrees: float, scale: Sequence[float]
) -> Float[Tensor, "batch channels x y z"]:
    """Every sample turned by up to `degrees` about each axis and scaled between the two factors, about its centre."""
    angles = torch.deg2rad((2 * torch.rand(len(x), 3) - 1) * degrees)
    cos, sin, one = angles.cos(), angles.sin(), torch.ones(len(x))
    zero = torch.zeros(len(x))
    turns = [
        torch.stack([one, zero, zero, zero, cos[:, 0], -sin[:, 0], zero, sin[:, 0], cos[:, 0]], 1),
        torch.stack([cos[:, 1], zero, sin[:, 1], zero, one, zero, -sin[:, 1], zero, cos[:, 1]], 1),
        torch.stack([cos[:, 2], -sin[:, 2], zero, sin[:, 2], cos[:, 2], zero, zero, zero, one], 1),
    ]
    matrix = turns[0].view(-1, 3, 3) @ turns[1].view(-1, 3, 3) @ turns[2].view(-1, 3, 3)
    factor = scale[0] + (scale[1] - scale[0]) * torch.rand(len(x))
    matrix = matrix / factor[:, None, None]
    # affine_grid works in coordinates from -1 to 1: undo the volume's own proportions, so that a turn stays a turn.
    size = torch.tensor(x.shape[2:][::-1], dtype=torch.float32) - 1
    matrix = matrix * (size[None, :] / size[:, None])[None]
    theta = torch.cat([matrix, torch.zeros(len(x), 3, 1)], 2).to(x)
    grid = F.affine_grid(theta, list(x.shape), align_corners=True)
    return F.grid_sample(x, grid, padding_mode="zeros", align_corners=True)


def distorted(x: Float[Tensor, "batch 1 x y z"]) -> Float[Tensor, "batch 1 x y z"]:
    """What is to be restored: another monotonous scale of grey, noise, and a covered box (in the manner of Models
    Genesis)."""
    gamma = torch.exp(torch.empty(len(x), 1, 1, 1, 1).uniform_(-0.5, 0.5)).to(x)
    out = x.clamp_min(0) ** gamma
    out = out + 0.05 * torch.randn(x.shape).to(x)
    sizes = x.shape[2:]
    for i in range(len(x)):
        start = [int(torch.randint(0, max(n - n // 4, 1), ())) for n in sizes]
        box = tuple(slice(s, s + max(n // 4, 1)) for s, n in zip(start, sizes))
        out[(i, 0, *box)] = 0.0
    return out
