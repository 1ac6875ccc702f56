"""Fixtures and shape checking for the whole suite."""

import os
import sys
import types
from pathlib import Path

import hypothesis
import pytest
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test depends on the clock: a busy machine may be slow, and slow inputs are no fault.
hypothesis.settings.register_profile(
    "no-clock", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("no-clock")

# An int is accepted where a float is annotated, as Python's own numeric tower (PEP 484) has it.
checker = types.ModuleType("counterpoint_type_checker")
checker.check = beartype(conf=BeartypeConf(is_pep484_tower=True))
sys.modules[checker.__name__] = checker

# Shapes and types of every annotated signature are checked while tests run. Triton reads its kernels' source and
# annotations itself, so the modules that hold them stay as written.
install_import_hook(
    [
        "counterpoint.common.data",
        "counterpoint.common.losses",
        "counterpoint.common.metrics",
        "counterpoint.common.models",
        "counterpoint.common.report",
        "counterpoint.common.trainers",
        "counterpoint.audio_speech",
        "counterpoint.geospatial",
        "counterpoint.graphs",
        "counterpoint.recsys",
        "counterpoint.timeseries",
        *(
            f"counterpoint.common.kernels.{file.stem}"
            for file in (Path(__file__).parents[1] / "common" / "kernels").glob("*.py")
            if "triton" not in file.stem and file.stem != "__init__"
        ),
    ],
    "counterpoint_type_checker.check",
)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The sample data's folder ($COUNTERPOINT_DATA); tests that ask for it are skipped without it."""
    root = os.environ.get("COUNTERPOINT_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("COUNTERPOINT_DATA does not name a folder: real sample data are not at hand")
    return Path(root)
