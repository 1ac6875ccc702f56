"""Numbers that an objective keeps for every sample of the data set."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from counterpoint.common.losses.sharing import Shared

__all__ = ["SampleState"]


class SampleState(Shared, nn.Module):
    """Numbers kept per sample of the data set (buffers, so they are in the checkpoint), found by the stable `index`.

    Indices within a batch must be unique (over all ranks that share the batch: their updates are exchanged).

    >>> state = SampleState(3, log_u=-math.inf)
    >>> state.average("log_u", torch.tensor([1]), torch.tensor([2.0]), gamma=0.5).item()   # first visit: taken as it is
    2.0
    >>> state.log_u.tolist()
    [-inf, 2.0, -inf]
    """

    def __init__(self, n_samples: int, distributed: str | None = None, **initial: float):
        super().__init__(distributed)
        self.n_samples = n_samples
        for name, value in initial.items():
            self.register_buffer(name, torch.full((n_samples,), float(value)))

    def read(self, name: str, index: Int[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        """The numbers of these samples."""
        return getattr(self, name)[index]

    @torch.no_grad()
    def write(self, name: str, index: Int[Tensor, "batch"], values: Float[Tensor, "batch"]) -> None:
        """Store numbers for these samples, on all ranks."""
        buffer = getattr(self, name)
        index, values = self.union(index), self.union(values)
        setattr(self, name, buffer.index_copy(0, index, values.to(buffer)))

    @torch.no_grad()
    def moved(
        self, name: str, index: Int[Tensor, "batch"], log_g: Float[Tensor, "batch"], gamma: float
    ) -> Float[Tensor, "batch"]:
        """log((1 - gamma) u + gamma g), without storing it; samples never seen (or damaged) take g alone."""
        old = self.read(name, index).to(log_g.dtype)
        keep = math.log1p(-gamma) if gamma < 1 else -math.inf
        mixed = torch.logaddexp(old + keep, log_g + math.log(gamma))
        mixed = torch.where(torch.isfinite(old), mixed, log_g)
        return torch.where(torch.isfinite(log_g), mixed, old)

    @torch.no_grad()
    def average(
        self, name: str, index: Int[Tensor, "batch"], log_g: Float[Tensor, "batch"], gamma: float
    ) -> Float[Tensor, "batch"]:
        """`moved`, stored."""
        values = self.moved(name, index, log_g, gamma)
        self.write(name, index, values)
        return values

    def extra_repr(self) -> str:
        return f"n_samples={self.n_samples}, fields={[name for name, _ in self.named_buffers()]}"
