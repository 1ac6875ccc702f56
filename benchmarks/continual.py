"""The infinite learning rate against repeated cosine, on digits that arrive class by class.

    OMP_NUM_THREADS=1 python benchmarks/continual.py        # 10 seeds, writes benchmarks/continual.md

SimCLR (encoder 64-256-128, Adam) meets the classes 0-3, then 4-6, then 7-9, 200 steps each. `repeated cosine` warms up
and decays in every stage; `infinite` warms up and cools down once, goes on at the constant rate, and anneals a copy at
the end of each stage: the copy is measured, the next stage starts before the annealing ("Beyond Cosine Decay", 2025).
Both keep Adam's moments. Measured on held-out digits of the first stage's classes, at the encoder: the share whose two
views find each other (R@1; kNN accuracy on these classes was above 99 % for both arms in two pilot seeds and decides
nothing). Forgetting is the best of the three measurements minus the last. Settings are common ones, tuned for neither.
"""

import argparse
import copy
import time
from pathlib import Path

import torch
from evaluation_claims import digits
from losses import view
from torch import Tensor, nn

from counterpoint.common.fidelity import COLUMNS
from counterpoint.common.losses import NTXent
from counterpoint.common.metrics import retrieval, t_interval
from counterpoint.common.trainers import Schedule, ScheduleConfig
from counterpoint.common.trainers.reproduce import Claim, judge

STAGES, STEPS, PEAK = ((0, 1, 2, 3), (4, 5, 6), (7, 8, 9)), 200, 3e-3
INFINITE = ScheduleConfig("infinite", warmup=0.1, cooldown=0.3, constant=0.4, decay=0.2, final=0.01)
COSINE = ScheduleConfig("cosine", warmup=0.1, final=0.01)
CLAIM = Claim(
    "infinite-learning-rate",
    "the infinite learning rate forgets less of the first stage than repeated cosine",
    "repeated cosine",
    "infinite",
    "forgetting, points of R@1 between views of the first stage's classes",
    higher_is_better=False,
    source="Beyond Cosine Decay, CoLLAs 2025",
    data="scikit-learn's digits in three stages of classes",
)


class Stream:
    """Training in stages, and how well views of the first stage's classes find each other."""

    def __init__(self, seed: int) -> None:
        x, y = digits(seed)
        self.train, self.labels, self.test, self.truth = x[:1200], y[:1200], x[1200:], y[1200:]
        self.generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        body = nn.Sequential(nn.Linear(64, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU())
        head = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 64))
        self.model = nn.Sequential(body, head)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=PEAK)
        self.loss = NTXent(0.2)

    def run(self, schedule: Schedule, classes: tuple[int, ...], steps: range) -> None:
        x = self.train[torch.isin(self.labels, torch.tensor(classes))]
        for step in steps:
            for group in self.optimizer.param_groups:
                group["lr"] = schedule(step)
            rows = torch.randperm(len(x), generator=self.generator)[:128]
            a, b = (self.model(view(x[rows], self.generator)) for _ in range(2))
            self.optimizer.zero_grad()
            self.loss(a, b).backward()
            self.optimizer.step()

    def recall(self) -> float:
        """Share of held-out first-stage digits whose two views find each other, views drawn alike at every call."""
        x = self.test[torch.isin(self.truth, torch.tensor(STAGES[0]))]
        generator = torch.Generator().manual_seed(0)
        model = self.model.eval()
        with torch.no_grad():
            a, b = (model[0](view(x, generator)) for _ in range(2))
        model.train()
        both = retrieval(a, b, ks=(1,), n_boot=1)
        return (both.a_to_b.metrics["R@1"] + both.b_to_a.metrics["R@1"]) / 2

    def state(self) -> tuple[dict, dict, Tensor]:
        kept = copy.deepcopy((self.model.state_dict(), self.optimizer.state_dict()))
        return (*kept, self.generator.get_state())

    def restore(self, state: tuple[dict, dict, Tensor]) -> None:
        self.model.load_state_dict(state[0])
        self.optimizer.load_state_dict(state[1])
        self.generator.set_state(state[2])


def recalls(arm: str, seed: int) -> list[float]:
    """R@1 on the first stage's classes after every stage."""
    stream, found = Stream(seed), []
    schedule = Schedule.from_config(INFINITE if arm == "infinite" else COSINE, PEAK, STEPS)
    for classes in STAGES:
        if arm == "infinite":
            assert schedule.anneal_from is not None
            stream.run(schedule, classes, range(schedule.anneal_from))
            before = stream.state()
            stream.run(schedule, classes, range(schedule.anneal_from, STEPS))
            found.append(stream.recall())
            stream.restore(before)
            schedule = schedule.continued(STEPS)
        else:
            stream.run(schedule, classes, range(STEPS))
            found.append(stream.recall())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    start, seeds = time.process_time(), list(range(args.seeds))
    arms = {arm: [recalls(arm, seed) for seed in seeds] for arm in (CLAIM.baseline, CLAIM.method)}
    lost = [[100 * (max(a) - a[-1]) for a in arms[arm]] for arm in (CLAIM.baseline, CLAIM.method)]
    lines = ["# Continual pretraining on digits", "", (__doc__ or "").strip().split("\n\n")[-1].replace("\n", " "), ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS), judge(CLAIM, seeds, *lost).row(), ""]
    lines += ["| R@1 on classes 0-3, % | after 0-3 | after 4-6 | after 7-9 |", "|---|---|---|---|"]
    for arm, rows in arms.items():
        cells = [str(t_interval([100 * r[stage] for r in rows])) for stage in range(len(STAGES))]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"{args.seeds} seeds; 95 % intervals over seeds. {time.process_time() - start:.0f} s of CPU, one thread.",
    ]
    args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
