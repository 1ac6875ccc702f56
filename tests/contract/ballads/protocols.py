"""Figures of one's own: do verses lie near training verses of their mood, and do notes tell how long a verse is?"""

from dataclasses import dataclass

import torch

from counterpoint.common.metrics import NotRun, Result
from counterpoint.common.runs.opened import OpenRun


@dataclass(frozen=True)
class Mood(Result):
    accuracy: float
    learnt_from: int
    verses: int


@dataclass(frozen=True)
class Notes(Result):
    notes: int
    width: int


def protocols(run: OpenRun) -> dict[str, Result]:
    """The mood of the training verse with the largest inner product; the notes of the split."""
    notes, width = 0, 0
    for part in run.dense():
        places = part.vectors["tune"]
        notes, width = notes + int((places != 0).any(-1).sum()), places.shape[-1]
    found: dict[str, Result] = {"notes": Notes(notes, width)}
    if run.label != "mood":
        return found | {"mood": NotRun("needs --label mood")}
    if "train" not in run.splits:
        return found | {"mood": NotRun("needs a training split")}
    train, mine = run.encoded("train"), run.encoded()
    nearest = torch.argmax(mine.of("tune") @ train.of("tune").T, dim=1).tolist()
    right = [train.labels[near] == label for near, label in zip(nearest, mine.labels)]
    return found | {"mood": Mood(sum(right) / len(right), len(train), len(mine))}
