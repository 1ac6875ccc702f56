"""A manifest written into another folder: the files that it names are still found from there."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pandas as pd

from counterpoint.common.data.manifest import Manifest
from counterpoint.common.errors import InputError

_NAMES = ("id", "group", "split")


def moved(manifest: Manifest, folder: str | Path) -> Manifest:
    """The manifest for a place in `folder`: names of files are relative to it, and lead to the same files as before.

    A column names files where most of its texts are files of the manifest's folder; absolute names stay as they are.
    The folder left is recorded as one that the new manifest may read.
    """
    here, there = os.path.realpath(manifest.root), os.path.realpath(folder)
    if here == there:
        return manifest
    columns = {name: _renamed(manifest, name, here, there) for name in file_columns(manifest)}
    if not columns:
        return manifest
    return replace(
        manifest, frame=manifest.frame.assign(**columns), root=Path(folder), outside=(*manifest.outside, Path(here))
    )


def file_columns(manifest: Manifest) -> list[str]:
    """The columns that name files."""
    found = []
    for name in manifest.frame.columns:
        if name in _NAMES:
            continue
        texts = {v for v in manifest.frame[name].tolist() if isinstance(v, str) and 0 < len(v) < 1000}
        if 2 * sum(_is_file(manifest, text) for text in texts) > len(texts):
            found.append(name)
    return found


def _is_file(manifest: Manifest, text: str) -> bool:
    try:
        return manifest.file(text).is_file()
    except (InputError, OSError, ValueError):  # a text that is no file name, or one that leads elsewhere
        return False


def _renamed(manifest: Manifest, column: str, here: str, there: str) -> pd.Series:
    def rename(value: object) -> object:
        if not isinstance(value, str) or not value or os.path.isabs(value):
            return value
        return Path(os.path.relpath(os.path.join(here, value), there)).as_posix()

    return manifest.frame[column].map(rename, na_action="ignore")
