"""The published CROMA weights by name: what each tensor of theirs is called here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from counterpoint.common.data.importing import require_file
from counterpoint.common.errors import InputError

SECTIONS = {
    "s1_encoder": "s1_encoder.vit.", "s1_GAP_FFN": "s1_encoder.gap.", "s2_encoder": "s2_encoder.vit.",
    "s2_GAP_FFN": "s2_encoder.gap.", "joint_encoder": "joint_encoder.",
}  # fmt: skip
"""Sections of CROMA_base.pt and CROMA_large.pt, and where each goes in a `CromaNetwork`; below them names are equal."""

_PRETRAINING = (
    (r"^radar_encoder\.", "network.s1_encoder.vit."), (r"^optical_encoder\.", "network.s2_encoder.vit."),
    (r"^cross_encoder\.", "network.joint_encoder."), (r"^GAP_FFN_radar\.", "network.s1_encoder.gap."),
    (r"^GAP_FFN_optical\.", "network.s2_encoder.gap."), (r"^global_contrast_loss\.radar_proj\.", "s1_projection."),
    (r"^global_contrast_loss\.optical_proj\.", "s2_projection."),
    (r"^global_contrast_loss\.logit_scale$", "contrast.logit_scale.log_scale"),
    (r"\.create_(qkv|q|k|v)\.", r".to_\1."), (r"\.out\.", ".to_out."), (r"\.net\.2\.", ".net.3."),
)  # fmt: skip


def network_names(weights: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A published file's tensors under this network's names.

    >>> network_names({"s1_encoder": {"linear_input.bias": 0}})
    {'s1_encoder.vit.linear_input.bias': 0}
    """
    return {SECTIONS[s] + name: value for s in SECTIONS if s in weights for name, value in weights[s].items()}


def pretraining_name(name: str) -> str:
    """What a tensor of the official pretraining file is called in the system `Croma`.

    >>> pretraining_name("radar_encoder.transformer.layers.0.1.net.2.bias")
    'network.s1_encoder.vit.transformer.layers.0.1.net.3.bias'
    """
    for pattern, here in _PRETRAINING:
        name = re.sub(pattern, here, name)
    return name


def load_published(network: nn.Module, file: str | Path) -> None:
    """Load CROMA_base.pt or CROMA_large.pt, tensors alone (nothing else in the file is unpickled).

    Raises:
        InputError: the file cannot be read so, lacks a section, or its shapes are of another size of the network.
    """
    path = require_file(file)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        sections = {name: dict(found[name]) for name in SECTIONS}
    except KeyError as error:
        raise InputError(f"{path}: has no section {error}; it is not one of the published CROMA weights") from None
    except Exception as error:  # whatever damaged archives make torch meet
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: no file of tensors that can be read ({reason}); download it again") from None
    named = network_names(sections)
    own = network.state_dict()
    for name, value in named.items():
        if name not in own:
            raise InputError(
                f"{path}: holds {name}, which this network does not have; choose its size (--preset large)"
            )
        if not isinstance(value, Tensor) or value.shape != own[name].shape:
            shape = list(getattr(value, "shape", ()))
            raise InputError(
                f"{path}: {name} has the shape {shape}, and this network {list(own[name].shape)}; published weights "
                "take 12 optical bands, VV and VH, patches of 8 pixels, and --preset large for CROMA_large"
            )
    if missing := own.keys() - named.keys():
        raise InputError(f"{path}: lacks {min(missing)}; it is not one of the published CROMA weights of this size")
    network.load_state_dict(named)
