"""Windows of recordings as samples: several of a long one, one of a short one, filled up with silence."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from counterpoint.audio_speech.sounds.configs import SoundConfig
from counterpoint.audio_speech.sounds.reading import levelled, read_stretch
from counterpoint.audio_speech.sounds.words import CaptionWords
from counterpoint.common.data import BadSample, Links, Manifest, Samples, check_leakage
from counterpoint.common.data.contents import contents_of
from counterpoint.common.data.dataset import synthetic_part
from counterpoint.common.data.samples import options_hash, plain
from counterpoint.common.errors import InputError
from counterpoint.common.suggest import no_such
from counterpoint.common.trainers import Datasets
from counterpoint.common.trainers.configs import TrainConfig

NEEDED = ("file", "seconds")


class SoundWindows(Samples):
    """Windows of the recordings of a split.

    A sample holds `sound` `[samples]` float32, mono, at the configuration's rate and at one level; `length`, how many
    samples of it are sound; `seconds` where it begins in its file; with a vocabulary also `caption` `[words]` and
    `said`, its text. A recording gives as many windows as hear all of it, evenly spread; `moving` ones are drawn
    anew at every reading. `captions` are a pool of their own: words said of several recordings are one caption.
    """

    def __init__(
        self,
        manifest: Manifest,
        config: SoundConfig,
        train: TrainConfig,
        *,
        words: CaptionWords | None = None,
        moving: bool = False,
    ) -> None:
        self.manifest, self.config, self.words, self.moving = manifest, config, words, moving
        self.on_error, self.max_bad = train.on_error, train.max_bad
        self.synthetic = synthetic_part(manifest)
        self.columns = tuple(manifest.frame.columns)
        self.rows = manifest.frame.to_dict("records")
        self.windows = [(i, start) for i, row in enumerate(self.rows) for start in _starts(row["seconds"], config)]
        if words is not None:
            self.said = [captions_of_row(row, config.caption, manifest) for row in self.rows]
            self.pools = {"caption": Captions(self, words)}

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, position: int) -> dict[str, Any] | BadSample:
        number, start = self.windows[position]
        row, name = self.rows[number], self.ids[position]
        seconds = float(row["seconds"])
        if self.moving and seconds > self.config.seconds:
            start = float(torch.rand(())) * (seconds - self.config.seconds)
        begin = float(plain(row.get("start")) or 0.0) + start
        try:
            wave = read_stretch(
                self.manifest.file(row["file"]), self.config.sample_rate, begin, min(self.config.seconds, seconds),
                int(plain(row.get("channel")) or 0),
            )  # fmt: skip
        except InputError as error:
            if self.on_error == "skip":
                return BadSample(self.row_of(position), name, str(error))
            where = f"{self.manifest.path or 'manifest'}, row {self.row_of(position) + 1} (id {row['id']})"
            raise InputError(f"{where}: {error}; repair the row, or train with --train.on_error skip") from error
        sample = {"sound": fixed_length(wave, self.config.samples), "length": min(len(wave), self.config.samples)}
        sample |= {"index": position, "id": name, "group": str(row["group"]), "seconds": round(begin, 3)}
        if self.words is not None:
            said = self.said[number]
            text = said[int(torch.randint(len(said), ())) if self.moving else 0]
            sample |= {"caption": self.words.numbers(text), "said": text}
        return sample

    @cached_property
    def ids(self) -> list[str]:
        many = np.bincount([number for number, _ in self.windows], minlength=len(self.rows))
        names = [str(row["id"]) for row in self.rows]
        return [names[n] if many[n] == 1 else f"{names[n]}:{start:.2f}" for n, start in self.windows]

    @cached_property
    def groups(self) -> list[str]:
        return [str(self.rows[number]["group"]) for number, _ in self.windows]

    def column(self, name: str) -> list[Any]:
        if name not in self.columns:
            raise no_such("column", name, self.columns)
        values = [plain(value) for value in self.manifest.frame[name]]
        return [values[number] for number, _ in self.windows]

    def row_of(self, position: int) -> int:
        return int(self.manifest.frame.index[self.windows[position][0]])

    @cached_property
    def _contents(self) -> Any:
        return contents_of(self.manifest)

    @cached_property
    def hash(self) -> str:
        reading = {"rate": self.config.sample_rate, "seconds": self.config.seconds, "moving": self.moving}
        words = None if self.words is None else [*self.words.facts, self.config.caption]
        return options_hash(self.manifest.hash, **reading, words=words, sizes=self._contents.sizes)

    @property
    def written(self) -> str:
        return self._contents.written

    def relevant(self, query: str, key: str) -> Links | None:
        """Every window of a recording of which a caption is said."""
        if (query, key) != ("caption", "sound") or self.words is None:
            return None
        places = {text: i for i, text in enumerate(self.pools["caption"].ids)}
        pairs = [(places[text], w) for w, (number, _) in enumerate(self.windows) for text in self.said[number]]
        return Links([a for a, _ in pairs], [b for _, b in pairs], (len(places), len(self)))


class Captions(Samples):
    """All that is said in a split, each text once."""

    def __init__(self, windows: SoundWindows, words: CaptionWords) -> None:
        self.words, self.synthetic, self.manifest = words, windows.synthetic, windows.manifest
        self.first: dict[str, int] = {}
        for number, said in enumerate(windows.said):
            for text in said:
                self.first.setdefault(text, number)
        self._rows = windows.rows

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, position: int) -> dict[str, Any]:
        text = self.ids[position]
        known = {"index": position, "id": text, "group": self.groups[position], "said": text}
        return {"caption": self.words.numbers(text), **known}

    @cached_property
    def ids(self) -> list[str]:
        return list(self.first)

    @cached_property
    def groups(self) -> list[str]:
        return [str(self._rows[number]["group"]) for number in self.first.values()]

    @property
    def hash(self) -> str:
        return options_hash("captions", said=self.ids, words=self.words.facts)

    def row_of(self, position: int) -> int:
        return int(self.manifest.frame.index[self.first[self.ids[position]]])


def _starts(seconds: Any, config: SoundConfig) -> list[float]:
    whole = float(seconds)
    count = windows_of(whole, config.seconds)
    if count == 1:
        return [max(whole - config.seconds, 0.0) / 2]
    return np.linspace(0.0, whole - config.seconds, count).round(3).tolist()


def windows_of(whole: float, seconds: float) -> int:
    """How many windows hear all of a recording; a tenth of a window may stay outside.

    >>> [windows_of(whole, 1.0) for whole in (0.3, 1.05, 1.2, 10.0)]
    [1, 1, 2, 10]
    """
    return max(math.ceil(whole / seconds - 0.1), 1)


def fixed_length(wave: np.ndarray, samples: int) -> torch.Tensor:
    """A window at one level, its end filled up with silence."""
    out = torch.zeros(samples)
    found = torch.from_numpy(levelled(wave[:samples]))
    out[: len(found)] = found
    return out


def captions_of_row(row: Mapping[str, Any], form: str, manifest: Manifest) -> list[str]:
    """What is said of a recording: its captions, else the configuration's form of words with its columns."""
    text = plain(row.get("caption"))
    if text:
        return [line for line in str(text).split("\n") if line.strip()]
    if not form:
        raise InputError(
            f"{manifest.path or 'manifest'}: row {row['id']} has no caption; give a column `caption`, or say what to "
            "make one of, as in --data.caption 'the digit {label}'"
        )
    names = [name for _, name, _, _ in string.Formatter().parse(form) if name is not None]
    for name in names:
        if name not in row:
            raise no_such("column", name, row)
        if plain(row[name]) is None:
            raise InputError(
                f"{manifest.path or 'manifest'}: row {row['id']} has no {name}, which --data.caption names"
            )
    return [form.format(**{name: row[name] for name in names})]


def read_manifest(config: SoundConfig) -> Manifest:
    """The manifest that a configuration names, or the embedded generator's."""
    if not config.manifest:
        from counterpoint.audio_speech.sounds.scenes import generated

        return generated(config.scenes, config.seed)
    manifest = Manifest.load(config.manifest)
    if missing := [name for name in NEEDED if name not in manifest.frame.columns]:
        raise InputError(f"{config.manifest}: no column {missing[0]!r}; make the manifest with `data import sounds`")
    if not len(manifest):
        raise InputError(f"{config.manifest}: the manifest has no rows; import recordings into it (data import sounds)")
    check_leakage(manifest)
    if (manifest.frame["split"] == "").all():
        manifest = replace(manifest, frame=manifest.frame.assign(split="train"))
    return manifest


def sound_datasets(
    manifest: Manifest,
    config: SoundConfig,
    train: TrainConfig,
    words: CaptionWords | None = None,
    moving: bool = True,
) -> Datasets:
    """The splits; training windows move, unless they are to be encoded."""
    there = set(manifest.frame["split"])
    made: Sequence[Any] = [
        SoundWindows(manifest.select(split), config, train, words=words, moving=moving and split == "train")
        if split in there
        else None
        for split in ("train", "val", "test")
    ]
    return Datasets(*made)
