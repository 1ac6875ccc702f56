r"""Which fields of an item say the same, and two views that hide one half of its fields each.

Correlated feature masking (CFM): a seed field is drawn, and hidden together with the :math:`\lfloor k / 2 \rfloor - 1`
fields that have most mutual information with it; the other view hides all others. So neither view lets the other's
hidden fields be guessed from their twins. Random feature masking (RFM) hides a random half.

.. math:: I(V_a, V_b) = \sum_{v, w} P(v, w) \log \frac{P(v, w)}{P(v) P(w)}

over the catalogue, in nats; an item with several values in a field counts as much as any other, in equal parts for each
of its pairs of values (our reading for fields of several values).

Source: Yao et al., "Self-supervised learning for large-scale item recommendations", CIKM 2021.
"""

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Bool, Float
from torch import Tensor


def mutual_information(fields: Sequence[sp.csr_array]) -> Float[np.ndarray, "fields fields"]:
    """Between every two fields, each a matrix [items, values] that is not zero where an item has a value. Items that
    lack one of the two fields do not count for the pair; the diagonal holds the entropies.

    >>> same = sp.csr_array(np.eye(2)[[0, 0, 1, 1]])
    >>> other = sp.csr_array(np.eye(2)[[0, 1, 0, 1]])
    >>> mutual_information([same, same, other]).round(3).tolist()[0]
    [0.693, 0.693, 0.0]
    """
    shares = [_shares(field) for field in fields]
    found = np.zeros((len(fields), len(fields)))
    for a in range(len(fields)):
        for b in range(a, len(fields)):
            found[a, b] = found[b, a] = _information(shares[a], shares[b])
    return found


def _shares(field: sp.csr_array) -> sp.csr_array:
    field = sp.csr_array(field, dtype=np.float64)
    field.eliminate_zeros()
    field.data[:] = 1.0
    sizes = np.diff(field.indptr)
    field.data /= np.repeat(sizes, sizes)
    return field


def _information(a: sp.csr_array, b: sp.csr_array) -> float:
    both = (np.diff(a.indptr) > 0) & (np.diff(b.indptr) > 0)
    if not both.any():
        return 0.0
    joint = sp.coo_array(a[both].T @ b[both]) / both.sum()
    of_a, of_b = joint.sum(1), joint.sum(0)
    joint = sp.coo_array(joint)
    return float(max((joint.data * np.log(joint.data / (of_a[joint.row] * of_b[joint.col]))).sum(), 0.0))


class FieldMasks:
    """Draws two halves of k fields to hide.

    Args:
        information: mutual information of the fields; None masks at random (RFM).
        fields: k, where there is no information to tell it.

    >>> masks = FieldMasks(np.array([[9.0, 1.0, 5.0, 0.0]] * 4))
    >>> first, second = masks.draw(torch.Generator().manual_seed(0))
    >>> int(first.sum()), bool((first ^ second).all())
    (2, True)
    """

    def __init__(self, information: Float[np.ndarray, "fields fields"] | None, fields: int | None = None) -> None:
        self.size = len(information) if information is not None else int(fields or 0)
        if self.size < 2:
            raise ValueError(f"{self.size} fields cannot be shared out over two views; there must be 2 or more")
        self.order = None
        if information is not None:
            own = np.eye(self.size, dtype=bool)
            ranked = np.argsort(-np.where(own, np.inf, information), axis=1, kind="stable")
            self.order = torch.from_numpy(ranked.copy())

    def draw(self, generator: torch.Generator | None = None) -> tuple[Bool[Tensor, "fields"], Bool[Tensor, "fields"]]:
        """What the first view hides, and what the second."""
        half = max(self.size // 2, 1)
        if self.order is None:
            chosen = torch.randperm(self.size, generator=generator)[:half]
        else:
            chosen = self.order[int(torch.randint(self.size, (), generator=generator))][:half]
        first = torch.zeros(self.size, dtype=torch.bool)
        first[chosen] = True
        return first, ~first
