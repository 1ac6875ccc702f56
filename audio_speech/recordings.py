"""Which piece of a collection does a recording play, and where in it? `counterpoint audio identify RUN FILE`.

The recording is cut into windows that overlap by half. Each gives its `VOTES` nearest printed snippets one vote, and a
piece's votes are divided by how many snippets it has. Pieces are ranked by their share of all of these.

No piece of the collection. Noise and hums vote for the same few snippets over and over, so the votes are counted a
second time, by what of each window is not common to all (the mean of the windows' embeddings is taken off). For every
validation recording both shares of its first piece are measured where no piece of its tune is in the collection, over
as many windows from its middle. With p = (1 + how many of them reach the recording's share) / (1 + how many there are),
the recording is said to play its first piece only where p is at most 0.05 for both.

Where in the piece: the path of windows through the piece's snippets with the largest sum of cosines, minus `JUMP` for
every step that is none at 0.4 to 2.5 times the printed tempo (a repeat, a wrong place). Told are its stretches of at
least three windows between jumps.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from counterpoint.audio_speech.configs import Rendition
from counterpoint.audio_speech.long_audio import long_spectrogram
from counterpoint.audio_speech.queries import PAUSE
from counterpoint.audio_speech.snippets import Moment, SnippetDataset, audio_window, reach, stretch
from counterpoint.common.data.cache import Cache
from counterpoint.common.data.embeddings import model_hash
from counterpoint.common.data.encoding import encode_rows
from counterpoint.common.data.samples import ListSamples
from counterpoint.common.errors import InputError
from counterpoint.common.kernels import topk_scores
from counterpoint.common.metrics.voting import VOTES, count_votes, vote_shares
from counterpoint.common.output import table
from counterpoint.common.trainers import load_run, override
from counterpoint.common.vertical import Outcome

ALPHA = 0.05
JUMP = 0.5
TEMPO = (0.4, 2.5)
LEAST = 3
"""Windows of a stretch that is told."""


@dataclass(frozen=True)
class PrintedCollection:
    """The printed snippets of every piece of a run's manifest, embedded, and the votes of validation recordings.

    Attributes:
        vectors: [keys, dim]; owners: [keys] which piece; columns, seconds: [keys] where in it.
        others: for each validation recording [2, windows, votes] keys found where its tune is left out.
    """

    system: Any
    vectors: torch.Tensor
    owners: Int[np.ndarray, " keys"]
    columns: Float[np.ndarray, " keys"]
    seconds: Float[np.ndarray, " keys"]
    others: tuple[np.ndarray, ...]


def identify_recording(
    run: Path, file: Path, manifest: Path | None = None, checkpoint: str = "best", top: int = 5
) -> Outcome:
    """The pieces of the run's collection (or of another `manifest`) by votes of FILE's windows."""
    if top < 1:
        raise InputError(f"--top is {top}; it must be at least 1")
    collection = open_collection(run, manifest, checkpoint)
    data = collection.system.data
    config = collection.system.config.data
    rate = config.spectrogram.frames_per_second
    spectrum = long_spectrogram(file, config.spectrogram)
    centres, windows = overlapping_windows(spectrum, config.frames)
    if len(centres) < LEAST:
        least = 2 * config.frames / rate
        raise InputError(
            f"{Path(file).name}: {len(centres)} windows that are not silent; give {LEAST} or more, "
            f"{least:.1f} s of music"
        )
    asked = _embedded(collection.system, windows)
    found = _both(asked, collection.vectors)
    pieces = data.pairs.pieces
    share = _shares(found[0], collection.owners, len(pieces))
    votes = count_votes(found[0], len(pieces), collection.owners)
    order = [number for number in np.argsort(-share, kind="stable")[:top] if votes[number]]
    rows, ranked = [], []
    for place, number in enumerate(order, 1):
        piece, spans = pieces[number], _played(collection, int(number), asked, centres, len(spectrum))
        where = "; ".join(f"{span['bars']} at {span['time']}" for span in spans)
        rows.append((str(place), piece.title, str(votes[number]), f"{100 * share[number]:.1f} %", where))
        ranked.append({"rank": place, "id": piece.id, "title": piece.title, "votes": int(votes[number]),
                       "share": float(share[number]), "where": spans})  # fmt: skip
    seconds, p = len(spectrum) / rate, chance_of(found, collection)
    heard = p is not None and p <= ALPHA
    verdict = _verdict(pieces[order[0]].title, p, len(collection.others))
    head = f"{Path(file).name}: {seconds:.1f} s, {len(asked)} windows of {config.frames / rate:.1f} s vote"
    head += f" for {len(pieces)} pieces"
    figures = {
        "file": Path(file).name, "seconds": seconds, "windows": len(asked), "pieces": len(pieces), "p": p,
        "piece": ranked[0]["id"] if heard else None, "ranked": ranked, "verdict": verdict,
        "validation": "recordings synthesised from the scores",
    }  # fmt: skip
    lines = (head, "", *table(("rank", "piece", "votes", "share", "where"), rows), "", verdict)
    return Outcome(figures, lines)


def _played(
    collection: PrintedCollection, number: int, asked: torch.Tensor, centres: np.ndarray, frames: int
) -> list[dict[str, str]]:
    """Bars and times of the stretches in which the recording plays a piece."""
    config, bars = collection.system.config.data, collection.system.data.pairs.pieces[number].engraving.bars
    rate, half = config.spectrogram.frames_per_second, config.sheet_width / 2
    mine = np.flatnonzero(collection.owners == number)
    seconds, columns = collection.seconds[mine], collection.columns[mine]
    path = follow(asked @ collection.vectors[mine].T, seconds, centres / rate)
    spans = []
    for first, last in steady_stretches(path, seconds, centres / rate):
        seen = [bar for c in columns[path[first : last + 1]] for bar in bars.seen(c - half, c + half)]
        begin = max(float(centres[first]) - config.frames / 2, 0) / rate
        end = min(float(centres[last]) + config.frames / 2, frames) / rate
        told = range(min(seen), max(seen) + 1) if seen else range(0)
        spans.append({"bars": bars.words(told), "time": stretch(begin, end)})
    return spans


def _verdict(title: str, p: float | None, known: int) -> str:
    """Which piece it is, or that it is none, and what that rests on."""
    if p is None:
        return f"whether it is one of them is not judged: that takes 19 validation recordings, there are {known}"
    said = title if p <= ALPHA else "no piece of the collection"
    reached, most = round(p * (known + 1)) - 1, int(ALPHA * (known + 1)) - 1
    return (
        f"{said}: {reached} of {known} recordings of pieces that are not in the collection reach such a share (at most "
        f"{most} may)"
    )


def open_collection(run: Path, manifest: Path | None = None, checkpoint: str = "best") -> PrintedCollection:
    """Embed all printed snippets and the validation recordings; kept in the cache for the next question."""
    system = load_run(run, checkpoint).eval()
    if "sheet" not in getattr(system, "modalities", ()) or not hasattr(system.config.data, "test_rendition"):
        raise InputError(f"{run}: identify takes a run of audio-sheet, this one is of {type(system).__name__}")
    if manifest is not None:
        system.config = override(system.config, {"data.manifest": str(manifest)})
    data, config = system.data, system.config.data
    pieces, tunes = data.pairs.pieces, data.pairs.tunes
    known = Rendition.parse(config.test_rendition)
    moments = [
        Moment(i, known, o) for i, piece in enumerate(pieces) for o in piece.engraving.snippets(reach(config, known))
    ]
    prints = SnippetDataset(pieces, tunes, moments, config, modalities=("sheet",))
    asking = sorted({m.piece for m in data.val.moments})
    heard = [overlapping_windows(pieces[i].spectrograms[known].astype(np.float32), config.frames)[1] for i in asking]

    def make(target: Path) -> None:
        keys = encode_rows(system, prints, batch_size=256, progress="encoding the print").vectors["sheet"]
        parts = [_embedded(system, windows) for windows in heard]
        with target.open("wb") as out:
            np.savez(out, keys=keys.numpy(), **{f"v{i}": part.numpy() for i, part in enumerate(parts)})

    key = {
        "what": "collection",
        "revision": 1,
        "model": model_hash(system),
        "prints": prints.hash,
        "val": data.val.hash,
    }
    with np.load(Cache(config.cache or None).get_or_make(key, ".npz", make), allow_pickle=False) as kept:
        keys, parts = torch.from_numpy(kept["keys"]), [torch.from_numpy(kept[f"v{i}"]) for i in range(len(asking))]
    owners = np.array([m.piece for m in moments])
    places = np.array([pieces[m.piece].engraving.onsets[m.onset] for m in moments])
    tune_of = np.asarray(tunes)[owners]
    others = []
    for number, part in zip(asking, parts):
        rest = np.flatnonzero(tune_of != tunes[number])
        others.append(rest[_both(part, keys[torch.from_numpy(rest)])])
    return PrintedCollection(system, keys, owners, places[:, 1], places[:, 0], tuple(others))


def overlapping_windows(spectrum: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres (in frames) of windows that overlap by half and hold more than a pause, and the windows."""
    if len(spectrum) < frames / 2:
        return np.zeros(0), np.zeros((0, frames, spectrum.shape[1]), dtype=np.float32)
    count = max(2 * (len(spectrum) // frames) - 1, 1)
    centres = np.linspace(frames / 2, len(spectrum) - frames / 2, count) if count > 1 else np.array([len(spectrum) / 2])
    windows = np.stack([audio_window(spectrum, centre, frames) for centre in centres])
    told = windows.max(axis=(1, 2)) >= PAUSE
    return centres[told], windows[told]


def _embedded(system: Any, windows: np.ndarray) -> torch.Tensor:
    samples = ListSamples([{"audio": torch.from_numpy(w), "id": str(i), "group": ""} for i, w in enumerate(windows)])
    return encode_rows(system, samples, batch_size=128, progress="encoding the recording").vectors["audio"]


def _both(asked: torch.Tensor, keys: torch.Tensor) -> Int[np.ndarray, "2 windows votes"]:
    """Keys that every window votes for: as it is, and by what of it is not common to all windows."""
    ways = (asked, asked - asked.mean(0))
    return np.stack([topk_scores(way, keys, min(VOTES, len(keys)))[1].numpy() for way in ways])


def _shares(found: np.ndarray, owners: np.ndarray, pieces: int) -> np.ndarray:
    """[pieces] share of each of the votes divided by the pieces' sizes; pieces without a snippet have none."""
    present, codes = np.unique(owners, return_inverse=True)
    share = np.zeros(pieces)
    share[present] = vote_shares(found, codes, len(present))
    return share / share.sum()


def chance_of(found: Int[np.ndarray, "2 windows votes"], collection: PrintedCollection) -> float | None:
    """The larger p of the rule above; None where there are too few validation recordings to reach 0.05."""
    pieces, windows = int(collection.owners.max()) + 1, found.shape[1]
    mine = _first(found, collection.owners, pieces)
    known = []
    for other in collection.others:
        first = max((other.shape[1] - windows) // 2, 0)
        known.append(_first(other[:, first : first + windows], collection.owners, pieces))
    reached = (np.stack(known) >= mine).sum(0).max() if known else 0
    p = (1 + int(reached)) / (1 + len(known))
    return p if 1 / (1 + len(known)) <= ALPHA else None


def _first(found: np.ndarray, owners: np.ndarray, pieces: int) -> np.ndarray:
    """Both shares of the piece that is first by the windows as they are."""
    shares = np.stack([_shares(part, owners, pieces) for part in found])
    return shares[:, shares[0].argmax()]


def follow(
    cosines: torch.Tensor, seconds: Float[np.ndarray, " keys"], times: Float[np.ndarray, " windows"]
) -> Int[np.ndarray, " windows"]:
    """The key of every window along the best path (`JUMP` and `TEMPO` as above).

    >>> follow(torch.eye(3), np.array([0.0, 2.0, 4.0]), np.array([0.0, 2.0, 4.0])).tolist()
    [0, 1, 2]
    """
    score, back = cosines[0].numpy().astype(np.float64), []
    for w in range(1, len(times)):
        fits = _steady(seconds, seconds[:, None], times[w] - times[w - 1])  # [now, before]
        steady = np.where(fits, score[None], -np.inf)
        best, at = steady.max(1), steady.argmax(1)
        jump = score.max() - JUMP
        back.append(np.where(best >= jump, at, int(score.argmax())))
        score = np.maximum(best, jump) + cosines[w].numpy()
    path = [int(score.argmax())]
    for before in reversed(back):
        path.append(int(before[path[-1]]))
    return np.array(path[::-1])


def _steady(before: np.ndarray | float, now: np.ndarray | float, passed: float) -> Any:
    """Whether the music goes on from one place to the other at a tempo that is possible."""
    gone = now - before
    return (gone >= TEMPO[0] * passed) & (gone <= TEMPO[1] * passed)


def steady_stretches(
    path: Int[np.ndarray, " windows"], seconds: np.ndarray, times: np.ndarray
) -> list[tuple[int, int]]:
    """First and last window of every stretch of at least `LEAST` windows without a jump.

    >>> steady_stretches(np.array([0, 1, 2, 0, 1, 2, 0]), np.array([0.0, 2.0, 4.0]), np.arange(7) * 2.0)
    [(0, 2), (3, 5)]
    """
    found, first = [], 0
    for w in range(1, len(path) + 1):
        if w < len(path) and _steady(seconds[path[w - 1]], seconds[path[w]], times[w] - times[w - 1]):
            continue
        if w - first >= LEAST:
            found.append((first, w - 1))
        first = w
    return found
