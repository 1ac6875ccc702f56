"""The property tables of `graphs/molecules/README.md`: five sets, two splits, all arms, with intervals over seeds.

    OMP_NUM_THREADS=1 COUNTERPOINT_DATA=... python benchmarks/properties.py --out runs/properties \
        --write graphs/molecules/README.md --verdicts graphs/README.md                      (40 CPU minutes)

Finished figures are kept in --out and not computed again, one file a seed: seeds may run in processes of their own
(`--seeds 0`, `--seeds 1`, ...) and be written to the READMEs by a last call. --verdicts judges, from the same figures,
the claims that `counterpoint graphs reproduce kcl` checks.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import sys
import time
from pathlib import Path

import torch

from counterpoint.common.fidelity import write_table
from counterpoint.common.metrics.bootstrap import t_interval
from counterpoint.common.trainers.reproduce import code_of, reproduce
from counterpoint.graphs.checks import CHECKS
from counterpoint.graphs.molecules.study import ARMS, SETS, SPLIT_KINDS, figure

torch.set_num_threads(1)
BEGIN, END = "<!-- properties:begin -->", "<!-- properties:end -->"
METRIC = {name: "AUROC" if name in ("bbbp", "bace") else "RMSE" for name in SETS}
Key = tuple[str, str, str]


class Figures:
    """The figures of one seed, kept in a file of one line each."""

    def __init__(self, out: Path, data: Path, seed: int) -> None:
        self.path, self.data, self.seed = out / f"seed-{seed}.jsonl", data, seed
        self.known: dict[Key, float] = {}
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                self.known[entry["set"], entry["split"], entry["arm"]] = entry["figure"]

    def __call__(self, name: str, how: str, arm: str) -> float:
        key = (name, how, arm)
        if key not in self.known:
            start = time.process_time()
            self.known[key] = figure(self.data, name, how, arm, self.seed)
            seconds = round(time.process_time() - start, 1)
            entry = {"set": name, "split": how, "arm": arm, "figure": self.known[key], "cpu_seconds": seconds}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
            print(f"seed {self.seed}, {name}, {how}, {arm}: {self.known[key]:.3f} ({seconds} s)", flush=True)
        return self.known[key]


def table(figures: dict[int, Figures]) -> str:
    """A Markdown table: a row for each set and split, a column for each arm."""
    lines = [f"| set | split | {' | '.join(ARMS)} |", "|---|---|" + "---|" * len(ARMS)]
    for name in SETS:
        for how in SPLIT_KINDS:
            cells = []
            for arm in ARMS:
                values = [v for v in (f(name, how, arm) for f in figures.values()) if math.isfinite(v)]
                mean = sum(values) / len(values) if values else math.nan
                half = t_interval(values).high - mean if len(values) > 1 else math.nan
                cells.append(f"{mean:.3f} ± {half:.3f}" + ("" if len(values) == len(figures) else f" ({len(values)})"))
            lines.append(f"| {name} ({METRIC[name]} {'↑' if METRIC[name] == 'AUROC' else '↓'}) | {how} | "
                         + " | ".join(cells) + " |")  # fmt: skip
    return "\n".join(lines)


def put(readme: Path, text: str) -> None:
    """Replace what stands between the markers."""
    old = readme.read_text(encoding="utf-8")
    if old.count(BEGIN) != 1 or old.count(END) != 1:
        sys.exit(f"{readme}: put the lines {BEGIN} and {END} once each where the table shall stand")
    head, rest = old.split(BEGIN)
    readme.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/properties"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--data", type=Path, default=os.environ.get("COUNTERPOINT_DATA"))
    parser.add_argument("--write", type=Path, help="README that holds the table")
    parser.add_argument("--verdicts", type=Path, help="README that holds the fidelity table")
    options = parser.parse_args()
    if options.data is None:
        sys.exit("set COUNTERPOINT_DATA or give --data: the folder of the sample data")
    options.out.mkdir(parents=True, exist_ok=True)
    figures = {seed: Figures(options.out, Path(options.data), seed) for seed in options.seeds}
    by_cost = sorted(ARMS, key=lambda arm: arm in ("from scratch", "KCL, fine-tuned"))
    for found in figures.values():  # seed by seed: a pretrained encoder serves all sets and splits
        for arm, name, how in itertools.product(by_cost, SETS, SPLIT_KINDS):
            found(name, how, arm)
    text = table(figures)
    print(text)
    if options.write:
        put(options.write, text)
    if options.verdicts:
        verdicts = []
        for name, (claim, run) in CHECKS.items():
            if name.startswith("kcl-"):
                parts = name.split("-")[-2:]
                found = reproduce(claim, lambda arm, seed, p=parts: figures[seed](*p, arm), options.seeds,
                                  out=options.out / "verdicts", rests_on=code_of(run))  # fmt: skip
                verdicts.append(found.record(code_of(run)))
        write_table(options.verdicts, verdicts)


if __name__ == "__main__":
    main()
