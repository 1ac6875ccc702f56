"""The infinite learning rate against repeated cosine, on a generated stream whose stages part objects by other facts.

    OMP_NUM_THREADS=1 python benchmarks/continual.py              # pilot, plan, both arms; writes continual.md
    OMP_NUM_THREADS=1 python benchmarks/continual.py --plan       # the pilot of the baseline and its plan alone

Synthetic. An object has three latents of 16 numbers; a view mixes noisy copies of them through a fixed random network
into 64 numbers. In stage s two views share 92 % of latent s and 60 % of the others, so each stage teaches to look at
another latent, and looking less at the first one is what forgetting means. SimCLR (64-256-256-64, Adam, batch 256)
meets the three stages of 2000 objects, 300 steps each. `repeated cosine` warms up and decays in every stage;
`infinite` warms up and cools down once, goes on at the constant rate, and anneals a copy at the end of each stage: the
copy is measured, the next stage starts before the annealing ("Beyond Cosine Decay", 2025). Both keep Adam's moments.

Measured on held-out objects under the first stage's views: how often two views find each other among 250 objects (R@1,
both ways), after the first stage minus after the last. Stages and settings were chosen with the baseline alone (with 30
% in place of 60 % it forgets everything, which no schedule can better); the claimed effect is five points.
"""

import argparse
import copy
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from counterpoint.common.fidelity import COLUMNS
from counterpoint.common.losses import NTXent
from counterpoint.common.metrics import retrieval, t_interval
from counterpoint.common.trainers import Schedule, ScheduleConfig
from counterpoint.common.trainers.claims import Measured
from counterpoint.common.trainers.reproduce import Claim, planned, reproduce

STAGES, STEPS, PEAK = 3, 300, 1e-3
LATENT, WIDTH, OBJECTS, POOL = 16, 64, 2000, 250
OWN, OTHERS = 0.92, 0.6
INFINITE = ScheduleConfig("infinite", warmup=0.1, cooldown=0.3, constant=0.4, decay=0.2, final=0.01)
COSINE = ScheduleConfig("cosine", warmup=0.1, final=0.01)
CLAIM = Claim(
    "infinite-learning-rate",
    "the infinite learning rate forgets less of the first stage than repeated cosine",
    "repeated cosine",
    "infinite",
    "forgetting, points of R@1 between views of the first stage",
    higher_is_better=False,
    effect=5.0,
    held_out=500,
    source="Beyond Cosine Decay, CoLLAs 2025",
    data="generated objects, synthetic",
)


class Stream:
    """Objects and views, and a model that is trained on them stage by stage. Objects are the same for every seed, which
    draws weights, batches and views."""

    def __init__(self, seed: int, held_out: int) -> None:
        world = torch.Generator().manual_seed(0)
        shape = (STAGES * LATENT, 128)
        self.mixing = torch.randn(shape, generator=world) / shape[0] ** 0.5
        self.out = torch.randn(128, WIDTH, generator=world) / 128**0.5
        self.objects = torch.randn(OBJECTS, *shape[:1], generator=world)
        self.held = torch.randn(held_out, *shape[:1], generator=torch.Generator().manual_seed(1))
        self.generator, self.seed = torch.Generator().manual_seed(100 + seed), seed
        torch.manual_seed(seed)
        layers = nn.Linear(WIDTH, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 64)
        self.model = nn.Sequential(*layers)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=PEAK)
        self.loss = NTXent(0.2)

    def view(self, objects: Tensor, stage: int, generator: torch.Generator) -> Tensor:
        """What is seen of objects in a stage."""
        shared = torch.full((STAGES, 1), OTHERS)
        shared[stage] = OWN
        latents = objects.view(-1, STAGES, LATENT)
        noise = torch.randn(latents.shape, generator=generator)
        seen = (shared.sqrt() * latents + (1 - shared).sqrt() * noise).flatten(1)
        return (seen @ self.mixing).tanh() @ self.out

    def run(self, schedule: Schedule, stage: int, steps: range) -> None:
        for step in steps:
            for group in self.optimizer.param_groups:
                group["lr"] = schedule(step)
            batch = self.objects[torch.randperm(OBJECTS, generator=self.generator)[:256]]
            a, b = (self.model(self.view(batch, stage, self.generator)) for _ in range(2))
            self.optimizer.zero_grad()
            self.loss(a, b).backward()
            self.optimizer.step()

    def recall(self) -> Tensor:
        """Of every held-out object, how often its two views of the first stage find each other; views alike at every
        call."""
        generator = torch.Generator().manual_seed(10_000 + self.seed)
        with torch.no_grad():
            a, b = (self.model(self.view(self.held, 0, generator)) for _ in range(2))
        found = []
        for x, y in zip(a.split(POOL), b.split(POOL)):
            both = retrieval(x, y, ks=(1,), n_boot=0)
            found.append((both.a_to_b.per_query["R@1"] + both.b_to_a.per_query["R@1"]) / 2)
        return torch.cat(found)

    def state(self) -> tuple[dict, dict, Tensor]:
        kept = copy.deepcopy((self.model.state_dict(), self.optimizer.state_dict()))
        return (*kept, self.generator.get_state())

    def restore(self, state: tuple[dict, dict, Tensor]) -> None:
        self.model.load_state_dict(state[0])
        self.optimizer.load_state_dict(state[1])
        self.generator.set_state(state[2])


def recalls(arm: str, seed: int, held_out: int) -> list[Tensor]:
    """R@1 of every held-out object under the first stage's views, after every stage."""
    stream, found = Stream(seed, held_out), []
    schedule = Schedule.from_config(INFINITE if arm == "infinite" else COSINE, PEAK, STEPS)
    for stage in range(STAGES):
        if arm == "infinite":
            assert schedule.anneal_from is not None
            stream.run(schedule, stage, range(schedule.anneal_from))
            before = stream.state()
            stream.run(schedule, stage, range(schedule.anneal_from, STEPS))
            found.append(stream.recall())
            stream.restore(before)
            schedule = schedule.continued(STEPS)
        else:
            stream.run(schedule, stage, range(STEPS))
            found.append(stream.recall())
    return found


class Forgetting:
    """A run of the check, which keeps what every stage left for the page."""

    def __init__(self) -> None:
        self.stages: dict[tuple[str, int], list[float]] = {}

    def __call__(self, arm: str, seed: int, groups: int) -> Measured:
        found = recalls(arm, seed, -(-groups // POOL) * POOL)
        self.stages[arm, seed] = [100 * float(r.mean()) for r in found]
        lost: Mapping[str, float] = {str(i): 100 * float(x) for i, x in enumerate(found[0] - found[-1])}
        return Measured.of(lost)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="how many may be used")
    parser.add_argument("--plan", action="store_true", help="the pilot alone")
    parser.add_argument("--runs", type=Path, default=Path("runs/continual"), help="where finished runs are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    start, seeds, run = time.process_time(), range(args.seeds), Forgetting()
    if args.plan:
        print(planned(CLAIM, run, seeds, out=args.runs).sentence)
        return
    verdict = reproduce(CLAIM, run, seeds, out=args.runs, tell=print)
    about = [part.replace("\n", " ") for part in (__doc__ or "").strip().split("\n\n")[2:]]
    lines = ["# Continual pretraining on a generated stream", "", *(x for part in about for x in (part, ""))]
    lines += [f"Plan, made before the method was run: {verdict.plan.sentence if verdict.plan else ''}.", ""]
    record = verdict.record("counterpoint.benchmarks.continual:Forgetting")
    lines += ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS), record.row(), ""]
    if run.stages:
        lines += ["| R@1 under the first stage's views, % | after stage 1 | 2 | 3 |", "|---|---|---|---|"]
        for arm in (CLAIM.baseline, CLAIM.method):
            rows = [found for (name, _), found in run.stages.items() if name == arm]
            cells = [str(t_interval([r[stage] for r in rows])) for stage in range(STAGES)] if len(rows) > 1 else []
            lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    lines += ["", f"95 % intervals over seeds and objects. {time.process_time() - start:.0f} s of CPU, one thread."]
    args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
