"""The pieces: Bach's four-part chorales as they lie in the music21 package, and which pieces share a tune.

Bach set many hymn tunes several times. Two settings of one tune in two splits would let a model score by memory, so
pieces with a common tune form one group and are split together.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float

from counterpoint.common.errors import InputError

NOT_CHORALES = ("bwv846",)  # a keyboard prelude in the same folder
GRAM = 5
SAME_TUNE = 0.4


def chorale_folder() -> Path:
    """music21's folder of Bach's works, found without importing music21."""
    spec = importlib.util.find_spec("music21")
    if spec is None or spec.origin is None:
        raise InputError("the chorales come with the package music21: pip install 'counterpoint[audio-speech]'")
    return Path(spec.origin).parent / "corpus" / "bach"


def chorale_files(pieces: int = 0) -> list[Path]:
    """The chorales' files; with `pieces` a fixed choice of so many, of which every smaller choice is a part.

    The choice goes by a hash of the name: it depends on no machine, order or clock.
    """
    files = [f for f in sorted(chorale_folder().glob("*.mxl")) if f.stem not in NOT_CHORALES]
    if pieces < 0:
        raise InputError(f"data.pieces is {pieces}; give a number of chorales, or 0 for all {len(files)}")
    if not pieces:
        return files
    order = sorted(files, key=lambda f: hashlib.sha256(f.stem.encode()).hexdigest())
    return sorted(order[:pieces])


def melody(notes: Float[np.ndarray, "notes 4"]) -> np.ndarray:
    """The upper voice as MIDI pitches: the highest note that sounds at any time, without notes shorter than three
    quarters of the median (passing notes differ between settings of one tune).

    >>> melody(np.array([[0, 1, 60, 0], [0, 2, 48, 0], [1, 2, 64, 0.0]]))
    array([60, 64])
    """
    times = np.unique(notes[:, :2])
    top = []  # pitch, onset, end
    for start, end in pairwise(times):
        sounding = notes[(notes[:, 0] <= start) & (notes[:, 1] >= end)]
        if len(sounding) == 0:
            continue
        onset, _, pitch, _ = sounding[np.argmax(sounding[:, 2])]
        if top and top[-1][:2] == [pitch, onset]:
            top[-1][2] = end
        else:
            top.append([pitch, onset, end])
    line = np.array(top)
    length = line[:, 2] - line[:, 1]
    return line[length >= 0.75 * np.median(length), 0].astype(int)


def same_tune(melodies: Mapping[str, np.ndarray], threshold: float = SAME_TUNE) -> dict[str, str]:
    """Piece -> tune, named after its first piece.

    Two melodies share a tune when they have at least `threshold` of the shorter one's distinct runs of 5 successive
    intervals in common, in any key; sharing is transitive. On the chorales of music21 this finds 172 of the 202 pairs
    that a hymn index lists under one title (the others are mostly different tunes to one text, or the tune in another
    metre), and the pairs with different titles that it joins are one tune with several texts, apart from a few.

    >>> scale = np.array([60, 62, 64, 65, 67, 69, 71])
    >>> same_tune({"a": scale, "b": scale + 5, "c": scale[::-1]})
    {'a': 'a', 'b': 'a', 'c': 'c'}
    """
    names = sorted(melodies)
    runs = {name: _runs(melodies[name]) for name in names}
    tune = {name: name for name in names}

    def root(name: str) -> str:
        while tune[name] != name:
            name = tune[name]
        return name

    owners: dict[tuple, list[str]] = {}
    for name in names:
        for run in runs[name]:
            owners.setdefault(run, []).append(name)
    for name in names:
        shared: dict[str, int] = {}
        for run in runs[name]:
            for other in owners[run]:
                if other < name:
                    shared[other] = shared.get(other, 0) + 1
        for other, count in shared.items():
            if count >= threshold * min(len(runs[name]), len(runs[other])):
                first, second = sorted((root(name), root(other)))
                tune[second] = first
    return {name: root(name) for name in names}


def _runs(pitches: np.ndarray) -> set[tuple[int, ...]]:
    intervals = np.diff(pitches).tolist()
    return {tuple(intervals[i : i + GRAM]) for i in range(len(intervals) - GRAM + 1)}
