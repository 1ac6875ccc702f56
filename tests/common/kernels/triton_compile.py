"""Compile every fused kernel for an H200 (sm_90), as the backend would launch it, without a GPU.

The launches of real problems on CPU tensors are turned into compilations by a driver that only names its target. Prints
one line a kernel: registers, spilled bytes a thread, shared memory. Run by test_triton.py in its own process.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import JITFunction, driver

from counterpoint.common.kernels import Diagonal, Index, SameLabel, Self
from counterpoint.common.kernels.flatten import flatten
from counterpoint.common.kernels.problem import Upstream
from counterpoint.common.kernels.triton_backend import TritonBackend


class Offline:
    """A driver that compiles for sm_90 and cannot run anything."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


class Compiled:
    """Remembers every kernel asked for."""

    def __init__(self):
        self.usage = {}
        self.label = ""

    def run(self, function, *args, grid, warmup, **kwargs):
        kernel = original(function, *args, grid=grid, warmup=True, **kwargs)
        self.usage.setdefault((self.label, function.__name__, kernel.hash), (kernel, kwargs))
        return kernel


def resources(cubin: bytes) -> dict[str, int]:
    """Registers and local (spilled) bytes a thread, from NVIDIA's own tool in Triton's wheel."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    return {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text.stdout)}


def problems(dtype, dim, rows=160, cols=96):
    q, k = torch.randn(rows, dim).to(dtype), torch.randn(cols, dim).to(dtype)
    ids, other = torch.arange(rows), torch.arange(cols)
    yield "clip", flatten(q, q.clone(), scale=10.0, positive=Diagonal(), columns=True)[0]
    yield "simclr", flatten(q, q, scale=10.0, positive=Index(ids.roll(80)), exclude=Self())[0]
    yield (
        "everything",
        flatten(
            q, k, scale=torch.rand(2, rows), col_scale=torch.rand(cols), row_bias=torch.rand(rows),
            col_bias=torch.rand(cols), positive=Diagonal(), exclude=[Self(), Index(ids[:, None] % 9)],
            only=SameLabel(ids % 3, other % 3), valid_cols=other < 90, score_floor=torch.zeros(rows), columns=True,
            mean=True,
        )[0],
    )  # fmt: skip


def main(dtypes, dims):
    for dtype in dtypes:
        for dim in dims:
            for name, problem in problems(getattr(torch, dtype), dim):
                if name == "clip":
                    compiled.label = f"{dtype} {dim} siglip"
                    for deterministic in (True, False):
                        backend = TritonBackend(deterministic)
                        backend.pair_sum_backward(problem, "softplus", backend.pair_sum_forward(problem, "softplus"))
                for one_exp in (False, True) if name != "everything" else (False,):
                    compiled.label = f"{dtype} {dim} {name}{' one exp' if one_exp else ''}"
                    scale = problem.scale * 0 if one_exp else problem.scale + 1000
                    n, s, r, c, _ = problem.shape
                    case = type(problem)(**{**problem.__dict__, "scale": scale})
                    for deterministic in (True, False):
                        backend = TritonBackend(deterministic)
                        stats = backend.forward(case)
                        for field in ("shift", "sum", "col_shift", "col_sum"):
                            if (t := getattr(stats, field)) is not None:
                                t.copy_(torch.zeros_like(t) if one_exp else torch.rand_like(t))
                        mean = torch.ones(n, s, r) if problem.mean else None
                        column = {}
                        if problem.columns:
                            column = {"col_lse": torch.ones(n, s, c)}
                            if problem.mean:
                                column["col_mean"] = torch.ones(n, s, c)
                        upstream = Upstream(torch.ones(n, s, r), torch.ones(n, s, r), mean, **column)
                        backend.backward(case, stats, upstream)
    for (label, name, _), (kernel, options) in compiled.usage.items():
        used = resources(kernel.asm["cubin"])
        tile = "x".join(str(options[key]) for key in ("BM", "BN", "BD") if key in options)
        sys.stdout.write(
            f"{label:32} {name:16} {tile:12} regs {used['REG']:3} spilled {used['STACK'] + used['LOCAL']:5} "
            f"shared {kernel.metadata.shared:6}\n"
        )


original = JITFunction.run
compiled = Compiled()
if __name__ == "__main__":
    driver.set_active(Offline())
    JITFunction.run = lambda function, *args, **kwargs: compiled.run(function, *args, **kwargs)
    main(sys.argv[1].split(","), [int(d) for d in sys.argv[2].split(",")])
