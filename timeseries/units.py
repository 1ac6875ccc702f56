"""Units of channels: one spelling for each, read strictly, and what converts one into another."""

from __future__ import annotations

import re
import unicodedata

_VOLTS = {"V": 1.0, "mV": 1e-3, "uV": 1e-6, "nV": 1e-9}
_PREFIX = {"": "", "m": "m", "milli": "m", "u": "u", "\u03bc": "u", "micro": "u", "n": "n", "nano": "n"}
_SPELLED = re.compile(r"(|m|milli|u|\u03bc|micro|n|nano)[ _-]?(?:v|volts?)")
UNSTATED = ("", "-", "nu", "adu")  # NU: the header says that the numbers are not physical


def decode_header(raw: bytes) -> str:
    """Header text as its writer meant it: UTF-8 where the bytes are, else Latin-1 (where 0xb5 is the micro sign).

    >>> decode_header(b"\\xb5V") == decode_header(b"\\xc2\\xb5V") == "\\u00b5V"
    True
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def canonical_unit(text: str) -> str:
    """The one spelling of a unit: V, mV, uV, nV for volts in any spelling and either micro sign; others as they are.

    >>> [canonical_unit(text) for text in ("\\u00b5V", "\\u03bcv", "UV", "microvolts", "MV", "mmHg ", "")]
    ['uV', 'uV', 'uV', 'uV', 'mV', 'mmHg', '']
    """
    text = text.strip().strip("\0").strip()
    found = _SPELLED.fullmatch(unicodedata.normalize("NFKC", text).casefold())
    return _PREFIX[found.group(1)] + "V" if found else text


def damaged_unit(unit: str) -> bool:
    """Whether a unit seems to be volts of a size that got lost with a character (`?V`, a replacement character).

    >>> damaged_unit("?V"), damaged_unit("\\ufffdV"), damaged_unit("mV"), damaged_unit("mmHg"), damaged_unit("m/s^2")
    (True, True, False, False, False)
    """
    unit = canonical_unit(unit)
    if unit in _VOLTS:
        return False
    lost = any(not c.isprintable() or c == "\ufffd" for c in unit)
    return lost or re.fullmatch(r"[^A-Za-z0-9/^%*.-]+\s*v(olts?)?|[^\x00-\x7f]+v(olts?)?", unit.casefold()) is not None


def unit_factor(unit: str, wanted: str) -> float | None:
    """What turns a value in `unit` into one in `wanted`; None where the two do not measure the same.

    A unit that is not stated counts as the wanted one.

    >>> round(unit_factor("uV", "mV"), 9), unit_factor("", "mV"), unit_factor("mmHg", "mV")
    (0.001, 1.0, None)
    """
    a, b = canonical_unit(unit), canonical_unit(wanted)
    if a.casefold() == b.casefold() or a.casefold() in UNSTATED or b.casefold() in UNSTATED:
        return 1.0
    return _VOLTS[a] / _VOLTS[b] if a in _VOLTS and b in _VOLTS else None
