"""Oracle numbers and the small vocabulary that the tests of objectives share."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

FIXTURES = json.loads((Path(__file__).parent / "oracles" / "common_losses.json").read_text())


class Oracle:
    """The frozen fixtures: `inputs`, `fixture(name)` and `check(name, loss)`."""

    def __init__(self) -> None:
        self.inputs = {k: torch.tensor(v, dtype=torch.float64) for k, v in FIXTURES["inputs"].items()}

    def fixture(self, name: str) -> dict:
        return FIXTURES["fixtures"][name]

    def leaves(self, keys: str = "xy") -> list[Tensor]:
        return [self.inputs[k].clone().requires_grad_() for k in keys]

    def check(
        self, name: str, loss: Callable[..., Tensor], keys: str = "xy", *, factor: float = 1.0, value: bool = True
    ) -> None:
        """The loss equals the official value and gradient; `factor` is the official gradient over ours."""
        expected, leaves = self.fixture(name), self.leaves(keys)
        result = loss(*leaves)
        if value:
            torch.testing.assert_close(result.item() * factor, expected["value"], rtol=0, atol=1e-8)
        result.backward()
        for key, leaf in zip(keys, leaves, strict=True):
            wanted = torch.tensor(expected["grad_wrt_raw"][key], dtype=torch.float64)
            torch.testing.assert_close(leaf.grad * factor, wanted, rtol=0, atol=1e-8)


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    return Oracle()


@pytest.fixture
def make() -> SimpleNamespace:
    """Seeded float64 material: `make.z(rows, dim)`, `make.unit(rows, dim)`, `make.generator`."""
    generator = torch.Generator().manual_seed(0)

    def z(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return SimpleNamespace(z=z, unit=lambda *shape: F.normalize(z(*shape), dim=-1), generator=generator)


@pytest.fixture
def same_gradients() -> Callable[..., None]:
    """Value and gradient of two functions of the same tensors agree to 1e-10 (float64)."""

    def check(one: Callable[..., Tensor], other: Callable[..., Tensor], *tensors: Tensor, atol: float = 1e-10) -> None:
        results = []
        for fn in (one, other):
            leaves = [t.detach().clone().requires_grad_() for t in tensors]
            value = fn(*leaves)
            grads = torch.autograd.grad(value, leaves, allow_unused=True)
            results.append([value.detach()] + [torch.zeros_like(t) if g is None else g for g, t in zip(grads, leaves)])
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=atol)

    return check
