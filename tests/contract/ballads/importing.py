"""A .tune file and the .json beside it as facts for a manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from counterpoint.common.errors import InputError

from .songs import read_verses


def facts(file: Path) -> dict[str, Any]:
    """What is known of a song; raises where its tune or its captions cannot be read."""
    read_verses(file)
    beside = file.with_suffix(".json")
    if not beside.is_file():
        raise InputError(f"{beside.name} is missing: it holds what people say of the verses")
    try:
        known = json.loads(beside.read_text(encoding="utf-8"))
        return {name: str(known[name]) for name in ("says1", "says2", "mood")}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{beside.name}: needs says1, says2 and mood ({error})") from error
