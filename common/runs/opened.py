"""A run opened: its system and every split of its data, encoded when somebody asks and kept. What protocols are given.

A vertical's protocol is a function of it: `(run: OpenRun) -> dict[str, Result]`, free to ask for other splits, for
features and for dense features, and never encoding anything by itself.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from counterpoint.common.data import Samples
from counterpoint.common.data.encoding import EncodedRows, encode_rows, encoded_batches
from counterpoint.common.errors import InputError
from counterpoint.common.progress import note
from counterpoint.common.runs.encode import Encoded, NoSplit, check_apart, encode_part, open_data, present
from counterpoint.common.suggest import no_such


class OpenRun:
    """A system and the splits of its data.

    Attributes:
        system: the trained system.
        split: the split under evaluation, which is meant where none is named.
        label: the field or column of the labels, where one was asked for.
        limit: the first so many samples of each split are used; None for all.
        n_boot, seed: resamples of the intervals, and the seed of everything that a protocol draws.
    """

    n_boot: int = 1000
    seed: int = 0

    def __init__(
        self,
        system: Any,
        data: Mapping[str, Samples],
        split: str = "test",
        *,
        label: str | None = None,
        limit: int | None = None,
        batch_size: int = 128,
        name: str = "",
    ) -> None:
        self.system, self.data, self.split = system, dict(data), split
        self.label, self.limit, self.batch_size = label, limit, batch_size
        self.name = name or type(system).__name__
        self._encoded: dict[str, Encoded] = {}
        self._features: dict[str, EncodedRows] = {}

    @classmethod
    def load(
        cls, run: Path, checkpoint: str = "best", split: str = "test", *, manifest: Path | None = None,
        settings: Mapping[str, Any] | None = None, **options: Any,
    ) -> OpenRun:  # fmt: skip
        """Open a run's checkpoint on its data, or on `manifest`, under other `settings` of its configuration where
        given; `NoSplit` where the data lack the split."""
        system, data = open_data(run, checkpoint, split, manifest, settings)
        check_apart(system)
        return cls(system, data, split, name=str(run), **options)

    @classmethod
    def of(cls, system: Any, split: str = "test", **options: Any) -> OpenRun:
        """A system at hand on its own data."""
        return cls(system, present(system.evaluation_datasets()), split, **options)

    def with_system(self, system: Any) -> OpenRun:
        """The same data under another system."""
        options = {"label": self.label, "limit": self.limit, "batch_size": self.batch_size}
        return OpenRun(system, self.data, self.split, name=self.name, **options)

    def drawing(self, n_boot: int, seed: int) -> OpenRun:
        """The same run, with what is encoded already, for protocols that draw so."""
        other = copy.copy(self)
        other.n_boot, other.seed = n_boot, seed
        return other

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that there are."""
        return tuple(self.data)

    def samples(self, split: str | None = None) -> Samples:
        """The data set of a split."""
        name = split or self.split
        if name not in self.data:
            raise NoSplit(str(no_such("split", name, self.data)))
        return self.data[name]

    def encoded(self, split: str | None = None) -> Encoded:
        """The embeddings of a split, made once."""
        name = split or self.split
        if name not in self._encoded:
            samples = self.samples(name)
            rows = self._rows(samples)
            if not rows:
                raise InputError(f"{self.name}: the {name} split is empty")
            found = encode_part(self.system, samples, rows, self.batch_size, self.label)
            if not found.ids:
                raise InputError(f"{self.name}: no sample of {name} could be read; the first: {found.left_out[0][1]}")
            if found.left_out:
                first, reason = found.left_out[0]
                note(f"{len(found.left_out)} unreadable samples are left out; the first: {first}: {reason}")
            self._encoded[name] = found
        return self._encoded[name]

    def features(self, split: str | None = None) -> EncodedRows:
        """What heads and probes stand on (`System.features`), made once."""
        name = split or self.split
        if name not in self._features:
            samples = self.samples(name)
            options = {"what": "features", "batch_size": self.batch_size, "progress": "encoding"}
            self._features[name] = encode_rows(self.system, samples, self._rows(samples), **options)
        return self._features[name]

    def dense(self, split: str | None = None) -> Iterator[EncodedRows]:
        """Representations of every place of the samples, batch by batch: all of them would not fit into memory."""
        samples = self.samples(split)
        what: Literal["dense"] = "dense"
        return encoded_batches(self.system, samples, self._rows(samples), what=what, batch_size=self.batch_size)

    def _rows(self, samples: Samples) -> range:
        return range(len(samples) if self.limit is None else min(self.limit, len(samples)))
