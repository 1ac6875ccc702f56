"""`Samples`: the one protocol of every data set in the suite. What trains, encodes, evaluates or searches reads this.

A data set says who its samples are (`ids`, `groups`), what is known of them without reading one (`columns`,
`column`), which manifest row each came from (`row_of`: several samples may share a row), how samples become a batch
(`collate`), and what it is (`hash`: of the data and of every option that changes what a sample holds).

It also says what answers what: row i of one modality belongs to row i of another unless `relevant` names the pairs, and
a modality with rows of its own (captions, items of a catalogue) is a data set of its own under `pools`.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from counterpoint.common.data.links import Links
from counterpoint.common.errors import InputError
from counterpoint.common.suggest import no_such


@dataclass(frozen=True)
class BadSample:
    """Stands in the place of a sample that could not be read."""

    index: int
    id: str
    reason: str


class Samples(Dataset, ABC):
    """Samples of one split: `samples[i]` is a dictionary of tensors, numbers and text with `index`, `id` and `group`,
    or a `BadSample` where `on_error` is `skip` and it could not be read.

    Attributes:
        on_error: `raise` or `skip`.
        max_bad: share of unreadable samples from which a run or an encoding stops.
        synthetic: what of the data a generator made, in words; empty where all of it was measured.
        columns: names for `column`, known of every sample without reading one.
        manifest: the manifest whose rows the samples came from; None where there is none.
        left_out: what is no sample because it could not be read when the data set was made (`on_error` is `skip`).
        sort: the column that says of what sort every sample is (a catalogue's categories), by which a report colours
            its map of samples that have rows of their own; empty where there is none.
        pools: modality -> the samples that it is embedded from, where it has rows of its own: more or fewer captions
            than pictures, all items of a catalogue. The other modalities are embedded from these samples.
    """

    on_error: str = "raise"
    max_bad: float = 0.01
    synthetic: str = ""
    columns: tuple[str, ...] = ()
    manifest: Any = None
    left_out: Sequence[BadSample] = ()
    sort: str = ""
    pools: Mapping[str, Samples] = MappingProxyType({})

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, position: int) -> dict[str, Any] | BadSample: ...

    @property
    @abstractmethod
    def ids(self) -> Sequence[str]:
        """The unique name of every sample."""

    @property
    @abstractmethod
    def groups(self) -> Sequence[str]:
        """What every sample belongs to (patient, piece, scene, molecule, user): splits and intervals keep it whole."""

    @property
    @abstractmethod
    def hash(self) -> str:
        """Identity of the data and of the reading options: equal hashes mean equal samples."""

    @property
    def written(self) -> str:
        """A hash of the times at which the files behind the samples were last written; empty where `hash` covers what
        they hold, as it does when they have been read."""
        return ""

    def column(self, name: str) -> Sequence[Any]:
        """A known value of every sample; missing ones are None. Raises `InputError` for a name not in `columns`."""
        raise no_such("column", name, self.columns)

    def row_of(self, position: int) -> int:
        """The manifest row (counted from 0) that a sample came from."""
        return position

    def collate(self, samples: Sequence[Mapping[str, Any]]) -> Any:
        """Samples to a batch."""
        return collate(samples)

    def batch(self, positions: Sequence[int], seeds: Sequence[int]) -> Any | None:
        """Several samples as a batch at once, for tables in memory, where one sample after the other is the slow way;
        None: sample by sample.

        What is drawn for sample i comes from `seeds[i]` alone, so that a batch shared out over processes draws the
        same.
        """
        return None

    def remembered(self) -> Mapping[str, Iterable[str]]:
        """The names, `ids` and `groups`, that a run keeps (hashed) of what it was trained on, so that an evaluation on
        other data can tell what it has seen. Samples without names outside of the data set keep none."""
        return {"ids": self.ids, "groups": self.groups}

    def relevant(self, query: str, key: str) -> Links | None:
        """Which samples of the modality `key` answer those of the modality `query`, in places of the data sets that
        they are embedded from. None: sample i belongs to sample i. One direction is enough, see `answers`."""
        return None

    def exclude(self, query: str, key: str) -> Links | None:
        """Which samples of `key` are not in the pool of those of `query` (items seen before, the same patient)."""
        return None


class ListSamples(Samples):
    """A handful of samples at hand: a user's files or texts to be encoded, a toy, a notebook's data.

    Samples without `id`, `group` or `index` are named by their place. The hash is that of the values.

    >>> two = ListSamples([{"x": torch.zeros(2), "id": "a"}, {"x": torch.ones(2)}])
    >>> two.ids, two.collate([two[0], two[1]])["x"].shape
    (['a', '1'], torch.Size([2, 2]))
    """

    def __init__(
        self,
        samples: Sequence[Mapping[str, Any]],
        collate: Callable[[Sequence[Mapping[str, Any]]], Any] | None = None,
        synthetic: str = "",
    ) -> None:
        named = ({**s, "index": s.get("index", i), "id": str(s.get("id", i))} for i, s in enumerate(samples))
        self.samples = [{**s, "group": str(s.get("group", s["id"]))} for s in named]
        self.synthetic, self._collate = synthetic, collate

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return dict(self.samples[position])

    @property
    def ids(self) -> list[str]:
        return [s["id"] for s in self.samples]

    @property
    def groups(self) -> list[str]:
        return [s["group"] for s in self.samples]

    @property
    def hash(self) -> str:
        return values_hash(self.samples)

    def collate(self, samples: Sequence[Mapping[str, Any]]) -> Any:
        return super().collate(samples) if self._collate is None else self._collate(samples)


class Part(Samples):
    """Some samples of another data set, in the given order; everything else is the other's.

    >>> part = Part(ListSamples([{"x": i, "id": f"s{i}"} for i in range(4)]), [3, 1])
    >>> part.ids, part[0]["x"], part.row_of(0)
    (['s3', 's1'], 3, 3)
    """

    def __init__(self, whole: Samples, positions: Sequence[int] | np.ndarray) -> None:
        self.whole, self.positions = whole, np.asarray(positions, dtype=np.int64)
        self.on_error, self.max_bad = whole.on_error, whole.max_bad
        self.synthetic, self.columns, self.pools = whole.synthetic, whole.columns, whole.pools
        self.left_out = whole.left_out

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, position: int) -> dict[str, Any] | BadSample:
        return self.whole[int(self.positions[position])]

    @property
    def ids(self) -> list[str]:
        return _picked(self.whole.ids, self.positions)

    @property
    def groups(self) -> list[str]:
        return _picked(self.whole.groups, self.positions)

    @property
    def hash(self) -> str:
        return options_hash(self.whole.hash, positions=self.positions.tolist())

    def column(self, name: str) -> list[Any]:
        return _picked(self.whole.column(name), self.positions)

    @property
    def written(self) -> str:
        return self.whole.written

    def row_of(self, position: int) -> int:
        return self.whole.row_of(int(self.positions[position]))

    def collate(self, samples: Sequence[Mapping[str, Any]]) -> Any:
        return self.whole.collate(samples)

    def relevant(self, query: str, key: str) -> Links | None:
        return self._part(self.whole.relevant(query, key), query, key)

    def exclude(self, query: str, key: str) -> Links | None:
        return self._part(self.whole.exclude(query, key), query, key)

    def _part(self, links: Links | None, *modalities: str) -> Links | None:
        if links is None:
            return None
        ranges = (range(n) if m in self.pools else self.positions for m, n in zip(modalities, links.shape))
        return links.take(*ranges)


def source(samples: Samples, modality: str) -> Samples:
    """The data set that a modality is embedded from."""
    return samples.pools.get(modality, samples)


def answers(samples: Samples, query: str, key: str, what: Literal["relevant", "exclude"] = "relevant") -> Links | None:
    """`relevant` or `exclude` of a data set, from whichever direction it states.

    Raises `ValueError` where nothing tells what belongs to what: a pool of its own without `relevant`.
    """
    state = getattr(samples, what)
    found, back = state(query, key), None
    if found is None and (back := state(key, query)) is not None:
        found = back.T
    sizes = (len(source(samples, query)), len(source(samples, key)))
    if found is not None and found.shape != sizes:
        raise ValueError(f"{what}({query!r}, {key!r}) is about {found.shape} samples, there are {sizes}")
    if found is None and what == "relevant" and source(samples, query) is not source(samples, key):
        raise ValueError(
            f"{type(samples).__name__} embeds {query} and {key} from different samples and does not say which belong "
            f"together: define relevant({query!r}, {key!r})"
        )
    return found


def fact(samples: Samples, position: int, sample: Mapping[str, Any], name: str) -> Any:
    """A value of one sample: its column where the data set has one, else what stands in the sample read; missing is
    None. Raises `InputError` with the names there are."""
    if name in samples.columns:
        return plain(samples.column(name)[position])
    if name in sample:
        value = sample[name]
        return plain(value.tolist() if isinstance(value, torch.Tensor) else value)
    texts = [key for key, value in sample.items() if not isinstance(value, torch.Tensor) or value.ndim < 2]
    raise no_such("label field", name, dict.fromkeys([*texts, *samples.columns]))


def facts(samples: Samples, name: str) -> list[Any]:
    """A value of every sample, as `fact`; samples are read only when no column has the name. An unreadable sample's
    value is None."""
    if name in samples.columns:
        return [plain(value) for value in samples.column(name)]
    read = ((i, samples[i]) for i in range(len(samples)))
    return [None if isinstance(s, BadSample) else fact(samples, i, s, name) for i, s in read]


def plain(value: Any) -> Any:
    """A Python value; NaN, NA and the empty text are None.

    >>> plain(np.float64("nan")) is None, plain(np.int64(3))
    (True, 3)
    """
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or type(value).__name__ == "NAType" or (isinstance(value, str) and not value):
        return None
    return None if isinstance(value, float) and value != value else value


def joined_values(value: Any) -> str:
    """A value as people read it: several of one row with blanks between, or with commas where one holds a blank.

    >>> joined_values(["Toy", "Story"]), joined_values(["film noir", "crime"]), joined_values(None), joined_values(7)
    ('Toy Story', 'film noir, crime', '', '7')
    """
    if not isinstance(value, list | tuple):
        return "" if value is None else str(value)
    said = [str(one) for one in value if one is not None]
    return (", " if any(" " in one for one in said) else " ").join(said)


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Stack tensors and numbers; text, values some of which are missing (None), and what does not stack stay a list.

    >>> collate([{"x": torch.zeros(2), "id": "a"}, {"x": torch.ones(2), "id": "b"}])["id"]
    ['a', 'b']
    """
    batch = {}
    if odd := set().union(*samples) - set(samples[0]).intersection(*samples):
        raise ValueError(f"field {min(odd)!r} stands in some samples of a batch only: give None where it is missing")
    for name in samples[0]:
        values = [sample[name] for sample in samples]
        first = values[0]
        if any(v is None for v in values):
            batch[name] = values
            continue
        if isinstance(first, torch.Tensor) and any(v.shape != first.shape for v in values):
            shapes = sorted({tuple(v.shape) for v in values})
            raise ValueError(
                f"field {name!r} has several shapes in one batch ({shapes[0]}, {shapes[1]}): pad or crop it"
            )
        if isinstance(first, (torch.Tensor, np.ndarray, int, float, np.number)):
            batch[name] = default_collate(values)
        else:
            batch[name] = values
    return batch


def options_hash(data: str, **options: Any) -> str:
    """sha256 of a data hash and of the options under which the data are read.

    >>> options_hash("a", length=3) == options_hash("a", length=3), options_hash("a", length=4) == options_hash("a")
    (True, False)
    """
    if not options:
        return data
    said = json.dumps(options, sort_keys=True, default=str)
    return hashlib.sha256(f"{data}\n{said}".encode()).hexdigest()


def values_hash(values: Any) -> str:
    """sha256 of nested dictionaries, sequences, tensors, arrays and plain values.

    >>> values_hash([{"x": torch.ones(2)}]) == values_hash([{"x": torch.zeros(2)}])
    False
    """
    seen = hashlib.sha256()

    def visit(value: Any) -> None:
        if isinstance(value, Mapping):
            seen.update(b"{")
            for key in sorted(value, key=str):
                seen.update(f"{key}:".encode())
                visit(value[key])
        elif isinstance(value, (torch.Tensor, np.ndarray)):
            array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
            seen.update(f"{array.dtype}{array.shape}".encode())
            seen.update(np.ascontiguousarray(array).tobytes())
        elif isinstance(value, (list, tuple)):
            seen.update(b"[")
            for item in value:
                visit(item)
        elif hasattr(value, "__dict__"):
            seen.update(type(value).__name__.encode())
            visit(vars(value))
        else:
            seen.update(f"{type(value).__name__}:{value!r};".encode())

    visit(values)
    return seen.hexdigest()


def checked(samples: Any, where: str) -> Samples:
    """`samples`, if it is one; else a sentence for whoever wrote the data set."""
    if isinstance(samples, Samples):
        return samples
    raise TypeError(
        f"{where} is a {type(samples).__name__}, not Samples: derive it from counterpoint.common.data.Samples "
        "(ids, groups, hash, collate), or wrap a list of dictionaries in ListSamples"
    )


def refuse_bad(bad: int, seen: int, max_bad: float, first: BadSample) -> None:
    """Stop when more than a share `max_bad` of the samples seen could not be read."""
    if bad > max_bad * seen:
        raise InputError(
            f"{bad} of {seen} samples could not be read, more than a share of {max_bad:g} (--train.max_bad); the "
            f"first: {first.id}: {first.reason}"
        )


def _picked(values: Sequence[Any], positions: np.ndarray) -> list[Any]:
    return [values[p] for p in positions.tolist()]
