"""The one place where a training, or an evaluation, is held to the split of the manifest that it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from counterpoint.common.data.manifest import Manifest
from counterpoint.common.data.splits import check_leakage
from counterpoint.common.errors import LeakageError


def manifest_of(system: Any) -> Manifest | None:
    """The manifest that a system's data come from (`config.data.manifest`), where they come from one."""
    named = getattr(getattr(system.pretrained.config, "data", None), "manifest", None)
    return Manifest.load(named) if named and Path(named).is_file() else None


def hold_to_split(manifest: Manifest | None) -> None:
    """Raise `LeakageError` where a manifest is not apart by the rule that it was split by, whatever its vertical.

    The whole manifest counts, also splits that a training does not open: it will be evaluated on them. One that was
    found apart is not checked again while its file stays as it is.
    """
    if manifest is None or (manifest.state is not None and manifest.state in _apart):
        return
    try:
        check_leakage(manifest)
    except LeakageError as error:
        raise LeakageError(f"{manifest.path}: {error}" if manifest.path else str(error)) from None
    if manifest.state is not None:
        _apart.add(manifest.state)


_apart: set[tuple[Any, ...]] = set()  # files, as they were, whose splits are apart
