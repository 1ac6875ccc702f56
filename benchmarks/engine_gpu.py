"""Speed, memory and accuracy of the contrast engine on one GPU, beside its peers and the hardware's floor.

    python benchmarks/engine_gpu.py [--sizes 8192,32768,131072] [--dims 256,512] [--out results.md]

Every row is one forward and backward pass of the symmetric (both directions) contrastive loss with a learnable scale on
bfloat16 features, or the self-similarity loss of NT-Xent; medians of CUDA events after warming up. Extra memory is the
peak above inputs and their gradients. Peers that are not installed or do not fit are listed with the reason:

- dense: the written-out loss in eager PyTorch under bfloat16 autocast;
- open_clip: `open_clip.ClipLoss`;
- Inf-CL: `inf_cl.cal_flash_loss`, both directions (github.com/DAMO-NLP-SG/Inf-CLIP, installed by hand);
- CCE: `cut_cross_entropy.linear_cross_entropy`, both directions (github.com/apple/ml-cross-entropy, installed by hand).

Without a CUDA device nothing is measured and nothing is written.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoint.common.kernels import Diagonal, Index, Self, contrast_stats

SCALE = 14.3
TARGET_MS = {(32768, 512): 9.3, (131072, 512): 140.0}  # on an H200, all that is asked of the engine


@dataclass
class Row:
    method: str
    rows: int
    dim: int
    ms: float | None = None
    extra_mb: float | None = None
    note: str = ""


def features(rows: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator("cuda").manual_seed(0)
    q = F.normalize(torch.randn(rows, dim, device="cuda", generator=g), dim=-1)
    k = F.normalize(q + 1.5 * F.normalize(torch.randn(rows, dim, device="cuda", generator=g), dim=-1), dim=-1)
    scale = torch.tensor(SCALE, device="cuda", requires_grad=True)
    return q.bfloat16().requires_grad_(), k.bfloat16().requires_grad_(), scale


def ours(deterministic: bool) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def loss(q: Tensor, k: Tensor, scale: Tensor) -> Tensor:
        stats = contrast_stats(
            q, k, scale=scale, positive=Diagonal(), columns=True, deterministic=deterministic, backend="triton"
        )
        return (stats.lse - stats.positive + stats.columns.lse - stats.columns.positive).mean() / 2

    return loss


def ours_self(q: Tensor, k: Tensor, scale: Tensor) -> Tensor:
    rows = q.shape[0]
    partner = (torch.arange(rows, device=q.device) + rows // 2) % rows
    stats = contrast_stats(q, q, scale=scale, positive=Index(partner), exclude=Self(), backend="triton")
    return (stats.lse - stats.positive).mean()


def dense(q: Tensor, k: Tensor, scale: Tensor) -> Tensor:
    with torch.autocast("cuda", torch.bfloat16):
        logits = scale * q @ k.T
        labels = torch.arange(q.shape[0], device=q.device)
        return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def open_clip_loss() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    import open_clip

    module = open_clip.ClipLoss()

    def loss(q: Tensor, k: Tensor, scale: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            return module(q, k, scale)

    return loss


def inf_cl_loss() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    from inf_cl import cal_flash_loss

    def loss(q: Tensor, k: Tensor, scale: Tensor) -> Tensor:
        labels = torch.arange(q.shape[0], device=q.device)
        return (cal_flash_loss(q, k, labels, scale).mean() + cal_flash_loss(k, q, labels, scale).mean()) / 2

    return loss


def cce_loss() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    from cut_cross_entropy import linear_cross_entropy

    def loss(q: Tensor, k: Tensor, scale: Tensor) -> Tensor:
        labels = torch.arange(q.shape[0], device=q.device)
        scaled_q, scaled_k = (q * scale).to(q.dtype), (k * scale).to(k.dtype)
        return (linear_cross_entropy(scaled_q, k, labels) + linear_cross_entropy(scaled_k, q, labels)) / 2

    return loss


METHODS: dict[str, Callable[[], Callable[[Tensor, Tensor, Tensor], Tensor]]] = {
    "counterpoint": lambda: ours(deterministic=True),
    "counterpoint, atomic": lambda: ours(deterministic=False),
    "counterpoint, self": lambda: ours_self,
    "dense eager": lambda: dense,
    "open_clip": open_clip_loss,
    "Inf-CL": inf_cl_loss,
    "CCE": cce_loss,
}


def measure(loss: Callable[[Tensor, Tensor, Tensor], Tensor], rows: int, dim: int, repeats: int) -> tuple[float, float]:
    """(median milliseconds, extra megabytes) of forward and backward."""
    inputs = features(rows, dim)

    def step() -> None:
        for t in inputs:
            t.grad = torch.zeros_like(t) if t.grad is None else t.grad.zero_()
        loss(*inputs).backward()

    for _ in range(2):
        step()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(repeats):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        loss(*inputs).backward()
        stop.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(stop))
    return statistics.median(times), (torch.cuda.max_memory_allocated() - before) / 2**20


def benchmark(sizes: list[int], dims: list[int]) -> Iterator[Row]:
    for dim in dims:
        for rows in sizes:
            for name, build in METHODS.items():
                row = Row(name, rows, dim)
                try:
                    row.ms, row.extra_mb = measure(build(), rows, dim, 10 if rows <= 65536 else 3)
                except ImportError as error:
                    row.note = f"not installed ({error.name})"
                except torch.cuda.OutOfMemoryError:
                    row.note = "out of memory"
                except (RuntimeError, TypeError, ValueError) as error:
                    row.note = f"failed: {str(error).splitlines()[0][:80]}"
                torch.cuda.empty_cache()
                yield row


def matmul_rate() -> float:
    """bfloat16 FLOP/s of torch.mm here."""
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(10):
        a @ a
    stop.record()
    torch.cuda.synchronize()
    return 10 * 2 * 8192**3 / (start.elapsed_time(stop) * 1e-3)


def gradient_errors(rows: int, dim: int) -> dict[str, float]:
    """|gradient - exact| / |exact| in q, against float64 on the same bfloat16 features."""
    q, k, scale = features(rows, dim)
    exact = [t.detach().double().requires_grad_() for t in (q, k, scale)]
    logits = exact[2] * exact[0] @ exact[1].T
    labels = torch.arange(rows, device="cuda")
    ((F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2).backward()
    errors = {}
    for name in ("counterpoint", "counterpoint, atomic", "dense eager"):
        for t in (q, k, scale):
            t.grad = None
        METHODS[name]()(q, k, scale).backward()
        errors[name] = ((q.grad.double() - exact[0].grad).norm() / exact[0].grad.norm()).item()
    return errors


def table(rows: list[Row], rate: float) -> Iterator[str]:
    yield "| method | N | D | ms | x floor | extra MB | note |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        floor = 8 * row.rows**2 * row.dim / rate * 1e3
        target = TARGET_MS.get((row.rows, row.dim)) if row.method == "counterpoint" else None
        note = row.note
        if target is not None and row.ms is not None:
            note = f"target {target} ms: {'reached' if row.ms <= target else 'missed'}"
        ms, ratio = ("-", "-") if row.ms is None else (f"{row.ms:.2f}", f"{row.ms / floor:.2f}")
        extra = "-" if row.extra_mb is None else f"{row.extra_mb:.0f}"
        yield f"| {row.method} | {row.rows} | {row.dim} | {ms} | {ratio} | {extra} | {note} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="8192,32768,131072", help="rows = columns, comma-separated")
    parser.add_argument("--dims", default="256,512", help="feature widths, comma-separated")
    parser.add_argument("--out", type=Path, help="also write the table here")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("not run: no CUDA device")
        return 0
    rate = matmul_rate()
    rows = list(benchmark(*([int(x) for x in text.split(",")] for text in (arguments.sizes, arguments.dims))))
    lines = [
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, torch.mm {rate / 1e12:.0f} TFLOP/s in bfloat16",
        "Floor: 8 N N D operations at that rate (scores twice, both gradients).",
        "",
        *table(rows, rate),
        "",
        "Gradient error at N = 8192, D = 512, scale 14.3 against float64 on the same features:",
        *(f"- {name}: {100 * error:.2f} %" for name, error in gradient_errors(8192, 512).items()),
    ]
    print("\n".join(lines))
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
