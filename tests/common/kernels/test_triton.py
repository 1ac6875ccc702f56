"""The fused kernels: numbers in Triton's interpreter (its own process), and compilation for the GPU they are for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
HERE = Path(__file__).parent


def python(*arguments: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=1100,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-3000:]
    return result.stdout


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("which", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_kernels_equal_the_dense_definition_in_the_interpreter(which):
    """The variable must be set before the kernels are imported, hence a process of its own."""
    cases = str(HERE / "triton_cases.py")
    output = python("-m", "pytest", "-v", "-p", "no:cacheprovider", "-m", which, cases, TRITON_INTERPRET="1")
    assert " passed" in output


COMPILED = """
import torch
from counterpoint.common.kernels import Diagonal, contrast_stats

def loss(q, k, scale):
    stats = contrast_stats(q, k, scale=scale, positive=Diagonal(), columns=True, backend="triton")
    return (stats.lse - stats.positive + stats.columns.lse - stats.columns.positive).mean()

torch.manual_seed(0)
leaves = [t.requires_grad_() for t in (torch.randn(20, 16), torch.randn(20, 16), torch.tensor(2.0))]
loss(*leaves).backward()
eager = [t.grad for t in leaves]
for t in leaves:
    t.grad = None
torch.compile(loss, fullgraph=True, backend="aot_eager")(*leaves).backward()
for t, want in zip(leaves, eager):
    torch.testing.assert_close(t.grad, want)
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_graph_break_before_the_kernels():
    python("-c", COMPILED, TRITON_INTERPRET="1")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("dtype", "dim"), [("bfloat16", 256), ("float32", 64), ("float16", 512)])
def test_kernels_compile_for_an_h200_without_spilling(dtype, dim, tmp_path):
    """Both directions of a contrast stay in registers; with every modifier and two scales at once some may spill."""
    pytest.importorskip("triton.backends.nvidia")
    output = python(str(HERE / "triton_compile.py"), dtype, str(dim), TRITON_CACHE_DIR=str(tmp_path))
    lines = output.splitlines()
    assert {line[33:49].strip() for line in lines} >= {"stats_kernel", "merge_kernel", "positive_kernel"}
    for line in lines:
        spilled, shared = int(line.split("spilled")[1].split()[0]), int(line.split("shared")[1])
        assert shared <= 227 * 1024, line  # an SM's shared memory
        assert "everything" in line or spilled <= 64, line
