"""MEOW: terms, clusters and network equal the released code's numbers (oracles/meow.json); it trains and resumes."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import normalize

from counterpoint.common.data import Manifest
from counterpoint.common.errors import InputError
from counterpoint.common.runs.evaluation import evaluate
from counterpoint.common.trainers import create_system, fit, load_run, override
from counterpoint.graphs.hetero.configs import MeowConfig
from counterpoint.graphs.hetero.graph import HeteroGraph, load_hetero
from counterpoint.graphs.hetero.importing import hetero_to_manifest
from counterpoint.graphs.hetero.kmeans import Clusters, cluster_runs, cluster_temperatures, inner_product_kmeans
from counterpoint.graphs.hetero.meow import Meow
from counterpoint.graphs.hetero.metapaths import top_pathsim
from counterpoint.graphs.hetero.networks import MeowNetwork
from counterpoint.graphs.hetero.objectives import parted_loss, prototype_loss
from counterpoint.graphs.hetero.views import (
    HeteroViews,
    MetaPathPropagation,
    hetero_views,
    mask_entries,
    mask_walks,
    normalized_walks,
)

ORACLES = Path(__file__).parents[1] / "oracles"
OFFICIAL = json.loads((ORACLES / "meow.json").read_text())
INPUTS = json.loads((ORACLES / "graphs.json").read_text())["inputs"]


def tensor(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def given(name):
    return normalize(tensor(INPUTS[name]), dim=1).requires_grad_()


def given_runs():
    phi = ([0.3, 0.4, 0.5], [0.35, 0.45])
    return [
        Clusters(torch.tensor(INPUTS[label]), tensor(INPUTS[proto]), tensor(p))
        for label, proto, p in zip(("lab", "lab2"), ("proto1", "proto2"), phi, strict=True)
    ]


def close(found, expected, tolerance=1e-10):
    torch.testing.assert_close(found, tensor(expected).to(found.dtype), rtol=tolerance, atol=tolerance)


def test_the_weighted_term_and_its_gradients_are_the_released_codes():
    a, b = given("z1"), given("z2")
    loss = parted_loss(a, b, given_runs(), 0.4)
    close(loss, OFFICIAL["info"]["value"])
    for found, name in zip(torch.autograd.grad(loss, (a, b)), ("grad1", "grad2"), strict=True):
        close(found, OFFICIAL["info"][name])


def test_the_prototype_term_and_its_gradient_are_the_released_codes():
    a = given("z1")
    loss = prototype_loss(a, given_runs())
    close(loss, OFFICIAL["proto"]["value"])
    close(torch.autograd.grad(loss, a)[0], OFFICIAL["proto"]["grad1"])


def test_clusters_and_temperatures_are_those_of_the_released_code_over_faiss():
    official = OFFICIAL["kmeans"]
    runs = cluster_runs(torch.tensor(official["x"]), tuple(official["clusters"]), official["tau"])
    for run, assigned, centroids, density in zip(
        runs, official["assign"], official["centroids"], official["density"], strict=True
    ):
        assert run.assigned.tolist() == assigned
        close(run.centroids, centroids, 1e-6)
        close(run.temperatures, density, 1e-6)


def test_empty_clusters_are_split_off_large_ones():
    """Inner products gather everything that points one way, and most clusters stay without a row of their own."""
    x = np.abs(np.random.default_rng(7).normal(size=(200, 2))).astype("f4")
    x = torch.from_numpy(x / np.linalg.norm(x, axis=1, keepdims=True))
    means = inner_product_kmeans(x, 100, seed=0)
    assert torch.isfinite(means).all()
    assert (means.norm(dim=1) > 0.5).all()
    assert len((x @ means.T).argmax(1).unique()) < 50
    with pytest.raises(ValueError, match="3 rows cannot make 4 clusters"):
        inner_product_kmeans(x[:3], 4, seed=0)


def test_a_row_opposite_to_its_centre_and_a_lonely_one_have_a_temperature():
    phi = cluster_temperatures(torch.tensor([-0.5, 0.9, 0.8, 0.3]), torch.tensor([0, 1, 1, 2]), 3, 0.4)
    assert phi.mean().item() == pytest.approx(0.4)
    assert torch.isfinite(phi).all()
    assert (cluster_temperatures(torch.tensor([-0.5, -0.1]), torch.tensor([0, 0]), 2, 0.4) == 0.4).all()


# The network ----------------------------------------------------------------------------------------------------------

NAMES = {
    "fc_list": "contexts.inputs", "agg.0": "contexts.merges.0.0", "agg.1": "contexts.merges.1.0",
    "Encoder.gc1.act": "encoder.activation", "att.att": "attention.query", "att.fc": "attention.key",
    "project": "projector",
}  # fmt: skip


def ours(named):
    """The released code's tensors under our names: its convolutions keep their weights transposed."""
    found = {}
    for name, values in named.items():
        value = tensor(values)
        if name.startswith("Encoder.gc") and name.endswith("act.weight"):
            if "gc1" in name:
                found["encoder.activation.weight"] = value
        elif name.startswith("Encoder.gc"):
            found[f"encoder.{'first' if 'gc1' in name else 'second'}.weight"] = value.T
        else:
            start = next(s for s in NAMES if name.startswith(s))
            found[NAMES[start] + name.removeprefix(start)] = value
    return found


@pytest.fixture
def official_graph():
    o = OFFICIAL["network"]
    matrices = {name: sp.csr_matrix(np.array(o[name], dtype=np.float32)) for name in ("pa", "ps", "xp", "xa")}
    counts = {"p": 20, "a": 9, "s": 4}
    relations = {("p", "a"): matrices["pa"], ("p", "s"): matrices["ps"]}
    graph = HeteroGraph(counts, {"p": matrices["xp"], "a": matrices["xa"]}, relations, "p",
                        np.full(20, -1), np.full(20, "", object))  # fmt: skip
    graph.metapaths = (("p", "a", "p"), ("p", "s", "p"))
    return graph


def test_features_contexts_and_adjacencies_are_the_released_codes(official_graph):
    views = hetero_views(official_graph, (0, 0), (0.0, 0.0), 0.0, 0)
    o = OFFICIAL["network"]
    for found, expected in zip(views.plain, o["adjacency"], strict=True):
        torch.testing.assert_close(found(torch.eye(20)), torch.tensor(expected))
    torch.testing.assert_close(views.coarse(torch.eye(20)), torch.tensor(o["adjacency"]).mean(0))
    rows = torch.tensor(o["xp"])
    torch.testing.assert_close(views.features["p"].to_dense(), rows / rows.sum(1, keepdim=True))
    assert set(views.features) == {"p", "a"}


def test_masks_take_their_share_and_normalise_as_the_released_code(official_graph):
    """Its masked matrices, taken apart to the places they hold and normalised anew, are themselves."""
    counts = top_pathsim(official_graph, ("p", "a", "p"), 0)
    masked = mask_walks(counts, 0.3, np.random.default_rng(0))
    off = counts.nnz - 20
    assert masked.nnz == off - int(0.3 * off) + 20
    assert (masked.diagonal() == 1).all()
    assert set(masked.data) == {1.0}
    for values in OFFICIAL["network"]["masked"]:
        expected = np.array(values)
        ones = sp.csr_matrix((expected.T != 0).astype(float))
        np.testing.assert_allclose(normalized_walks(ones).toarray(), expected, rtol=1e-6)
    entries = mask_entries(official_graph.features["p"], 0.3, np.random.default_rng(0))
    assert entries.nnz == official_graph.features["p"].nnz - int(0.3 * official_graph.features["p"].nnz)


@pytest.fixture
def network():
    o = OFFICIAL["network"]
    model = MeowNetwork("p", {"p": 6, "a": 5, "s": 4}, [["a"], ["s"]], 4, 4, 0.0).double()
    model.load_state_dict(ours(o["state"]))
    shares = {name: tensor(o[name]) / tensor(o[name]).sum(1, keepdim=True) for name in ("pa", "ps")}
    mean = {name: MetaPathPropagation(None, [share]) for name, share in shares.items()}
    dense = [MetaPathPropagation(None, [tensor(a)]) for a in (*o["adjacency"], *o["masked"])]
    coarse = MetaPathPropagation(None, [tensor(o["adjacency"]).mean(0)])
    x = {"p": tensor(o["xp"]), "a": tensor(o["xa"])}
    x = {kind: rows / rows.sum(1, keepdim=True) for kind, rows in x.items()}
    contexts = [[("a", mean["pa"])], [("s", mean["ps"])]]
    return model, HeteroViews(x, tensor(o["masked_features"]), contexts, dense[:2], dense[2:], coarse)


def together(numbers):
    """Which nodes share a cluster, whatever its number."""
    return {frozenset(i for i, n in enumerate(numbers) if n == number) for number in set(numbers)}


def test_vectors_loss_and_every_gradient_are_the_released_codes(network):
    model, views = network
    o = OFFICIAL["network"]
    close(model(views)[1], o["z"])
    coarse, fine = model.contrasted(views)
    given = [
        Clusters(torch.tensor(a), tensor(c), tensor(d))
        for a, c, d in zip(*(o["found"][k] for k in ("im2cluster", "centroids", "density")), strict=True)
    ]
    loss = parted_loss(coarse, fine, given, 0.4) + prototype_loss(coarse, given)
    close(loss, o["loss"])
    loss.backward()
    expected = ours(o["grad"])
    found = {name: p.grad for name, p in model.named_parameters()}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        close(found[name], value.tolist(), 1e-9)
    runs = cluster_runs(fine, (3, 5), 0.4)
    for run, official in zip(runs, o["found"]["im2cluster"], strict=True):  # k-means may number its clusters otherwise
        assert together(run.assigned.tolist()) == together(official)
    again = parted_loss(coarse, fine, runs, 0.4) + prototype_loss(coarse, runs)
    assert again.item() == pytest.approx(o["loss"], rel=1e-6)


@pytest.mark.parametrize("density", [0.01, 0.5], ids=["sparse", "dense"])
def test_a_propagation_is_its_matrix_in_both_directions(density):
    matrix = sp.random(40, 30, density, "csr", np.float32, random_state=0)
    product = MetaPathPropagation(matrix)
    assert len(product.tensors) == (2 if density == 0.01 else 1)
    x, weight = torch.randn(30, 3, requires_grad=True), torch.randn(40, 3)
    found = product(x)
    torch.testing.assert_close(found, torch.from_numpy(matrix.toarray()) @ x)
    (gradient,) = torch.autograd.grad((found * weight).sum(), x)
    torch.testing.assert_close(gradient, torch.from_numpy(matrix.toarray()).T @ weight)


# The system -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Three synthetic groups of 20 papers whose authors and subjects mostly stay within; weak features."""
    place = tmp_path_factory.mktemp("hetero")
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(3), 20)

    def edges(each, per_group):
        inside = rng.random((60, each)) < 0.9
        ends = np.where(inside, group[:, None], rng.integers(0, 3, (60, each))) * per_group
        ends += rng.integers(0, per_group, (60, each))
        return np.unique(np.stack([np.repeat(np.arange(60), each), ends.ravel()], 1), axis=0)

    source = place / "in"
    source.mkdir()
    np.save(source / "paper-author.npy", edges(3, 10))
    np.save(source / "paper-subject.npy", edges(1, 2))
    np.save(source / "paper_feat.npy", np.abs(rng.normal(size=(60, 12)) + 0.3 * np.eye(3)[group].repeat(4, 1)))
    np.save(source / "labels.npy", group)
    order = rng.permutation(60)
    for part, rows in (("train", order[:15]), ("val", order[15:20]), ("test", order[20:])):
        np.save(source / f"{part}.npy", rows)
    return hetero_to_manifest(source, place / "out").manifest


def made(manifest, out, **changes):
    quiet = {"data.manifest": str(manifest), "train.out": str(out), "train.accelerator": "cpu"}
    quiet |= {"train.log_every": 1, "clusters": (3, 6)}
    return create_system(Meow, override(override(MeowConfig(), MeowConfig.presets["small"]), {**quiet, **changes}))


@pytest.mark.slow
def test_vectors_hold_the_groups_better_than_the_features(manifest, tmp_path):
    model = made(manifest, tmp_path / "run")
    fit(model)
    found = evaluate(tmp_path / "run", "last", label="label", bootstrap=20).figures
    assert found["samples"] == {"test": 40, "train": 15}
    metrics = found["results"]["logreg of node"]["scores"]["metrics"]
    graph = model.data.graph
    x, y, split = graph.features["paper"].toarray(), graph.labels, graph.split
    plain = LogisticRegression(max_iter=2000).fit(x[split == "train"], y[split == "train"])
    bare = plain.score(x[split == "test"], y[split == "test"])
    assert metrics["accuracy"] > bare + 0.1
    assert {"macro_f1"} <= metrics.keys()
    assert {"NMI", "ARI"} <= found["results"]["cluster of node"]["metrics"].keys()


def test_a_resumed_run_ends_where_the_whole_one_does(manifest, tmp_path, monkeypatch):
    whole = made(manifest, tmp_path / "whole", **{"train.max_epochs": 6})
    fit(whole)
    part = made(manifest, tmp_path / "part", **{"train.max_epochs": 6})
    monkeypatch.setattr(part, "after_epoch", lambda: Meow.after_epoch(part) if part.progress.epoch < 4 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fit(part)
    resumed = load_run(tmp_path / "part", "last")
    assert resumed.progress.epoch == 3
    fit(resumed, resume=tmp_path / "part")
    loaded = load_run(tmp_path / "part", "last")
    assert torch.equal(loaded.node_vectors(), whole.node_vectors())
    assert loaded.lowest_loss == whole.lowest_loss


def test_training_ends_when_the_loss_no_longer_falls(manifest, tmp_path):
    model = made(manifest, tmp_path / "run", **{"patience": 2, "optim.lr": 0.0, "dropout": 0.0, "train.max_epochs": 50})
    fit(model)
    assert model.progress.total_step == 3


WRONG = {
    "neighbours": ({"neighbours": (1, 2, 3)}, r"--neighbours has 3 numbers and the graph 2 meta-paths \(paper-author"),
    "too many clusters": ({"clusters": (3, 61)}, r"--clusters is \(3, 61\); the graph has 60 nodes"),
    "one cluster": ({"clusters": (1,)}, r"--clusters is 1; it must be 2 or more"),
    "no manifest": ({"data.manifest": ""}, r"--data.manifest is not set"),
}


@pytest.mark.parametrize("case", WRONG)
def test_settings_that_do_not_fit_are_refused(manifest, tmp_path, case):
    changes, said = WRONG[case]
    with pytest.raises(InputError, match=said):
        made(manifest, tmp_path, **changes).datasets()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: frame.assign(node=0), "rows 0 and 1 both name node 0"),
        (lambda frame: frame.assign(node=99), "row 0 names node 99, none of the 60 of type paper"),
        (lambda frame: frame.assign(node="a"), "row 0 names node a, none of the 60 of type paper"),
        (lambda frame: frame.drop(columns="node"), "has no column node"),
    ],
)
def test_rows_that_name_no_node_of_their_own_are_refused(manifest, tmp_path, change, said):
    table = Manifest.load(manifest)
    wrong = manifest.parent / "wrong.parquet"
    Manifest(change(table.frame), table.root).save(wrong)
    with pytest.raises(InputError, match=said):
        made(wrong, tmp_path)


def test_another_graph_must_be_alike(manifest, tmp_path):
    model = made(manifest, tmp_path)
    graph = load_hetero(manifest.parent / "graph.npz")
    graph.metapaths = graph.metapaths[:1]
    other = tmp_path / "other"
    other.mkdir()
    graph.save(other / "graph.npz")
    Manifest.load(manifest).save(other / "manifest.parquet")
    with pytest.raises(InputError, match="its meta-paths are"):
        Meow.read(override(model.config, {"data.manifest": str(other / "manifest.parquet")}), model.assets)
