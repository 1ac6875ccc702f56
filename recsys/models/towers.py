"""A tower: fields of an item or a user, embedded one by one, through a perceptron to a vector of length one."""

from collections.abc import Mapping, Sequence

import scipy.sparse as sp
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, normalize

from counterpoint.recsys.models.features import FeatureTables


class CodedField(nn.Module):
    """The values of one field in a table of rows, and their vectors: a row is the mean of its values'.

    Args:
        codes: [rows, values], not zero where a row has a value.
        dim: width of the vectors.
    """

    start: Tensor
    code: Tensor

    def __init__(self, codes: sp.csr_array, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes.shape[1], dim)
        self.default = nn.Parameter(torch.zeros(dim))
        nn.init.normal_(self.embedding.weight, std=dim**-0.5)
        self.take(codes)

    def take(self, codes: sp.csr_array) -> None:
        """Read another table by the same values."""
        codes = sp.csr_array(codes)
        device = self.default.device
        self.register_buffer("start", torch.from_numpy(codes.indptr.astype("int64")).to(device), persistent=False)
        self.register_buffer("code", torch.from_numpy(codes.indices.astype("int64")).to(device), persistent=False)

    def forward(self, rows: Int[Tensor, "batch"], dropped: float = 0.0) -> Float[Tensor, "batch dim"]:
        """`dropped`: each value is left out with this probability. No value: the default vector."""
        begin, size = self.start[rows], self.start[rows + 1] - self.start[rows]
        owner = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), size)
        offset = torch.arange(len(owner), device=rows.device) - (size.cumsum(0) - size)[owner]
        code = self.code[begin[owner] + offset]
        if dropped:
            kept = torch.rand(len(code), device=code.device) >= dropped
            code, owner = code[kept], owner[kept]
        count = torch.bincount(owner, minlength=len(rows))
        found = embedding_bag(code, self.embedding.weight, count.cumsum(0) - count, mode="mean")
        return torch.where((count > 0)[:, None], found, self.default)


class Tower(nn.Module):
    """Fields, an id of its own for every row, and vectors from elsewhere, to one vector.

    A hidden field is its default vector. A row that was never trained on has no id: it is what its fields say.

    Args:
        codes: the fields' values, [rows, values] each.
        known: [rows] whether a row has an id of its own.
        features: raw vectors by modality, fixed; None where there are none.
        dim: width of every field.
        widths: of the perceptron's layers, the last one the vector's.
        dropout: behind every layer but the last.
    """

    known: Tensor

    def __init__(
        self,
        codes: Sequence[sp.csr_array],
        known: Bool[Tensor, "rows"],
        features: FeatureTables | None,
        dim: int,
        widths: Sequence[int],
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.fields = nn.ModuleList(CodedField(field, dim) for field in codes)
        self.id = nn.Embedding(len(known), dim)
        nn.init.normal_(self.id.weight, std=dim**-0.5)
        self.id_default = nn.Parameter(torch.zeros(dim))
        self.register_buffer("known", known, persistent=False)
        self.features = features
        named: Mapping[str, int] = {} if features is None else features.widths
        self.project = nn.ModuleDict({name: nn.Linear(width, dim) for name, width in named.items()})
        self.project_default = nn.ParameterDict({name: nn.Parameter(torch.zeros(dim)) for name in named})
        layers: list[nn.Module] = []
        before = dim * self.size
        for width in widths[:-1]:
            layers += [nn.Linear(before, width), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
            before = width
        self.perceptron = nn.Sequential(*layers, nn.Linear(before, widths[-1]))

    @property
    def size(self) -> int:
        """Number of fields: those of the table, the modalities, and the id, in this order."""
        return len(self.fields) + len(self.project) + 1

    def forward(
        self, rows: Int[Tensor, "batch"], hidden: Bool[Tensor, "fields"] | None = None, dropped: float = 0.0
    ) -> Float[Tensor, "batch dim"]:
        """Unit vectors of some rows; `hidden` fields are not looked at, `dropped` is the share of left out values."""
        parts = [self._part(n, rows, dropped, hidden is not None and bool(hidden[n])) for n in range(self.size)]
        return normalize(self.perceptron(torch.cat(parts, 1)), dim=1)

    def _part(self, n: int, rows: Tensor, dropped: float, hidden: bool) -> Float[Tensor, "batch dim"]:
        if n < len(self.fields):
            field = self.fields[n]
            return field.default.expand(len(rows), -1) if hidden else field(rows, dropped)
        if n == self.size - 1:
            there = self.known[rows] & (not hidden)
            return torch.where(there[:, None], self.id(rows), self.id_default)
        name = list(self.project)[n - len(self.fields)]
        there = self.features.known(name)[rows] & (not hidden)
        vectors = self.project[name](self.features.rows(name, rows))
        return torch.where(there[:, None], vectors, self.project_default[name])
