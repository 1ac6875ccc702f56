"""Verses of which much is said count less."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from counterpoint.common.trainers import Plugin

from .configs import ShortCaptionsConfig


class ShortCaptions(Plugin):
    """Weighs every row by its caption's length; counts the rows it has weighed."""

    Config = ShortCaptionsConfig

    def __init__(self, config: ShortCaptionsConfig) -> None:
        super().__init__(config)
        self.weighed = 0

    def weigh(self, name: str, rows: Tensor, batch: Mapping[str, Any]) -> Tensor:
        self.weighed += len(rows)
        self.system.record({"train/weighed": self.weighed})
        return rows * batch["caption"].lengths.to(rows) ** -self.config.power

    def state_dict(self) -> dict[str, Any]:
        return {"weighed": self.weighed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.weighed = state["weighed"]
