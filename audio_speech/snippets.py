"""Snippet pairs: a window of printed music about an onset, and the spectrogram about the moment it sounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from counterpoint.audio_speech.configs import Rendition, SheetDataConfig
from counterpoint.audio_speech.pieces import chorale_files, chorale_folder, melody, same_tune
from counterpoint.audio_speech.render import Failed, Job, Piece, Sound, choose_renditions, render
from counterpoint.common.data.cache import Cache
from counterpoint.common.data.left_out import leave_out
from counterpoint.common.data.manifest import Manifest
from counterpoint.common.data.samples import BadSample, Samples, options_hash, values_hash
from counterpoint.common.data.splits import split_by_group
from counterpoint.common.errors import InputError
from counterpoint.common.output import clock
from counterpoint.common.progress import note
from counterpoint.common.trainers.leakage import hold_to_split

FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}
SHEET_MARGIN = 60  # pixels beside the window, so that shift, scale and rotation find music there
AUDIO_MARGIN = 0.75  # frames beside the window as a share of it, for shift and stretch


@dataclass(frozen=True)
class Moment:
    """One onset of one performance."""

    piece: int
    rendition: Rendition
    onset: int


class SnippetDataset(Samples):
    """Pairs of a sheet window and a spectrogram window about the same onset.

    A sample holds `sheet` `[height, width + 2 margin]` uint8 (255 is paper), `audio` `[frames + 2 margin, bands]`
    float32, `index`, `id` (piece, rendition and onset), `group` (the tune) and `moment`, a number that performances of
    one printed place share; without margins also `sound`, which plays the audio window, and what musicians call the
    place: `title`, `key`, `bars printed`, `bars heard`, `time` and `played` (the rendition). Beyond the ends there is
    paper and silence. Margins are 0 unless `margins` is set, for training with augmentation. `rows` are the pieces'
    rows in the manifest, `left_out` the scores of it that could not be rendered.
    """

    synthetic = "sound rendered from real scores"

    def __init__(
        self,
        pieces: list[Piece],
        tunes: list[str],
        moments: list[Moment],
        config: SheetDataConfig,
        margins: bool = False,
        modalities: tuple[str, ...] = ("sheet", "audio"),
        rows: Sequence[int] = (),
        left_out: Sequence[BadSample] = (),
    ) -> None:
        self.pieces, self.tunes, self.moments, self.config = pieces, tunes, moments, config
        self.modalities, self.rows, self.left_out = modalities, tuple(rows), tuple(left_out)
        self.sheet_margin = SHEET_MARGIN if margins else 0
        self.audio_margin = round(AUDIO_MARGIN * config.frames) if margins else 0

    def __len__(self) -> int:
        return len(self.moments)

    def __getitem__(self, index: int) -> dict:
        moment = self.moments[index]
        piece = self.pieces[moment.piece]
        time, column = piece.engraving.onsets[moment.onset]
        sample = {
            "index": index,
            "id": self.name_of(moment),
            "group": self.tunes[moment.piece],
            "moment": moment.piece << 32 | round(float(piece.engraving.places[moment.onset]) * 960),
        }
        if "sheet" in self.modalities:
            width = self.config.sheet_width + 2 * self.sheet_margin
            sample["sheet"] = torch.from_numpy(sheet_window(piece.engraving.strip, column, width))
        if "audio" in self.modalities:
            frames = self.config.frames + 2 * self.audio_margin
            centre = time / moment.rendition.tempo * self.config.spectrogram.frames_per_second
            sample["audio"] = torch.from_numpy(audio_window(piece.spectrograms[moment.rendition], centre, frames))
            if not self.audio_margin:
                sample["sound"] = self._sound(piece, moment, centre)
        return sample if self.sheet_margin else sample | self._place(piece, moment, time, column)

    def _place(self, piece: Piece, moment: Moment, time: float, column: float) -> dict[str, str]:
        """Where a moment's windows stand, in a musician's words."""
        bars, tempo = piece.engraving.bars, moment.rendition.tempo
        wide, beside = self.config.sheet_width / 2, reach(self.config, moment.rendition)
        printed = bars.seen(column - wide, column + wide)
        return {
            "title": piece.title,
            "key": bars.key(printed),
            "bars printed": bars.words(printed),
            "bars heard": bars.words(bars.heard(time - beside, time + beside)),
            "time": stretch(max(time - beside, 0.0) / tempo, min(time + beside, piece.engraving.seconds) / tempo),
            "played": str(moment.rendition),
        }

    def name_of(self, moment: Moment) -> str:
        """The id of a moment's sample."""
        return f"{self.pieces[moment.piece].id} {moment.rendition} onset {moment.onset}"

    @property
    def ids(self) -> list[str]:
        return [self.name_of(moment) for moment in self.moments]

    @property
    def groups(self) -> list[str]:
        return [self.tunes[moment.piece] for moment in self.moments]

    columns = ("piece",)

    def column(self, name: str) -> list[str]:
        return self.piece_ids if name == "piece" else super().column(name)

    def row_of(self, position: int) -> int:
        """The manifest row of a snippet's piece; the piece's number where no rows are known."""
        piece = self.moments[position].piece
        return self.rows[piece] if self.rows else piece

    @cached_property
    def hash(self) -> str:
        used = sorted({moment.piece for moment in self.moments})
        played = values_hash([(self.pieces[i].id, self.pieces[i].engraving.notes) for i in used])
        return options_hash(
            played,
            moments=[(m.piece, str(m.rendition), m.onset) for m in self.moments],
            config=self.config,
            margins=self.sheet_margin,
            modalities=self.modalities,
        )

    def _sound(self, piece: Piece, moment: Moment, centre: float) -> Sound:
        config = self.config.spectrogram
        start = (round(centre) - self.config.frames // 2) / config.frames_per_second
        seconds = self.config.frames / config.frames_per_second
        return Sound(piece.engraving.notes, moment.rendition, config.sample_rate, start, seconds)

    @cached_property
    def piece_ids(self) -> list[str]:
        """The piece of every sample, for identification and for intervals by piece."""
        return [self.pieces[moment.piece].id for moment in self.moments]

    def only(self, *modalities: str) -> SnippetDataset:
        """The same moments with some of the modalities."""
        given = (self.pieces, self.tunes, self.moments, self.config, self.sheet_margin > 0)
        return SnippetDataset(*given, modalities, self.rows, self.left_out)


def stretch(begin: float, end: float) -> str:
    """A stretch of time as players show it.

    >>> stretch(12.4, 18.0), stretch(59.6, 3723.0)
    ('0:12-0:18', '1:00-1:02:03')
    """
    return f"{clock(begin)}-{clock(end)}"


def sheet_window(strip: np.ndarray, column: float, width: int) -> np.ndarray:
    """`width` pixels of a strip centred on a column; paper beyond its ends."""
    first = round(column) - width // 2
    window = np.full((strip.shape[0], width), 255, dtype=np.uint8)
    low, high = max(first, 0), min(first + width, strip.shape[1])
    if high > low:
        window[:, low - first : high - first] = strip[:, low:high]
    return window


def audio_window(spectrogram: np.ndarray, centre: float, frames: int) -> np.ndarray:
    """`frames` rows of a spectrogram about frame `centre`; silence beyond its ends."""
    first = round(centre) - frames // 2
    window = np.zeros((frames, spectrogram.shape[1]), dtype=np.float32)
    low, high = max(first, 0), min(first + frames, len(spectrogram))
    if high > low:
        window[low - first : high - first] = spectrogram[low:high]
    return window


@dataclass(frozen=True)
class SnippetData:
    """Everything one run needs.

    Attributes:
        manifest: of the pieces that could be rendered, with tune groups and splits.
        train: every snippet of the training pieces.
        pairs: the share of them that cross-modal training sees.
        val, test: snippet pairs of other pieces; `test` is the evaluation pool.
        unseen: the same test moments in the rendition that training never has.
        failed: scores left out, with reasons.
    """

    manifest: Manifest
    train: SnippetDataset
    pairs: SnippetDataset
    val: SnippetDataset
    test: SnippetDataset
    unseen: SnippetDataset
    failed: tuple[Failed, ...] = ()


def load_snippets(config: SheetDataConfig, on_error: str = "raise", max_bad: float = 0.01) -> SnippetData:
    """Render the pieces (or take them from the cache), split them by tune, cut the snippets.

    Raises:
        InputError: a score cannot be rendered and `on_error` is `raise`, or more than `max_bad` of them cannot;
            the manifest has no split; a split has no pieces.
    """
    manifest = Manifest.load(config.manifest) if config.manifest else chorale_manifest(config)
    hold_to_split(manifest)
    rows = [manifest.row(i) for i in range(len(manifest))]
    if not all(row.get("split") for row in rows):
        raise InputError(f"{config.manifest}: rows without a split; run `counterpoint audio data split` on it first")
    if any(not row.get("score") for row in rows):
        raise InputError(f"{config.manifest}: no column 'score' or an empty one; make the manifest with `data import`")
    jobs = [
        Job(
            row["id"],
            manifest.file(row["score"]),
            renditions_of(row["id"], row["split"], config),
            str(row.get("title") or ""),
        )
        for row in rows
    ]
    made = render(jobs, config.engraving, config.spectrogram, _cache(config), config.workers)
    numbers = manifest.frame.index.tolist()
    failed = tuple(piece for piece in made if isinstance(piece, Failed))
    bad = [BadSample(n, piece.id, piece.reason) for n, piece in zip(numbers, made) if isinstance(piece, Failed)]
    leave_out(bad, len(made), on_error, max_bad, config.manifest or "chorales")
    manifest = replace(manifest, frame=manifest.frame.drop(index=[b.index for b in bad]))
    rendered = [piece for piece in made if isinstance(piece, Piece)]
    left_out = {name: tuple(b for b in bad if rows[numbers.index(b.index)]["split"] == name) for name in FRACTIONS}
    return _cut(manifest, rendered, config, failed, left_out)


def chorale_manifest(config: SheetDataConfig) -> Manifest:
    """One row per chorale that can be engraved: id, tune as its group, split, score file."""
    files = chorale_files(config.pieces)
    made = render(
        [Job(file.stem, file) for file in files], config.engraving, config.spectrogram, _cache(config), config.workers,
        "engraving the chorales",
    )  # fmt: skip
    pieces = {piece.id: piece for piece in made if isinstance(piece, Piece)}
    tunes = same_tune({name: melody(piece.engraving.notes) for name, piece in pieces.items()})
    rows = [
        {"id": file.stem, "group": tunes[file.stem], "score": file.name, "title": file.stem.replace("bwv", "BWV ")}
        for file in files
        if file.stem in pieces
    ]
    left_out = {piece.id: piece.reason for piece in made if isinstance(piece, Failed)}
    meta = {"source": "chorales of the music21 corpus", "audio": "synthetic", "left_out": left_out}
    manifest = Manifest.from_rows(rows, chorale_folder(), meta)
    return split_by_group(manifest, FRACTIONS, config.split_seed)


def renditions_of(name: str, split: str, config: SheetDataConfig) -> tuple[Rendition, ...]:
    """How a piece is played: training pieces in several ways, the others in the known and the unseen one."""
    if split == "train":
        known = [Rendition.parse(text) for text in config.renditions]
        return choose_renditions(name, known, config.renditions_per_piece)
    known = (Rendition.parse(config.test_rendition),)
    return (*known, Rendition.parse(config.unseen_rendition)) if split == "test" else known


def _cut(
    manifest: Manifest,
    pieces: list[Piece],
    config: SheetDataConfig,
    failed: tuple[Failed, ...],
    left_out: Mapping[str, Sequence[BadSample]],
) -> SnippetData:
    split = manifest.frame["split"].tolist()
    groups = manifest.frame["group"].tolist()
    members = {name: [i for i, s in enumerate(split) if s == name] for name in FRACTIONS}
    for name, indices in members.items():
        if not indices:
            raise InputError(f"no pieces in the {name} split; more scores, or another `data split`, are needed")
    train = [
        Moment(i, rendition, onset)
        for i in members["train"]
        for rendition in pieces[i].spectrograms
        for onset in pieces[i].engraving.snippets(reach(config, rendition))
    ]
    known, other = Rendition.parse(config.test_rendition), Rendition.parse(config.unseen_rendition)
    val = spread(pieces, members["val"], known, config.val_snippets, reach(config, known))
    test = spread(pieces, members["test"], known, config.test_snippets, reach(config, known, other))
    unseen = [replace(moment, rendition=other) for moment in test]
    _tell_left_out(pieces, reach(config, known))
    rows = manifest.frame.index.tolist()

    def snippets(name: str, moments: list[Moment]) -> SnippetDataset:
        lost = left_out.get(name, ())
        return SnippetDataset(pieces, groups, moments, config, name == "train", rows=rows, left_out=lost)

    return SnippetData(
        manifest,
        snippets("train", train),
        snippets("train", _fraction(train, config)),
        snippets("val", val),
        snippets("test", test),
        snippets("test", unseen),
        failed,
    )


def reach(config: SheetDataConfig, *renditions: Rendition) -> float:
    """Seconds at the score's tempo that an audio window reaches to each side of its onset, at the fastest rendition."""
    return config.frames / 2 / config.spectrogram.frames_per_second * max(how.tempo for how in renditions)


def _tell_left_out(pieces: list[Piece], seconds: float) -> None:
    printed = sum(len(np.unique(piece.engraving.places)) for piece in pieces)
    left_out = printed - sum(len(piece.engraving.snippets(seconds)) for piece in pieces)
    if left_out:
        note(f"{left_out} of {printed} printed onsets are left out: every window of them crosses a jump")


def spread(
    pieces: list[Piece], members: list[int], rendition: Rendition, count: int, seconds: float = 0.0
) -> list[Moment]:
    """`count` moments spread evenly over the printed onsets of the pieces (those whose windows of `seconds` to each
    side cross no jump), in the same number for each as far as possible."""
    fit = {i: pieces[i].engraving.snippets(seconds) for i in members}
    onsets = {i: len(fit[i]) for i in members}
    share = dict.fromkeys(members, 0)
    left = min(count, sum(onsets.values()))
    while left:
        unfilled = [i for i in members if share[i] < onsets[i]]
        each = max(left // len(unfilled), 1)
        for i in unfilled[:left]:
            more = min(each, onsets[i] - share[i])
            share[i] += more
            left -= more
    moments = []
    for i in members:
        places = (np.arange(share[i]) + 0.5) * onsets[i] / max(share[i], 1)
        moments += [Moment(i, rendition, fit[i][int(place)]) for place in places]
    return moments


def _fraction(moments: list[Moment], config: SheetDataConfig) -> list[Moment]:
    """A seeded share of the training pairs (`pairs_fraction`), every onset's renditions together."""
    if config.pairs_fraction == 1.0:
        return moments
    places = sorted({(m.piece, m.onset) for m in moments})
    kept = max(1, round(config.pairs_fraction * len(places)))
    chosen = np.random.default_rng(config.split_seed).permutation(len(places))[:kept]
    wanted = {places[i] for i in chosen}
    return [m for m in moments if (m.piece, m.onset) in wanted]


def _cache(config: SheetDataConfig) -> Cache:
    return Cache(config.cache or None)
