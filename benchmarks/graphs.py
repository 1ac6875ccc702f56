"""Speed and memory of the graphs vertical, ratios in one run.

    OMP_NUM_THREADS=1 python benchmarks/graphs.py            (minutes on a quiet machine; needs the graphs extra)
    ... --pamc PATH --gcool PATH     official checkouts of gayanku/PAMC and lblaoke/gCooL, timed beside ours
    ... --chemprop PATH              folder of an unpacked chemprop wheel, likewise
    ... --parts nodes sampling       only these of: molecules, kcl, nodes, large, scaling, sampling
    ... --write benchmarks/graphs.md replaces these parts there and keeps the others

Times are CPU seconds of one thread, best of several. Graphs and molecules are synthetic unless COUNTERPOINT_DATA names
the sample data. Extra memory is what the call adds, at its peak, to what a fresh process holds with its inputs (Linux).
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import os
import subprocess
import sys
import time
import types
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from counterpoint.common.trainers import override
from counterpoint.graphs.configs import GCoolConfig, KCLConfig, PamCConfig
from counterpoint.graphs.nodes.metanodes import full_loss, influence, metanode_loss
from counterpoint.graphs.nodes.reader import NodeGraph, stochastic_blocks

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
HEAD = """# Graphs: speed and memory

`OMP_NUM_THREADS=1 python benchmarks/graphs.py`: CPU seconds of one thread."""
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


def chemprop_featurizer(folder: str):
    """chemprop's featurizer from an unpacked wheel; what its packages import for other purposes is stubbed."""
    from unittest.mock import MagicMock

    from rdkit import Chem

    sys.path.append(folder)
    while True:
        try:
            from chemprop.featurizers.molgraph.molecule import SimpleMoleculeMolGraphFeaturizer

            break
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("chemprop"):
                raise
            sys.modules[error.name] = MagicMock()
            for name in [m for m in sys.modules if m.startswith("chemprop")]:
                del sys.modules[name]
    make = SimpleMoleculeMolGraphFeaturizer()
    return lambda smiles: make(Chem.MolFromSmiles(smiles))


def featurizing(n: int, chemprop: str | None) -> None:
    from torch_geometric.utils import from_smiles

    from counterpoint.graphs.molecules.featurize import featurize

    smiles, source = smiles_list(n)
    some = smiles[: n // 10]
    rivals = {"PyG `from_smiles`": from_smiles}
    if chemprop:
        rivals["chemprop `SimpleMoleculeMolGraphFeaturizer`"] = chemprop_featurizer(chemprop)
    ours = best(lambda: featurize(some), 2)
    theirs = {name: best(lambda make=make: [make(s) for s in some], 2) for name, make in rivals.items()}
    start = time.perf_counter()
    featurize(smiles, workers=2)
    wall = time.perf_counter() - start
    say(f"\n## Featurizing ({source})\n")
    say("| | molecules per second |\n|---|---|")
    for name, seconds in theirs.items():
        say(f"| {name}, one process | {len(some) / seconds:.0f} |")
    ratios = ", ".join(f"{seconds / ours:.2f}x {name}" for name, seconds in theirs.items())
    say(f"| ours, one process | {len(some) / ours:.0f} ({ratios}) |")
    ratios = ", ".join(f"{seconds * n / len(some) / wall:.2f}x {name}" for name, seconds in theirs.items())
    say(f"| ours, {n} molecules, 2 worker processes (wall) | {n / wall:.0f} ({ratios}) |")


def kcl_step() -> None:
    from counterpoint.graphs.molecules.data import collate_molecules
    from counterpoint.graphs.molecules.featurize import featurize
    from counterpoint.graphs.molecules.kcl import KCL

    smiles, source = smiles_list(64)
    batch = collate_molecules(
        [{"molecule": g, "smiles": s, "index": i, "id": str(i), "group": str(i)}
         for i, (g, s) in enumerate(zip(featurize(smiles), smiles, strict=True))]
    )  # fmt: skip
    system = KCL(override(KCLConfig(), {"rotate_epochs": 0}))

    def step() -> None:
        system.zero_grad()
        system.losses(batch, system.embed(batch))["nt_xent"].backward()

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
    say("| | ours, s | official, s | ratio |\n|---|---|---|---|")
    pamc = PamC(PamCConfig(), graph)
    pamc.stage = replace(pamc.stage, name="contrast")
    with torch.no_grad():
        pamc.centres.normal_()
    ours = best(step_of(pamc, graph))
    official = best(official_pamc(pamc_path, graph)) if pamc_path else None
    row("PamC (500-500-2000-10, order 3)", ours, official)
    config = override(GCoolConfig(), {"hidden": 256, "dim": 128, "projector": 128, "activation": "relu"})
    gcool = GCool(config, graph)
    for epoch, name in ((0, "gCooL (256-128), first epochs"), (100, "gCooL (256-128), after epoch 100")):
        gcool.progress.epoch = epoch
        ours = best(step_of(gcool, graph))
        official = best(official_gcool(gcool_path, graph, epoch)) if gcool_path else None
        row(name, ours, official)


def row(name: str, ours: float, official: float | None) -> None:
    other = "not run" if official is None else f"{official:.3f} | {official / ours:.2f}x"
    say(f"| {name} | {ours:.3f} | {other}{' | ' if official is None else ''} |")


def _load(path: Path, name: str):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def official_pamc(folder: str, graph: NodeGraph):
    """One epoch of the official sparse training loop, without its scoring."""
    sys.path.insert(0, folder)
    for name in ("h5py", "munkres"):  # imported there for reading files and scoring, which are not timed
        stub = sys.modules.setdefault(name, types.ModuleType(name))
        stub.Munkres = stub.print_matrix = None
    source = (Path(folder) / "train.py").read_text().split("if __name__")[0]
    module = types.ModuleType("official_pamc")
    exec(compile(source, "train.py", "exec"), module.__dict__)
    models = sys.modules["models"]
    model = models.SDCN_AE(500, 500, 2000, 2000, 500, 500, graph.x.shape[1], 10)
    centres = torch.nn.Parameter(torch.randn(graph.n_classes, 10))
    optimizer = torch.optim.Adam([*model.parameters(), centres], 1e-3)
    adjacency = influence(graph.edge_index, graph.n_nodes, 3)

    def forward():
        z = model(graph.x)[-1]
        q = 1.0 / (1.0 + torch.sum(torch.pow(z.unsqueeze(1) - centres, 2), 2))
        return z, (q.t() / torch.sum(q, 1)).t()

    def step() -> None:
        p = module.target_distribution(forward()[1].data)
        z, q = forward()
        kl = torch.nn.functional.kl_div(q.log(), p, reduction="batchmean")
        chosen = torch.nn.functional.one_hot(q.detach().argmax(1), graph.n_classes)
        between = module.get_feature_dis(torch.sum(z.unsqueeze(1) * chosen.unsqueeze(2), dim=0))
        loss = kl + module.NcontrastCCSP(z, between, adjacency, tau=0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def official_gcool(folder: str, graph: NodeGraph, epoch: int):
    """One official `fit` call on two views (dropping and masking outside, so not timed)."""
    functional = Path(folder) / "src" / "functional.py"
    package = types.ModuleType("src")
    package.__path__ = [str(Path(folder) / "src")]
    sys.modules["src"] = package
    stub = types.ModuleType("torch_scatter")
    from torch_geometric.utils import scatter

    stub.scatter = scatter
    sys.modules.setdefault("torch_scatter", stub)
    for name in ("eigenvector_centrality", "compute_pr"):
        setattr(sys.modules.setdefault("src.utils", types.ModuleType("src.utils")), name, None)
    _load(functional, "src.functional")
    model = _load(Path(folder) / "src" / "model.py", "src.model")
    encoder = model.Encoder(graph.x.shape[1], 256, 128, torch.nn.functional.relu)
    net = model.gCooL(encoder, 128, 128)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    return lambda: net.fit(epoch, optimizer, graph.x, graph.x, graph.edge_index, graph.edge_index)


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
        system = PamC(override(PamCConfig(), {"order": 1}), graph)
        system.stage = replace(system.stage, name="contrast")
        with torch.no_grad():
            system.centres.normal_()
    else:
        system = BGRL(BGRLConfig(), graph)
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
