"""Verses and captions to look at, and users' own as queries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from counterpoint.common.data import ListSamples, Samples
from counterpoint.common.errors import InputError
from counterpoint.common.report import Media

from .songs import Reader, collate_songs, read_verses


def read_tune(file: Path, modality: str, system: Any) -> Samples:
    """A user's .tune file: each of its verses."""
    reader = Reader(system.assets, system.config.data.transpose)
    verses = read_verses(file)
    found = [{"tune": reader.notes(verse), "text": f"verse {i}"} for i, verse in enumerate(verses, 1)]
    return ListSamples(found, collate_songs)


def parse(text: str, modality: str, system: Any) -> Samples:
    """A caption, or pitches in words."""
    reader = Reader(system.assets, system.config.data.transpose)
    if modality == "caption":
        if not text.split():
            raise InputError("an empty caption; say something")
        return ListSamples([{"caption": reader.words(text), "text": text}], collate_songs)
    try:
        pitches = [int(word) for word in text.split()]
    except ValueError:
        raise InputError(f"{text!r} is no tune; give pitches, as in 60 62 64") from None
    return ListSamples([{"tune": reader.notes(pitches), "text": text}], collate_songs)


def picture(sample: dict[str, Any], modality: str, system: Any) -> Media:
    """A tune as steps, a caption as bars of its words' weights."""
    values = (sample["tune"] if modality == "tune" else system.weights.cpu()[sample["caption"]]).tolist()
    low, high = min(values), max(values)
    heights = [8 + 32 * (v - low) / ((high - low) or 1.0) for v in values]
    bars = "".join(f'<rect x="{8 * i}" y="{48 - h:.1f}" width="6" height="{h:.1f}"/>' for i, h in enumerate(heights))
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {8 * len(values)} 48">{bars}</svg>'
    return Media(str(sample["id"]), image=svg, caption=words(sample, modality, system))


def words(sample: dict[str, Any], modality: str, system: Any) -> str:
    """A caption's text, the number of a tune's notes."""
    return str(sample["text"]) if modality == "caption" else f"{len(sample['tune'])} notes"
