"""The definition once more, written independently of the engine: pair by pair in Python loops, on a boolean matrix."""

import torch

from counterpoint.common.kernels import Diagonal, Index, Pairs, SameLabel, Self


def hits(mask, rows, columns, row_offset=0):
    """The rows x columns boolean matrix of the pairs a mask names, by loops."""
    hit = torch.zeros(rows, columns, dtype=torch.bool)
    for i in range(rows):
        for j in range(columns):
            if isinstance(mask, Self):
                hit[i, j] = j == i + row_offset
            elif isinstance(mask, Diagonal):
                hit[i, j] = j == i + mask.offset
            elif isinstance(mask, Index):
                hit[i, j] = j in mask.idx[i].reshape(-1).tolist()
            elif isinstance(mask, SameLabel):
                col_ids = mask.row_ids if mask.col_ids is None else mask.col_ids
                hit[i, j] = mask.row_ids[i] == col_ids[j]
            elif isinstance(mask, Pairs):
                hit[i, j] = j in mask.col[int(mask.ptr[i]) : int(mask.ptr[i + 1])].tolist()
    return hit


def keep_matrix(q, k, exclude=(), only=(), valid_cols=None, score_floor=None, row_offset=0):
    rows, columns = q.shape[0], k.shape[0]
    keep = torch.ones(rows, columns, dtype=torch.bool)
    if only:
        keep &= torch.stack([hits(m, rows, columns, row_offset) for m in only]).any(0)
    for mask in exclude:
        keep &= ~hits(mask, rows, columns, row_offset)
    if valid_cols is not None:
        keep &= valid_cols[None]
    if score_floor is not None:
        keep &= (q @ k.T).detach() >= score_floor[:, None]
    return keep


def row_statistics(raw, logits, keep):
    """lse, mean, count of each row, row by row over its kept columns alone."""
    lse, mean, count = [], [], []
    for r, l, m in zip(raw, logits, keep):
        r, l = r[m], l[m]
        count.append(len(l))
        lse.append(torch.logsumexp(l, 0) if len(l) else l.new_tensor(-torch.inf))
        mean.append((torch.softmax(l, 0) * r).sum() if len(l) else l.new_tensor(0.0))
    return torch.stack(lse), torch.stack(mean), torch.tensor(count)
