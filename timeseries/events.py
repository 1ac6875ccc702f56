"""Annotations as classes of time steps: what a dense head learns, and what detections are measured against."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int

from counterpoint.common.errors import InputError
from counterpoint.timeseries.record import Annotations, Record

UNKNOWN = -1


def stretches(record: Record) -> Annotations:
    """The record's annotations, each with the seconds it covers.

    WFDB marks a rhythm where it begins, `(AFIB`, without a duration: it lasts until the next one or the record's end.

    >>> events = Annotations.of([1.0, 4.0, 6.0], ["(AFIB", "N", "(N"])
    >>> stretches(Record("r", (), events)).duration.tolist()
    [5.0, 0.0, 0.0]
    """
    found = record.annotations
    duration = found.duration.copy()
    rhythm = [i for i, label in enumerate(found.label) if label.startswith("(") and not duration[i]]
    ends = [*(found.onset[i] for i in rhythm[1:]), max(record.duration, found.onset[rhythm[-1]])] if rhythm else []
    for i, end in zip(rhythm, ends):
        duration[i] = end - found.onset[i]
    return Annotations(found.onset, duration, found.label)


def step_classes(
    record: Record, events: Sequence[str], samples: int, fs: float, width: float = 0.0
) -> Int[np.ndarray, " samples"]:
    """The class of every time step: i + 1 within an annotation called `events[i]`, 0 elsewhere.

    `width` (seconds) is centred on the onset of annotations without a duration, such as beats; a later annotation wins
    where two overlap. A record without any annotation has not been looked at: all its steps are -1.

    >>> events = Annotations.of([1.0], ["spike"])
    >>> step_classes(Record("r", (), events), ("spike",), 8, 4.0, width=0.5).tolist()
    [0, 0, 0, 1, 1, 0, 0, 0]

    Raises `InputError` when such an annotation has no duration and no width is given.
    """
    out = np.full(samples, UNKNOWN if not len(record.annotations) else 0, np.int64)
    found = stretches(record)
    code = {name: i + 1 for i, name in enumerate(events)}
    for onset, duration, label in zip(found.onset, found.duration, found.label):
        if label not in code:
            continue
        if not duration and not width:
            raise InputError(
                f"{record.source or record.id}: annotation {label!r} at {onset:.3f} s has no duration; set "
                "--data.event_width, the seconds around it that count"
            )
        first = onset if duration else onset - width / 2
        last = onset + (duration or width / 2)
        begin = round(first * fs)
        end = max(round(last * fs), begin + 1)
        out[max(begin, 0) : max(end, 0)] = code[label]  # nothing, where it ends before the recording begins
    return out


def window_classes(
    steps: Int[np.ndarray, " samples"], starts: Int[np.ndarray, " windows"], length: int, events: Sequence[str]
) -> list[str]:
    """The class of every window: the one of `events` that covers more than half of it, empty where none does.

    >>> steps = np.array([1, 1, 1, 1, 1, 2, 2, 2])  # as step_classes gives them
    >>> window_classes(steps, np.array([0, 4, 3]), 4, ("W", "N1"))
    ['W', 'N1', '']
    """
    counts = np.stack([np.concatenate([[0], np.cumsum(steps == i + 1)]) for i in range(len(events))])
    last = np.minimum(starts + length, len(steps))
    covered = counts[:, last] - counts[:, starts]
    best = covered.argmax(0)
    most = covered.max(0, initial=0)
    return [events[i] if 2 * n > length else "" for i, n in zip(best, most)]


def check_events(where: str, events: Sequence[str], records: Iterable[Counter[str]]) -> None:
    """Raise `InputError` when no recording has an annotation called so, listing those there are."""
    total: Counter[str] = sum(records, Counter())
    missing = [name for name in events if not total[name]]
    if missing:
        some = ", ".join(f"{name} ({count})" for name, count in total.most_common(12)) or "none at all"
        raise InputError(f"{where}: no annotation {missing[0]!r} in any recording (--data.events); there are: {some}")
