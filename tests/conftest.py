"""Fixtures and shape checking for the whole suite."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The sample data's folder ($COUNTERPOINT_DATA); tests that ask for it are skipped without it."""
    root = os.environ.get("COUNTERPOINT_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("COUNTERPOINT_DATA does not name a folder: real sample data are not at hand")
    return Path(root)
