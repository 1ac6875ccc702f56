"""The fused kernels: numbers in Triton's interpreter (its own process), and compilation for the GPU they are meant for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
HERE = Path(__file__).parent


def python(script: Path, *arguments: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, *arguments, str(script)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-3000:]
    return result.stdout


def test_kernels_equal_the_dense_definition_in_the_interpreter():
    """The variable must be set before the kernels are imported, hence a process of its own."""
    output = python(HERE / "triton_cases.py", "-m", "pytest", "-v", "-p", "no:cacheprovider", TRITON_INTERPRET="1")
    assert " passed" in output
