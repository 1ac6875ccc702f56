"""Which files belong to which sensor and product: told by patterns of the user, else by their names."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from counterpoint.common.errors import InputError
from counterpoint.common.vertical import Rejected
from counterpoint.geospatial.bands import CLASSES, band_name, sensor_of

if TYPE_CHECKING:
    from counterpoint.geospatial.data.stac import ItemFacts

KINDS = ("s1", "s2", "landcover", "cloud")
_BAND = re.compile(r"^(.*?)[_.-](B\d{1,2}A?|VV|VH|HH|HV|SCL)(?:[_.-](10|20|60)m)?$", re.IGNORECASE)
_STARTS = {
    "s1": ("s1", "sentinel1", "sentinel-1"), "s2": ("s2", "sentinel2", "sentinel-2"),
    "landcover": ("lulc", "landcover", "land_cover", "worldcover", "labels"),
}  # fmt: skip


@dataclass
class SceneFiles:
    """One product of a sensor: a file with all bands, or a file for each.

    Attributes:
        name: of the product, for its row.
        kind: one of `KINDS`.
        file: the file with all bands; None where each has its own.
        parts: band -> file; beside `file` those that it does not hold.
        names: the bands of `file`, where a STAC item says them.
        said: what a STAC item says of it.
    """

    name: str
    kind: str
    file: Path | None = None
    parts: dict[str, Path] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    said: ItemFacts | None = None

    @property
    def files(self) -> list[Path]:
        """Its files, the ones of the finest pixels not known yet."""
        return [*([self.file] if self.file is not None else []), *self.parts.values()]


def sort_files(
    files: Sequence[Path], root: Path, patterns: Mapping[str, str]
) -> tuple[list[SceneFiles], list[Rejected], int]:
    """Products of the files, files that could not be told, and how many no pattern asked for.

    With patterns (kind -> shell pattern, relative to `root`) only what they match is taken. Without any, a file belongs
    to the sensor of the band that its name ends in, or to the one that its name or a folder's begins with.

    Raises `InputError` for a pattern that matches nothing.
    """
    wanted = {kind: text for kind, text in patterns.items() if text}
    scenes: dict[tuple[str, str], SceneFiles] = {}
    rejected: list[Rejected] = []
    counts, left = dict.fromkeys(wanted, 0), 0
    for file in files:
        place = file.relative_to(root).as_posix()
        if wanted:
            hits = [kind for kind, text in wanted.items() if fnmatch.fnmatch(place, text)]
            if not hits:
                left += 1
                continue
            if len(hits) > 1:
                rejected.append(
                    Rejected(str(file), f"is matched by --{hits[0]} and by --{hits[1]}; narrow one of them")
                )
                continue
            kind = hits[0]
            counts[kind] += 1
        else:
            kind = _kind(file, root)
            if not kind:
                reason = "nothing in its name says which sensor it is of; name patterns (--s1, --s2, --landcover)"
                rejected.append(Rejected(str(file), reason))
                continue
        if refused := _take(scenes, file, root, kind):
            rejected.append(Rejected(str(file), refused))
    for kind, count in counts.items():
        if not count:
            raise InputError(f"--{kind} {wanted[kind]!r} matches no raster below {root}; patterns are relative to it")
    return list(scenes.values()), rejected, left


def _take(scenes: dict[tuple[str, str], SceneFiles], file: Path, root: Path, kind: str) -> str:
    """Add a file to its product; why not, where it cannot be."""
    split = _BAND.match(file.stem)
    band = band_name(split[2]) if split else None
    if band is None or kind not in ("s1", "s2") or sensor_of([band]) != kind:
        if band is not None and kind in ("s1", "s2"):
            return f"its name says band {band}, which {kind} does not have"
        name = "-".join(file.relative_to(root).with_suffix("").parts)
        scenes[kind, name] = SceneFiles(name, kind, file=file)
        return ""
    folder = file.parent
    if re.fullmatch(r"R\d0m", folder.name):  # of a SAFE product
        folder = folder.parent
    key = "-".join((*folder.relative_to(root).parts, split[1]))
    scene = scenes.setdefault((kind, key), SceneFiles(split[1], kind))
    before = scene.parts.get(band)
    if before is None:
        scene.parts[band] = file
        return ""
    finer = _metres(file), _metres(before)
    if None in finer or finer[0] == finer[1]:
        return f"band {band} of {scene.name} stands in {before.name} already"
    if finer[0] < finer[1]:  # a SAFE product repeats bands at coarser pixels
        scene.parts[band] = file
    return ""


def _metres(file: Path) -> int | None:
    split = _BAND.match(file.stem)
    return int(split[3]) if split and split[3] else None


def _kind(file: Path, root: Path) -> str:
    split = _BAND.match(file.stem)
    if split and (band := band_name(split[2])):
        return "s2" if band == CLASSES else sensor_of([band]) or ""
    for name in (file.name, *reversed(file.relative_to(root).parts[:-1])):
        for kind, starts in _STARTS.items():
            if name.lower().startswith(starts):
                return kind
    return ""
