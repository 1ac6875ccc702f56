"""Reduced checks of the paper's claims."""

from __future__ import annotations

import tempfile
from pathlib import Path

from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.trainers import override
from counterpoint.common.trainers.reproduce import Claim
from counterpoint.common.trainers.throwaway import train_quietly

from .configs import BalladConfig
from .simulate import write_songs
from .system import CommonWords


def common_words(data: Path | None, arm: str, seed: int) -> float:
    """Spread of the test captions' inner products with their tunes, where common words count less and where all count
    the same."""
    with tempfile.TemporaryDirectory() as folder:
        made = write_songs(Path(folder, "songs"), 8, seed)
        changes = {"data.manifest": str(made.manifest), "train.max_steps": 2, "dim": 4, "train.batch_size": 4}
        config = override(BalladConfig(common=1e-2 if arm == "counted" else 1e6), changes)
        found = OpenRun.of(train_quietly(CommonWords, config, seed)).encoded()
        return float((found.of("caption") @ found.of("tune").T).std())


CLAIM = Claim(
    "common-words-spread",
    "Common words that count less spread captions",
    baseline="even",
    method="counted",
    metric="deviation of inner products",
    source="A. Singer, 2026",
    data="synthetic songs",
)
CHECKS = {CLAIM.name: (CLAIM, common_words)}
