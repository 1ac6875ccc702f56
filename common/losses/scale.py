"""The logit scale (inverse temperature): fixed or learnt, clamped as CLIP does."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["LogitScale", "Temperature", "as_scale"]


class LogitScale(nn.Module):
    """exp(log_scale), the factor 1 / temperature of every logit, kept between `min_scale` and `max_scale`.

    The parameter is learnt in the log domain. Like CLIP's, it is clamped by overwriting (before each use in training),
    never by a clamp inside the graph: at the bound the gradient still flows and can lead back.

    Args:
        temperature: start value; the scale starts at 1 / temperature.
        learnable: a parameter (default) or a constant buffer.
        max_scale, min_scale: bounds of a learnable scale (CLIP: 1 to 100).

    >>> scale = LogitScale(0.05)
    >>> round(scale().item(), 4)
    20.0
    """

    def __init__(
        self, temperature: float = 0.07, learnable: bool = True, max_scale: float = 100.0, min_scale: float = 1.0
    ):
        super().__init__()
        if isinstance(temperature, bool) or not isinstance(temperature, int | float):
            raise TypeError(f"temperature must be a number, got {type(temperature).__name__} {temperature!r}")
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        if learnable and not min_scale * (1 - 1e-6) <= 1 / temperature <= max_scale * (1 + 1e-6):
            raise ValueError(
                f"1 / temperature = {1 / temperature:g} must lie between min_scale and max_scale, "
                f"{min_scale:g} and {max_scale:g}"
            )
        log_scale = torch.tensor(-math.log(temperature), dtype=torch.get_default_dtype())
        if learnable:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale, persistent=False)
        self.learnable, self.max_scale, self.min_scale = learnable, max_scale, min_scale
        self._fixed = 1 / temperature

    def forward(self) -> float | Float[Tensor, ""]:
        """The scale: a number where it is fixed, a 0-d tensor with a gradient where it is learnt."""
        if not self.learnable:
            return self._fixed
        if self.training and not torch._C._are_functorch_transforms_active():
            with torch.no_grad():
                low = math.log(self.min_scale) if self.min_scale > 0 else -math.inf
                self.log_scale.clamp_(low, math.log(self.max_scale))
        return self.log_scale.exp()

    @property
    def temperature(self) -> float:
        """The current temperature as a number."""
        return float(torch.exp(-self.log_scale.detach())) if self.learnable else 1 / self._fixed

    def extra_repr(self) -> str:
        kind = f"learnable, {self.min_scale:g} <= scale <= {self.max_scale:g}" if self.learnable else "fixed"
        return f"temperature={self.temperature:.4g}, {kind}"


Temperature = float | LogitScale


def as_scale(temperature: Temperature) -> LogitScale:
    """A number becomes a fixed scale; a `LogitScale` is used as it is (and may be shared between losses)."""
    return temperature if isinstance(temperature, LogitScale) else LogitScale(float(temperature), learnable=False)
