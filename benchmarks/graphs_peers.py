"""What the graph benchmarks compare with: official checkouts and chemprop, and timing in turn.

Nothing of these projects is kept here: the functions wrap a checkout or an unpacked wheel that is named on the command
line of `graphs.py`.
"""

from __future__ import annotations

import importlib.util
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import torch

from counterpoint.graphs.nodes.metanodes import influence
from counterpoint.graphs.nodes.reader import NodeGraph


def in_turn(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of one call of each, one after the other in every round, so that all meet the same machine; two
    rounds before are not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 2):
        for name, run in runs.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    return {name: values[2:] for name, values in seconds.items()}


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


def official_gcool(folder: str, graph: NodeGraph, epoch: int, widths: tuple[int, int]) -> Callable[[], object]:
    """The official `train_epoch`: edges and features dropped by degree, then one `fit` call on the two views."""
    package = types.ModuleType("src")
    package.__path__ = [str(Path(folder) / "src")]
    sys.modules["src"] = package
    utils = sys.modules.setdefault("src.utils", types.ModuleType("src.utils"))  # needs torch_scatter, for PageRank only
    utils.eigenvector_centrality = utils.compute_pr = None
    drop = _load(Path(folder) / "src" / "functional.py", "src.functional")
    model = _load(Path(folder) / "src" / "model.py", "src.model")
    hidden, dim = widths
    net = model.gCooL(model.Encoder(graph.x.shape[1], hidden, dim, torch.nn.functional.relu), dim, dim)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    edge_weights = drop.degree_drop_weights(graph.edge_index)
    degree = torch.bincount(graph.edge_index[1], minlength=graph.n_nodes).float()
    feature_weights = drop.feature_drop_weights(graph.x, degree)

    def step() -> None:
        edges = [drop.drop_edge_weighted(graph.edge_index, edge_weights, p=0.2, threshold=0.7) for _ in range(2)]
        features = [drop.drop_feature_weighted_2(graph.x, feature_weights, 0.1) for _ in range(2)]
        net.fit(epoch, optimizer, *features, *edges)

    return step
