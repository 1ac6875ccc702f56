"""Speed and memory of the contrast engine beside its peers, forward and backward, in one run.

    python benchmarks/engine.py                     # CPU: about a quarter of an hour, Markdown on standard output
    python benchmarks/engine.py --sizes 2048 --quick
    python benchmarks/engine.py --crossover         # where tiles overtake the written-out logits
    python benchmarks/engine.py --kept              # small batches, with kept tiles and without
    python benchmarks/engine.py --device cuda       # a GPU's table (benchmarks/engine_gpu.py)

Peers: `pip install counterpoint[bench]`. All methods of a size take turns in one process, float32, threads fixed; a
time is the best of the turns, in CPU seconds (on one thread) or wall seconds (on more). Extra memory is the peak of
resident memory over that before the pass, gradients included, each method in a process of its own. "% of mm rate"
counts four matrix products (two for half the pairs) against torch.mm's own rate in the same turns.
"""

import argparse
import ctypes
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoint.common.kernels import Diagonal, Index, SameLabel, Self, contrast_stats, fast_matmul, target_scores
from counterpoint.common.kernels.budget import KEPT_BYTES, kept_bytes
from counterpoint.common.kernels.dispatch import DENSE_PAIRS

SCALE = 1 / 0.07
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


# ---- the losses: all of one N x N matrix of logits ------------------------------------------------------------------


def plain(q: Tensor, k: Tensor, scale: Tensor) -> Tensor:
    """CLIP's maths, written out."""
    logits, labels = scale * q @ k.T, torch.arange(q.shape[0])
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def open_clip(q: Tensor, k: Tensor, scale: Tensor) -> Tensor:
    module = _from_file("open_clip", "loss.py")
    return module.ClipLoss()(q, k, scale)


def lightly(q: Tensor, k: Tensor, scale: Tensor) -> Tensor:
    from lightly.loss import NTXentLoss

    half = q.shape[0] // 2
    return NTXentLoss(temperature=1 / SCALE)(q[:half], q[half:])


def pml_supcon(q: Tensor, k: Tensor, scale: Tensor) -> Tensor:
    from pytorch_metric_learning.losses import SupConLoss

    return SupConLoss(temperature=1 / SCALE)(q, _classes(q))


def pml_ntxent(q: Tensor, k: Tensor, scale: Tensor) -> Tensor:
    from pytorch_metric_learning.losses import NTXentLoss

    return NTXentLoss(temperature=1 / SCALE)(q, torch.arange(q.shape[0]) % (q.shape[0] // 2))


def ours(q: Tensor, k: Tensor, scale: Tensor) -> Tensor:
    stats = contrast_stats(q, k, scale=scale, positive=Diagonal(), columns=True)
    return ((stats.lse - stats.positive).mean() + (stats.columns.lse - stats.columns.positive).mean()) / 2


def ours_fast(q: Tensor, k: Tensor, scale: Tensor) -> Tensor:
    with fast_matmul():
        return ours(q, k, scale)


def ours_self(q: Tensor, k: Tensor, scale: Tensor) -> Tensor:
    rows = q.shape[0]
    partner = (torch.arange(rows) + rows // 2) % rows
    stats = contrast_stats(q, q, scale=scale, positive=Index(partner), exclude=Self())
    return (stats.lse - stats.positive).mean()


def ours_supcon(q: Tensor, k: Tensor, scale: Tensor) -> Tensor:
    stats = contrast_stats(q, q, scale=scale, exclude=Self())
    score, mass = target_scores(q, q, SameLabel(_classes(q), exclude_self=True))
    return (stats.lse - scale * score / mass).mean()


def _classes(q: Tensor) -> Tensor:
    return torch.arange(q.shape[0]) // 8


def _from_file(package: str, file: str) -> object:
    """One module of a package without the rest of it."""
    found = importlib.util.find_spec(package)
    if found is None:
        raise ImportError(f"{package} is not installed")
    spec = importlib.util.spec_from_file_location(f"bench_{package}", Path(found.submodule_search_locations[0]) / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


METHODS: dict[str, Loss] = {
    "plain PyTorch": plain,
    "open_clip ClipLoss": open_clip,
    "lightly NTXentLoss": lightly,
    "pml SupConLoss": pml_supcon,
    "pml NTXentLoss": pml_ntxent,
    "counterpoint": ours,
    "counterpoint, fast_matmul": ours_fast,
    "counterpoint, self": ours_self,
    "counterpoint, SupCon": ours_supcon,
}

# What each peer can be asked for: larger sizes need more than a workstation's memory, or minutes.
LARGEST = {"pml NTXentLoss": 512, "pml SupConLoss": 8192, "open_clip ClipLoss": 16384, "lightly NTXentLoss": 16384,
           "plain PyTorch": 16384}  # fmt: skip


# ---- measuring ------------------------------------------------------------------------------------------------------


def features(rows: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    q = F.normalize(torch.randn(rows, dim, generator=generator), dim=1)
    k = F.normalize(q + 0.5 * F.normalize(torch.randn(rows, dim, generator=generator), dim=1), dim=1)
    return q.requires_grad_(), k.requires_grad_(), torch.tensor(SCALE, requires_grad=True)


def step(loss: Loss, inputs: tuple[Tensor, ...]) -> float:
    for t in inputs:
        t.grad = None
    value = loss(*inputs)
    value.backward()
    return value.item()


def clock() -> float:
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def turns(names: list[str], rows: int, dim: int, rounds: int) -> dict[str, float | str]:
    """Best seconds of each method, all taking turns; or why it cannot run. "mm" is one product of the features."""
    inputs = features(rows, dim)
    best: dict[str, float | str] = {}
    scores = torch.empty(4096 if rows >= 4096 else rows, rows)
    for _ in range(rounds):
        start = clock()
        with torch.no_grad():
            torch.mm(inputs[0][: scores.shape[0]], inputs[1].T, out=scores)
        best["mm"] = min(best.get("mm", 9e9), (clock() - start) * rows / scores.shape[0])
        for name in names:
            if isinstance(best.get(name), str):
                continue
            start = clock()
            try:
                step(METHODS[name], inputs)
                best[name] = min(best.get(name, 9e9), clock() - start)
            except ImportError as error:
                best[name] = f"not installed ({error.name or error})"
            except (RuntimeError, MemoryError) as error:
                best[name] = f"failed: {str(error).splitlines()[0][:60]}"
    return best


def peak(name: str, rows: int, dim: int) -> dict[str, float | str]:
    """Extra bytes and seconds of one pass, in this (fresh) process."""

    def status(field: str) -> int:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])

    step(METHODS[name], features(64, dim))
    inputs = features(rows, dim)
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # freed memory that is still resident would hide part of the peak
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before, start = status("VmRSS"), clock()
    step(METHODS[name], inputs)
    return {"seconds": clock() - start, "bytes": status("VmHWM") - before}


def in_process(task: str, *arguments: object, threads: int, timeout: float = 600) -> dict:
    """Run `task` of this file in a fresh process."""
    command = [sys.executable, __file__, "--task", task, json.dumps([*arguments]), "--threads", str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"error": f"more than {timeout:.0f} s"}
    if done.returncode:
        reason = "killed: out of memory" if done.returncode < 0 else done.stderr.strip().splitlines()[-1][:80]
        return {"error": reason}
    return json.loads(done.stdout.splitlines()[-1])


TASKS = {"turns": turns, "peak": peak}


# ---- tables ---------------------------------------------------------------------------------------------------------

HEADER = (
    "| method | N | D | threads | seconds | x plain | x lightly | % of mm rate | extra MB | plain / extra |",
    "|---|---|---|---|---|---|---|---|---|---|",
)


def rows_of(names: list[str], rows: int, dim: int, threads: int, rounds: int, memory: bool) -> list[str]:
    """The table's lines for one size."""
    names = [name for name in names if rows <= LARGEST.get(name, rows)]
    seconds = in_process("turns", names, rows, dim, rounds, threads=threads)
    if "error" in seconds:
        return [f"| all | {rows} | {dim} | {threads} | {seconds['error']} | - | - | - | - | - |"]
    peaks = {name: in_process("peak", name, rows, dim, threads=threads) for name in names} if memory else {}
    lines = []

    def ratio(a: object, b: object, digits: int = 2) -> str:
        return f"{a / b:.{digits}f}" if isinstance(a, float | int) and isinstance(b, float | int) else "-"

    plain_bytes = peaks.get("plain PyTorch", {}).get("bytes")
    for name in names:
        found = seconds[name]
        extra = peaks.get(name, {}).get("bytes")
        operations = 2 if name in ("counterpoint, self", "counterpoint, SupCon") else 4
        mm = ratio(100 * operations * seconds["mm"], found, 0) if name.startswith("counterpoint") else "-"
        cells = (
            name,
            rows,
            dim,
            threads,
            f"{found:.3f}" if isinstance(found, float) else found,
            ratio(found, seconds.get("plain PyTorch")),
            ratio(found, seconds.get("lightly NTXentLoss")),
            mm,
            f"{extra / 1e6:.0f}" if extra is not None else "-",
            ratio(plain_bytes, extra, 0),
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def large(rows: int, dim: int, threads: int) -> list[str]:
    """The engine alone, where dense peers would need several copies of the logits."""
    lines = []
    for name in ("counterpoint", "counterpoint, self"):
        found = in_process("peak", name, rows, dim, threads=threads)
        if "error" in found:
            lines.append(f"| {name} | {rows} | {dim} | {threads} | {found['error']} | - | - | - | - | - |")
        else:
            extra = f"{found['bytes'] / 1e6:.0f}"
            lines.append(f"| {name} | {rows} | {dim} | {threads} | {found['seconds']:.1f} | - | - | - | {extra} | - |")
    copy = rows * rows * 4 / 1e9
    lines.append(
        f"| dense peers | {rows} | {dim} | {threads} | need several copies of {copy:.0f} GB | - | - | - | - | - |"
    )
    return lines


def precision_error(rows: int = 2048, dim: int = 256) -> list[str]:
    """Relative gradient errors against float64."""
    inputs = features(rows, dim)
    wide = tuple(t.detach().double().requires_grad_() for t in inputs)
    exact = plain(*wide)
    exact.backward()
    lines = []
    for name in ("plain PyTorch", "counterpoint", "counterpoint, fast_matmul"):
        value = step(METHODS[name], inputs)
        error = ((inputs[0].grad.double() - wide[0].grad).norm() / wide[0].grad.norm()).item()
        lines.append(f"- {name}: loss {abs(value - exact.item()):.1e} nats, gradient {error:.1e}")
    return lines


def crossover(dim: int) -> list[str]:
    """Seconds of dense and tiled over growing sizes."""
    lines = ["| N | dense ms | tiled ms |", "|---|---|---|"]
    for rows in (64, 128, 256, 384, 512, 768, 1024, 2048):
        inputs, best = features(rows, dim), {}
        for _ in range(max(3, 2**21 // rows**2)):
            for backend in ("dense", "tiled"):

                def loss(q: Tensor, k: Tensor, scale: Tensor, backend: str = backend) -> Tensor:
                    stats = contrast_stats(q, k, scale=scale, positive=Diagonal(), columns=True, backend=backend)
                    return (stats.lse - stats.positive + stats.columns.lse - stats.columns.positive).mean()

                start = clock()
                step(loss, inputs)
                best[backend] = min(best.get(backend, 9e9), clock() - start)
        lines.append(f"| {rows} | {1e3 * best['dense']:.2f} | {1e3 * best['tiled']:.2f} |")
    return [*lines, "", f"`auto` writes the logits out up to {DENSE_PAIRS} pairs."]


def kept(dim: int, sizes: tuple[int, ...] = (256, 512, 1024, 2048, 4096)) -> list[str]:
    """Medians of plain PyTorch, the engine with kept tiles and without, taking turns; three products for the floor."""
    lines = [
        "| N | plain ms | counterpoint x | recomputed x | self x | self recomputed x | three products alone x |",
        "|---|---|---|---|---|---|---|",
    ]
    runs = [("plain PyTorch", 0), *((n, b) for n in ("counterpoint", "counterpoint, self") for b in (KEPT_BYTES, 0))]
    for rows in sizes:
        inputs, found = features(rows, dim), {run: [] for run in (*runs, "mm")}
        for _ in range(max(7, min(200, 2**23 // rows**2))):
            for name, budget in runs:
                with kept_bytes(budget):
                    start = clock()
                    step(METHODS[name], inputs)
                    found[name, budget].append(clock() - start)
            start = clock()
            with torch.no_grad():
                inputs[0] @ inputs[1].T
            found["mm"].append(clock() - start)
        plain_time, *ours_times, mm = (statistics.median(t) for t in found.values())
        ratios = " | ".join(f"{t / plain_time:.2f}" for t in (*ours_times, 3 * mm))
        lines.append(f"| {rows} | {1e3 * plain_time:.1f} | {ratios} |")
    return lines


def report(arguments: argparse.Namespace) -> list[str]:
    everyone = [name for name in METHODS if name != "pml NTXentLoss"]
    duel = ["plain PyTorch", "counterpoint", "counterpoint, self"]
    rounds = 1 if arguments.quick else 3
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    cpu = next((line.split(":")[1].strip() for line in cpuinfo if "model name" in line), "?")
    lines = [
        f"{cpu} ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()}), torch {torch.__version__}, float32, "
        f"scale {SCALE:.2f}; forward and backward",
        "",
        *HEADER,
    ]

    def add(new: list[str]) -> None:
        lines.extend(new)
        print("\n".join(new), file=sys.stderr, flush=True)

    add(rows_of(["pml NTXentLoss", "counterpoint, self"], 512, 256, 1, 1, memory=True))
    for rows in arguments.sizes:
        if rows > 16384:
            add(large(rows, 256, 1))
        else:
            add(rows_of(everyone, rows, 256, 1, rounds if rows <= 8192 else 1, memory=True))
    if not arguments.quick:
        for dim in (128, 512):
            add(rows_of(duel, 8192, dim, 1, 2, memory=False))
        add(rows_of(duel, 8192, 256, 2, 2, memory=False))
    return [
        *lines,
        "",
        "Errors at N = 2048, D = 256 against float64 (fast_matmul rounds only where the processor has such units):",
        "",
        *precision_error(),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--sizes", type=lambda s: [int(x) for x in s.split(",")], default=[2048, 8192, 16384, 65536])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="one turn each, no other widths or threads")
    parser.add_argument("--crossover", action="store_true")
    parser.add_argument("--kept", action="store_true")
    parser.add_argument("--out", type=Path, help="also write the table here")
    parser.add_argument("--task", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.task:
        task, given = arguments.task
        print(json.dumps(TASKS[task](*json.loads(given))))
        return 0
    if arguments.device == "cuda":
        gpu = _from_file_here("engine_gpu.py")
        sys.argv = [sys.argv[0]] + (["--out", str(arguments.out)] if arguments.out else [])
        return gpu.main()
    lines = crossover(256) if arguments.crossover else kept(256) if arguments.kept else report(arguments)
    print("\n".join(lines))
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


def _from_file_here(file: str) -> object:
    spec = importlib.util.spec_from_file_location(file.removesuffix(".py"), Path(__file__).with_name(file))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
