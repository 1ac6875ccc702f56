"""The node systems find planted blocks; their schedules and stages are the published ones."""

from dataclasses import replace

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import normalized_mutual_info_score

from counterpoint.common.losses import NTXent
from counterpoint.common.trainers import create_system, fit, load_run
from counterpoint.common.trainers.config_files import override
from counterpoint.graphs.configs import BGRLConfig, GCoolConfig, GRACEConfig, PamCConfig
from counterpoint.graphs.nodes.bgrl import BGRL
from counterpoint.graphs.nodes.communities import community_assignment, deca_loss
from counterpoint.graphs.nodes.gcool import GCool
from counterpoint.graphs.nodes.grace import GRACE
from counterpoint.graphs.nodes.metanodes import influence, metanode_loss
from counterpoint.graphs.nodes.pamc import PamC
from counterpoint.graphs.nodes.reader import stochastic_blocks

SYSTEMS = [(GRACE, GRACEConfig), (BGRL, BGRLConfig), (GCool, GCoolConfig), (PamC, PamCConfig)]


def blocks(signal=0.3):
    return stochastic_blocks([60, 60, 60], 0.2, 0.01, signal=signal, seed=3)


def make(system, config, graph, out, **train):
    config = override(config(), config.presets["small"])
    return create_system(system, replace(config, train=replace(config.train, out=str(out), **train)), graph)


def probe(vectors, labels):
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    fit_rows, rest = order[:60], order[60:]
    model = LogisticRegression(max_iter=2000).fit(vectors[fit_rows], labels[fit_rows])
    return model.score(vectors[rest], labels[rest])


@pytest.mark.parametrize(("system", "config"), SYSTEMS[:3])
def test_representations_hold_the_blocks_better_than_the_features(system, config, tmp_path):
    """Weak features, clear blocks: what the graph adds is what contrast must keep."""
    graph = blocks()
    model = make(system, config, graph, tmp_path / "run", max_epochs=60)
    fit(model)
    assert probe(model.node_vectors(), graph.y) > probe(graph.x, graph.y) + 0.1


def test_pamc_clusters_better_than_its_autoencoder_alone(tmp_path):
    graph = blocks(signal=0.8)
    with_graph = make(PamC, PamCConfig, graph, tmp_path / "a", max_epochs=60)
    fit(with_graph)
    alone = make(PamC, PamCConfig, graph, tmp_path / "b", max_epochs=1)
    fit(alone)
    scores = [normalized_mutual_info_score(graph.y, m.assignment()) for m in (with_graph, alone)]
    assert scores[0] > scores[1]


def test_pamc_pretrains_its_autoencoder_on_mini_batches_of_rows(tmp_path):
    """An epoch over 180 nodes in batches of 50 is four steps, not one; the contrast sees the whole graph."""
    graph = blocks()
    config = override(PamCConfig(), {**PamCConfig.presets["small"], "pretrain_batch": 50, "pretrain_epochs": 1})
    config = replace(config, train=replace(config.train, out=str(tmp_path / "run"), max_epochs=1))
    model = create_system(PamC, config, graph)
    assert model.stages()[0].batch_size == 50
    model.stage = model.stages()[0]
    rows = model.datasets()
    assert len(rows.train) == 180
    batch = rows.train.collate([rows.train[i] for i in (3, 7)])
    assert torch.equal(batch["x"], graph.x[[3, 7]])
    assert model.losses(batch, model.embed(batch)).keys() == {"reconstruction"}
    model.stage = model.stages()[1]
    assert len(list(model.batch_sampler(model.datasets().train, 1, 0))) == 1


def test_pamc_sums_each_node_into_its_nearest_centres_meta_node(tmp_path):
    graph = blocks()
    model = make(PamC, PamCConfig, graph, tmp_path / "run", max_epochs=1)
    model.stage = model.stages()[1]
    z = torch.randn(180, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.centres.copy_(z[[5, 70, 150]])
    nearest = torch.cdist(z, model.centres).argmin(1)
    weights = influence(graph.edge_index, 180, model.config.order)
    expected = metanode_loss(z, weights, nearest, model.config.tau)
    assert model.losses({}, {"node": z})["contrast"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_deca_prefers_planted_blocks_to_random_ones_but_one_community_to_both():
    """Where the mean degree exceeds the balance term's range, which is almost always, DeCA's optimum is one community:
    it needs the node term beside it, and a fade-out. (Four blocks with 0.3 inside and 0.02 between.)"""
    graph = stochastic_blocks([40] * 4, 0.3, 0.02, seed=0)
    planted = torch.nn.functional.one_hot(graph.y).double()
    shuffled = planted[torch.randperm(160, generator=torch.Generator().manual_seed(0))]
    together = torch.zeros_like(planted)
    together[:, 0] = 1
    values = [deca_loss(r, graph.edge_index, 1.0).item() for r in (together, planted, shuffled)]
    assert values[0] < values[1] < values[2]


def test_gcool_community_terms_end_after_a_fifth_of_the_stride(tmp_path):
    model = make(GCool, GCoolConfig, blocks(), tmp_path)
    assert model.community_schedule(0) == (1.0, 1.0)
    share, balance = model.community_schedule(50)
    assert share == pytest.approx(0.5)
    assert balance == pytest.approx(0.904837, abs=1e-6)
    assert model.community_schedule(100)[0] == 0
    batch = model.datasets().train.collate([])
    model.progress.epoch = 100
    assert set(model.losses(batch, model.embed(batch))) == {"node"}


def test_grace_is_nt_xent_over_both_views():
    import json
    from pathlib import Path

    oracle = json.loads((Path(__file__).parents[1] / "oracles" / "graphs.json").read_text())
    z1, z2 = (torch.tensor(oracle["inputs"][k], dtype=torch.float64) for k in ("z1", "z2"))
    expected = oracle["grace tau=.4 intra+inter (PyGCL InfoNCE, mean of two directions)"]
    assert NTXent(0.4)(z1, z2).item() == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(("system", "config"), SYSTEMS)
def test_runs_load_from_their_folder(system, config, tmp_path):
    """A graph given by its file: the run knows where it lies, the loaded system encodes alike."""
    import numpy as np

    graph = blocks()
    path = tmp_path / "blocks.npz"
    import scipy.sparse as sp

    a = sp.coo_matrix((np.ones(graph.edge_index.shape[1]), graph.edge_index.numpy()), shape=(180, 180)).tocsr()
    x = sp.csr_matrix(graph.x.numpy())
    parts = {f"{n}_{k}": getattr(m, k) for n, m in (("adj", a), ("attr", x)) for k in ("data", "indices", "indptr")}
    np.savez(path, adj_shape=a.shape, attr_shape=x.shape, labels=graph.y.numpy(), **parts)
    base = override(config(), config.presets["small"])
    model = create_system(
        system,
        replace(
            base,
            data=replace(base.data, path=str(path)),
            train=replace(base.train, out=str(tmp_path / "run"), max_epochs=2),
        )
    )
    run = fit(model)
    loaded = load_run(run.run_dir, checkpoint="last")
    torch.testing.assert_close(loaded.node_vectors(), model.node_vectors())


def test_assignment_prefers_the_nearest_centre():
    h = torch.eye(3)
    assert community_assignment(h, torch.eye(3), 0.1).argmax(1).tolist() == [0, 1, 2]
