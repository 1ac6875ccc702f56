"""Speed and memory of the graphs vertical, ratios in one run.

    OMP_NUM_THREADS=1 python benchmarks/graphs.py            (minutes on a quiet machine; needs the graphs extra)
    ... --pamc PATH --gcool PATH     official checkouts of gayanku/PAMC and lblaoke/gCooL, timed beside ours
    ... --chemprop PATH              folder of an unpacked chemprop wheel, likewise
    ... --parts nodes sampling       only these of: molecules, kcl, nodes, large, scaling, sampling
    ... --write benchmarks/graphs.md replaces these parts there and keeps the others

Times are CPU seconds of one thread; what is compared with others runs in turn with them (`graphs_peers.py`). Graphs
and molecules are synthetic unless COUNTERPOINT_DATA names the sample data. Extra memory is what the call adds, at its
peak, to what a fresh process holds with its inputs (Linux).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from graphs_peers import chemprop_featurizer, in_turn, official_gcool, official_pamc

from counterpoint.common.trainers import create_system, override
from counterpoint.graphs.configs import GCoolConfig, KCLConfig, PamCConfig
from counterpoint.graphs.nodes.metanodes import full_loss, influence, metanode_loss
from counterpoint.graphs.nodes.reader import NodeGraph, stochastic_blocks

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
HEAD = """# Graphs: speed and memory

`OMP_NUM_THREADS=1 python benchmarks/graphs.py --pamc PATH --gcool PATH --chemprop PATH`: CPU seconds of one thread.
Ratios within one run are what counts: other work ran on the machine."""
ROUNDS = 11
PAGE: dict[str, list[str]] = {}


def say(line: str) -> None:
    """Print a line of the page; a heading begins a section."""
    if line.startswith("\n## "):
        PAGE[line.strip()] = []
    else:
        PAGE[list(PAGE)[-1]].append(line)
    print(line, flush=True)


def write(path: Path) -> None:
    """Put the measured sections into the page at `path`; those that were not measured now stay."""
    sections: dict[str, str] = {}
    if path.is_file():
        for block in path.read_text(encoding="utf-8").split("\n## ")[1:]:
            heading, _, body = block.partition("\n")
            sections[f"## {heading}"] = body.strip("\n")
    sections |= {heading: "\n".join(lines).strip("\n") for heading, lines in PAGE.items()}
    text = "\n\n".join([HEAD, *(f"{heading}\n\n{body}" for heading, body in sections.items())])
    path.write_text(text + "\n", encoding="utf-8")


def seconds_and_memory(function) -> str:
    """CPU seconds of a call and the most resident memory that it adds, as JSON.

    The kernel's high-water mark is set back first: making the inputs may have taken more than the call does.
    """

    def status(name: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(name))

    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    start = time.process_time()
    function()
    seconds = time.process_time() - start
    return json.dumps({"seconds": seconds, "extra_mb": status("VmHWM") - before})


def spread(values: list[float], form: str) -> str:
    """Median and range."""
    low, middle, high = (form.format(v) for v in (min(values), float(np.median(values)), max(values)))
    return f"{middle} ({low}-{high})"


def best(function, repeat: int = 3) -> float:
    """Smallest CPU time of a call."""
    function()
    times = []
    for _ in range(repeat):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


# Molecules ---------------------------------------------------------------------------------------------------------


def smiles_list(n: int) -> tuple[list[str], str]:
    root = os.environ.get("COUNTERPOINT_DATA")
    path = Path(root) / "graphs" / "molecules" / "hiv.csv" if root else None
    if path is not None and path.is_file():
        from counterpoint.graphs.molecules.reader import read_molecules

        found = read_molecules(path, duplicates="keep").frame["smiles"].tolist()
        return (found * (n // len(found) + 1))[:n], "HIV (MoleculeNet)"
    from counterpoint.graphs.simulate import molecules

    return [str(m["smiles"]) for m in molecules(n)], "synthetic molecules"


def featurizing(n: int, chemprop: str | None) -> None:
    from torch_geometric.utils import from_smiles

    from counterpoint.graphs.molecules.featurize import featurize, featurize_apart

    smiles, source = smiles_list(n)
    some = smiles[: n // 10]
    rivals = {"PyG `from_smiles`": from_smiles}
    if chemprop:
        rivals["chemprop `SimpleMoleculeMolGraphFeaturizer`"] = chemprop_featurizer(chemprop)
    runs = {"ours": lambda: featurize(some)}
    runs |= {name: lambda make=make: [make(text) for text in some] for name, make in rivals.items()}
    seconds = in_turn(runs, ROUNDS)
    middle = {name: float(np.median(values)) for name, values in seconds.items()}
    start = time.perf_counter()
    featurize_apart(smiles, workers=2)
    wall = time.perf_counter() - start
    say(f"\n## Featurizing ({source})\n")
    say("| | molecules per second | ours is faster by |\n|---|---|---|")
    for name in rivals:
        ratios = [b / a for a, b in zip(seconds["ours"], seconds[name], strict=True)]
        say(f"| {name}, one process | {len(some) / middle[name]:.0f} | {spread(ratios, '{:.2f}x')} |")
    say(f"| ours, one process | {len(some) / middle['ours']:.0f} | |")
    faster = ", ".join(f"{middle[name] * n / len(some) / wall:.2f}x {name}" for name in rivals)
    say(f"| ours, {n} molecules, 2 worker processes (wall) | {n / wall:.0f} | {faster} |")
    say(f"\nMedian (range) of {ROUNDS} rounds of {len(some)} molecules, in turn; ratios within each round.")


def kcl_step() -> None:
    from counterpoint.graphs.molecules.data import collate_molecules
    from counterpoint.graphs.molecules.featurize import featurize
    from counterpoint.graphs.molecules.kcl import KCL

    smiles, source = smiles_list(64)
    batch = collate_molecules(
        [{"molecule": g, "smiles": s, "index": i, "id": str(i), "group": str(i)}
         for i, (g, s) in enumerate(zip(featurize(smiles), smiles, strict=True))]
    )  # fmt: skip
    system = create_system(KCL, override(KCLConfig(), {"rotate_epochs": 0}))

    def step() -> None:
        system.zero_grad()
        system.losses(batch, system.embed(batch))["nt_xent"].mean().backward()

    say(f"\n## KCL, published sizes, batch 64 ({source})\n")
    say(f"forward and backward: {best(step):.3f} s")


# Nodes -------------------------------------------------------------------------------------------------------------


def cora_like() -> NodeGraph:
    root = os.environ.get("COUNTERPOINT_DATA")
    path = Path(root) / "graphs" / "nodes" / "npz" / "cora.npz" if root else None
    if path is not None and path.is_file():
        from counterpoint.graphs.nodes.reader import read_npz

        return read_npz(path)
    return stochastic_blocks([387] * 7, 0.008, 0.0005, dim=1433)


def step_of(system, graph: NodeGraph):
    batch = system.datasets().train.collate([])
    optimizer = torch.optim.Adam([p for p in system.parameters() if p.requires_grad], 1e-3)

    def step() -> None:
        optimizer.zero_grad()
        system.total(system.losses(batch, system.embed(batch))).backward()
        optimizer.step()

    return step


def node_steps(pamc_path: str | None, gcool_path: str | None) -> None:
    from counterpoint.graphs.nodes.gcool import GCool
    from counterpoint.graphs.nodes.pamc import PamC

    graph = cora_like()
    say(f"\n## Full-graph training steps ({graph.name}, {graph.n_nodes} nodes, {graph.x.shape[1]} features)\n")
    say("| | ours, s | official, s | official / ours |\n|---|---|---|---|")
    pamc = create_system(PamC, PamCConfig(), graph)
    pamc.stage = replace(pamc.stage, name="contrast")
    with torch.no_grad():
        pamc.centres.normal_()
    side_by_side("PamC (500-500-2000-10, order 3)", step_of(pamc, graph), pamc_path and official_pamc(pamc_path, graph))
    for hidden, dim in ((256, 128), (1368, 384)):  # published for Photo and for WikiCS
        sizes = {"hidden": hidden, "dim": dim, "projector": dim, "activation": "relu"}
        gcool = create_system(GCool, override(GCoolConfig(), sizes), graph)
        for epoch, name in ((0, "first epochs"), (100, "after epoch 100")):
            gcool.progress.epoch = epoch
            official = gcool_path and official_gcool(gcool_path, graph, epoch, (hidden, dim))
            side_by_side(f"gCooL ({hidden}-{dim}), {name}", step_of(gcool, graph), official)
    say(f"\nMedian (range) of {ROUNDS} rounds, ours and theirs in turn; the ratio is taken within each round.")


def side_by_side(name: str, ours, official) -> None:
    """A row of the table: both in turn, so that they meet the same machine."""
    runs = {"ours": ours} | ({"official": official} if official else {})
    found = in_turn(runs, ROUNDS)
    cells = [spread(found["ours"], "{:.3f}")]
    if official:
        ratios = [b / a for a, b in zip(found["ours"], found["official"], strict=True)]
        cells += [spread(found["official"], "{:.3f}"), spread(ratios, "{:.2f}x")]
    say(f"| {name} | {' | '.join((cells + ['not run', ''])[:3])} |")


# Scaling of the PamC loss ------------------------------------------------------------------------------------------


def scaling_case(kind: str, n: int) -> None:
    """Time and extra peak memory of one loss and its gradient; prints JSON."""
    graph = stochastic_blocks([n // 10] * 10, min(1.0, 50 / n), min(1.0, 2 / n), dim=16)
    weights = influence(graph.edge_index, graph.n_nodes, 1)
    z = torch.randn(graph.n_nodes, 10)
    small = torch.randn(64, 10)
    metanode_loss(small, influence(torch.zeros(2, 0, dtype=torch.int64), 64, 1), torch.arange(64) % 4, 0.5)

    def run() -> None:
        x = z.clone().requires_grad_()
        if kind == "meta":
            loss = metanode_loss(x, weights, graph.y, 0.5)
        elif kind == "full":
            loss = full_loss(x, weights, 0.5)
        else:  # the dense twin as the official code writes it
            unit = torch.nn.functional.normalize(x, dim=1)
            cosine = (unit @ unit.T) * (1 - torch.eye(len(x)))
            positive = (torch.exp(0.5 * cosine) * weights.to_dense()).sum(1)
            loss = torch.exp(0.5 * cosine).sum(1).log().mean() - positive.log().mean()
        loss.backward()

    print(seconds_and_memory(run))


def scaling() -> None:
    say("\n## PamC's contrastive term, forward and backward, synthetic blocks (about 50 edges a node)\n")
    say("| nodes | meta-nodes | all nodes through the engine | all nodes, dense |\n|---|---|---|---|")
    memory: dict[tuple[str, int], float] = {}
    seconds: dict[int, float] = {}
    for n in (3_000, 10_000, 30_000, 100_000):
        cells = []
        for kind in ("meta", "full", "dense"):
            if (kind == "full" and n > 30_000) or (kind == "dense" and n > 10_000):
                cells.append("not run")
                continue
            found = in_process(kind, n)
            memory[kind, n] = found["extra_mb"]
            if kind == "meta":
                seconds[n] = found["seconds"]
            cells.append(f"{found['seconds']:.2f} s, {found['extra_mb']:.0f} MB")
        say(f"| {n} | {' | '.join(cells)} |")
    slope = np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), 1)[0]
    say(
        f"\ntime of meta-nodes grows as nodes^{slope:.2f}; memory at 10 000 nodes: dense / meta-nodes = "
        f"{memory['dense', 10_000] / max(memory['meta', 10_000], 1):.1f}x"
    )


def sampling() -> None:
    from counterpoint.graphs.sampler import NeighborSampler

    g = torch.Generator().manual_seed(0)
    sampler = NeighborSampler(torch.randint(150_000, (2, 1_400_000), generator=g), 150_000, (8, 8, 8))
    seeds = torch.randperm(150_000, generator=g)[:1024]
    seconds = best(lambda: sampler.sample(seeds, generator=torch.Generator().manual_seed(1)), 5)
    say("\n## Neighbour sampling, 150 000 nodes, 1.4 million edges, fan-out 8x8x8, 1024 seeds\n")
    say(f"{1000 * seconds:.0f} ms a batch (target: at most 100 ms)")


def large_graph() -> None:
    """Full-graph steps of the systems that are linear in the nodes, on 100 000 nodes, each in a process of its own."""
    say("\n## Full-graph training steps, synthetic blocks of 100 000 nodes (about 20 edges a node, 64 features)\n")
    say("| | s a step | extra memory, MB |\n|---|---|---|")
    for name in ("pamc", "bgrl"):
        found = in_process("step", name)
        say(f"| {name} | {found['seconds']:.1f} | {found['extra_mb']:.0f} |")


def step_case(name: str) -> None:
    """Time and extra peak memory of one step on the large graph, the second of two; prints JSON."""
    from counterpoint.graphs.configs import BGRLConfig
    from counterpoint.graphs.nodes.bgrl import BGRL
    from counterpoint.graphs.nodes.pamc import PamC

    graph = stochastic_blocks([10_000] * 10, 18 / 10_000, 2 / 90_000, dim=64)
    if name == "pamc":
        system = create_system(PamC, override(PamCConfig(), {"order": 1}), graph)
        system.stage = replace(system.stage, name="contrast")
        with torch.no_grad():
            system.centres.normal_()
    else:
        system = create_system(BGRL, BGRLConfig(), graph)
    step = step_of(system, graph)
    step()
    print(seconds_and_memory(step))


def in_process(kind: str, value: str | int) -> dict[str, float]:
    """One case in a fresh process."""
    command = [sys.executable, __file__, "--case", kind, str(value)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pamc", help="checkout of gayanku/PAMC")
    parser.add_argument("--gcool", help="checkout of lblaoke/gCooL")
    parser.add_argument("--chemprop", help="folder of an unpacked chemprop wheel")
    parser.add_argument("--molecules", type=int, default=50_000)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    parts = {
        "molecules": lambda: featurizing(options.molecules, options.chemprop),
        "kcl": kcl_step,
        "nodes": lambda: node_steps(options.pamc, options.gcool),
        "large": large_graph,
        "scaling": scaling,
        "sampling": sampling,
    }
    parser.add_argument("--parts", nargs="+", choices=list(parts), default=list(parts))
    options = parser.parse_args()
    if options.case:
        kind, value = options.case
        step_case(value) if kind == "step" else scaling_case(kind, int(value))
        return
    print(HEAD)
    for name in options.parts:
        parts[name]()
        if options.write:
            write(options.write)


if __name__ == "__main__":
    main()
