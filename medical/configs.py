"""Configuration of the vertical's data and systems. Light on purpose: the command line reads it without torch."""

from __future__ import annotations

from dataclasses import dataclass

from counterpoint.common.errors import InputError
from counterpoint.common.trainers.limits import require


@dataclass(frozen=True)
class RecipeConfig:
    """The form to which every volume is brought, in training and whenever one is encoded later. Axes always lead to the
    patient's right, front and head (RAS)."""

    spacing: tuple[float, float, float] = (1.5, 1.5, 3.0)
    """Millimetres between voxels."""
    size: tuple[int, int, int] = (224, 224, 160)
    """Voxels, about the volume's centre: what lies outside is cut, what is missing is filled."""
    low: float = -1024.0
    """Lower values (HU of a CT) are clipped to it."""
    high: float = 3071.0
    """Higher values are clipped to it."""
    outside: float = -1024.0
    """Value beyond the volume's ends: air."""

    def __post_init__(self) -> None:
        require(self, "data.recipe.", spacing="above 0", size="2 or more")
        if not self.low < self.high or not self.low <= self.outside <= self.high:
            raise InputError(
                f"--data.recipe.low {self.low:g}, outside {self.outside:g} and high {self.high:g} must rise in this "
                "order"
            )
