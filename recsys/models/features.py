"""Raw feature tables of items, one a modality, with what is known of them."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class FeatureTables(nn.Module):
    """Tables [items, width] by modality; a missing row is zero and `known` says so: nothing is imputed.

    Args:
        widths: modality -> width of its vectors.
        n_items: rows of every table.
        trainable: the raw vectors are parameters (as BM3 and REARM publish them), else they stay as they are read.

    >>> tables = FeatureTables({"image": 3}, 2)
    >>> tables.load("image", torch.ones(2, 3), torch.tensor([True, False]))
    >>> tables.rows("image", torch.tensor([0, 1])).tolist(), tables.known("image").tolist()
    ([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]], [True, False])
    """

    def __init__(self, widths: Mapping[str, int], n_items: int, *, trainable: bool = False) -> None:
        super().__init__()
        self.widths, self.trainable = dict(widths), trainable
        self._gradients: dict[str, Tensor] = {}
        for name, width in widths.items():
            table = torch.zeros(n_items, width)
            if trainable:
                self.register_parameter(f"raw_{name}", nn.Parameter(table))
            else:
                self.register_buffer(f"raw_{name}", table)
            self.register_buffer(f"known_{name}", torch.ones(n_items, dtype=torch.bool))

    @torch.no_grad()
    def load(
        self, name: str, values: Float[Tensor, "some width"], known: Bool[Tensor, "some"] | None = None, start: int = 0
    ) -> None:
        """Fill a table, or its rows from `start` on; rows not known become zero. Raises `ValueError` for rows that do
        not fit the table."""
        table = self.table(name)
        if start + len(values) > len(table) or values.shape[1] != table.shape[1]:
            shapes = f"{list(values.shape)} from row {start}, the table {list(table.shape)}"
            raise ValueError(f"{name} features are {shapes}")
        part = table[start : start + len(values)]
        known = torch.ones(len(values), dtype=torch.bool) if known is None else known
        part.copy_(values)
        part[~known.to(part.device)] = 0.0
        self.known(name)[start : start + len(values)] = known

    @torch.no_grad()
    def grow(self, n_items: int) -> None:
        """Add rows, not known yet, behind the old ones."""
        for name in self.widths:
            table = self.table(name)
            wider = torch.cat([table, table.new_zeros(n_items - len(table), table.shape[1])])
            setattr(self, f"raw_{name}", nn.Parameter(wider) if self.trainable else wider)
            known = self.known(name)
            setattr(self, f"known_{name}", torch.cat([known, known.new_zeros(n_items - len(known))]))

    def table(self, name: str) -> Float[Tensor, "items width"]:
        """All rows of a modality."""
        return getattr(self, f"raw_{name}")

    def known(self, name: str) -> Bool[Tensor, "items"]:
        """Whether an item has the modality."""
        return getattr(self, f"known_{name}")

    def rows(self, name: str, items: Int[Tensor, "some"]) -> Float[Tensor, "some width"]:
        """Some rows of a modality."""
        table = self.table(name)
        # A sparse gradient is added in place where a dense one lies ready.
        return nn.functional.embedding(items, table, sparse=table.grad is not None and not table.grad.is_sparse)

    def keep_gradients(self) -> None:
        """Clear the gradients of trained tables and keep their memory: called before every step, in place of leaving
        them None.

        A batch reaches few rows, and an optimiser with moments needs the gradient of all: dense, and almost all zero.
        To allocate, fill and free it costs as much as the rest of a step of BM3; a tensor that stays costs a tenth.
        """
        for name in self.widths if self.trainable else ():
            table = self.table(name)
            kept = self._gradients.get(name)
            if kept is None or kept.shape != table.shape or kept.dtype != table.dtype or kept.device != table.device:
                kept = self._gradients[name] = torch.zeros_like(table)
            table.grad = kept.zero_()
