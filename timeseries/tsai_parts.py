"""tsai's architectures by name, each imported from its own module and only when it is asked for.

Importing one costs seconds (fastai comes with it), so nothing here is imported before a configuration names it.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from counterpoint.common.errors import InputError

TSAI_PLAIN = {  # need no torchvision
    "InceptionTime": "tsai.models.InceptionTime",
    "FCN": "tsai.models.FCN",
    "RNN_FCN": "tsai.models.RNN_FCN",
    "LSTM_FCN": "tsai.models.RNN_FCN",
    "GRU_FCN": "tsai.models.RNN_FCN",
    "PatchTST": "tsai.models.PatchTST",
    "MiniRocketFeatures": "tsai.models.MINIROCKET_Pytorch",
    "ROCKET": "tsai.models.ROCKET_Pytorch",
}
TSAI_VISION = {  # reach torchvision through fastai.vision
    "ResNet": "tsai.models.ResNet",
    "TST": "tsai.models.TST",
    "XceptionTime": "tsai.models.XceptionTime",
    "InceptionTimePlus": "tsai.models.InceptionTimePlus",
    "TSTPlus": "tsai.models.TSTPlus",
    "TSiTPlus": "tsai.models.TSiTPlus",
}


def from_tsai(name: str, *args: object, **kwargs: object) -> nn.Module:
    """Build a tsai architecture by its class name; only that leaf module is imported (`tsai.all` is broken today).

    tsai's models take [batch, channels, time]. Raises `InputError` naming the remedy when tsai is missing or when the
    architecture reaches a torchvision that does not match torch, and for arguments that it does not take.
    """
    known = {**TSAI_PLAIN, **TSAI_VISION}
    if name not in known:
        raise InputError(f"tsai architecture {name!r} is not offered; choose one of {', '.join(known)}")
    try:
        with warnings.catch_warnings():  # PatchTST's module silences every UserWarning of the process
            warnings.simplefilter("ignore")  # what its own dependencies call outdated is not the user's
            module = importlib.import_module(known[name])
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "tsai":
            remedy = "pip install 'counterpoint[timeseries]', or use the encoder ts2vec"
            raise InputError(f"{name} needs the package tsai; {remedy}") from error
        raise InputError(
            f"tsai's {name} cannot be imported: {error}; install it, or use one of {', '.join(TSAI_PLAIN)}"
        ) from error
    except (ImportError, RuntimeError, OSError) as error:
        # A torchvision built for another torch raises RuntimeError (operator torchvision::nms does not exist).
        raise InputError(
            f"tsai's {name} cannot be imported ({type(error).__name__}: {str(error).splitlines()[0]}); install "
            f"torch and torchvision from one index, or use one of {', '.join(TSAI_PLAIN)}"
        ) from error
    if not hasattr(module, name):
        raise InputError(f"{known[name]} of the tsai installed holds no {name}; pip install --upgrade tsai")
    try:
        # Some place their parameters on a graphics card by themselves; where a model goes is not theirs to say.
        return getattr(module, name)(*args, **kwargs).cpu()
    except (TypeError, ValueError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"tsai's {name} cannot be built with {kwargs}: {said}") from error


class _Channels(nn.Module):
    """A part of a tsai model between [batch, time, inputs] and [batch, time, outputs]."""

    def __init__(self, *parts: nn.Module):
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, h: Float[Tensor, "batch time inputs"]) -> Float[Tensor, "batch time outputs"]:
        return self.parts(h.transpose(1, 2)).transpose(1, 2)


class _Transformer(nn.Module):
    """TST up to its head. A series shorter than `seq_len` takes the first positions."""

    def __init__(self, model: Any):
        super().__init__()
        self.embed, self.positions, self.layers = model.W_P, model.W_pos, model.encoder

    def forward(self, h: Float[Tensor, "batch time inputs"]) -> Float[Tensor, "batch time outputs"]:
        _fits("TST", h.shape[1], len(self.positions), shorter=True)
        return self.layers(self.embed(h) + self.positions[: h.shape[1]])


class _Patches(nn.Module):
    """PatchTST up to its head: every channel by itself, the mean over its patches, channels side by side."""

    def __init__(self, model: Any, length: int, dim: int):
        super().__init__()
        self.model, self.length = model.model, length
        self.model.head = nn.Identity()
        width = self.model.n_vars * self.model.backbone.W_P.out_features
        self.out = nn.Linear(width, dim)

    def forward(self, x: Float[Tensor, "batch channels time"]) -> Float[Tensor, "batch dim"]:
        _fits("PatchTST", x.shape[2], self.length)
        return self.out(self.model(x).mean(3).flatten(1))


class _Recurrent(nn.Module):
    """An RNN_FCN, whose recurrent part reads the channels one after the other, as its authors have it."""

    def __init__(self, name: str, model: nn.Module, length: int):
        super().__init__()
        self.name, self.model, self.length = name, model, length

    def forward(self, x: Float[Tensor, "batch channels time"]) -> Float[Tensor, "batch dim"]:
        _fits(self.name, x.shape[2], self.length)
        return self.model(x)


def _fits(name: str, time: int, length: int, shorter: bool = False) -> None:
    if time != length and not (shorter and time < length):
        raise InputError(
            f"{name} was built for windows of {length} samples and got {time}; cut windows of {length} (--data.length)"
        )


def tsai_steps(name: str, inputs: int, length: int, options: dict[str, Any]) -> nn.Module:
    """The part of an architecture that gives a feature a time step: [batch, time, inputs] -> [batch, time, width].

    Dropout inside is off, unless `options` sets it: the encoders' own stands behind.
    """
    if name == "TST":
        return _Transformer(from_tsai(name, inputs, 1, seq_len=length, **{"dropout": 0.0, **options}))
    model: Any = from_tsai(name, inputs, 1, **options)
    if name == "InceptionTime":
        return _Channels(model.inceptionblock)
    if name == "XceptionTime":
        return _Channels(model.block)
    if name == "FCN":
        return _Channels(model.convblock1, model.convblock2, model.convblock3)
    if name == "ResNet":
        return _Channels(model.resblock1, model.resblock2, model.resblock3)
    raise InputError(f"tsai's {name} gives no feature a time step")


def tsai_vector(name: str, channels: int, length: int, dim: int, options: dict[str, Any]) -> nn.Module:
    """An architecture that gives a vector a window: [batch, channels, time] -> [batch, dim]."""
    if name == "PatchTST":
        fixed = {"patch_len": min(16, length), "stride": min(8, length), "revin": False, "dropout": 0.0}
        return _Patches(from_tsai(name, channels, None, seq_len=length, **{**fixed, **options}), length, dim)
    return _Recurrent(name, from_tsai(name, channels, dim, seq_len=length, **options), length)


def width_of(part: nn.Module, inputs: int, length: int, name: str) -> int:
    """The width that a part gives for each time step, found by a window of zeros.

    Raises:
        InputError: it gives anything but [1, length, width], with the shapes from one to the other.
    """
    training = part.training
    with torch.no_grad():
        out = part.eval()(torch.zeros(1, length, inputs))
    part.train(training)
    if out.ndim != 3 or out.shape[:2] != (1, length):
        raise InputError(
            f"{name} turns [1, {length}, {inputs}] (windows, time steps, channels) into {list(out.shape)}: no feature "
            "a time step; choose another encoder"
        )
    return int(out.shape[2])
