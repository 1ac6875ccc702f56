"""What a Sentinel product says of itself: when it was taken, at which processing baseline, with which offset.

From baseline 04.00 on (25 January 2022; reprocessed older scenes have 05.00 and more) Sentinel-2 digital numbers carry
1000 that are no light: reflectance = (DN - 1000) / 10000. The date of the picture does not tell. What tells is the
baseline in the product's name or metadata, an offset that the metadata state, or the user; where nothing does, the
file is refused.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from counterpoint.common.errors import InputError

OFFSET = -1000
"""Added to digital numbers of processing baseline 04.00 and later."""
FIRST_WITH_OFFSET = 400
LARGEST = 1 << 26
"""Bytes of a metadata file that are read at most."""

_S2_NAME = re.compile(r"S2[A-D]_MSI(L1C|L2A)_(\d{8}T\d{5,6})(?:_N(\d{4}))?")
_S1_NAME = re.compile(r"S1[A-D]_\w{2}_(?:GRD|SLC|RTC)\w?_+\w{4}_(\d{8}T\d{6})")
_TILE_NAME = re.compile(r"T\d{2}[A-Z]{3}_(\d{8}T\d{6})")


@dataclass(frozen=True)
class Product:
    """What is known of a raster beside its pixels; empty or None where nothing says it.

    Attributes:
        time: when it was taken, ISO 8601.
        level: `L1C` or `L2A`.
        baseline: processing baseline as four digits (`0400`).
        offset: added to digital numbers before they are reflectance.
        source: where the offset is said, in words.
        orbit: `ascending` or `descending`.
        calibration: `sigma0` or `gamma0`.
    """

    time: str = ""
    level: str = ""
    baseline: str = ""
    offset: int | None = None
    source: str = ""
    orbit: str = ""
    calibration: str = ""


def product_of(file: Path, tags: Mapping[str, str] | None = None) -> Product:
    """What the names of a file and of its folders, its tags and the metadata beside it say.

    The first that says something counts: the file's own tags, the metadata beside it (BigEarthNet's
    `*_labels_metadata.json`, `MTD_MSI*.xml` of a SAFE folder), the names.

    >>> found = product_of(Path("S2A_MSIL2A_20220301T101031_N0400_R022_T33UUP_20220301T101608.SAFE/B02.jp2"))
    >>> found.time, found.baseline, found.offset
    ('2022-03-01T10:10:31', '0400', -1000)
    """
    tags = {key.lower(): str(value) for key, value in (tags or {}).items()}
    beside = _beside(file)
    names = [file.name, *(parent.name for parent in list(file.parents)[:4])]
    texts = [str(v) for key in ("tile_source", "scene_source") if (v := beside.get(key))]
    s2 = next((m for text in [*texts, *names] if (m := _S2_NAME.search(text)) and m[3]), None)
    s2 = s2 or next((m for text in names if (m := _S2_NAME.search(text))), None)
    level, baseline = (s2[1], s2[3] or "") if s2 else ("", "")
    own = next((m for text in names if (m := _S2_NAME.search(text))), None)
    level = own[1] if own else level  # the patch's own name, not that of the product it was made from
    baseline = _digits(tags.get("processing_baseline", "")) or str(beside.get("baseline", "")) or baseline
    offset, source = None, ""
    if "offset" in beside:
        offset, source = int(beside["offset"]), "the product's metadata"
    elif baseline:
        offset = OFFSET if int(baseline) >= FIRST_WITH_OFFSET else 0
        source = f"processing baseline {baseline[:2]}.{baseline[2:]}"
    told = [tags.get("datetime", ""), tags.get("tifftag_datetime", "")]
    told += [str(beside.get(key, "")) for key in ("acquisition_time", "acquisition_date")]
    stamps = [m[2] if pattern is _S2_NAME else m[1] for pattern in (_S2_NAME, _S1_NAME, _TILE_NAME)
              for text in names if (m := pattern.search(text))]  # fmt: skip
    time = next((t for text in [*told, *stamps] if (t := moment(text))), "")
    orbit = next((tags[key].lower() for key in ("orbit", "orbit_pass", "orbit_state") if key in tags), "")
    calibration = next((c for key in ("calibration", "radiometry") if (c := tags.get(key, "").lower())), "")
    return Product(time, level, baseline, offset, source, orbit, calibration)


def moment(text: str) -> str:
    """A time in ISO 8601 to the second, in UTC; empty where the text is none.

    >>> moment("20170613T101031"), moment("2021-07-23T13:22:41.000000000"), moment("2017-06-13 10:10:31"), moment("x")
    ('2017-06-13T10:10:31', '2021-07-23T13:22:41', '2017-06-13T10:10:31', '')
    """
    text = text.strip()
    short = re.fullmatch(r"(\d{8}T)(\d)(\d{4})", text)  # a missing leading zero of the hour, as BigEarthNet writes it
    text = f"{short[1]}0{short[2]}{short[3]}" if short else re.sub(r"(\.\d{6})\d+", r"\1", text).replace("Z", "+00:00")
    for form in ("%Y%m%dT%H%M%S", "%Y:%m:%d %H:%M:%S"):
        try:
            return datetime.strptime(text, form).isoformat()
        except ValueError:
            continue
    try:
        found = datetime.fromisoformat(text) if len(text) >= 8 else None
    except ValueError:
        return ""
    if found is None:
        return ""
    found = found if found.tzinfo is None else found.astimezone(UTC)
    return found.replace(tzinfo=None, microsecond=0).isoformat()


def season(time: str, latitude: float) -> str:
    """The meteorological season of a time at a latitude; empty without a time.

    >>> season("2020-01-11T16:46:49", 54.0), season("2020-01-11T16:46:49", -30.0)
    ('winter', 'summer')
    """
    if not time:
        return ""
    quarter = (datetime.fromisoformat(time).month % 12) // 3
    return ("winter", "spring", "summer", "autumn")[(quarter + (2 if latitude < 0 else 0)) % 4]


def _digits(text: str) -> str:
    found = re.search(r"(\d{2})\.?(\d{2})", text)
    return found[1] + found[2] if found else ""


def _beside(file: Path) -> dict[str, Any]:
    """Metadata in the file's folder and, in a SAFE folder, in the product's."""
    for side in sorted(file.parent.glob("*_labels_metadata.json"))[:2]:
        if file.name.startswith(side.name.removesuffix("_labels_metadata.json")):
            return _json(side)
    for folder in list(file.parents)[:5]:
        if (found := sorted(folder.glob("MTD_MSI*.xml"))) and found[0].is_file():
            return _mtd(found[0])
        if folder.name.endswith(".SAFE"):
            break
    return {}


def _json(side: Path) -> dict[str, Any]:
    try:
        found = json.loads(side.read_bytes()[:LARGEST].decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{side.name} beside it is damaged ({' '.join(str(error).split())[:80]}); copy it anew"
        ) from None
    return found if isinstance(found, dict) else {}


def _mtd(file: Path) -> dict[str, Any]:
    """Baseline and offset of a product's metadata."""
    text = file.read_bytes()[:LARGEST]
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise InputError(f"{file.name}: declares entities, which no product does; it is not read")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(f"{file.name} of its product is damaged ({error}); copy it anew") from None
    found: dict[str, Any] = {}
    for node in root.iter():
        name = node.tag.rpartition("}")[2]
        value = (node.text or "").strip()
        if name == "PROCESSING_BASELINE" and value:
            found["baseline"] = _digits(value)
        elif name in ("BOA_ADD_OFFSET", "RADIO_ADD_OFFSET") and value:
            offsets = found.setdefault("offsets", set())
            offsets.add(int(float(value)))
        elif name == "PRODUCT_START_TIME" and value:
            found["acquisition_time"] = value
    offsets = found.pop("offsets", set())
    if len(offsets) > 1:
        raise InputError(f"{file.name} states several offsets ({sorted(offsets)}); give --s2_offset")
    if offsets:
        found["offset"] = offsets.pop()
    elif found.get("baseline"):
        found["offset"] = OFFSET if int(found["baseline"]) >= FIRST_WITH_OFFSET else 0
    return found
