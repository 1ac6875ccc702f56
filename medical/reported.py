"""Reports of scans as samples: tokens, the sentences of a batch, and a pool in which equal reports are one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from counterpoint.common.data import Links, Samples
from counterpoint.common.data.contents import Contents, contents_of
from counterpoint.common.data.dataset import synthetic_part
from counterpoint.common.data.samples import collate, options_hash, values_hash
from counterpoint.common.errors import InputError
from counterpoint.common.progress import note
from counterpoint.medical.reports import RadiologyReport, plain_words, sentences
from counterpoint.medical.rows import RowSamples
from counterpoint.medical.tokens import ReportTokenizer


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

    def __init__(self, data: Any, rows: Sequence[int], config: Any, tokenizer: ReportTokenizer) -> None:
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
        self._texts = list(self.texts.values())

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, position: int) -> dict[str, Any]:
        text = self._texts[position]
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


def report_sample(text: str, config: Any, tokenizer: ReportTokenizer) -> dict[str, Any]:
    """A report in a system's form: the tokens of the configured sections, the sentence of each, and the whole text."""
    report = RadiologyReport(text)
    shown = report.section(*config.sections) if config.sections else text
    tokens, sentence_of = tokenizer.sentences(sentences(shown or text), config.tokens)
    return {"report": tokens, "sentence_of": sentence_of, "text": text}


class ReportedSamples(RowSamples):
    """The scans of a split with a drawn one of their reports; what volumes and radiographs share.

    `told` keeps the rows with a report alone: what a contrast learns from. A scan without one answers an empty text
    otherwise, and all of them would be told to be alike.
    """

    scan: str
    """The scan's modality."""

    def __init__(
        self,
        data: Any,
        split: str,
        config: Any,
        tokenizer: ReportTokenizer,
        on_error: str,
        max_bad: float,
        told: bool = False,
    ) -> None:
        self.data, self.split, self.config, self.tokenizer = data, split, config, tokenizer
        self.on_error, self.max_bad = on_error, max_bad
        self.manifest, self.synthetic = data.manifest, synthetic_part(data.manifest)
        self.left_out = data.left_out.get(split, ())
        every = data.rows(split)
        self.rows = [row for row in every if data.reports[row]] if told else every
        if every and not self.rows:
            raise InputError(f"split {split}: none of its {len(every)} rows has a report; import with --reports")
        if len(self.rows) < len(every):
            note(f"{len(every) - len(self.rows)} of {len(every)} rows of {split} have no report: not trained on")
        self.frame = data.manifest.frame.iloc[self.rows]
        self.columns = tuple(self.frame.columns)
        self.pools = {"report": ReportPool(data, self.rows, config, tokenizer)}

    def known(self, position: int) -> dict[str, Any]:
        """The names of a sample, and one of its reports, drawn: its tokens, its words, its sentences."""
        texts = self.data.reports[self.rows[position]]
        text = texts[int(torch.randint(len(texts), ()))] if len(texts) > 1 else texts[0] if texts else ""
        names = {"index": position, "id": self.ids[position], "group": self.groups[position]}
        said = RadiologyReport(text).sentences[: self.config.sentences]
        return {**names, **report_sample(text, self.config, self.tokenizer), "sentences": said}

    @cached_property
    def contents(self) -> Contents:
        """What is known of the volumes' files without reading them."""
        return contents_of(replace(self.manifest, frame=self.frame))

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
        """Every scan of which a report's very words are said."""
        if (query, key) != ("report", self.scan):
            return None
        pool = self.pools["report"]
        found = [(pool.place[plain_words(t)], v) for v, row in enumerate(self.rows) for t in self.data.reports[row]]
        return Links([a for a, _ in found], [b for _, b in found], (len(pool), len(self)))
