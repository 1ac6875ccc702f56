"""The encoder that a configuration names: the suite's dilated convolutions, or an architecture of tsai.

Encoders of two kinds: those with a feature a time step, to which latent masks apply, and those that give one vector a
window. A system says which it needs.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from counterpoint.common.errors import InputError
from counterpoint.common.trainers import Assets
from counterpoint.timeseries.configs import OF_STEPS, EncoderConfig
from counterpoint.timeseries.encoders import StepEncoder, TS2VecEncoder, pool_series
from counterpoint.timeseries.tsai_parts import tsai_steps, tsai_vector, width_of

_OF_LENGTH = ("TST", "PatchTST", "RNN_FCN", "LSTM_FCN", "GRU_FCN")


class WindowEncoder(nn.Module):
    """One vector a window, of an architecture that has none a time step. Missing values enter as 0.

    Args:
        body: [batch, channels, time] -> [batch, dim].
        dim: output width.
        name: of the architecture, for errors.
    """

    def __init__(self, body: nn.Module, dim: int, name: str):
        super().__init__()
        self.body, self.dim, self.name = body, dim, name

    def forward(self, x: Float[Tensor, "batch time channels"]) -> Float[Tensor, "batch dim"]:
        z = self.body(x.nan_to_num().transpose(1, 2))
        if z.shape != (len(x), self.dim):
            raise InputError(
                f"{self.name} turns {list(x.shape)} (windows, time steps, channels) into {list(z.shape)} where "
                f"{[len(x), self.dim]} was expected; choose another encoder"
            )
        return z


def bound_to_length(config: EncoderConfig) -> bool:
    """Whether the encoder is built for windows of one length, which its assets then hold as `length`."""
    return config.name in _OF_LENGTH


def named_encoder(
    config: EncoderConfig, channels: int, assets: Assets, steps_for: str = ""
) -> StepEncoder | WindowEncoder:
    """Build the encoder that `config.name` names.

    Those of tsai with a feature a time step stand between a linear input layer to `config.hidden` channels, where
    masks and gaps are zeros, and a linear layer to `config.dim`; sizes between are tsai's, or `config.options`. Those
    with a vector a window read the channels as they are.

    Args:
        channels: of the signals.
        assets: what the system learnt from its data; holds `length` for an encoder that is built for one.
        steps_for: what needs a feature a time step; empty where a vector a window serves.

    Raises:
        InputError: the encoder has no feature a time step where one is needed; tsai is missing; options or shapes that
            do not fit.
    """
    name, options = config.name, dict(config.options)
    if name == "ts2vec":
        if options:
            raise InputError(f"--encoder.options are for encoders of tsai; ts2vec takes dim, hidden and depth, not "
                             f"{', '.join(options)}")  # fmt: skip
        return TS2VecEncoder(channels, config.dim, config.hidden, config.depth, dropout=config.dropout)
    length = int(assets.get("length") or 0)
    if bound_to_length(config) and not length:
        raise InputError(f"--encoder {name} is built for windows of one length, and these assets name none; train anew")
    if name not in OF_STEPS:
        if steps_for:
            raise InputError(
                f"--encoder {name} gives one vector a window, and {steps_for} needs a feature a time step; choose one "
                f"of {', '.join(OF_STEPS)}"
            )
        return WindowEncoder(tsai_vector(name, channels, length, config.dim, options), config.dim, name)
    part = tsai_steps(name, config.hidden, length, options)
    width = width_of(part, config.hidden, length or 32, name)
    blocks = nn.Sequential(part, nn.Linear(width, config.dim))
    return StepEncoder(channels, config.hidden, blocks, config.dim, config.dropout)


def window_vectors(encoder: nn.Module, x: Float[Tensor, "batch time channels"]) -> Float[Tensor, "batch dim"]:
    """A vector a window of either kind of encoder: the maximum over time, or the vector itself."""
    z = encoder(x)
    return z if z.ndim == 2 else pool_series(z, x)


def step_vectors(encoder: Any, x: Float[Tensor, "batch time channels"]) -> Float[Tensor, "batch time dim"]:
    """A vector a time step; `InputError` where the encoder has none."""
    if isinstance(encoder, WindowEncoder):
        raise InputError(
            f"the encoder {encoder.name} gives one vector a window and none a time step; train with one of "
            f"{', '.join(OF_STEPS)} for dense tasks"
        )
    return encoder(x)
