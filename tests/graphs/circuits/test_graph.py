"""Netlist to heterogeneous graph: what is a node, an edge, a label."""

import pytest
import torch

from counterpoint.common.errors import InputError
from counterpoint.graphs.circuits.flatten import flatten_netlist
from counterpoint.graphs.circuits.graph import NET_FEATURES, TERMINALS, CapacitanceScale, build_graph
from counterpoint.graphs.circuits.parasitics import Parasitics
from counterpoint.graphs.circuits.spice import read_spice

INVERTERS = """* two inverters
.subckt pair in out VDD VSS
X0 mid in VSS VSS sky130_fd_pr__nfet_01v8 w=0.42 l=0.15
X1 mid in VDD VDD sky130_fd_pr__pfet_01v8 w=1u l=0.15u
X2 out mid VSS VSS sky130_fd_pr__nfet_01v8 w=0.42 l=0.15
X3 out mid VDD VDD sky130_fd_pr__pfet_01v8 w=1 l=0.15
C0 in mid 0.5fF
C1 mid in 0.25fF
C2 mid VSS 1.5fF
C6 VDD mid 0.5fF
C3 out VDD 1fF
C4 out in 0.00fF
C5 VDD VSS 9fF
.ends
"""


@pytest.fixture
def graph(tmp_path):
    path = tmp_path / "pair.spice"
    path.write_text(INVERTERS)
    return build_graph(flatten_netlist(read_spice(path)))


def test_nodes_edges_and_pins(graph):
    assert sorted(graph.nets) == ["in", "mid", "out"]
    assert len(graph.devices) == 4
    assert len(graph.pin_net) == 8, "source and bulk on supplies leave no pin"
    mid = graph.nets.index("mid")
    on_mid = sorted(TERMINALS[t] for t in graph.pin_terminal[graph.pin_net == mid].tolist())
    assert on_mid == ["d", "d", "g", "g"]
    edges = graph.edge_index()
    assert torch.equal(edges["pin", "on", "net"].flip(0), edges["net", "at", "pin"])


def test_labels_sum_parallel_capacitors_and_ground_ones(graph):
    a, b = sorted((graph.nets.index("in"), graph.nets.index("mid")))
    assert graph.coupling.T.tolist() == [[a, b]]
    assert graph.coupling_farad.tolist() == pytest.approx([0.75e-15], rel=1e-6, abs=0)
    ground = dict(zip(graph.nets, graph.ground_farad.tolist(), strict=True))
    assert ground == pytest.approx({"in": 0.0, "mid": 2e-15, "out": 1e-15}, rel=1e-6, abs=0)
    assert graph.report["zero or negative capacitors dropped"] == 1
    assert graph.report["capacitors between power nets dropped"] == 1


def test_micrometres_and_metres_give_one_feature(graph):
    assert torch.equal(graph.device_x[1], graph.device_x[3])
    assert not torch.equal(graph.device_x[0], graph.device_x[1])


def test_net_statistics_count_pins(graph):
    row = graph.net_x[graph.nets.index("mid")]
    assert row[NET_FEATURES.index("pins")].expm1() == pytest.approx(4)
    assert row[NET_FEATURES.index("on nmos")].expm1() == pytest.approx(2)
    assert graph.net_x[:, 0].tolist() == [float(net in ("in", "out")) for net in graph.nets]


def test_homogeneous_view_keeps_every_edge_both_ways(graph):
    kind, edges = graph.homogeneous()
    assert kind.bincount().tolist() == [3, 4, 8]
    assert edges.shape[1] == 4 * 8
    assert torch.equal(torch.sort(edges[0] * 99 + edges[1]).values, torch.sort(edges[1] * 99 + edges[0]).values)
    assert set(map(tuple, kind[edges].T.tolist())) == {(0, 2), (2, 0), (1, 2), (2, 1)}


def test_pyg_data_validates(graph):
    data = graph.to_hetero_data()
    assert data.validate()
    assert data["net", "couples", "net"].edge_label.shape == (1,)


def test_spef_parasitics_replace_the_netlists(tmp_path):
    path = tmp_path / "pair.spice"
    path.write_text(INVERTERS)
    spef = Parasitics("x", "pair", ground={"out": 3e-15}, coupling={("in", "out"): 4e-15})
    graph = build_graph(flatten_netlist(read_spice(path)), spef)
    assert graph.coupling_farad.tolist() == [4e-15]
    assert graph.ground_farad.sum().item() == pytest.approx(3e-15, rel=1e-6, abs=0)


def test_scale_is_fitted_on_training_values_and_inverts():
    farads = torch.logspace(-17, -13, 200, dtype=torch.float64)
    scale = CapacitanceScale.fit(farads)
    labels = scale.to_label(farads)
    assert labels.min() == 0
    assert labels.max() == 1
    inside = (farads > scale.low) & (farads < scale.high)
    torch.testing.assert_close(scale.to_farad(labels[inside]), farads[inside], rtol=1e-4, atol=0)


def test_a_circuit_of_supplies_alone_is_refused(tmp_path):
    path = tmp_path / "empty.spice"
    path.write_text("C1 VDD VSS 1f\n")
    with pytest.raises(InputError, match="circuit top has no device .*give a netlist of devices"):
        build_graph(flatten_netlist(read_spice(path)))


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "coupled", "grounded"),
    [
        ("sky130_tt06-analog-relax-osc/mag_osc.sim.spice", 11, 186),
        ("sky130_tt06-analog-r2r-dac/mag_r2r.sim.spice", 18, 18),
    ],
)
def test_sky130_blocks_have_their_known_capacitors(data_dir, name, coupled, grounded):
    """Net-to-net and to-supply counts stated with the data (single capacitors, before parallel ones are summed)."""
    flat = flatten_netlist(read_spice(data_dir / "graphs" / "circuits" / name), merge_subnodes=False)
    signal = set(build_graph(flat).nets)
    between = sum(a in signal and b in signal for a, b, _ in flat.capacitors)
    assert (between, len(flat.capacitors) - between) == (coupled, grounded)
