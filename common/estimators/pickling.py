"""A trained system as plain state, for pickle and joblib: settings, assets, and weights as safetensors bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def pickled_state(system: Any) -> dict[str, Any]:
    """What `system` builds an equal system from."""
    from safetensors.torch import save

    from counterpoint.common.trainers.config_files import to_dict
    from counterpoint.common.trainers.run_folder import system_name

    weights = {name: value.detach().cpu().contiguous().clone() for name, value in system.state_dict().items()}
    return {
        "system": system_name(system),
        "config": to_dict(system.config),
        "assets": dict(system.assets),
        "weights": save(weights),
    }


def system(known: Mapping[str, Any]) -> Any:
    """The system of `pickled_state`, in evaluation mode; nothing in it is unpickled."""
    from safetensors.torch import load

    from counterpoint.common.trainers.assets import Assets
    from counterpoint.common.trainers.config_files import from_dict
    from counterpoint.common.trainers.run_folder import build_system
    from counterpoint.common.trainers.trusted import trusted_system

    cls: Any = trusted_system(known["system"], "the pickled Encoder")
    built = build_system(cls, from_dict(cls.Config, known["config"]), Assets(**known["assets"]))
    built.load_state_dict(load(bytes(known["weights"])))
    built.given = True
    return built.eval()
