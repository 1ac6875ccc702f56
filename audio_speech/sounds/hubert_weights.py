"""Published weights of MERT and HuBERT in the layout of the transformers package."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from counterpoint.common.data.importing import require_file
from counterpoint.common.errors import InputError

_PLACES = "encoder.pos_conv_embed.conv."
_RENAMED = {
    f"{_PLACES}weight_g": f"{_PLACES}parametrizations.weight.original0",
    f"{_PLACES}weight_v": f"{_PLACES}parametrizations.weight.original1",
}


def here_named(name: str) -> str:
    """What a tensor of a published file is called here: without a prefix, the weight norm by torch's present names.

    >>> here_named("hubert.encoder.pos_conv_embed.conv.weight_g")
    'encoder.pos_conv_embed.conv.parametrizations.weight.original0'
    """
    for prefix in ("hubert.", "mert_model.", "model."):
        name = name.removeprefix(prefix)
    return _RENAMED.get(name, name)


def load_hubert(network: nn.Module, file: str | Path) -> None:
    """Load `model.safetensors` or `pytorch_model.bin`, tensors alone (nothing else in a file is unpickled).

    Tensors of heads that this network does not have are passed over; all of its own must be there.

    Raises:
        InputError: the file cannot be read so, lacks a tensor, or has one of another shape.
    """
    path = require_file(file)
    try:
        if path.suffix == ".safetensors":
            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
        found = {here_named(name): value for name, value in dict(found).items() if isinstance(value, Tensor)}
    except (SafetensorError, Exception) as error:  # whatever damaged archives make torch meet
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: no file of tensors that can be read ({reason}); download it again") from None
    own = network.state_dict()
    for name, value in own.items():
        if name not in found:
            raise InputError(f"{path}: lacks {name}; give the weights of MERT or HuBERT in transformers' layout")
        if found[name].shape != value.shape:
            raise InputError(
                f"{path}: {name} has the shape {list(found[name].shape)}, and this network {list(value.shape)}; choose "
                "its size (--preset 330m, or none for 95M)"
            )
    network.load_state_dict({name: found[name].to(value) for name, value in own.items()})
