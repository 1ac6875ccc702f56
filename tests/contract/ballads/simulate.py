"""Songs made up: random walks with a drift, and what one could say of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from counterpoint.common.data import Manifest
from counterpoint.common.vertical import ImportReport

from .songs import VERSES

SAID = "tunes and captions made by a generator"
SPLITS = ("train", "val", "train", "test")


def write_songs(out: Path, songs: int, seed: int = 0, newer: bool = False) -> ImportReport:
    """Tunes as files, captions and moods in the manifest; whole singers are of one split."""
    rng = np.random.default_rng(seed)
    (out / "tunes").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(songs):
        singer, file = number // 2, f"tunes/{seed}-{number}.tune"
        verses = [_verse(rng) for _ in range(VERSES)]
        (out / file).write_text("".join(" ".join(map(str, verse)) + "\n" for verse in verses), encoding="utf-8")
        said = {f"says{i}": " | ".join(_said(v, newer)) for i, v in enumerate(verses, 1)}
        mood = "calm" if np.ptp(verses[0]) < 9 else "wild"
        name, day = f"song{seed}-{number}", f"2026-0{2 if newer else 1}-{1 + number // 2:02d}"
        row = {"id": name, "group": f"singer{seed}-{singer}", "split": SPLITS[singer % 4], "file": file, "day": day}
        rows.append(row | {"mood": mood} | said)
    Manifest.from_rows(rows, out, {"synthetic": SAID}).save(out / "manifest.parquet")
    return ImportReport(out / "manifest.parquet", len(rows), note=f"SYNTHETIC: {SAID}")


def _verse(rng: np.random.Generator) -> list[int]:
    steps = rng.integers(-2, 3, size=int(rng.integers(4, 12))) + int(rng.integers(-1, 2))
    return (int(rng.integers(48, 72)) + np.cumsum(steps)).tolist()


def _said(verse: list[int], newer: bool) -> list[str]:
    height = "low" if np.mean(verse) < 56 else "middle" if np.mean(verse) < 64 else "high"
    moves = "rising" if verse[-1] > verse[0] + 2 else "falling" if verse[-1] < verse[0] - 2 else "level"
    said = [f"{height} {moves}", f"the {height} {moves} song of {len(verse)} notes", f"from {verse[0]} to {verse[-1]}"]
    return [f"lately {text}" for text in said] if newer else said
