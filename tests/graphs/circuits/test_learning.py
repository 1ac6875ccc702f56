"""CircuitGCL and its downstream tasks on circuits: deterministic, split by circuit, and able to learn."""

import json
import random
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from counterpoint.common.data.encoding import encode_rows
from counterpoint.common.data.manifest import Manifest
from counterpoint.common.errors import InputError
from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.trainers import create_system, export, fit, load_run
from counterpoint.common.trainers.config_files import override
from counterpoint.graphs.circuits.circuitgcl import CircuitGCL
from counterpoint.graphs.circuits.data import JoinedCircuits, NodeSeeds, circuit_datasets, load_circuits
from counterpoint.graphs.circuits.downstream import (
    LOSSES,
    DensityWeighted,
    DownstreamConfig,
    Statistics,
    ground_figures,
    predict_coupling,
    prepare,
    regression_figures,
    train_coupling,
    train_ground,
)
from counterpoint.graphs.circuits.graph import CapacitanceScale
from counterpoint.graphs.circuits.picture import surroundings
from counterpoint.graphs.circuits.transfer import Transfer, protocols
from counterpoint.graphs.configs import CircuitDataConfig, CircuitGCLConfig
from counterpoint.graphs.gallery import caption, picture

onnxruntime = pytest.importorskip("onnxruntime")


def netlist(seed: int, inverters: int = 60) -> str:
    """A chain of inverters of random width; nets couple more, and have more ground capacitance, the wider they are."""
    rng = random.Random(seed)
    lines, width = [f".subckt chain{seed} n0 n{inverters} VDD VSS"], []
    for i in range(inverters):
        w = rng.choice((0.4, 1.6, 6.4))
        width.append(w)
        lines.append(f"X{2 * i} n{i + 1} n{i} VSS VSS sky130_fd_pr__nfet_01v8 w={w} l=0.15")
        lines.append(f"X{2 * i + 1} n{i + 1} n{i} VDD VDD sky130_fd_pr__pfet_01v8 w={w} l=0.15")
    for i in range(inverters - 1):
        lines.append(f"C{i} n{i} n{i + 1} {0.05 * width[i] ** 2 * rng.uniform(0.9, 1.1):.5f}fF")
        lines.append(f"Cg{i} n{i + 1} VSS {0.2 * width[i] ** 2 * rng.uniform(0.9, 1.1):.5f}fF")
    return "\n".join([*lines, ".ends"]) + "\n"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("circuits")
    rows = []
    for seed, split in ((0, "train"), (1, "train"), (2, "test")):
        (folder / f"chain{seed}.spice").write_text(netlist(seed))
        rows.append({"id": f"chain{seed}", "netlist": f"chain{seed}.spice", "split": split})
    Manifest.from_rows(rows, folder).save(folder / "manifest.csv")
    return folder / "manifest.csv"


def test_a_circuit_that_cannot_be_read_is_left_out_and_the_others_keep_their_rows(manifest, tmp_path, capsys):
    rows = Manifest.load(manifest).frame.to_dict("records")
    for row in rows:
        (tmp_path / row["netlist"]).write_bytes((manifest.parent / row["netlist"]).read_bytes())
    (tmp_path / "broken.spice").write_text(".subckt broken a b\nX1 a b nowhere_defined(\n")
    broken = {"id": "broken", "netlist": "broken.spice", "split": "train"}
    Manifest.from_rows([broken, *rows], tmp_path).save(tmp_path / "m.csv")
    config = CircuitDataConfig(manifest=str(tmp_path / "m.csv"))
    with pytest.raises(InputError, match="broken.spice"):
        circuit_datasets(config, (2, 2))
    with pytest.raises(InputError, match=r"row 1 \(id broken\).*raise `--train.max_bad`"):
        circuit_datasets(config, (2, 2), "skip", 0.01)
    found = circuit_datasets(config, (2, 2), "skip", 0.5)
    assert [(bad.index, bad.id) for bad in found.train.left_out] == [(0, "broken")]
    assert found.test.left_out == ()
    assert "left out" in capsys.readouterr().err
    ids = ["broken", *(row["id"] for row in rows)]
    for part in (found.train, found.test):
        assert {(ids[part.row_of(i)], group) for i, group in enumerate(part.groups)} == {(g, g) for g in part.groups}


def test_a_node_is_called_by_its_net_and_circuit_and_drawn_with_what_it_touches(manifest):
    """Net n1 of the chain drives two transistors and is driven by two: four devices around it."""
    seeds = NodeSeeds(JoinedCircuits.of(load_circuits(Manifest.load(manifest))), (2, 2))
    assert len(set(seeds.ids)) == len(seeds)
    at = seeds.ids.index("chain1/net n1")
    sample = seeds[at]
    assert caption(sample, "node") == "net n1 of chain1"
    media = picture(sample, "node")
    assert media.label == "net n1"
    assert media.caption == "chain1, 4 pins"
    middle, near, far = surroundings(seeds.joined, at)
    assert middle == at
    assert {seeds.joined.nodes[j] for _, j in near} == {f"device X{i}" for i in range(4)}
    assert {seeds.joined.nodes[k] for _, k in far} == {"net n0", "net n2"}
    assert media.image.count("<rect") == 4
    pin = seeds[seeds.ids.index("chain0/pin g of X2")]
    assert picture(pin, "node").caption == "chain0, on net n1"
    assert seeds.joined.nodes[surroundings(seeds.joined, pin["index"])[0]] == "device X2"


def test_ids_of_one_circuit_are_no_ids_of_another(manifest):
    """Else every test circuit would be said to have been trained on."""
    datasets = CircuitGCL(CircuitGCLConfig(data=CircuitDataConfig(manifest=str(manifest)))).datasets()
    assert not set(datasets.train.ids) & set(datasets.test.ids)


def test_embeddings_are_those_of_the_whole_circuit_in_batches_of_any_size(manifest, tmp_path):
    """Sampled neighbourhoods of (2, 2) would give every batch other vectors."""
    system = CircuitGCL(small(manifest, tmp_path)).eval()
    seeds = NodeSeeds(JoinedCircuits.of(load_circuits(Manifest.load(manifest))), (2, 2))
    one, other = (encode_rows(system, seeds, batch_size=size).vectors["node"] for size in (7, 512))
    part = encode_rows(system, seeds, range(5, 50), workers=1).vectors["node"]
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(part, one[5:50])
    graphs = load_circuits(Manifest.load(manifest))
    torch.testing.assert_close(one, torch.cat([system.vectors(graph) for graph in graphs]))
    with torch.no_grad():
        system.online.kinds.weight.mul_(2)
    assert not torch.allclose(encode_rows(system, seeds).vectors["node"], one), "new weights have new vectors"


def test_joined_circuits_share_no_edge(manifest):
    joined = JoinedCircuits.of(load_circuits(Manifest.load(manifest)))
    assert torch.equal(joined.circuit[joined.edge_index[0]], joined.circuit[joined.edge_index[1]])
    assert joined.names == ["chain0", "chain1", "chain2"]


def test_seed_batches_repeat_with_the_generator(manifest):
    seeds = NodeSeeds(JoinedCircuits.of(load_circuits(Manifest.load(manifest))), (2, 2))
    batches = []
    for _ in range(2):
        torch.manual_seed(5)
        batches.append(seeds.collate([seeds[i] for i in (3, 50, 200)]))
    assert torch.equal(batches[0]["edge_index"], batches[1]["edge_index"])
    assert torch.equal(batches[0]["kind"][:3], seeds.joined.kind[[3, 50, 200]])


def small(manifest, out):
    config = override(CircuitGCLConfig(), CircuitGCLConfig.presets["small"])
    train = replace(config.train, out=str(out), batch_size=512, max_epochs=3, tensorboard=False, monitor_every=0)
    return replace(config, data=CircuitDataConfig(manifest=str(manifest)), train=train, dim=16, fanout=(4, 4))


def test_scattering_spreads_the_target_and_only_train_circuits_are_seen(manifest, tmp_path):
    config = small(manifest, tmp_path / "run")
    system = CircuitGCL(replace(config, optim=replace(config.optim, lr=1e-2)))
    datasets = system.datasets()
    assert datasets.train.joined.names == ["chain0", "chain1"]
    assert datasets.test.joined.names == ["chain2"]
    joined = datasets.train.joined

    def spread(model):
        u = torch.nn.functional.normalize(model.eval().target(joined.kind, joined.edge_index), dim=1)
        return u.mean(0).norm().item()

    before = spread(system)
    run = fit(system)
    assert spread(load_run(run.run_dir, checkpoint="last")) < before


def test_target_follows_online_once_per_epoch(manifest, tmp_path):
    system = CircuitGCL(small(manifest, tmp_path))
    with torch.no_grad():
        system.online.kinds.weight.add_(1.0)
    before = system.target.kinds.weight.clone()
    system.on_train_epoch_end()
    torch.testing.assert_close(system.target.kinds.weight - before, torch.full_like(before, 0.01))


def test_the_two_losses_train_disjoint_parameters(manifest, tmp_path):
    system = CircuitGCL(small(manifest, tmp_path))
    seeds = system.datasets().train
    batch = seeds.collate([seeds[i] for i in range(64)])
    terms = system.losses(batch, system.embed(batch))
    for name, own in (("scatter", "target"), ("align", ("online", "predictor"))):
        system.zero_grad()
        terms[name].backward(retain_graph=True)
        reached = {n for n, p in system.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        assert reached
        assert all(n.startswith(own) for n in reached)


@pytest.fixture(scope="module")
def prepared(manifest):
    graphs = load_circuits(Manifest.load(manifest))
    statistics = Statistics.fit(graphs[:2])
    coupling = CapacitanceScale.fit(torch.cat([g.coupling_farad for g in graphs[:2]]))
    ground = CapacitanceScale.fit(torch.cat([g.ground_farad for g in graphs[:2]]))
    return [prepare(g, statistics, coupling, ground, None, (4, 4)) for g in graphs]


@pytest.mark.parametrize("loss", LOSSES)
def test_coupling_regression_transfers_to_an_unseen_circuit(prepared, loss):
    """The capacitance follows the drivers' widths, which the statistics hold: R2 well above a constant's 0."""
    config = replace(DownstreamConfig.small(), epochs=25, lr=5e-3, batch_size=64)
    model = train_coupling(prepared[:2], config, loss=loss, seed=0)
    predicted = predict_coupling(model, prepared[2], config)
    assert regression_figures(predicted, prepared[2].link_label)["R2"] > 0.4
    assert torch.equal(predicted, predict_coupling(model, prepared[2], config)), "prediction depends on a hidden state"


def test_what_training_never_saw_stays_in_range(manifest):
    """A resistor, and a device a thousand times wider, in a circuit of inverters: features stay moderate."""
    graphs = load_circuits(Manifest.load(manifest))
    statistics = Statistics.fit(graphs[:1])
    odd = graphs[2]
    odd.device_x = odd.device_x.clone()
    odd.device_x[0, 2] = 1.0
    odd.device_x[0, 10] = 30.0
    assert statistics.nodes(odd).abs().max() <= 5


def test_pairs_have_no_direction(prepared):
    config = DownstreamConfig.small()
    model = train_coupling(prepared[:1], replace(config, epochs=1), seed=0)
    h = torch.randn(10, model.head[0].in_features // 2)
    a, b = torch.tensor([1, 2]), torch.tensor([5, 7])
    torch.testing.assert_close(model.pair(h, a, b), model.pair(h, b, a))


def test_ground_classes_are_learnt(prepared):
    model = train_ground(prepared[:2], replace(DownstreamConfig.small(), epochs=20), balanced=True)
    assert ground_figures(model, prepared[2])["macro F1"] > 0.5


def test_rarest_fifth_is_the_one_with_fewest_pairs():
    label = torch.tensor([0.05] * 10 + [0.9] * 2)
    figures = regression_figures(torch.zeros(12), label)
    assert figures["MAE of the rarest fifth"] == pytest.approx(0.9)


def test_rare_labels_weigh_more_in_lds():
    labels = torch.cat([torch.full((90,), 0.2), torch.full((10,), 0.9)])
    loss = DensityWeighted(labels)
    common, rare = (loss(torch.tensor([y - 0.1]), torch.tensor([y])).item() for y in (0.2, 0.9))
    assert rare / common == pytest.approx(9.0, rel=1e-3)
    assert loss(labels - 0.1, labels).item() == pytest.approx(0.01, rel=1e-3), "weights must average to one"


def test_transfer_fits_on_training_circuits_alone(manifest):
    """Ten times the capacitance in the test circuit changes its labels, and nothing that was fitted."""
    graphs = load_circuits(Manifest.load(manifest))
    before = Transfer.of(graphs[:2], graphs[2:], DownstreamConfig.small())
    graphs[2].coupling_farad = graphs[2].coupling_farad * 10
    after = Transfer.of(graphs[:2], graphs[2:], DownstreamConfig.small())
    assert after.coupling == before.coupling
    assert torch.equal(after.train[0].statistics, before.train[0].statistics)
    assert after.test[0].link_label.mean() > before.test[0].link_label.mean()


def test_pretrained_vectors_reach_the_downstream_models(manifest):
    """Vectors that give the label away lower the error; the same models without them cannot know it."""
    graphs = load_circuits(Manifest.load(manifest))

    def telling(graph):
        vectors = torch.zeros(sum(graph.n_nodes.values()), 1)
        size = torch.zeros(len(graph.nets), dtype=torch.float64)
        for ends in graph.coupling:
            size.index_add_(0, ends, graph.coupling_farad.log10() + 15)
        vectors[: len(graph.nets), 0] = size
        return vectors

    config = replace(DownstreamConfig.small(), epochs=15, fanout=(4, 4))
    for g in graphs:  # without widths the statistics say nothing
        g.device_x = torch.zeros_like(g.device_x)
    found = []
    for vectors in (None, telling):
        transfer = Transfer.of(graphs[:2], graphs[2:], config, vectors)
        found.append(transfer.coupling_figures(transfer.coupling_model(seed=0))["chain2"]["MAE"])
    assert found[1] < 0.8 * found[0]


def test_evaluate_compares_with_and_without_pretraining(manifest, tmp_path):
    system = CircuitGCL(small(manifest, tmp_path))
    found = protocols(OpenRun(system, {}))
    assert set(found) == {"coupling of chain2, with the run's vectors", "coupling of chain2, statistics alone"}
    for scores in found.values():
        assert scores.intervals["MAE"].low < scores.intervals["MAE"].value < scores.intervals["MAE"].high


@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_the_exported_encoder_says_how_a_netlist_becomes_its_inputs(manifest, tmp_path, format):
    """Made from the recipe alone by a few lines of text work, they are the reader's, and the file gives its vectors."""
    small = {**CircuitGCL.presets["small"], "data.manifest": str(manifest), "dim": 8, "layers": 2}
    system = create_system(CircuitGCL, override(CircuitGCLConfig(), small)).eval()
    report = export(system, tmp_path / f"m.{format}")
    assert report.inputs == ("kind", "edge_index")
    assert report.shapes == {"kind": "[nodes] int64", "edge_index": "[ends = 2, edges] int64"}
    recipe = system.preprocessing()
    if format == "onnx":
        session = onnxruntime.InferenceSession(str(report.path))
        assert [i.shape for i in session.get_inputs()] == [["nodes"], [2, "edges"]]
        recipe = json.loads(session.get_modelmeta().custom_metadata_map["counterpoint.preprocessing"])
    said = recipe["inputs"]
    assert (said["kind"]["axes"], said["edge_index"]["axes"]) == (["nodes"], ["ends", "edges"])
    assert recipe["power"] == ""
    power = re.compile(re.search(r"where it is empty: (.*?)\). Nets", said["kind"]["about"])[1], re.IGNORECASE)
    words = [line.split() for line in (manifest.parent / "chain2.spice").read_text().splitlines()]
    devices = [[w for w in line[1:] if "=" not in w][:-1] for line in words if line[0].startswith("X")]
    capacitors = [line[1:3] for line in words if line[0].startswith("C")]
    named = [*words[0][2:], *(net for pins in (*devices, *capacitors) for net in pins)]
    nets = [net for net in dict.fromkeys(named) if not power.fullmatch(net.rpartition("/")[2])]
    pins = [(d, nets.index(net)) for d, device in enumerate(devices) for net in device if net in nets]
    kind = np.array([0] * len(nets) + [1] * len(devices) + [2] * len(pins))
    first = len(nets) + len(devices)
    ends = [(len(nets) + d, first + i) for i, (d, _) in enumerate(pins)]
    ends += [(n, first + i) for i, (_, n) in enumerate(pins)]
    edges = np.array([*ends, *((b, a) for a, b in ends)]).T
    graph = load_circuits(Manifest.load(manifest))[2]
    theirs = graph.homogeneous()
    assert np.array_equal(kind, theirs[0])
    assert np.array_equal(edges, theirs[1])
    expected = system.vectors(graph).numpy()
    if format == "onnx":
        (found,) = session.run(None, {"kind": kind, "edge_index": edges})
    else:
        found = torch.export.load(report.path).module()(torch.tensor(kind), torch.tensor(edges))[0].detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
