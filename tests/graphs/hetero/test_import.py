"""Folders of edge lists and saved HeteroData: what they hold, what is refused, meta-paths against dense products."""

import itertools
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from counterpoint.common.cli.data import check
from counterpoint.common.data import Manifest
from counterpoint.common.errors import InputError
from counterpoint.graphs.cli import vertical
from counterpoint.graphs.hetero.folder import read_folder
from counterpoint.graphs.hetero.graph import HeteroGraph, load_hetero, parse_metapath
from counterpoint.graphs.hetero.importing import hetero_to_manifest
from counterpoint.graphs.hetero.metapaths import contexts, diagonal, halves, pair_count, top_pathsim
from counterpoint.graphs.hetero.saved import read_hetero_data


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "in"
    place.mkdir()
    rng = np.random.default_rng(0)
    pa = np.unique(rng.integers(0, [12, 5], size=(30, 2)), axis=0)
    (place / "paper-author.csv").write_text("paper,author\n" + "".join(f"{a},{b}\n" for a, b in pa))
    ps = sp.coo_matrix((np.ones(12), (np.arange(12), np.arange(12) % 3)), shape=(12, 4))
    sp.save_npz(place / "paper-subject.npz", ps)
    np.save(place / "paper_feat.npy", rng.normal(size=(12, 6)))
    np.save(place / "labels.npy", np.arange(12) % 3)
    for part, rows in (("train", [0, 1, 2]), ("val", [3, 4]), ("test", [5, 6, 7])):
        np.save(place / f"{part}_1.npy", np.array(rows))
    return place


def dense(graph: HeteroGraph, metapath) -> np.ndarray:
    found = np.eye(graph.counts[metapath[0]])
    for a, b in itertools.pairwise(metapath):
        found = found @ graph.relation(a, b).toarray()
    return found


def test_a_folder_becomes_a_graph_and_a_checked_manifest_of_its_target(folder, tmp_path):
    report = hetero_to_manifest(folder, tmp_path / "out")
    frame = Manifest.load(report.manifest).frame
    assert (report.rows, report.rejected) == (12, ())
    assert frame["label"].tolist() == (np.arange(12) % 3).tolist()
    assert frame["split"].tolist() == ["train"] * 3 + ["val"] * 2 + ["test"] * 3 + [""] * 4
    graph, read = load_hetero(tmp_path / "out" / "graph.npz"), read_folder(folder)[0]
    assert graph.counts == {"paper": 12, "author": 5, "subject": 4}
    assert graph.metapaths == (("paper", "author", "paper"), ("paper", "subject", "paper"))
    assert all((graph.relations[r] != read.relations[r]).nnz == 0 for r in read.relations)
    np.testing.assert_array_equal(graph.features["paper"].toarray(), np.load(folder / "paper_feat.npy").astype("f4"))
    assert "each node stands for itself: author, subject" in report.note
    assert check(vertical, report.manifest).figures["bad"] == []
    frame.loc[3, "node"] = 99
    Manifest(frame, tmp_path / "out").save(tmp_path / "out" / "wrong.parquet")
    (bad,) = check(vertical, tmp_path / "out" / "wrong.parquet").figures["bad"]
    assert "node 99 is none of the 12" in str(bad)


@pytest.mark.parametrize("name", ["PAP", "paper-author-paper", "pspap", "paper-subject-paper-subject-paper"])
@pytest.mark.parametrize("budget", [1, 40, 10**9])
def test_counts_in_blocks_are_those_of_the_dense_product(folder, name, budget):
    graph = read_folder(folder)[0]
    metapath = parse_metapath(name, graph)
    expected = dense(graph, metapath)
    np.testing.assert_array_equal(top_pathsim(graph, metapath, 0, budget).toarray(), expected)
    np.testing.assert_array_equal(diagonal(*halves(graph, metapath)), np.diag(expected))
    assert pair_count(graph, metapath, budget) == np.count_nonzero(expected)


@pytest.mark.parametrize("budget", [1, 10**9])
def test_the_nearest_by_pathsim_are_kept(folder, budget):
    """s_ij = 2 A_ij / (A_ii + A_jj); a node is its own nearest, equal ones stand in the order of their numbers."""
    graph = read_folder(folder)[0]
    metapath = parse_metapath("PAP", graph)
    a = dense(graph, metapath)
    own = np.diag(a)
    similarity = 2 * a / np.maximum(own[:, None] + own, 1)
    found = top_pathsim(graph, metapath, 3, budget).toarray()
    for row in range(12):
        order = sorted(np.flatnonzero(a[row]), key=lambda j: (-similarity[row, j], j))[:3]
        assert sorted(np.flatnonzero(found[row])) == sorted(order)
        np.testing.assert_array_equal(found[row, order], a[row, order])


def test_contexts_are_means_over_what_the_walks_reach(folder):
    graph = read_folder(folder)[0]
    found = contexts(graph, ("paper", "author", "paper", "subject", "paper"))
    assert [kind for kind, _ in found] == ["author", "paper", "subject"]
    pa, ps = (graph.relation("paper", t).toarray() for t in ("author", "subject"))
    reached = [pa > 0, pa @ pa.T > 0, (pa @ pa.T > 0) @ ps > 0]
    for (_, matrix), expected in zip(found, reached, strict=True):
        mean = expected / np.maximum(expected.sum(1, keepdims=True), 1)
        np.testing.assert_allclose(matrix.toarray(), mean, rtol=1e-6)


def test_doubled_edges_count_once_and_are_told(folder):
    text = (folder / "paper-author.csv").read_text()
    before = read_folder(folder)[0]
    (folder / "paper-author.csv").write_text(text + text.splitlines()[1] + "\n")
    graph = read_folder(folder)[0]
    assert (graph.relations["paper", "author"] != before.relations["paper", "author"]).nnz == 0
    assert "paper-author.csv: 1 doubled edge(s) left out" in graph.notes[0]


def _edges(text):
    return lambda place: (place / "paper-author.csv").write_text(text)


def _save(name, values):
    return lambda place: np.save(place / name, np.array(values))


WRONG = {
    "a number too large": (_edges("0,1\n40,2\n"), r"paper-author.csv: names paper 40, and paper_feat.npy has 12 rows"),
    "a negative number": (_edges("0,1\n-4,2\n"), r"paper-author.csv: edge 2 names node \[-4, 2\]"),
    "no number": (_edges("0,1\n1,x\n"), r"paper-author.csv, line 2: '1,x' is not 2 whole"),
    "no edge": (_edges("paper,author\n"), r"paper-author.csv: holds no edge"),
    "features of no type": (_save("venue_feat.npy", np.eye(3)), r"venue_feat.npy: 'venue' is no node type"),
    "no features": (lambda place: (place / "paper_feat.npy").unlink(), r"paper has no features; add paper_feat.npz"),
    "features with NaN": (_save("paper_feat.npy", [[np.nan]] * 12), r"paper_feat.npy: holds NaN"),
    "labels that fit no type": (_save("labels.npy", [0, 1]), r"say which type is labelled and embedded with --target"),
    "labels in halves": (_save("labels.npy", [0.5] * 12), r"labels.npy: a label is a whole number"),
    "a split beyond the nodes": (_save("val_1.npy", [12]), r"val_1.npy: names node 12; nodes are 0..11"),
    "parts that share nodes": (_save("val_1.npy", [0]), r"val_1.npy: shares nodes with another part"),
    "objects": (lambda p: np.save(p / "labels.npy", np.array([{}, 1], object), allow_pickle=True), r"Python objects"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_with_its_file(folder, case):
    damage, said = WRONG[case]
    damage(folder)
    with pytest.raises(InputError, match=said):
        read_folder(folder)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("PVP", "'V' is no node type here"),
        ("PA", "must lead from the target type paper"),
        ("APA", "must lead from the target type paper"),
        ("paper-author-subject-paper", "nothing joins author and subject"),
    ],
)
def test_meta_paths_that_cannot_be_walked_are_refused(folder, name, said):
    with pytest.raises(InputError, match=said):
        read_folder(folder, metapaths=(name,))


def hetero_data():
    from torch_geometric.data import HeteroData

    data = HeteroData()
    data["paper"].x, data["paper"].y = torch.eye(6, 4), torch.tensor([0, 1, 0, 1, 0, 1])
    data["paper"].train_mask = torch.tensor([True, True, False, False, False, False])
    data["author"].num_nodes = 3
    data["paper", "by", "author"].edge_index = torch.tensor([[0, 1, 2, 3, 4, 5, 5], [0, 1, 2, 0, 1, 2, 2]])
    data["author", "wrote", "paper"].edge_index = data["paper", "by", "author"].edge_index.flip(0)
    return data


def test_a_saved_hetero_data_is_read_without_running_its_code(tmp_path):
    torch.save(hetero_data(), tmp_path / "h.pt")
    graph = read_hetero_data(tmp_path / "h.pt")
    assert (graph.counts, graph.target) == ({"paper": 6, "author": 3}, "paper")
    assert graph.metapaths == (("paper", "author", "paper"),)
    expected = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    np.testing.assert_array_equal(graph.relation("paper", "author").toarray(), expected)
    assert graph.split.tolist() == ["train"] * 2 + [""] * 4
    assert any("count once" in note for note in graph.notes)


class Trap:
    def __reduce__(self):
        return os.mkdir, (Trap.where,)


def test_a_pickle_that_would_run_code_is_refused_with_the_remedy(tmp_path):
    Trap.where = str(tmp_path / "ran")
    torch.save({"x": Trap()}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Trap()))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(InputError, match=rf"{name}: cannot be read as tensors and HeteroData alone .*; write its"):
            read_hetero_data(tmp_path / name)
    assert not Path(Trap.where).exists()


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "paths"), [("acm", ["pap", "psp"]), ("imdb", ["mam", "mdm", "mkm"]), ("aminer", [])])
def test_counts_of_the_sample_data_are_those_of_its_own_files(name, paths):
    place = Path(os.environ["COUNTERPOINT_DATA"]) / "graphs" / "hetero" / name
    if name == "aminer":
        with pytest.raises(InputError, match="has no features"):
            read_folder(place)
        return
    graph, _ = read_folder(place)
    for text in paths:
        stored = sp.load_npz(place / f"{text}.npz").tocsr()
        found = top_pathsim(graph, parse_metapath(text, graph), 0)
        binary = stored.data.max() == 1  # psp is stored as 0/1
        assert ((found.astype(bool).astype(float) if binary else found) != stored).nnz == 0
