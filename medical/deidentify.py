"""What of a DICOM header travels into a manifest: an allow-list of fields, and identifiers as salted hashes.

Everything else (names, dates, institutions, free text, private fields) stays behind. This is no certified
de-identification: identity burned into the pixels, and faces in head scans, are not removed.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from counterpoint.common.errors import InputError

CODED = {
    "modality": "Modality",
    "body_part": "BodyPartExamined",
    "sex": "PatientSex",
    "manufacturer": "Manufacturer",
    "scanner": "ManufacturerModelName",
    "kernel": "ConvolutionKernel",
}
"""Manifest column -> DICOM field of codes; only letters, digits and a few signs of it are kept."""
NUMBERS = {"kvp": "KVP", "slice_thickness": "SliceThickness"}
"""Manifest column -> DICOM field of one number."""
IDENTIFIERS = {
    "patient": "PatientID",
    "study": "StudyInstanceUID",
    "series": "SeriesInstanceUID",
}
"""Manifest column -> DICOM field that is hashed with the salt."""
SALT_FILE = "salt.private"
_CODE = re.compile(r"[^A-Za-z0-9 _./+\-]")
_OLD = 90


def travelling(header: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a header that may stand in a manifest; ages above 89 become 90.

    >>> travelling({"Modality": "CT", "PatientName": "Doe^J", "PatientAge": "093Y", "ContrastBolusAgent": "Dr. Roe's"})
    {'modality': 'CT', 'age': 90.0, 'contrast': 'yes', 'identity_removed': ''}
    """
    found: dict[str, Any] = {}
    for column, field in CODED.items():
        text = header.get(field)
        if text:
            parts = text if isinstance(text, (list, tuple)) else [text]
            found[column] = _CODE.sub("", " ".join(map(str, parts)))[:64].strip()
    for column, field in NUMBERS.items():
        try:
            found[column] = float(header[field])
        except (KeyError, TypeError, ValueError):
            continue
    if (age := _years(header.get("PatientAge"))) is not None:
        found["age"] = min(age, float(_OLD))
    found["contrast"] = "yes" if header.get("ContrastBolusAgent") else ""
    removed = str(header.get("PatientIdentityRemoved", "")).upper()
    found["identity_removed"] = removed.lower() if removed in ("YES", "NO") else ""
    return found


def _years(text: Any) -> float | None:
    """DICOM's age (`045Y`, `006M`, `010D`, `003W`) in years."""
    found = re.fullmatch(r"(\d{1,3})([DWMY])", str(text or "").strip().upper())
    if not found:
        return None
    return round(int(found[1]) / {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}[found[2]], 2)


class Salt:
    """Names patients, studies and series by 12 hexadecimal digits of a keyed hash: the same for the same salt, and not
    to be undone by whoever has not got it.

    >>> salt = Salt(b"secret")
    >>> salt.name("patient", "4711") == salt.name("patient", "4711") != salt.name("study", "4711")
    True
    """

    def __init__(self, key: bytes) -> None:
        self.key = key

    @classmethod
    def of(cls, file: Path) -> Salt:
        """The salt in a file; a new one is drawn and written (for its owner alone to read) where there is none."""
        try:
            if file.exists():
                key = file.read_bytes()
                if len(key) < 16:
                    raise InputError(f"{file}: {len(key)} bytes are no salt; give a file of 16 random bytes or more")
                return cls(key)
            file.parent.mkdir(parents=True, exist_ok=True)
            key = secrets.token_bytes(32)
            file.touch(mode=0o600)
            file.write_bytes(key)
        except OSError as error:
            raise InputError(f"{file}: the salt cannot be kept there ({error.strerror})") from error
        return cls(key)

    def name(self, kind: str, value: str) -> str:
        """The name of an identifier."""
        return hashlib.blake2b(f"{kind}\0{value}".encode(), key=self.key[:64], digest_size=6).hexdigest()
