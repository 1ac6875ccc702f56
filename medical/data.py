"""Volumes and their reports as samples: volumes brought to the recipe once and kept, reports as a pool of their own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoint.common.data import BadSample, Cache, Links, Manifest, Samples
from counterpoint.common.data.contents import Contents, contents_of
from counterpoint.common.data.dataset import synthetic_part
from counterpoint.common.data.importing import plain_reason
from counterpoint.common.data.isolation import isolated_map
from counterpoint.common.data.left_out import leave_out
from counterpoint.common.data.manifest import SPLITS
from counterpoint.common.data.places import Folder
from counterpoint.common.data.samples import collate, options_hash, plain, values_hash
from counterpoint.common.data.splits import check_leakage
from counterpoint.common.errors import InputError
from counterpoint.common.progress import track
from counterpoint.common.vertical import Rejected
from counterpoint.medical.configs import CTDataConfig, RecipeConfig
from counterpoint.medical.reading import row_labels, row_reports, row_volume
from counterpoint.medical.reports import RadiologyReport, plain_words, sentences
from counterpoint.medical.simulate import cached_phantoms
from counterpoint.medical.tokens import ReportTokenizer
from counterpoint.medical.volume import Volume, labels_to_recipe, to_recipe

PREPARED = 1
"""Of how volumes are brought to a recipe: another number makes them anew."""


@dataclass(frozen=True)
class CTData:
    """What a configuration names: rows whose volumes could be read, the prepared volumes, the texts of the reports.

    Attributes:
        manifest: the rows.
        volumes: of every row, the file of the prepared volume.
        reports: of every row, the texts.
        labels: of every row, the file of the prepared label map; None where it has none.
        left_out: split -> rows that could not be read.
    """

    manifest: Manifest
    volumes: tuple[Path, ...]
    reports: tuple[tuple[str, ...], ...]
    left_out: Mapping[str, Sequence[BadSample]]
    labels: tuple[Path | None, ...] = ()

    def rows(self, split: str) -> list[int]:
        """Places of a split's rows."""
        return np.flatnonzero((self.manifest.frame["split"] == split).to_numpy()).tolist()

    def label_map(self, row: int, recipe: RecipeConfig) -> Tensor:
        """[x, y, z] the label of every voxel of a row on the recipe's grid; -1 throughout where it has no map."""
        if (file := self.labels[row]) is None:
            return torch.full(tuple(recipe.size), -1, dtype=torch.int64)
        return torch.from_numpy(load_prepared(file)[0].astype(np.int64))


def load_ct(config: CTDataConfig, on_error: str = "raise", max_bad: float = 0.01) -> CTData:
    """Read every volume of the manifest (or of the generator), bring it to the recipe, read the reports.

    Prepared volumes are kept in the cache under the file's identity and the recipe. Reading is done in worker
    processes.

    Raises:
        InputError: a row cannot be read and `on_error` is `raise`, or too many cannot; rows without a split; a patient
            in two splits.
    """
    if config.manifest:
        manifest = Manifest.load(config.manifest)
        where = config.manifest
    else:
        sizes = {"train": config.volumes, "val": config.val_volumes, "test": config.test_volumes}
        manifest = cached_phantoms(sizes, config.seed, config.phantom, config.workers, config.cache)
        where = "generated volumes"
    check_leakage(manifest)
    rows = [manifest.row(i) for i in range(len(manifest))]
    if not any(row.get("split") for row in rows):
        raise InputError(f"{where}: rows without a split; run `counterpoint medical data split` on it first")
    numbers = manifest.frame.index.tolist()
    read = partial(_prepared, folder=manifest.folder, recipe=config.recipe, cache=config.cache)
    found = isolated_map(read, rows, workers=config.workers, chunk=4, name=lambda row: str(row["id"]))
    made, bad = [], []
    for (row, got), number in zip(track(found, "reading volumes", len(rows)), numbers):
        if isinstance(got, Rejected):
            bad.append((row["split"], BadSample(number, str(row["id"]), plain_reason(got.reason, Path(got.source)))))
        made.append(got)
    leave_out([b for _, b in bad], len(rows), on_error, max_bad, where)
    kept = [i for i, got in enumerate(made) if not isinstance(got, Rejected)]
    left_out = {name: tuple(b for split, b in bad if split == name) for name in SPLITS}
    part = replace(manifest, frame=manifest.frame.iloc[kept])
    volumes, reports, labels = zip(*(made[i] for i in kept)) if kept else ((), (), ())
    return CTData(part, volumes, tuple(map(tuple, reports)), left_out, labels)


def _prepared(
    row: dict[str, Any], folder: Folder, recipe: RecipeConfig, cache: str
) -> tuple[Path, list[str], Path | None]:
    """In a worker: the file of a row's prepared volume, made if it is not in the cache, its reports, and the file of
    its prepared label map where it has one."""
    if not isinstance(row.get("volume"), str):
        raise InputError("no file named in column 'volume'")
    file = Path(folder / row["volume"])
    reports = row_reports(row, folder)
    reading = {name: str(row.get(name) or "") for name in ("modality", "hu", "slope", "intercept")}
    store, known = Cache(cache or None), {"version": PREPARED, "recipe": asdict(recipe)}
    key = {"kind": "medical-volume", **known, **_identity(file), **reading}
    path = store.get_or_make(key, ".npz", lambda p: _keep(p, to_recipe(row_volume(row, folder), recipe)))
    if not isinstance(row.get("labels"), str) or not row["labels"]:
        return path, reports, None
    maps = Path(folder / row["labels"])
    key = {"kind": "medical-labels", **known, "volume": _identity(file), **_identity(maps)}
    return path, reports, store.get_or_make(key, ".npz", lambda p: _keep_labels(p, row, folder, recipe))


def _identity(file: Path) -> dict[str, Any]:
    """What says that a file is the one that was read before."""
    stat = os.stat(file)
    return {"file": str(file.resolve()), "size": stat.st_size, "mtime": stat.st_mtime_ns}


def _keep_labels(path: Path, row: dict[str, Any], folder: Folder, recipe: RecipeConfig) -> None:
    """The nearest voxel's label on the recipe's grid."""
    truth = row_labels(row, folder)
    made = labels_to_recipe(truth, recipe)
    with path.open("wb") as file:
        np.savez(file, data=made.data, affine=made.affine)


def _keep(path: Path, volume: Volume) -> None:
    """HU as int16: finer differences are below any scanner's noise. Values of fractions stay float32."""
    data = volume.data
    whole = float(data.min()) >= -(2**15) and float(data.max()) < 2**15 and float(data.max() - data.min()) > 256
    kept = np.rint(data).astype(np.int16) if whole else data.astype(np.float32)
    with path.open("wb") as file:
        np.savez(file, data=kept, affine=volume.affine)


def load_prepared(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(values, affine) of a prepared volume."""
    with np.load(path, allow_pickle=False) as archive:
        return archive["data"], archive["affine"]


class Sentences:
    """The different sentences of a batch's reports, and which report says which.

    Attributes:
        tokens: [sentences, length].
        said: [batch, sentences] whether the sample's report has the sentence.
    """

    def __init__(self, tokens: Tensor, said: Tensor) -> None:
        self.tokens, self.said = tokens, said

    @classmethod
    def of(cls, tokens: Sequence[Tensor], texts: Sequence[Sequence[str]]) -> Sentences:
        """Of the samples' sentences: their tokens and their words, by which equal ones are told."""
        place: dict[str, int] = {}
        kept: list[Tensor] = []
        for rows, words in zip(tokens, texts):
            for row, text in zip(rows, words):
                if plain_words(text) not in place:
                    place[plain_words(text)] = len(place)
                    kept.append(row)
        said = torch.zeros(len(texts), len(place), dtype=torch.bool)
        for i, words in enumerate(texts):
            for text in words:
                said[i, place[plain_words(text)]] = True
        stacked = torch.stack(kept) if kept else torch.zeros(0, 3, dtype=torch.long)
        return cls(stacked, said)

    def to(self, device: torch.device | str) -> Sentences:
        return Sentences(self.tokens.to(device), self.said.to(device))

    def cut(self, start: int, stop: int) -> Sentences:
        return Sentences(self.tokens, self.said[start:stop])

    def __len__(self) -> int:
        return len(self.said)


class ReportPool(Samples):
    """The reports of a split, each text once: equal reports are one, and right for all of their volumes."""

    def __init__(self, data: CTData, rows: Sequence[int], config: CTDataConfig, tokenizer: ReportTokenizer) -> None:
        self.config, self.tokenizer = config, tokenizer
        self.synthetic, self.manifest = synthetic_part(data.manifest), data.manifest
        self.texts: dict[str, str] = {}
        self.owners: list[int] = []
        names, groups = data.manifest.frame["id"].tolist(), data.manifest.frame["group"].tolist()
        self._ids, self._groups = [], []
        for row in rows:
            for number, text in enumerate(data.reports[row], start=1):
                if plain_words(text) not in self.texts:
                    self.texts[plain_words(text)] = text
                    self.owners.append(row)
                    self._ids.append(f"{names[row]}--{number}")
                    self._groups.append(groups[row])
        self.place = {key: i for i, key in enumerate(self.texts)}

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, position: int) -> dict[str, Any]:
        text = list(self.texts.values())[position]
        known = {"index": position, "id": self.ids[position], "group": self.groups[position]}
        return {**known, **report_sample(text, self.config, self.tokenizer)}

    @property
    def ids(self) -> list[str]:
        return self._ids

    @property
    def groups(self) -> list[str]:
        return self._groups

    @cached_property
    def hash(self) -> str:
        return options_hash(values_hash(list(self.texts)), sections=self.config.sections, length=self.config.tokens)

    def row_of(self, position: int) -> int:
        return int(self.manifest.frame.index[self.owners[position]])


def report_sample(text: str, config: CTDataConfig, tokenizer: ReportTokenizer) -> dict[str, Any]:
    """A report in a system's form: the tokens of the configured sections, the sentence of each, and the whole text."""
    report = RadiologyReport(text)
    shown = report.section(*config.sections) if config.sections else text
    tokens, sentence_of = tokenizer.sentences(sentences(shown or text), config.tokens)
    return {"report": tokens, "sentence_of": sentence_of, "text": text}


class CTReports(Samples):
    """The volumes of a split with a drawn one of their reports.

    A sample holds `ct` [x, y, z] in the recipe's values, `affine`, `report` (tokens) and `text` of a report, or an
    empty one where there is none; for training also the sentences; where `labelled`, and where the data have label
    maps, `labels` [x, y, z].
    """

    def __init__(
        self,
        data: CTData,
        split: str,
        config: CTDataConfig,
        tokenizer: ReportTokenizer,
        on_error: str,
        max_bad: float,
        labelled: bool = False,
    ) -> None:
        self.data, self.split, self.config, self.tokenizer = data, split, config, tokenizer
        self.on_error, self.max_bad, self.labelled = on_error, max_bad, labelled
        self.manifest, self.synthetic = data.manifest, synthetic_part(data.manifest)
        self.left_out = data.left_out.get(split, ())
        self.rows = data.rows(split)
        self.frame = data.manifest.frame.iloc[self.rows]
        self.columns = tuple(self.frame.columns)
        self.pools = {"report": ReportPool(data, self.rows, config, tokenizer)}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> dict[str, Any]:
        row = self.rows[position]
        data, affine = load_prepared(self.data.volumes[row])
        texts = self.data.reports[row]
        text = texts[int(torch.randint(len(texts), ()))] if len(texts) > 1 else texts[0] if texts else ""
        known = {"index": position, "id": self.ids[position], "group": self.groups[position]}
        if self.labelled and "labels" in self.columns:
            known["labels"] = self.data.label_map(row, self.config.recipe)
        told = RadiologyReport(text).sentences[: self.config.sentences]
        return {
            **known, "ct": torch.from_numpy(data.astype(np.float32)), "affine": torch.from_numpy(affine),
            **report_sample(text, self.config, self.tokenizer), "sentences": told,
        }  # fmt: skip

    @cached_property
    def ids(self) -> list[str]:
        return self.frame["id"].astype(str).tolist()

    @cached_property
    def groups(self) -> list[str]:
        return self.frame["group"].astype(str).tolist()

    def column(self, name: str) -> list[Any]:
        return [plain(v) for v in self.frame[name].tolist()] if name in self.columns else list(super().column(name))

    def row_of(self, position: int) -> int:
        return int(self.frame.index[position])

    @cached_property
    def contents(self) -> Contents:
        """What is known of the volumes' files without reading them."""
        return contents_of(replace(self.manifest, frame=self.frame))

    @cached_property
    def hash(self) -> str:
        table = replace(self.manifest, frame=self.frame)
        options = {
            "sizes": self.contents.sizes, "recipe": asdict(self.config.recipe), "prepared": PREPARED,
            "reports": [self.data.reports[r] for r in self.rows], "sections": self.config.sections,
            "length": self.config.tokens,
        }  # fmt: skip
        return options_hash(table.hash, **options)

    @property
    def written(self) -> str:
        return self.contents.written

    def collate(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        if "sentences" not in samples[0]:
            return collate(samples)
        batch = collate([{k: v for k, v in s.items() if k != "sentences"} for s in samples])
        tokens = [self.tokenizer(s["sentences"], self.config.sentence_tokens) for s in samples]
        return batch | {"sentences": Sentences.of(tokens, [s["sentences"] for s in samples])}

    def relevant(self, query: str, key: str) -> Links | None:
        """Every volume of which a report's very words are said."""
        if (query, key) != ("report", "ct"):
            return None
        pool = self.pools["report"]
        found = [(pool.place[plain_words(t)], v) for v, row in enumerate(self.rows) for t in self.data.reports[row]]
        return Links([a for a, _ in found], [b for _, b in found], (len(pool), len(self)))
