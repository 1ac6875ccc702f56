"""Runs of each kind of graph through the verbs: nodes are samples, and what cannot be corrupted says so."""

import json

import numpy as np
import pytest
import torch

from counterpoint.common.data import Manifest, split_by
from counterpoint.common.errors import InputError, LeakageError
from counterpoint.common.runs.embedding import embed
from counterpoint.common.runs.evaluation import evaluate
from counterpoint.common.runs.measure import lines_of, measure
from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.trainers import create_system, export, fit, load_run, override
from counterpoint.graphs.circuits.circuitgcl import CircuitGCL
from counterpoint.graphs.cli import vertical
from counterpoint.graphs.configs import CircuitGCLConfig, GRACEConfig, GraphCLConfig, PamCConfig
from counterpoint.graphs.importers import simulate_to_manifest
from counterpoint.graphs.molecules.graphcl import GraphCL
from counterpoint.graphs.nodes.base import Nodes, node_split
from counterpoint.graphs.nodes.grace import GRACE
from counterpoint.graphs.nodes.pamc import PamC
from counterpoint.graphs.nodes.reader import stochastic_blocks


def train(system, config, tmp_path, **changes):
    quiet = {
        "train.tensorboard": False,
        "train.monitor_every": 0,
        "train.max_epochs": 2,
        "train.out": str(tmp_path / "run"),
    }
    fit(create_system(system, override(override(config, system.presets["small"]), {**changes, **quiet})))
    return tmp_path / "run"


@pytest.fixture
def node_run(tmp_path):
    graph = stochastic_blocks([60, 60, 60], 0.15, 0.01, dim=8, signal=2.0)
    edges = graph.edge_index.numpy()
    np.savez(tmp_path / "g.npz", x=graph.x.numpy(), edge_index=edges, y=graph.y.numpy())
    return train(GRACE, GRACEConfig(), tmp_path, **{"data.path": str(tmp_path / "g.npz")})


def test_nodes_are_the_samples_of_a_graphs_run(node_run):
    """10 % of the labelled nodes train the probe, 80 % test it; the vectors are those of the whole graph."""
    found = evaluate(node_run, "last", label="label", bootstrap=20)
    assert found.figures["samples"] == {"test": 144, "train": 18}
    assert found.figures["results"]["knn of node"]["by_k"]["1"]["metrics"]["accuracy"] > 0.5
    system = load_run(node_run, "last")
    test = system.datasets().test
    vectors = system.encode(test.collate([test[0], test[7]]))["node"]
    expected = torch.nn.functional.normalize(system.node_vectors(), dim=1)[[test[0]["index"], test[7]["index"]]]
    torch.testing.assert_close(vectors, expected)
    embedded = embed(node_run, checkpoint="last", columns=("label",))
    assert embedded.figures["modalities"] == {"node": 64}


def test_vectors_of_a_graph_are_made_once_and_anew_when_weights_change():
    graph = stochastic_blocks([20, 20], 0.3, 0.02)
    model = create_system(GRACE, override(GRACEConfig(), GRACE.presets["small"]), graph).eval()
    batch = Nodes(graph, np.arange(40)).collate([{"index": 3}])
    calls = []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        before = model.encode(batch)["node"]
        assert torch.equal(model.encode(batch)["node"], before)
        assert len(calls) == 1
        model.encoder.layers[0].weight.mul_(2)
        assert not torch.equal(model.encode(batch)["node"], before)
    assert model.features(batch)["node"].requires_grad


def test_a_split_of_the_source_is_kept_and_unlabelled_graphs_train_on_all():
    graph = stochastic_blocks([50, 50], 0.3, 0.02)
    drawn = node_split(graph, 1)
    assert [int((drawn == name).sum()) for name in ("train", "val", "test")] == [10, 10, 80]
    assert not np.array_equal(drawn, node_split(graph, 2))
    graph.y[:] = -1
    assert (node_split(graph) == "train").all()
    graph.split[:3] = "test"
    assert (node_split(graph) == graph.split).all()


def test_graphs_cannot_be_corrupted_and_say_so(node_run, tmp_path):
    molecules = simulate_to_manifest(tmp_path / "m", "molecules", 80, seed=0).manifest
    circuits = simulate_to_manifest(tmp_path / "c", "circuits", 2, seed=0).manifest
    runs = [
        node_run,
        train(GraphCL, GraphCLConfig(), tmp_path / "m", **{"data.manifest": str(molecules)}),
        train(CircuitGCL, CircuitGCLConfig(), tmp_path / "c", **{"data.manifest": str(circuits), "fanout": (2, 2)}),
    ]
    for run in runs:
        with pytest.raises(InputError, match="--corrupt: the batches of .* hold no tensors of numbers to corrupt"):
            evaluate(run, "last", corrupt=("noise",), limit=40, bootstrap=2)


@pytest.fixture(params=["nodes", "molecules", pytest.param("circuits", marks=pytest.mark.slow)])
def any_run(request, tmp_path):
    if request.param == "nodes":
        return request.getfixturevalue("node_run")
    count = 80 if request.param == "molecules" else 3
    table = str(simulate_to_manifest(tmp_path / "d", request.param, count, seed=0).manifest)
    if request.param == "molecules":
        return train(GraphCL, GraphCLConfig(), tmp_path, **{"data.manifest": table})
    return train(CircuitGCL, CircuitGCLConfig(), tmp_path, **{"data.manifest": table, "fanout": (2, 2)})


def test_an_untrained_network_stands_beside_every_row_and_collapse_is_named(any_run):
    found = evaluate(any_run, "last", bootstrap=5)
    rows = {name for name in found.figures["results"] if not name.startswith("labelfree")}
    assert {name.partition(": ")[0] for name in found.figures["untrained"]["values"]} == rows
    assert not any("COLLAPSED" in line for line in found.lines)
    system = load_run(any_run, "last")
    for parameter in system.parameters():
        parameter.data.zero_()
    run = OpenRun.of(system)
    said = "\n".join(lines_of(measure(vertical, run, protocols=("labelfree",), n_boot=5)))
    assert f"COLLAPSED: the embeddings of all {len(run.encoded())} samples are" in said


MOLECULES = [f"{'C' * n}{end}" for n in range(2, 8) for end in ("O", "N", "C#N")]


@pytest.mark.parametrize("system", [(GraphCL, GraphCLConfig()), (CircuitGCL, CircuitGCLConfig())])
def test_every_training_and_evaluation_is_held_to_the_manifests_split(system, tmp_path):
    """By group unless the manifest was split by another rule: neither system looks at its manifest's groups itself."""
    if system[0] is GraphCL:
        rows = [{"id": f"m{i}", "smiles": s, "group": f"g{i // 2}"} for i, s in enumerate(MOLECULES)]
    else:
        simulate_to_manifest(tmp_path / "made", "circuits", 2, 0)
        rows = Manifest.load(tmp_path / "made/manifest.parquet").frame.to_dict("records")
        rows = [{**row, "group": "one die"} for row in rows]
    split = ["train"] * (len(rows) - 1) + ["test"]  # half of a group
    leaking = Manifest.from_rows([{**r, "split": s, "day": i} for i, (r, s) in enumerate(zip(rows, split))])
    where = tmp_path / ("made" if system[0] is CircuitGCL else ".")
    leaking.save(where / "leaking.parquet")
    named = {"data.manifest": str(where / "leaking.parquet"), "train.batch_size": 4, "train.max_steps": 2}
    with pytest.raises(LeakageError, match=r"leaking.parquet: group '.*' stands in test and train \(rows"):
        train(*system, tmp_path, **named)
    assert not (tmp_path / "run").exists()
    by_time = split_by(leaking, "time", ["day"], {"train": 1 - 1 / len(rows), "test": 1 / len(rows)})
    by_time.save(where / "time.parquet")
    run = train(*system, tmp_path, **{**named, "data.manifest": str(where / "time.parquet")})
    with pytest.raises(LeakageError, match="stands in test and train"):
        OpenRun.load(run, "last", manifest=where / "leaking.parquet")


@pytest.mark.parametrize("system", [(GRACE, GRACEConfig()), (PamC, PamCConfig())])
def test_an_exported_node_encoder_takes_other_graphs(system, tmp_path):
    """Features and edges as the recipe says them: those of a larger graph give what the system makes of it."""
    onnxruntime = pytest.importorskip("onnxruntime")
    known, other = (stochastic_blocks([n, n], 0.3, 0.02, dim=6, signal=1.0) for n in (12, 21))
    small = override(system[1], system[0].presets.get("small", {}))
    model = create_system(system[0], small, known).eval()
    report = export(model, tmp_path / "m.onnx")
    assert not report.notes
    session = onnxruntime.InferenceSession(str(report.path))
    recipe = json.loads(session.get_modelmeta().custom_metadata_map["counterpoint.preprocessing"])
    assert recipe["inputs"]["x"]["axes"] == ["nodes", "features"]
    assert recipe["assets"]["width"] == 6
    given = {"x": other.x.numpy(), "edge_index": other.edge_index.numpy()}
    (found,) = session.run(None, {i.name: given[i.name] for i in session.get_inputs()})
    with torch.no_grad():
        expected = torch.nn.functional.normalize(model.represent(other.x, other.edge_index), dim=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
