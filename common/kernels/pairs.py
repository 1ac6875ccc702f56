"""`pair_sum`: additive pair statistics, sum_j fn(logit_ij), for sigmoid losses and soft top-k."""

from jaxtyping import Bool, Float
from torch import Tensor

from counterpoint.common.kernels.dispatch import evaluate_pair_sum
from counterpoint.common.kernels.flatten import flatten
from counterpoint.common.kernels.spec import Mask, Positive

__all__ = ["pair_sum"]


def pair_sum(
    q: Float[Tensor, "*batch_q rows dim"],
    k: Float[Tensor, "*batch_k columns dim"],
    *,
    fn: str = "softplus",
    scale: float | Float[Tensor, "..."] = 1.0,
    positive: Positive | None = None,
    row_bias: Float[Tensor, "..."] | None = None,
    col_bias: Float[Tensor, "..."] | None = None,
    col_scale: Float[Tensor, "..."] | None = None,
    exclude: Mask | list[Mask] | tuple[Mask, ...] | None = None,
    only: Mask | list[Mask] | tuple[Mask, ...] | None = None,
    valid_cols: Bool[Tensor, "..."] | None = None,
    row_offset: int = 0,
    distributed: str = "none",
    process_group: object | None = None,
    backend: str = "auto",
) -> Float[Tensor, "..."]:
    """sum_{j kept} fn(logit_ij) of every row, with fn(-logit) at the row's positive; memory linear in rows + columns.

    `fn="softplus"` with a `Diagonal()` positive is SigLIP's row loss: -log sigmoid(logit) at the pair and
    -log sigmoid(-logit) elsewhere (Zhai et al. 2023). `fn="sigmoid"` counts softly (soft top-k). The other arguments
    are those of `contrast_stats`; differentiable in q, k, scale, col_scale and the biases.

    >>> import torch
    >>> from counterpoint.common.kernels import Diagonal
    >>> pair_sum(torch.zeros(2, 3), torch.zeros(2, 3), positive=Diagonal())
    tensor([1.3863, 1.3863])
    """
    if fn not in ("softplus", "sigmoid"):
        raise ValueError(f"fn must be 'softplus' or 'sigmoid', got {fn!r}")
    problem, batch, has_scales = flatten(
        q,
        k,
        scale=scale,
        col_scale=col_scale,
        positive=positive,
        row_bias=row_bias,
        col_bias=col_bias,
        exclude=exclude,
        only=only,
        valid_cols=valid_cols,
        row_offset=row_offset,
        sharded=distributed != "none",
    )
    if has_scales:
        raise ValueError("pair_sum takes one scale: a number or [R]")
    sums = evaluate_pair_sum(problem, fn, backend, distributed, process_group)
    return sums.reshape(*batch, sums.shape[-1])
