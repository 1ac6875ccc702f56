"""`explain`: what a contrast of a given size costs, before it is run."""

import time

import torch

from counterpoint.common.kernels.budget import kept_budget
from counterpoint.common.kernels.dispatch import choose
from counterpoint.common.kernels.flatten import flatten
from counterpoint.common.kernels.sweep import tile_shape

__all__ = ["explain"]


def explain(
    rows: int,
    columns: int | None = None,
    dim: int = 256,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    both_directions: bool = True,
    backend: str = "auto",
    rate: float | None = None,
) -> str:
    """Tiles, bytes, operations and the time floor of one forward and backward pass of `contrast_stats`.

    Args:
        rows, columns, dim: R, C and D; `columns=None` means a self-similarity `contrast_stats(z, z, ...)`.
        both_directions: column statistics, too (they cost no matrix product of their own).
        rate: matrix-product operations a second of the device; measured in a fraction of a second by default.

    >>> print(explain(8192, 8192, 256, rate=100e9).splitlines()[-1])
      time floor   1.37 s at 100 GFLOP/s
    """
    device, same = torch.device(device), columns is None
    width = rows if same else columns
    meta = torch.empty(rows, dim, dtype=dtype, device="meta")
    problem, _, _ = flatten(meta, meta if same else torch.empty(width, dim, dtype=dtype, device="meta"))
    chosen = choose(problem, backend, device)
    bits = 8 if dtype == torch.float64 else 4
    r, c = tile_shape(rows, width, torch.float64 if bits == 8 else torch.float32, device)
    tiles = -(-rows // r) * -(-width // c)
    half = 2 if same else 1
    if same:
        r = c = min(r, c)
        strips = -(-rows // r)
        tiles = strips * (strips + 1) // 2
    products = 3 if chosen == "tiled" and rows * width * bits // half <= kept_budget() else 4
    operations = 2 * products * rows * width * dim // half
    gradients = (rows + (0 if same else width)) * dim * dtype.itemsize
    statistics = 4 * (rows + (width if both_directions else 0)) * bits
    workspace = 0 if chosen == "dense" else 2 * r * c * bits
    total = gradients + statistics + workspace
    written = rows * width * bits
    rate = rate or _rate(device, dtype)
    direction = ", self-similarity" if same else ", both directions" if both_directions else ""
    if chosen == "dense":
        plan = f"none: small enough to write the {written / 1e6:.1f} MB of logits out"
        total += 4 * written
    else:
        plan = f"{r} x {c}, {tiles} of them; workspace {workspace / 2**20:.1f} MB"
    return "\n".join(
        (
            f"contrast of {rows} x {width}, D = {dim}, {dtype} on {device}{direction}: backend {chosen}",
            f"  tiles        {plan}",
            f"  memory       {total / 1e6:.1f} MB beside the inputs ({gradients / 1e6:.1f} MB of it gradients); "
            f"written-out logits: {written / 1e6:.1f} MB a copy",
            f"  operations   {operations:.3e} in {products} matrix products (scores "
            f"{'once' if products == 3 else 'twice'}, two gradients), "
            f"{2 * rows * width // half:.3e} exponentials",
            f"  time floor   {operations / rate:.3g} s at {rate / 1e9:.0f} GFLOP/s",
        )
    )


def _rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of torch.mm here, best of a few products."""
    n = 1024 if device.type == "cpu" else 8192
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    a = torch.randn(n, n, device=device, dtype=dtype)
    best = 0.0
    for _ in range(4):
        start = clock()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * n**3 / (clock() - start))
    return best
