"""How much of a pretrained encoder moves: nothing, low-rank adapters, or all of it at rates that fall with depth."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from counterpoint.common.errors import InputError
from counterpoint.common.trainers.configs import ParamGroup


def freeze(module: nn.Module) -> None:
    """No parameter takes a gradient."""
    module.requires_grad_(False)


def inject_lora(module: nn.Module, rank: int, alpha: float) -> list[str]:
    """Put low-rank adapters on every linear layer of `module`, freeze the rest; returns the layers' names.

    y = W x + (alpha / rank) B A x with A Gaussian-like and B zero: the output is unchanged at first.

    Source: Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022; implementation: peft.

    >>> import torch
    >>> net, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), torch.ones(1, 4)
    >>> before = net(x)
    >>> inject_lora(net, rank=2, alpha=4.0)
    ['0', '2']
    >>> bool((net(x) == before).all()), sorted(n for n, p in net.named_parameters() if p.requires_grad)[0]
    (True, '0.lora_A.default.weight')
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise InputError("mode=lora needs the package peft: pip install 'counterpoint[adapters]'") from error
    trainable = {n for n, p in module.named_parameters() if p.requires_grad}
    # Layers that were frozen already (teachers) stay as they are.
    names = [n for n, m in module.named_modules() if isinstance(m, nn.Linear) and f"{n}.weight" in trainable]
    if not names:
        raise InputError("mode=lora: the encoder has no linear layer to adapt; use mode=full or layerwise")
    module.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=names, lora_dropout=0.0)
    inject_adapter_in_model(config, module)
    return names


def layers_of(names: Sequence[str]) -> list[str]:
    """Prefixes of the layers behind parameter names, in order of registration: up to the first number, else the first
    two parts.

    >>> layers_of(["base.embed.weight", "base.blocks.0.w", "base.blocks.0.b", "base.blocks.1.w", "base.norm.weight"])
    ['base.embed.', 'base.blocks.0.', 'base.blocks.1.', 'base.norm.']
    """
    layers: list[str] = []
    for name in names:
        numbered = re.match(r"^(.*?\.\d+)\.", name)
        prefix = (numbered.group(1) if numbered else ".".join(name.split(".")[:2])) + "."
        prefix = prefix if name.startswith(prefix) else name
        if prefix not in layers:
            layers.append(prefix)
    return layers


def layerwise_groups(names: Sequence[str], decay: float) -> tuple[ParamGroup, ...]:
    """Parameter groups whose learning rate falls by `decay` with every layer below the head.

    >>> [round(g.lr_scale, 2) for g in layerwise_groups(["base.a.0.w", "base.a.1.w"], 0.5)]
    [0.25, 0.5]
    """
    if not 0 < decay <= 1:
        raise InputError(f"layer_decay is in (0, 1], got {decay}")
    layers = layers_of(names)
    return tuple(ParamGroup(prefix, decay ** (len(layers) - i)) for i, prefix in enumerate(layers))
