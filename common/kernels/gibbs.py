"""The teacher's softmax applied to keys, streamed: v_i = sum_j t_ij k_j with t = exp(logit_ij - shift_i).

The map k -> v is linear, so its derivative is the same streamed product transposed, and so on to any order.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.kernels.api import contrast_stats
from counterpoint.common.kernels.eager import transformed
from counterpoint.common.kernels.spec import Gibbs
from counterpoint.common.kernels.sweep import tile_shape

__all__ = ["gibbs_average"]


def gibbs_average(
    k: Float[Tensor, "columns dim"], target: Gibbs
) -> tuple[Float[Tensor, "rows dim"], Float[Tensor, "rows"]]:
    """Target vectors v_i = sum_j t_ij k_j and masses sum_j t_ij of a teacher's softmax; no gradient to the teacher."""
    with torch.no_grad():
        q_t, k_t = target.q_t.to(k.dtype), target.k_t.to(k.dtype)
        rows, columns = q_t.shape[0], k_t.shape[0]
        scale = torch.as_tensor(target.scale, dtype=k.dtype, device=k.device).expand(rows)
        col_bias = k.new_zeros(columns) if target.col_bias is None else target.col_bias.to(k.dtype)
        if target.valid_cols is not None:
            col_bias = col_bias.masked_fill(~target.valid_cols, -torch.inf)
        stats = contrast_stats(q_t, k_t, scale=scale, col_bias=col_bias, valid_cols=target.valid_cols)
        lse = stats.lse.masked_fill(stats.count == 0, 0.0)
        row_bias = k.new_zeros(rows) if target.row_bias is None else target.row_bias.to(k.dtype)
        if target.normalized:
            mass = (stats.count > 0).to(k.dtype)
        else:
            mass = (stats.lse + row_bias).exp()
        teacher = (q_t * scale[:, None], k_t, col_bias, lse)
    if transformed(k):
        q_t, k_t, col_bias, lse = teacher
        return (q_t @ k_t.mT + col_bias - lse[:, None]).exp() @ k * mass[:, None], mass
    return _Product.apply(k, *teacher, False) * mass[:, None], mass


class _Product(torch.autograd.Function):
    """x -> T x (or T' x): T_ij = exp(q_i . k_j + bias_j - lse_i), in tiles."""

    @staticmethod
    def forward(ctx, x, q, k, bias, lse, transposed):
        ctx.save_for_backward(q, k, bias, lse)
        ctx.transposed = transposed
        out = x.new_zeros(k.shape[0] if transposed else q.shape[0], x.shape[1])
        rows, columns = q.shape[0], k.shape[0]
        if not rows or not columns:
            return out
        height, width = tile_shape(rows, columns, x.dtype, x.device)
        buffer = x.new_empty(height * width)
        for i in range(0, rows, height):
            row = slice(i, min(i + height, rows))
            for j in range(0, columns, width):
                col = slice(j, min(j + width, columns))
                shape = (row.stop - i, col.stop - j)
                tile = torch.mm(q[row], k[col].mT, out=buffer[: shape[0] * shape[1]].view(shape))
                tile.add_(bias[col]).sub_(lse[row, None]).exp_()
                if transposed:
                    out[col].addmm_(tile.mT, x[row])
                else:
                    out[row].addmm_(tile, x[col])
        return out

    @staticmethod
    def backward(ctx, grad):
        return _Product.apply(grad, *ctx.saved_tensors, not ctx.transposed), None, None, None, None, None
