"""`sinkhorn`: entropic transport in the log domain, on the engine's own row statistics."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.kernels.api import contrast_stats
from counterpoint.common.kernels.union import meet

__all__ = ["sinkhorn"]


@torch.no_grad()
def sinkhorn(
    q: Float[Tensor, "rows dim"],
    k: Float[Tensor, "columns dim"],
    *,
    epsilon: float,
    iterations: int = 3,
    row_marginal: Float[Tensor, "rows"] | None = None,
    col_marginal: Float[Tensor, "columns"] | None = None,
    columns: str = "sharded",
    distributed: str = "none",
    process_group: Any = None,
    backend: str = "auto",
) -> tuple[Float[Tensor, "rows"], Float[Tensor, "columns"]]:
    """Potentials of the entropic transport plan between rows and columns at temperature epsilon.

        Q_ij = exp(q_i . k_j / epsilon + f_i + g_j),   sum_j Q_ij = row_marginal_i,   sum_i Q_ij = col_marginal_j

    Each iteration fits the columns, then the rows, so that the row sums are exact and the column sums converge. The
    plan is never formed: `Gibbs(q, k, 1 / epsilon, f, g, normalized=False)` is it as a target for `target_scores`.
    Marginals default to uniform with total mass 1. Without rows or without columns the potentials are zero.

    With `distributed` ("gather", "ring" or "auto") the plan is that of all ranks' rows; `columns` says whether columns,
    too, are the union over ranks ("sharded": a batch against a batch) or the same on every rank ("shared": prototypes).
    Given marginals are this rank's part of them.

    Returns:
        row_potential f [R] and col_potential g [C].

    >>> import torch
    >>> q, k = torch.randn(6, 3), torch.randn(4, 3)
    >>> f, g = sinkhorn(q, k, epsilon=0.5, iterations=50)
    >>> plan = torch.exp(q @ k.T / 0.5 + f[:, None] + g)
    >>> torch.allclose(plan.sum(0), torch.full((4,), 0.25), atol=1e-4)
    True
    """
    if epsilon <= 0:
        raise ValueError(f"epsilon must be positive, got {epsilon}")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    if columns not in ("sharded", "shared"):
        raise ValueError(f'columns must be "sharded" or "shared", got {columns!r}')
    rows, cols = q.shape[0], k.shape[0]
    dtype = torch.float64 if torch.float64 in (q.dtype, k.dtype) else torch.float32
    across = {"distributed": distributed, "process_group": process_group, "backend": backend}
    over_columns = across if columns == "sharded" else {"backend": backend}
    all_rows, all_cols = rows, cols
    if distributed != "none":
        all_rows = meet(q, process_group).total
        all_cols = meet(k, process_group).total if columns == "sharded" else cols
    log_row = _log(row_marginal, rows, all_rows, dtype, q.device)
    log_col = _log(col_marginal, cols, all_cols, dtype, q.device)
    f = torch.zeros(rows, dtype=dtype, device=q.device)
    g = torch.zeros(cols, dtype=dtype, device=q.device)
    if not all_rows or not all_cols:
        return f, g
    for _ in range(iterations):
        g = log_col - contrast_stats(k, q, scale=1 / epsilon, col_bias=f, **across).lse
        f = log_row - contrast_stats(q, k, scale=1 / epsilon, col_bias=g, **over_columns).lse
    return f, g


def _log(marginal: Tensor | None, length: int, everywhere: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    if marginal is None:
        return torch.full((length,), -math.log(max(everywhere, 1)), dtype=dtype, device=device)
    if marginal.shape != (length,):
        raise ValueError(f"a marginal must have length {length}, got shape {tuple(marginal.shape)}")
    if bool((marginal <= 0).any()):
        raise ValueError("marginals must be positive; leave rows or columns without mass out")
    return marginal.to(dtype).log()
