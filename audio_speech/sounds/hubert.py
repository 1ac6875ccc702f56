"""HuBERT's network over samples: seven strided convolutions and a transformer over their frames.

Modules bear the names that the transformers package gives them, so that published weights of that layout load as they
are.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention
from torch.nn.utils.parametrizations import weight_norm

from counterpoint.audio_speech.sounds.mert_configs import FrameTransformerConfig

KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
STRIDE = 320
"""Samples from one frame to the next."""


def frame_count(samples: int | Int[Tensor, " batch"]) -> int | Int[Tensor, " batch"]:
    """Frames of so many samples; none where there are fewer than 400.

    >>> frame_count(120000)
    374
    """
    for kernel, stride in zip(KERNELS, STRIDES):
        samples = (samples - kernel) // stride + 1
    return samples.clamp_min(0) if isinstance(samples, Tensor) else max(samples, 0)


class FrameStem(nn.Module):
    """Convolutions of KERNELS and STRIDES with GELU; the first one's channels are normalised over time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers = []
        for i, (kernel, stride) in enumerate(zip(KERNELS, STRIDES)):
            layer = nn.Module()
            layer.conv = nn.Conv1d(channels if i else 1, channels, kernel, stride, bias=False)
            nn.init.kaiming_normal_(layer.conv.weight)
            if i == 0:
                layer.layer_norm = nn.GroupNorm(channels, channels)
            layers.append(layer)
        self.conv_layers = nn.ModuleList(layers)

    def forward(self, wave: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch frames channels"]:
        x = wave[:, None]
        for i, layer in enumerate(self.conv_layers):
            x = layer.conv(x)
            x = gelu(layer.layer_norm(x) if i == 0 else x)
        return x.mT


class FrameAttention(nn.Module):
    """Self-attention of frames, softmax(q k' / sqrt(d)) v per head. (MERT's `attention_relax` keeps half precision from
    overflow in it and is the identity otherwise.)"""

    def __init__(self, config: FrameTransformerConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            setattr(self, name, nn.Linear(config.width, config.width))

    def forward(
        self, x: Float[Tensor, "batch frames width"], there: Bool[Tensor, "batch frames"] | None
    ) -> Float[Tensor, "batch frames width"]:
        projections = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for project in projections)
        mask = None if there is None else there[:, None, None]
        found = scaled_dot_product_attention(q, k, v, mask, self.dropout if self.training else 0.0)
        return self.out_proj(found.transpose(1, 2).flatten(2))


class FrameLayer(nn.Module):
    """Attention and a perceptron, each added to what it reads; normalised in front of them or behind the sums."""

    def __init__(self, config: FrameTransformerConfig) -> None:
        super().__init__()
        self.norm_first = config.norm_first
        self.attention = FrameAttention(config)
        self.dropout = nn.Dropout(config.dropout)
        self.layer_norm = nn.LayerNorm(config.width)
        self.feed_forward = nn.ModuleDict(
            {
                "intermediate_dense": nn.Linear(config.width, config.hidden),
                "output_dense": nn.Linear(config.hidden, config.width),
            }
        )
        self.final_layer_norm = nn.LayerNorm(config.width)

    def _perceptron(self, x: Tensor) -> Tensor:
        return self.dropout(self.feed_forward["output_dense"](gelu(self.feed_forward["intermediate_dense"](x))))

    def forward(self, x: Tensor, there: Tensor | None) -> Tensor:
        if self.norm_first:
            x = x + self.dropout(self.attention(self.layer_norm(x), there))
            return x + self._perceptron(self.final_layer_norm(x))
        x = self.layer_norm(x + self.dropout(self.attention(x, there)))
        return self.final_layer_norm(x + self._perceptron(x))


class Hubert(nn.Module):
    """Samples to frames, every layer's.

    `masked` frames are replaced by a learnt vector before the transformer; `there` says which frames are sound.

    >>> small = FrameTransformerConfig(8, 16, 2, 2, 32, place_kernel=4, place_groups=2)
    >>> net = Hubert(small).eval()
    >>> frames = net.stem(torch.zeros(1, 16000))
    >>> len(net(frames)), net(frames)[-1].shape
    (3, torch.Size([1, 49, 16]))
    """

    def __init__(self, config: FrameTransformerConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.masked_spec_embed = nn.Parameter(torch.empty(width).uniform_())
        self.feature_extractor = FrameStem(config.channels)
        self.feature_projection = nn.ModuleDict(
            {"layer_norm": nn.LayerNorm(config.channels), "projection": nn.Linear(config.channels, width)}
        )
        kernel = config.place_kernel
        conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=config.place_groups)
        nn.init.normal_(conv.weight, std=2 * (kernel * width) ** -0.5)
        nn.init.zeros_(conv.bias)
        self.encoder = nn.ModuleDict(
            {
                "pos_conv_embed": nn.ModuleDict({"conv": weight_norm(conv, dim=2)}),
                "layer_norm": nn.LayerNorm(width),
                "layers": nn.ModuleList(FrameLayer(config) for _ in range(config.layers)),
            }
        )
        self.dropout = nn.Dropout(config.dropout)
        for module in (self.feature_projection, self.encoder["layers"]):
            for linear in module.modules():
                if isinstance(linear, nn.Linear):
                    nn.init.normal_(linear.weight, std=0.02)
                    nn.init.zeros_(linear.bias)

    def stem(self, wave: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch frames channels"]:
        """Frames of the convolutions, before their normalisation."""
        frames = self.feature_extractor(wave)
        factor = self.config.stem_gradient
        if not (self.training and factor != 1.0):
            return frames
        return frames * factor + frames.detach() * (1 - factor)

    def forward(
        self,
        frames: Float[Tensor, "batch frames channels"],
        masked: Bool[Tensor, "batch frames"] | None = None,
        there: Bool[Tensor, "batch frames"] | None = None,
    ) -> list[Float[Tensor, "batch frames width"]]:
        """What goes into the first layer, and what every layer gives; the last one behind the final normalisation."""
        x = self.feature_projection["projection"](self.feature_projection["layer_norm"](frames))
        x = self.dropout(x)
        if masked is not None:
            x = torch.where(masked[..., None], self.masked_spec_embed.to(x), x)
        if there is not None:
            x = x * there[..., None]
        places = self.encoder["pos_conv_embed"]["conv"](x.mT)
        x = x + gelu(places[..., : x.shape[1]]).mT
        first, norm = self.config.norm_first, self.encoder["layer_norm"]
        x = self.dropout(x if first else norm(x))
        found = [x]
        for layer in self.encoder["layers"]:
            if not (self.training and self.config.layer_drop and float(torch.rand(())) < self.config.layer_drop):
                x = layer(x, there)
            found.append(x)
        if first:
            found[-1] = norm(x)
        return found
