"""CROMA's network: one encoder a sensor, and a joint encoder in which radar asks the optical tokens, or a gate."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from counterpoint.common.errors import InputError
from counterpoint.geospatial.models.alibi import alibi_bias, alibi_slopes, grid_positions, kept
from counterpoint.geospatial.models.masking import PatchMask, kept_rows
from counterpoint.geospatial.models.ssma import SSMA
from counterpoint.geospatial.models.transformer import JointTransformer, ViT, gap_ffn, hide_keys, mean_tokens


class SensorEncoder(nn.Module):
    """A sensor's images to tokens under 2D-ALiBi, and their mean through an FFN to one representation."""

    def __init__(self, bands: int, dim: int, depth: int, heads: int, patch_size: int) -> None:
        super().__init__()
        self.vit = ViT(bands, dim, depth, heads, patch_size)
        self.gap = gap_ffn(dim)
        self.register_buffer("slopes", alibi_slopes(heads), persistent=False)

    @property
    def patch_size(self) -> int:
        return self.vit.patch_size

    def forward(
        self,
        images: Float[Tensor, "batch bands height width"],
        mask: PatchMask | None = None,
        valid: Bool[Tensor, "batch patches"] | None = None,
    ) -> Float[Tensor, "batch tokens dim"]:
        """Tokens of all patches, or of those that a mask keeps. Patches without data are keys for no other."""
        positions = self.positions(images, mask)
        bias = alibi_bias(self.slopes, positions, positions)
        bias = bias if bias.ndim == 4 else bias[None]
        seen = None if valid is None else (valid if mask is None else valid.gather(1, mask.keep))
        return self.vit(images, hide_keys(bias, seen), None if mask is None else mask.keep)

    def represent(
        self, tokens: Float[Tensor, "batch tokens dim"], seen: Bool[Tensor, "batch tokens"] | None = None
    ) -> Float[Tensor, "batch dim"]:
        """One representation of a sample: the mean of its tokens (that hold data), through the FFN."""
        return self.gap(mean_tokens(tokens, seen))

    def positions(self, images: Tensor, mask: PatchMask | None = None) -> Tensor:
        """Grid positions of all patches, or [batch, kept, 2] of those that a mask keeps."""
        every = grid_positions(*patch_grid(images, self.patch_size)).to(images.device)
        return every if mask is None else kept(every, mask.keep)


class CromaNetwork(nn.Module):
    """Encoders of radar (`depth / 2` blocks) and optical images (`depth`), and the joint one (`depth / 2`).

    With `fusion` "ssma" both sensors' tokens are laid on the grid, zeros where a mask hides them, and a gate weighs and
    mixes them in place of the joint encoder (`SSMA`).

    >>> import torch
    >>> network = CromaNetwork({"s1": 2, "s2": 12}, dim=32, depth=2, heads=4, patch_size=4)
    >>> found = network.encode({"s1": torch.zeros(1, 2, 8, 12), "s2": torch.zeros(1, 12, 8, 12)})
    >>> {name: list(tokens.shape) for name, tokens in found.items()}
    {'s1': [1, 6, 32], 's2': [1, 6, 32], 'joint': [1, 6, 32]}
    """

    def __init__(
        self,
        bands: Mapping[str, int],
        dim: int,
        depth: int,
        heads: int,
        patch_size: int,
        released_bias: bool = False,
        fusion: str = "attention",
    ) -> None:
        super().__init__()
        self.released_bias, self.fusion = released_bias, fusion
        if dim % heads:
            raise InputError(f"encoder.dim {dim} does not divide by encoder.heads {heads}")
        self.s1_encoder = SensorEncoder(bands["s1"], dim, depth // 2, heads, patch_size)
        self.s2_encoder = SensorEncoder(bands["s2"], dim, depth, heads, patch_size)
        self.joint_encoder = SSMA(dim) if fusion == "ssma" else JointTransformer(dim, depth // 2, heads)
        self.patch_size = patch_size

    def encoder(self, sensor: str) -> SensorEncoder:
        """The encoder of a sensor."""
        return self.s1_encoder if sensor == "s1" else self.s2_encoder

    def encode(
        self,
        images: Mapping[str, Float[Tensor, "batch bands height width"]],
        masks: Mapping[str, PatchMask] | None = None,
        valid: Mapping[str, Bool[Tensor, "batch patches"]] | None = None,
        joint: bool = True,
    ) -> dict[str, Float[Tensor, "batch tokens dim"]]:
        """Tokens of every sensor that `images` has, and with both, `joint` ones, which lie where the radar's do."""
        masks, valid = masks or {}, valid or {}
        found = {s: self.encoder(s)(images[s], masks.get(s), valid.get(s)) for s in images}
        if joint and len(found) == 2:
            found["joint"] = self.fuse(found, images, masks, valid)
        return found

    def fuse(
        self,
        tokens: Mapping[str, Tensor],
        images: Mapping[str, Tensor],
        masks: Mapping[str, PatchMask],
        valid: Mapping[str, Tensor],
    ) -> Float[Tensor, "batch tokens dim"]:
        """Joint tokens: radar tokens attend to each other (2D-ALiBi), then to the optical ones (X-ALiBi); or those of
        the gate, where the radar's lie."""
        if self.fusion == "ssma":
            return self.gated(tokens, images, masks, valid)
        positions = {s: self.encoder(s).positions(images[s], masks.get(s)) for s in ("s1", "s2")}
        seen = {s: v if masks.get(s) is None else v.gather(1, masks[s].keep) for s, v in valid.items()}
        slopes = self.s1_encoder.slopes
        batched = {s: p if p.ndim == 3 else p[None] for s, p in positions.items()}
        own = hide_keys(alibi_bias(slopes, batched["s1"], batched["s1"]), seen.get("s1"))
        across = alibi_bias(slopes, batched["s1"], batched["s2"])
        if self.released_bias and across.shape == own.shape:
            own = hide_keys(across, seen.get("s1"))
        cross = hide_keys(across, seen.get("s2"))
        return self.joint_encoder(tokens["s1"], tokens["s2"], own, cross)

    def gated(
        self,
        tokens: Mapping[str, Tensor],
        images: Mapping[str, Tensor],
        masks: Mapping[str, PatchMask],
        valid: Mapping[str, Tensor],
    ) -> Float[Tensor, "batch tokens dim"]:
        """Both sensors' tokens through `SSMA`; what is hidden or holds no data comes in as zeros."""
        grid, maps = patch_grid(images["s1"], self.patch_size), []
        for sensor in ("s1", "s2"):
            x = on_grid(tokens[sensor], masks.get(sensor))
            if sensor in valid:
                x = x * valid[sensor].unsqueeze(-1)
            maps.append(x.transpose(1, 2).unflatten(2, grid))
        joint = self.joint_encoder(*maps).flatten(2).transpose(1, 2)
        return joint if masks.get("s1") is None else kept_rows(joint, masks["s1"].keep)


def on_grid(tokens: Float[Tensor, "batch kept dim"], mask: PatchMask | None) -> Float[Tensor, "batch patches dim"]:
    """Tokens in the places of their patches, zeros where a mask hides one."""
    if mask is None:
        return tokens
    hidden = tokens.new_zeros(len(tokens), mask.restore.shape[1] - tokens.shape[1], tokens.shape[2])
    return kept_rows(torch.cat([tokens, hidden], 1), mask.restore)


def patch_grid(images: Tensor, patch: int) -> tuple[int, int]:
    """Rows and columns of patches; `InputError` where images do not divide into them."""
    height, width = images.shape[-2:]
    if height % patch or width % patch:
        raise InputError(
            f"chips of {height} x {width} pixels do not divide into patches of {patch}; choose another --data.size"
        )
    return height // patch, width // patch
