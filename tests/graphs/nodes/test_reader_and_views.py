"""Graph files in, and what a view may change."""

import pickle

import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv
from torch_geometric.utils import is_undirected

from counterpoint.common.errors import InputError
from counterpoint.graphs.nodes.encoders import GCN, thin
from counterpoint.graphs.nodes.reader import from_data, read_graph, read_npz, stochastic_blocks
from counterpoint.graphs.nodes.views import drop_edges, drop_probabilities, edge_weights, mask_features


@pytest.fixture
def graph():
    return stochastic_blocks([40, 30, 30], 0.3, 0.02, seed=1)


def test_blocks_have_the_asked_densities():
    g = stochastic_blocks([300, 300], 0.1, 0.01, seed=0)
    same = g.y[g.edge_index[0]] == g.y[g.edge_index[1]]
    inside, between = same.sum().item() / 2, (~same).sum().item() / 2
    assert inside == pytest.approx(0.1 * 300 * 299, rel=0.1)
    assert between == pytest.approx(0.01 * 300 * 300, rel=0.15)


def test_dropping_keeps_the_graph_undirected_at_the_asked_rate(graph):
    torch.manual_seed(0)
    dropped = drop_edges(graph.edge_index, 0.4)
    assert is_undirected(dropped, num_nodes=100)
    assert dropped.shape[1] / graph.edge_index.shape[1] == pytest.approx(0.6, abs=0.05)


def test_central_edges_are_dropped_less(graph):
    for centrality in ("degree", "pagerank"):
        p = drop_probabilities(edge_weights(graph.edge_index, 100, centrality), 0.3)
        degree = torch.bincount(graph.edge_index[1]).float()[graph.edge_index[1]]
        assert torch.corrcoef(torch.stack([p, degree]))[0, 1] < -0.5
        assert p.max() <= 0.7
        assert p.mean().item() == pytest.approx(0.3, abs=0.03)


def test_masking_takes_whole_columns(graph):
    torch.manual_seed(0)
    masked = mask_features(graph.x, 0.5)
    zero = (masked == 0).all(0)
    assert torch.equal(masked[:, ~zero], graph.x[:, ~zero])
    assert 0 < zero.sum() < 16


def test_sparse_features_give_the_same_vectors_and_masks(graph):
    x = graph.x * (graph.x > 2.5)
    assert thin(x).is_sparse
    assert not thin(graph.x).is_sparse
    model = GCN(16, [8, 4])
    torch.testing.assert_close(model(thin(x), graph.edge_index), model(x, graph.edge_index))
    masked = []
    for features in (x, thin(x)):
        torch.manual_seed(3)
        masked.append(mask_features(features, 0.5))
    torch.testing.assert_close(masked[1].to_dense(), masked[0])


def test_gcn_equals_pyg(graph):
    ours = GCN(16, [8])
    theirs = GCNConv(16, 8)
    with torch.no_grad():
        theirs.lin.weight.copy_(ours.layers[0].weight)
        theirs.bias.copy_(ours.layers[0].bias)
    torch.testing.assert_close(ours(graph.x, graph.edge_index), theirs(graph.x, graph.edge_index).relu())


def test_npz_errors_name_the_file(tmp_path):
    path = tmp_path / "g.npz"
    np.savez(path, adj_data=np.ones(1))
    with pytest.raises(InputError, match="g.npz: lacks the array 'adj_indices'"):
        read_npz(path)
    path.write_bytes(b"not a zip")
    with pytest.raises(InputError, match="g.npz: is no whole archive"):
        read_npz(path)
    with pytest.raises(InputError, match="give a .npz file, a .pt file, or folder/ind.NAME"):
        read_graph(tmp_path / "cora")


def test_a_planetoid_file_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, ("raise SystemExit",))

    for part in ("x", "y", "tx", "ty", "allx", "ally", "graph"):
        (tmp_path / f"ind.bad.{part}").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match="asks for builtins.exec"):
        read_graph(tmp_path / "ind.bad")


def saved(path, content):
    torch.save(content, path)
    return read_graph(path)


def test_a_saved_graph_is_the_same_in_every_form(tmp_path, graph):
    """`Data`, the processed file of a one-graph data set, a dictionary, and `.npz` of the same arrays."""
    mask = torch.arange(100) < 10
    parts = {"x": graph.x, "edge_index": graph.edge_index, "y": graph.y, "train_mask": mask}
    data = Data(**parts)
    slices = {k: torch.tensor([0, v.shape[-1]]) for k, v in parts.items()}
    np.savez(tmp_path / "n.npz", **{k: v.numpy() for k, v in parts.items()})
    forms = [
        saved(tmp_path / "a.pt", data),
        saved(tmp_path / "b.pt", (data.to_dict(), slices, Data)),
        saved(tmp_path / "c.pt", parts),
        read_graph(tmp_path / "n.npz"),
        from_data(data),
    ]
    for found in forms:
        assert torch.equal(found.x, graph.x)
        assert torch.equal(found.edge_index, graph.edge_index)
        assert torch.equal(found.y, graph.y)
        assert (found.split == "train").sum() == 10


def test_a_saved_graph_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, ("raise SystemExit",))

    torch.save({"x": Evil()}, tmp_path / "bad.pt")
    with pytest.raises(InputError, match=r"bad\.pt: .*asks for exec.*save it anew"):
        read_graph(tmp_path / "bad.pt")
    (tmp_path / "worse.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match=r"worse\.pt: cannot be read"):
        read_graph(tmp_path / "worse.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"x": None}, "x must be"), ({"edge_index": torch.zeros(3, 2).long()}, "edge_index must be 2 x edges"),
     ({"edge_index": torch.tensor([[0], [7]])}, "outside 0..2"), ({"edge_index": torch.rand(2, 2)}, "whole numbers"),
     ({"y": torch.zeros(2)}, "one class number"), ({"y": torch.tensor([0.0, 0.5, 1.0])}, "one class number"),
     ({"x": torch.full((3, 1), float("nan"))}, "NaN"), ({"train_mask": torch.ones(2)}, "train_mask has 2 entries")],
)  # fmt: skip
def test_what_is_wrong_with_a_saved_graph_is_named(tmp_path, change, message):
    parts = {"x": torch.eye(3), "edge_index": torch.tensor([[0], [1]])}
    with pytest.raises(InputError, match=rf"g\.pt: .*{message}"):
        saved(tmp_path / "g.pt", {**parts, **change})


def test_files_without_a_graph_say_what_they_hold(tmp_path):
    with pytest.raises(InputError, match="needs x and edge_index; it holds weight"):
        saved(tmp_path / "w.pt", {"weight": torch.ones(2)})
    with pytest.raises(InputError, match="needs x and edge_index; it is a Tensor"):
        saved(tmp_path / "t.pt", torch.ones(2))
    with pytest.raises(InputError, match="several graphs"):
        saved(tmp_path / "s.pt", ({"x": torch.eye(4)}, {"x": torch.tensor([0, 2, 4])}))
    with pytest.raises(InputError, match="no such file"):
        read_graph(tmp_path / "none.pt")


def test_pyg_data_comes_in_simple_and_undirected():
    data = Data(x=torch.eye(3), edge_index=torch.tensor([[0, 0, 1, 1], [0, 1, 2, 2]]), y=torch.tensor([0, 1, 1]))
    graph = from_data(data)
    assert graph.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "nodes", "edges", "classes", "train"),
    [("planetoid/ind.cora", 2708, 5278, 7, 140), ("planetoid/ind.citeseer", 3327, 4552, 6, 120),
     ("npz/cora.npz", 2708, 5278, 7, 0), ("npz/citeseer.npz", 3312, 4536, 6, 0)],
)  # fmt: skip
def test_known_sizes(data_dir, name, nodes, edges, classes, train):
    g = read_graph(data_dir / "graphs" / "nodes" / name)
    assert (g.n_nodes, g.edge_index.shape[1] // 2, g.n_classes) == (nodes, edges, classes)
    assert (g.split == "train").sum() == train
    assert is_undirected(g.edge_index, num_nodes=nodes)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"x": np.ones((3, 2))}, "lacks the array 'edge_index'; it holds x"),
        ({"x": np.ones((3, 2)), "edge_index": np.array([[0, 1], [0, 1]])}, "holds no edge between two nodes"),
        ({"x": np.ones((3, 0)), "edge_index": np.array([[0], [1]])}, "holds no feature"),
        ({"x": np.ones((0, 2)), "edge_index": np.zeros((2, 0), int)}, "holds no node"),
        ({"x": np.full((3, 2), np.nan), "edge_index": np.array([[0], [1]])}, "x holds NaN or infinity"),
        ({"x": np.full((3, 2), 1j), "edge_index": np.array([[0], [1]])}, "x must hold real numbers"),
        ({"x": np.ones((3, 2)), "edge_index": np.array([[0], [7]])}, "names a node outside 0..2"),
    ],
)
def test_graphs_that_teach_nothing_are_refused_with_the_file_and_the_reason(tmp_path, parts, words):
    np.savez(tmp_path / "g.npz", **parts)
    with pytest.raises(InputError) as error:
        read_npz(tmp_path / "g.npz")
    assert str(error.value).startswith(str(tmp_path / "g.npz"))
    assert words in str(error.value)


def test_changes_of_the_edges_are_counted(tmp_path):
    edges = np.array([[0, 0, 1, 1, 2, 3], [1, 1, 0, 1, 3, 2]])
    np.savez(tmp_path / "g.npz", x=np.ones((4, 2)), edge_index=np.concatenate([edges, [[0], [3]]], 1))
    graph = read_npz(tmp_path / "g.npz")
    assert graph.notes == (
        "1 loops left out", "1 doubled edges left out", "1 one-way edges given their other direction"
    )  # fmt: skip
    assert graph.edge_index.T.tolist() == [[0, 1], [0, 3], [1, 0], [2, 3], [3, 0], [3, 2]]
