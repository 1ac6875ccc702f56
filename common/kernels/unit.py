"""`unit`: the one way in which features are normalised."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["unit"]


def unit(z: Float[Tensor, "..."], dim: int = -1) -> Float[Tensor, "..."]:
    """z / |z| along `dim`; a row of zeros (a silent clip, a blank scan) stays zero and sends no gradient back.

    Elsewhere the value is that of `torch.nn.functional.normalize`, whose gradient at a zero row is the upstream one
    divided by 1e-12: enough to end a training run.

    >>> z = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    >>> unit(z).sum().backward()
    >>> z.grad[1].tolist()
    [0.0, 0.0]
    """
    norm = torch.linalg.vector_norm(z, dim=dim, keepdim=True)
    return z / norm.clamp_min(1e-12).masked_fill(norm == 0, torch.inf)
