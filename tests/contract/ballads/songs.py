"""Songs as samples: two verses of each row, and a pool of all that people say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from counterpoint.common.data import BadSample, Links, Manifest, Samples
from counterpoint.common.data.samples import collate, options_hash, plain, values_hash
from counterpoint.common.errors import InputError
from counterpoint.common.trainers import Assets

from .ragged import Ragged

VERSES = 2
UNKNOWN = "<unknown>"
INPUTS = ("tune", "caption")


def read_verses(file: Path) -> list[list[int]]:
    """The pitches of every verse of a .tune file: one verse a line."""
    try:
        verses = [[int(word) for word in line.split()] for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"{file.name}: not lines of pitches ({error})") from error
    if not verses or not all(verses):
        raise InputError(f"{file.name}: a verse is empty; write its pitches in a line, as in 60 62 64")
    return verses


def check_row(row: dict, root: Any) -> None:
    """A song has two verses, and somebody says something of each."""
    verses = read_verses(Path(root / row["file"]))
    if len(verses) != VERSES:
        raise InputError(f"{row['file']}: {len(verses)} verses; a song has {VERSES}")
    for verse in range(1, VERSES + 1):
        if not said_of(row, verse):
            raise InputError(f"says{verse} is empty; say something of the verse")


def said_of(row: Mapping[str, Any], verse: int) -> list[str]:
    """The captions of a verse, counted from 1."""
    text = plain(row[f"says{verse}"]) or ""
    return [caption.strip() for caption in text.split("|") if caption.strip()]


def learn_words(manifest: Manifest) -> list[str]:
    """The words of all captions, in alphabetical order."""
    rows = manifest.frame.to_dict("records")
    said = (caption for row in rows for verse in range(1, VERSES + 1) for caption in said_of(row, verse))
    return sorted({word for caption in said for word in caption.split()})


def learn_pitches(manifest: Manifest) -> np.ndarray:
    """Mean and deviation of all pitches that can be read."""
    found: list[int] = []
    for name in manifest.frame["file"]:
        try:
            found += [pitch for verse in read_verses(Path(manifest.file(name))) for pitch in verse]
        except InputError:
            continue
    if not found:
        raise InputError(f"{manifest.path}: not one tune of the training split can be read; run data check")
    return np.array([np.mean(found), np.std(found) or 1.0])


class Reader:
    """Texts and pitches as tensors, by what was learnt of the training split."""

    def __init__(self, assets: Assets, transpose: int = 0) -> None:
        self.places = {word: i for i, word in enumerate(assets["words"])}
        self.mean, self.deviation = assets["pitches"].tolist()
        self.transpose = transpose

    def words(self, caption: str) -> torch.Tensor:
        """Places of the words in the vocabulary; all unknown ones share the first."""
        return torch.tensor([self.places.get(word, 0) for word in caption.split()])

    def notes(self, pitches: Sequence[int]) -> torch.Tensor:
        """Standardised pitches."""
        return (torch.tensor(pitches, dtype=torch.float32) + self.transpose - self.mean) / self.deviation


def collate_songs(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Samples to a batch; what is heard and said are of different lengths."""
    batch = collate([{name: value for name, value in s.items() if name not in INPUTS} for s in samples])
    return batch | {name: Ragged.of([s[name] for s in samples]) for name in INPUTS if name in samples[0]}


class Captions(Samples):
    """Everything that is said in a split, each text once."""

    def __init__(self, manifest: Manifest, reader: Reader, synthetic: Any) -> None:
        self.reader, self.synthetic, self.manifest = reader, synthetic, manifest
        self.texts: dict[str, int] = {}
        for position, row in enumerate(manifest.frame.to_dict("records")):
            for verse in range(1, VERSES + 1):
                for text in said_of(row, verse):
                    self.texts.setdefault(text, position)

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, position: int) -> dict[str, Any]:
        text = self.ids[position]
        known = {"index": position, "id": text, "group": self.groups[position], "text": text}
        return {"caption": self.reader.words(text), **known}

    @cached_property
    def ids(self) -> list[str]:
        return list(self.texts)

    @cached_property
    def groups(self) -> list[str]:
        return self.manifest.frame["group"].iloc[list(self.texts.values())].tolist()

    @property
    def hash(self) -> str:
        return values_hash([self.ids, list(self.reader.places)])

    def row_of(self, position: int) -> int:
        return int(self.manifest.frame.index[self.texts[self.ids[position]]])

    def collate(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return collate_songs(samples)


class Verses(Samples):
    """The verses of a split: two of each row of the manifest, one drawn caption with each."""

    def __init__(self, manifest: Manifest, reader: Reader, on_error: str = "raise", max_bad: float = 0.01) -> None:
        self.manifest, self.reader, self.on_error, self.max_bad = manifest, reader, on_error, max_bad
        self.synthetic = manifest.meta.get("synthetic", "")
        self.rows = manifest.frame.to_dict("records")
        self.columns = tuple(manifest.frame.columns)
        self.pools = {"caption": Captions(manifest, reader, self.synthetic)}

    def __len__(self) -> int:
        return VERSES * len(self.rows)

    def __getitem__(self, position: int) -> dict[str, Any] | BadSample:
        row, verse = self.rows[position // VERSES], position % VERSES
        name = self.ids[position]
        try:
            verses = read_verses(Path(self.manifest.file(row["file"])))
            pitches = verses[verse]
        except (InputError, IndexError) as error:
            if self.on_error == "skip":
                return BadSample(position, name, str(error))
            raise InputError(f"{self.manifest.path}, song {row['id']}: {error}; run data check") from error
        said = self.captions(position)
        drawn = said[int(torch.randint(len(said), ()))]
        known = {"index": position, "id": name, "group": str(row["group"]), "text": drawn}
        return {"tune": self.reader.notes(pitches), "caption": self.reader.words(drawn), **known}

    def captions(self, position: int) -> list[str]:
        """All that is said of a verse."""
        return said_of(self.rows[position // VERSES], position % VERSES + 1)

    @cached_property
    def ids(self) -> list[str]:
        return [f"{row['id']}/{verse + 1}" for row in self.rows for verse in range(VERSES)]

    @property
    def groups(self) -> list[str]:
        return [str(row["group"]) for row in self.rows for _ in range(VERSES)]

    def column(self, name: str) -> list[Any]:
        if name not in self.columns:
            return list(super().column(name))
        return [plain(row[name]) for row in self.rows for _ in range(VERSES)]

    def row_of(self, position: int) -> int:
        return int(self.manifest.frame.index[position // VERSES])

    @cached_property
    def hash(self) -> str:
        tunes = [Path(self.manifest.file(row["file"])) for row in self.rows]
        heard = [file.read_bytes().hex() if file.is_file() else "" for file in tunes]
        options = {"words": list(self.reader.places), "pitches": [self.reader.mean, self.reader.deviation]}
        return options_hash(self.manifest.hash, heard=heard, transpose=self.reader.transpose, **options)

    def collate(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return collate_songs(samples)

    def relevant(self, query: str, key: str) -> Links | None:
        """Every verse of which a caption's very words are said."""
        if (query, key) != ("caption", "tune"):
            return None
        places = {text: i for i, text in enumerate(self.pools["caption"].ids)}
        found = [(places[text], verse) for verse in range(len(self)) for text in self.captions(verse)]
        return Links([a for a, _ in found], [b for _, b in found], (len(places), len(self)))

    def exclude(self, query: str, key: str) -> Links | None:
        """The other verse of a song of which something is said: it is neither right nor wrong."""
        links = self.relevant(query, key)
        if links is None:
            return None
        right = set(links.pairs)
        others = {(caption, verse ^ 1) for caption, verse in right} - right
        return Links([a for a, _ in others], [b for _, b in others], links.shape)
