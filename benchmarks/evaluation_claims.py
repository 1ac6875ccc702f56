"""Claims of the evaluation papers, checked on scikit-learn's digits with seeds and intervals.

    OMP_NUM_THREADS=1 python benchmarks/evaluation_claims.py        # all; writes benchmarks/evaluation_claims.md

- rankme: over a grid of temperatures and view strengths, RankMe of the projector ranks SimCLR runs as kNN accuracy of
  the encoder does (Garrido et al. 2023). Per seed one Spearman correlation over the grid; because the strength of the
  views moves both, also the mean of the correlations within each strength. A run that only pulls positives together
  must read a RankMe near 1. The same runs give kNN at the encoder minus kNN at the projector, by view strength.
- plato: in a CCA subspace of 300 anchors the halves of a digit, seen by two frozen random encoders, find each
  other better than by an affine map of the whole space (Escaping Plato's Cave, 2025). Ridge and the number of
  components are chosen on validation pairs for both arms.
- curation: with 30 % of the pairs shuffled, the cosine of an encoder trained on all of them tells the wrong pairs from
  the right ones, and training again on the best 70 % finds more of the held-out pairs (the LAION workflow).
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from losses import view
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from torch import Tensor, nn

from counterpoint.common.fidelity import fidelity_rows
from counterpoint.common.losses import InfoNCE, NTXent
from counterpoint.common.metrics import auroc, cca, knn, rankme, retrieval, t_interval
from counterpoint.common.trainers.reproduce import Claim, Verdict, reproduce

TEMPERATURES, STRENGTHS, STEPS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0), (0.3, 1.0), 250


def digits(seed: int) -> tuple[Tensor, Tensor]:
    data = load_digits()
    order = np.random.default_rng(seed).permutation(len(data.target))
    return torch.from_numpy(data.data[order]).float() / 16, torch.from_numpy(data.target[order])


def weak_view(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """A share `strength` of the way from the image to its full random view."""
    return x + strength * (view(x, generator) - x)


def simclr(x: Tensor, temperature: float | None, strength: float, seed: int) -> tuple[nn.Module, nn.Module]:
    """Encoder and projector after training; without a temperature positives are only pulled together (a collapse)."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    body = nn.Sequential(nn.Linear(64, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU())
    head = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 64))
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=1e-3)
    for _ in range(STEPS):
        rows = torch.randperm(len(x), generator=generator)[:256]
        a, b = (head(body(weak_view(x[rows], strength, generator))) for _ in range(2))
        loss = (a - b).square().sum(1).mean() if temperature is None else NTXent(temperature)(a, b)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return body.eval(), head.eval()


def rankme_check(seeds: list[int]) -> list[str]:
    """Lines of Markdown about RankMe against kNN."""
    overall, within, collapsed, gaps = [], [], [], {s: [] for s in STRENGTHS}
    for seed in seeds:
        x, y = digits(seed)
        train, test = slice(0, 1200), slice(1200, None)
        rank, accuracy = np.zeros((len(STRENGTHS), len(TEMPERATURES))), np.zeros((len(STRENGTHS), len(TEMPERATURES)))
        for i, strength in enumerate(STRENGTHS):
            for j, temperature in enumerate(TEMPERATURES):
                body, head = simclr(x[train], temperature, strength, seed)
                with torch.no_grad():
                    h, z = body(x), head(body(x))
                figures = [
                    knn(f[train], y[train], f[test], y[test], ks=(20,), n_boot=1).best.metrics["accuracy"]
                    for f in (h, z)
                ]
                rank[i, j], accuracy[i, j] = rankme(z[train]), figures[0]
                gaps[strength].append(figures[0] - figures[1])
        overall.append(float(spearmanr(rank.ravel(), accuracy.ravel()).statistic))
        within.append(float(np.mean([spearmanr(r, a).statistic for r, a in zip(rank, accuracy)])))
        body, head = simclr(x[train], None, 1.0, seed)
        with torch.no_grad():
            collapsed.append(rankme(head(body(x[train]))))
    count = len(STRENGTHS) * len(TEMPERATURES)
    lines = [
        f"Spearman correlation of RankMe (projector) and kNN accuracy (encoder) over {count} settings: "
        f"{t_interval(overall)}; within one view strength: {t_interval(within)} ({len(seeds)} seeds).",
        f"RankMe of a run without negatives: {t_interval(collapsed)}.",
    ]
    return lines + [
        f"kNN at the encoder minus kNN at the projector, view strength {s}: {t_interval(g)} ({len(g)} runs)."
        for s, g in gaps.items()
    ]


def halves(seed: int) -> tuple[Tensor, Tensor]:
    """Left and right halves of the digits, each through its own frozen random ReLU layer."""
    x, _ = digits(seed)
    image = x.view(-1, 8, 8)
    generator = torch.Generator().manual_seed(seed)
    out = []
    for half in (image[:, :, :4], image[:, :, 4:]):
        weight = torch.randn(32, 256, generator=generator) / 32**0.5
        out.append(torch.relu(half.reshape(len(x), 32) @ weight).double())
    return out[0], out[1]


def plato_arm(arm: str, seed: int, anchors: int = 300) -> float:
    """R@5 of 300 test pairs; the settings are chosen on 150 validation pairs."""
    a, b = halves(seed)
    test, val, fit = slice(0, 300), slice(300, 450), slice(450, 450 + anchors)

    def recall(z: Tensor, w: Tensor) -> float:
        return retrieval(z, w, ks=(5,), n_boot=1).a_to_b.metrics["R@5"]

    best = (-1.0, 0.0)
    for ridge in np.logspace(-4, 2, 7):
        if arm == "CCA subspace":
            for components in (10, 20, 40, 80):
                found = cca(a[fit], b[fit], components=components, ridge=float(ridge))
                left, right = found.transform_x, found.transform_y
                best = max(best, (recall(left(a[val]), right(b[val])), recall(left(a[test]), right(b[test]))))
        else:
            mean_a, mean_b = a[fit].mean(0), b[fit].mean(0)
            centred = a[fit] - mean_a
            gram = centred.T @ centred
            gram += ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
            w = torch.linalg.solve(gram, centred.T @ (b[fit] - mean_b))
            scores = [recall((a[s] - mean_a) @ w, b[s] - mean_b) for s in (val, test)]
            best = max(best, (scores[0], scores[1]))
    return best[1]


def two_towers(a: Tensor, b: Tensor, seed: int) -> nn.ModuleList:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    towers = nn.ModuleList(nn.Sequential(nn.Linear(32, 256), nn.ReLU(), nn.Linear(256, 64)) for _ in range(2))
    optimizer = torch.optim.Adam(towers.parameters(), lr=1e-3)
    loss = InfoNCE(0.1)
    for _ in range(400):
        rows = torch.randperm(len(a), generator=generator)[:128]
        optimizer.zero_grad()
        loss(towers[0](a[rows]), towers[1](b[rows])).backward()
        optimizer.step()
    return towers


def wrong_pairs(seed: int) -> tuple[Tensor, Tensor, Tensor, nn.ModuleList]:
    """Halves of 1200 digits, 30 % of them paired wrongly, which ones, and towers trained on all."""
    x, _ = digits(seed)
    image = x.view(-1, 8, 8)
    a, b = image[:1200, :, :4].reshape(-1, 32), image[:1200, :, 4:].reshape(-1, 32).clone()
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(1200, generator=generator)[:360]
    b[rows] = b[rows.roll(1)]
    wrong = torch.zeros(1200, dtype=torch.bool)
    wrong[rows] = True
    return a, b, wrong, two_towers(a, b, seed)


def pair_cosine(a: Tensor, b: Tensor, towers: nn.ModuleList) -> Tensor:
    with torch.no_grad():
        return torch.nn.functional.cosine_similarity(towers[0](a), towers[1](b))


def curation_arm(arm: str, seed: int) -> float:
    """R@5 of 400 clean test pairs."""
    a, b, _, towers = wrong_pairs(seed)
    if arm == "best 70 %":
        keep = pair_cosine(a, b, towers).topk(840).indices
        towers = two_towers(a[keep], b[keep], seed)
    x, _ = digits(seed)
    image = x.view(-1, 8, 8)[1200:1600]
    with torch.no_grad():
        left, right = towers[0](image[:, :, :4].reshape(-1, 32)), towers[1](image[:, :, 4:].reshape(-1, 32))
    return retrieval(left, right, ks=(5,), n_boot=1).a_to_b.metrics["R@5"]


# The effects are the smallest that would matter in use; the papers report none at this scale.
CLAIMS = {
    "plato": (
        Claim("plato-cca", "a CCA subspace aligns frozen encoders better than an affine map, from 300 anchors",
              "affine map", "CCA subspace", "R@5, pool 300", data="halves of digits, random ReLU features",
              effect=0.05),
        plato_arm,
    ),
    "curation": (
        Claim("laion-curation", "training on the best 70 % by cosine beats training on all, 30 % of pairs wrong",
              "all pairs", "best 70 %", "R@5, pool 400", data="halves of digits, 1200 pairs", effect=0.02),
        curation_arm,
    ),
}  # fmt: skip


def verdict(name: str, most: int) -> Verdict:
    """Planned from a pilot of the baseline; with at most so many seeds."""
    claim, arm = CLAIMS[name]
    return reproduce(claim, arm, range(most), out=Path("runs/evaluation_claims"), rests_on=code(name), tell=print)


def code(name: str) -> str:
    return f"counterpoint.benchmarks.evaluation_claims:{CLAIMS[name][1].__name__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--most", type=int, default=60, help="seeds that the claims may use, as their plans ask for")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    start, seeds = time.process_time(), list(range(args.seeds))
    command = "`OMP_NUM_THREADS=1 python benchmarks/evaluation_claims.py`"
    what = "scikit-learn's digits; 95 % intervals over seeds or runs"
    lines = ["# Claims of the evaluation papers, on digits", "", f"{command} ({what})", ""]
    verdicts = {name: verdict(name, args.most) for name in CLAIMS}
    lines += fidelity_rows(v.record(code(name)) for name, v in verdicts.items())
    lines += ["", *(f"- Plan of {v.claim.name}: {v.plan.sentence}." for v in verdicts.values())]
    found = []
    for seed in seeds:
        a, b, wrong, towers = wrong_pairs(seed)
        found.append(auroc(pair_cosine(a, b, towers).numpy(), ~wrong.numpy()))
    lines += ["", f"AUROC of the cosine, right pairs against wrong ones: {t_interval(found)}."]
    lines += ["", "## RankMe", ""] + [f"- {line}" for line in rankme_check(seeds)]
    lines += ["", f"{time.process_time() - start:.0f} s of CPU, one thread."]
    args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
