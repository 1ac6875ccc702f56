"""Random draws that follow the generator they are given, wherever the embeddings live.

A generator belongs to one device. Numbers are drawn on it (a CPU generator gives the same numbers for CPU and GPU runs)
and then moved. Without a generator the default one of the CPU serves.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["beta", "noise_for", "permutation", "uniform"]


def _device(generator: torch.Generator | None) -> torch.device:
    return torch.device("cpu") if generator is None else generator.device


def uniform(*shape: int, generator: torch.Generator | None, like: Tensor) -> Float[Tensor, "..."]:
    """Uniform on [0, 1), in the dtype and on the device of `like`."""
    return torch.rand(*shape, generator=generator, device=_device(generator), dtype=like.dtype).to(like.device)


def permutation(n: int, generator: torch.Generator | None, device: torch.device) -> Int[Tensor, "n"]:
    """A random order of n things."""
    return torch.randperm(n, generator=generator, device=_device(generator)).to(device)


def beta(a: float, b: float, *shape: int, generator: torch.Generator | None) -> Float[Tensor, "..."]:
    """Beta(a, b), float64, on the generator's device."""
    shapes = torch.tensor([a, b], dtype=torch.float64, device=_device(generator)).expand(*shape, 2).contiguous()
    gammas = torch._standard_gamma(shapes, generator=generator)
    return gammas[..., 0] / gammas.sum(-1)


def noise_for(generator: torch.Generator | None, device: torch.device) -> torch.Generator:
    """A generator on `device` for the engine's noise: the given one where it fits, else one seeded from it."""
    if generator is not None and generator.device == device:
        return generator
    seed = torch.randint(2**62, (), generator=generator, device=_device(generator))
    return torch.Generator(device).manual_seed(int(seed))
