"""Train one small encoder with every objective that works on views of one modality, and compare what it learnt.

    OMP_NUM_THREADS=1 python benchmarks/losses.py                 # all objectives, 3 seeds, writes benchmarks/losses.md
    python benchmarks/losses.py --only NTXent DCL --seeds 1 --steps 50 --out trial.md

scikit-learn's digits (1797 images of 8 x 8 pixels): 1000 to train on without labels, 497 to test. kNN sees 100 labels;
the probe chooses its C on 300 more and is then fitted on all 400. Encoder MLP 64-256-256, projector 256-64, Adam 1e-3,
batches of 200, views by shift, gain, noise and a dropped patch. Objectives with a temperature get 0.2, everything else
is the class's default: one common setting, not each one's best.
"""

import argparse
import copy
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from counterpoint.common import losses
from counterpoint.common.metrics import knn, logistic_probe, rankme

TRAIN, LABELLED, VAL, BATCH, DIM, T = 1000, 100, 300, 200, 64, 0.2


class Encoder(nn.Module):
    """Features (evaluated) and their projection (contrasted)."""

    def __init__(self, heads: int = 1):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(64, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 256), nn.BatchNorm1d(256), nn.ReLU()
        )
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, DIM)) for _ in range(heads)
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        z = [head(h) for head in self.heads]
        return z[0] if len(z) == 1 else torch.stack(z)


def view(x: Tensor, generator: torch.Generator) -> Tensor:
    """A random shift by up to one pixel, gain, noise, and one 2 x 2 patch set to zero."""
    n = len(x)

    def draw(high: int) -> Tensor:
        return torch.randint(high, (n, 1), generator=generator)

    grid = torch.arange(8)
    rows, columns = grid[None] + draw(3), grid[None] + draw(3)
    padded = F.pad(x.view(n, 8, 8), (1, 1, 1, 1))
    image = padded[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    top, left = draw(7), draw(7)
    hole = ((grid[None] - top).abs() <= 1)[:, :, None] & ((grid[None] - left).abs() <= 1)[:, None, :]
    gain = 0.7 + 0.6 * torch.rand(n, 1, 1, generator=generator)
    noise = 0.1 * torch.randn(n, 8, 8, generator=generator)
    return ((image * gain + noise) * ~hole).flatten(1)


Step = Callable[[nn.Module, "Batch"], Tensor]


class Batch:
    """What a step may ask for: projections of fresh views, momentum projections, labels, indices."""

    def __init__(
        self, x: Tensor, label: Tensor, index: Tensor, generator: torch.Generator, net: Encoder, slow: Encoder
    ):
        self.x, self.label, self.index, self.generator, self.net, self.slow = x, label, index, generator, net, slow

    def z(self, count: int = 2) -> list[Tensor]:
        return [self.net(view(self.x, self.generator)) for _ in range(count)]

    @torch.no_grad()
    def momentum(self) -> Tensor:
        return self.slow(view(self.x, self.generator))


def views(count: int = 2) -> Step:
    return lambda loss, b: loss(*b.z(count))


def indexed(loss: nn.Module, b: Batch) -> Tensor:
    return loss(*b.z(), index=b.index)


def momentum(loss: nn.Module, b: Batch) -> Tensor:
    return loss(b.z(1)[0], b.momentum())


class AlignUniform(nn.Module):
    """alignment + uniformity of both views."""

    def __init__(self) -> None:
        super().__init__()
        self.align, self.uniform = losses.Alignment(), losses.Uniformity()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.align(a, b) + (self.uniform(a) + self.uniform(b)) / 2


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# name: (objective, how it is called, what it sees besides two views)
OBJECTIVES: dict[str, tuple[Callable[[], nn.Module], Step, str]] = {
    "InfoNCE": (lambda: losses.InfoNCE(T), views(), ""),
    "NTXent": (lambda: losses.NTXent(T), views(), ""),
    "MultiViewNTXent": (lambda: losses.MultiViewNTXent(T), views(3), "3 views"),
    "MoCo": (lambda: losses.MoCo(DIM, 1000, T), momentum, "momentum encoder"),
    "MoCHi": (
        lambda: losses.MoCHi(DIM, 1000, T, hardest=100, mixed=64, mixed_with_query=16, generator=generator()),
        momentum,
        "momentum encoder",
    ),
    "SigLIP": (losses.SigLIP, views(), ""),
    "DCL": (lambda: losses.DCL(T), views(), ""),
    "DCLW": (lambda: losses.DCLW(T), views(), ""),
    "DHEL": (lambda: losses.DHEL(T), views(), ""),
    "MVDHEL": (lambda: losses.MVDHEL(T), views(3), "3 views"),
    "MVInfoNCE": (lambda: losses.MVInfoNCE(T), views(3), "3 views"),
    "HCL": (lambda: losses.HCL(T), views(), ""),
    "CrossModalHCL": (lambda: losses.CrossModalHCL(T), views(), ""),
    "HardContrastive": (lambda: losses.HardContrastive(T), views(), ""),
    "SimpleContrastive": (losses.SimpleContrastive, views(), ""),
    "CACR": (losses.CACR, views(3), "3 views"),
    "SogCLR": (lambda: losses.SogCLR(TRAIN, T), indexed, "index"),
    "ISogCLR": (lambda: losses.ISogCLR(TRAIN, T), indexed, "index"),
    "FastCLIP": (lambda: losses.FastCLIP(TRAIN, T), indexed, "index"),
    "AMCL": (
        lambda: losses.AMCL(DIM, hardest=1, regulariser="omega", bounds=(0.05, 2.0)),
        views(),
        "3 heads, T from 0.05",
    ),
    "SwAV": (lambda: losses.SwAV(DIM, 60), views(), "60 prototypes"),
    "Alignment + Uniformity": (AlignUniform, views(), ""),
    "CUA": (lambda: losses.CUA(T), views(), ""),
    "GRAM": (lambda: losses.GRAM(T), views(3), "3 views"),
    "Symile": (lambda: losses.Symile(generator=generator()), views(3), "3 views, learnt scale"),
    "Norton": (lambda: losses.Norton(T, normalize=True), views(), ""),
    "SoftClip": (lambda: losses.SoftClip(T), views(), ""),
    "VICReg": (losses.VICReg, views(), ""),
    "BarlowTwins": (losses.BarlowTwins, views(), ""),
    "WMSE": (lambda: losses.WMSE(eps=0.01), views(), ""),
    "WhitenedCSE": (lambda: losses.WhitenedCSE(DIM, 16, T, generator=generator()), views(3), "3 views"),
    "SupCon": (lambda: losses.SupCon(T), lambda loss, b: loss(*b.z(), label=b.label), "labels"),
    "Metrix": (
        lambda: losses.Metrix(generator=generator()),
        lambda loss, b: loss(torch.cat(b.z()), b.label.repeat(2)),
        "labels",
    ),
    "SimLAP": (
        lambda: losses.SimLAP(10, DIM, T, generator=generator()),
        lambda loss, b: loss(torch.cat(b.z()), b.label.repeat(2)),
        "labels",
    ),
    "SupReMix": (
        lambda: losses.SupReMix(T, window=3, generator=generator()),
        lambda loss, b: loss(*(z[:40] for z in b.z()), target=b.label[:40].float()),
        "labels as numbers, 40 rows",
    ),
}


def train(name: str, x: Tensor, y: Tensor, seed: int, steps: int) -> tuple[Encoder, float]:
    """The trained encoder and the CPU milliseconds of a training step."""
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    net = Encoder(heads=3 if name == "AMCL" else 1)
    make, step, _ = OBJECTIVES[name]
    loss, slow = make(), copy.deepcopy(net)
    optimizer = torch.optim.Adam([*net.parameters(), *loss.parameters()], 1e-3)
    start = 0.0
    for i in range(steps):
        if i == min(5, steps - 1):
            start = time.process_time()
        index = torch.randperm(len(x), generator=random)[:BATCH]
        optimizer.zero_grad()
        value = step(loss, Batch(x[index], y[index], index, random, net, slow))
        if not torch.isfinite(value):
            raise RuntimeError(f"{name}, seed {seed}: loss {value.item()} at step {i}")
        value.backward()
        optimizer.step()
        with torch.no_grad():
            for old, new in zip(slow.parameters(), net.parameters(), strict=True):
                old.lerp_(new, 0.01)
    return net, (time.process_time() - start) / max(steps - 5, 1) * 1e3


@torch.no_grad()
def score(features: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> tuple[float, float, float]:
    """kNN (k = 5) and probe accuracy on the test part from few labels, RankMe of the test features."""
    z = features(x)
    parts = z[:LABELLED], z[TRAIN : TRAIN + VAL], z[TRAIN + VAL :]
    label = y[:LABELLED].tolist(), y[TRAIN : TRAIN + VAL].tolist(), y[TRAIN + VAL :].tolist()
    near = knn(parts[0], label[0], parts[2], label[2], ks=(5,), n_boot=2).best.metrics["accuracy"]
    probe = logistic_probe(
        parts[0], label[0], parts[2], label[2], val=parts[1], val_labels=label[1], c_grid=(1e-3, 1e-2, 1e-1), n_boot=2
    )
    return 100 * near, 100 * probe.scores.metrics["accuracy"], rankme(parts[2])


def spread(values: list[float]) -> str:
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.1f}"
    return f"{mean:.1f} ± {math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="*", choices=list(OBJECTIVES), default=None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    x, y = (torch.as_tensor(v) for v in load_digits(return_X_y=True))
    order = torch.randperm(len(x), generator=generator())
    x, y = x[order].float() / 16, y[order].long()
    begin, rows = time.process_time(), []

    def add(name: str, results: list[tuple[float, float, float]], milliseconds: float | None, extra: str) -> None:
        near, probe, rank = (spread([r[i] for r in results]) for i in range(3))
        rows.append((sum(r[0] for r in results) / len(results), name, near, probe, rank, milliseconds, extra))
        print(
            f"{name:24s} kNN {near:>12s}  probe {probe:>12s}  RankMe {rank:>12s}  {milliseconds or 0:6.1f} ms",
            flush=True,
        )

    add("(raw pixels)", [score(lambda v: v, x, y)], None, "no training")
    untrained = []
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        untrained.append(score(Encoder().eval().body, x, y))
    add("(untrained encoder)", untrained, None, "no training")
    for name in options.only or OBJECTIVES:
        results, cost = [], []
        for seed in range(options.seeds):
            net, milliseconds = train(name, x[:TRAIN], y[:TRAIN], seed, options.steps)
            results.append(score(net.eval().body, x, y))
            cost.append(milliseconds)
        add(name, results, sorted(cost)[len(cost) // 2], OBJECTIVES[name][2])
    total = time.process_time() - begin
    options.out.write_text(report(rows, options, total))
    print(f"{total:.0f} s of CPU; wrote {options.out}")


def report(rows: list[tuple], options: argparse.Namespace, total: float) -> str:
    command = " ".join(["OMP_NUM_THREADS=1 python benchmarks/losses.py", *sys.argv[1:]])
    base = next((r[5] for r in rows if r[1] == "NTXent"), None)
    lines = [
        "# Objectives on digits",
        "",
        (__doc__ or "").strip().split("\n\n")[-1].replace("\n", " "),
        "",
        f"`{command}`: {options.steps} steps, {options.seeds} seeds (mean ± standard deviation over seeds),"
        f" one CPU thread, {total:.0f} s of CPU in all. Sorted by kNN accuracy. A step is views, encoder, loss,"
        " backward and Adam; its time is relative to NTXent's" + (f" ({base:.1f} ms of CPU here)." if base else "."),
        "",
        "One test set of 497 images and one set of labels: a difference of two points is within chance, whatever the"
        " seeds' spread says.",
        "",
        "| objective | kNN (k = 5) % | probe % | RankMe (of 256) | step time | sees |",
        "|---|---|---|---|---|---|",
    ]
    for _, name, near, probe, rank, milliseconds, extra in sorted(rows, reverse=True, key=lambda r: r[0]):
        ratio = "" if milliseconds is None or not base else f"{milliseconds / base:.2f} x"
        lines.append(f"| {name} | {near} | {probe} | {rank} | {ratio} | {extra} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
