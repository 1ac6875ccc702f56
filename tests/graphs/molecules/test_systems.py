"""KCL and GraphCL: views stay inside their molecules, training lowers the loss, runs load."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rdkit import Chem, RDLogger

from counterpoint.common.data.manifest import Manifest
from counterpoint.common.errors import InputError
from counterpoint.common.trainers import create_system, fit, load_run
from counterpoint.common.trainers.config_files import override
from counterpoint.common.trainers.configs import FinetuneConfig
from counterpoint.common.trainers.exporting import export
from counterpoint.common.trainers.finetuning import create_finetune
from counterpoint.graphs.configs import GraphCLConfig, KCLConfig, MoleculeDataConfig
from counterpoint.graphs.molecules.data import MoleculeDataset, collate_molecules
from counterpoint.graphs.molecules.featurize import join_molecules, molecule_graph
from counterpoint.graphs.molecules.graphcl import GraphCL
from counterpoint.graphs.molecules.kcl import KCL
from counterpoint.graphs.molecules.rotate import train_rotate
from counterpoint.graphs.molecules.views import augment

RDLogger.DisableLog("rdApp.*")


def library():
    tails = ["O", "N", "C(=O)O", "C#N", "c1ccccc1", "Cl", "S", "C(F)(F)F"]
    chains = ["C" * n for n in range(1, 9)]
    return sorted({Chem.CanonSmiles(c + t) for c in chains for t in tails})


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    path = tmp_path_factory.mktemp("molecules") / "manifest.csv"
    rows = [{"id": str(i), "smiles": s} for i, s in enumerate(library())]
    Manifest.from_rows(rows).save(path)
    return path


@pytest.mark.parametrize("view", ["drop", "perturb", "mask", "subgraph"])
def test_views_act_inside_each_molecule(view):
    batch = join_molecules([molecule_graph(s) for s in (*library(), "[Ar]", "[Na+].[Cl-]")])
    changed = augment(batch, view, 0.3, torch.Generator().manual_seed(0))
    before = torch.bincount(batch.graph, minlength=batch.n_graphs)
    after = torch.bincount(changed.graph, minlength=batch.n_graphs)
    assert (after >= 1).all()
    assert torch.equal(changed.graph[changed.bonds[0]], changed.graph[changed.bonds[1]])
    assert changed.bonds.shape[1] == len(changed.bond_features)
    removed = (0.3 * before).floor()
    if view == "drop":
        assert torch.equal(before - after, torch.minimum(removed, before - 1).long())
    elif view == "mask":
        masked = torch.bincount(batch.graph[changed.atoms[:, 0] == 0], minlength=batch.n_graphs)
        assert torch.equal(masked, removed.long())
    elif view == "subgraph":
        assert (after <= before - removed).all()
    else:
        assert torch.equal(before, after)


def test_subgraphs_are_connected():
    batch = join_molecules([molecule_graph(s) for s in library()])
    part = augment(batch, "subgraph", 0.4, torch.Generator().manual_seed(1))
    label = torch.arange(len(part.atoms))
    for _ in range(30):
        label = label.scatter_reduce(0, part.bonds[1], label[part.bonds[0]], "amin")
    for molecule in range(batch.n_graphs):
        assert len(label[part.graph == molecule].unique()) == 1


def configuration(cls, manifest, out, **more):
    config = override(cls(), cls.presets["small"])
    train = replace(
        config.train, out=str(out), batch_size=16, max_epochs=3, max_steps=None, tensorboard=False, monitor_every=0
    )
    return replace(config, data=MoleculeDataConfig(manifest=str(manifest)), train=train, **more)


def test_kcl_contrasts_as_the_official_code_does():
    """Value of the released loss (logits times 20) on fixed vectors, with the published configuration."""
    oracle = json.loads((Path(__file__).parents[1] / "oracles" / "graphs.json").read_text())
    z1, z2 = (torch.tensor(oracle["inputs"][k], dtype=torch.float64) for k in ("z1", "z2"))
    model = create_system(KCL, override(KCLConfig(), {"hidden": 8, "node_dim": 8}))
    loss = model.losses({}, {"molecule": z1, "knowledge": z2})["nt_xent"].mean()
    assert loss.item() == pytest.approx(oracle["kcl_ntxent(z1,z2) scale 20"], abs=1e-5)


def test_kcl_starts_at_the_uniform_loss(manifest, tmp_path):
    """With untrained encoders the logits are nearly equal over partner and negatives: about log(2 B - 1)."""
    config = configuration(KCLConfig, manifest, tmp_path, rotate_epochs=0, temperature=10.0)
    torch.manual_seed(0)
    system = create_system(KCL, config)
    dataset = MoleculeDataset(Manifest.load(manifest))
    batch = collate_molecules([dataset[i] for i in range(32)])
    with torch.no_grad():
        loss = system.losses(batch, system.embed(batch))["nt_xent"].mean().item()
    assert loss == pytest.approx(math.log(63), abs=0.1)


def test_readouts_are_trained_unless_frozen(manifest, tmp_path):
    for frozen in (False, True):
        options = {"rotate_epochs": 0, "freeze_readouts": frozen}
        system = create_system(KCL, configuration(KCLConfig, manifest, tmp_path, **options))
        readouts = [p for n, p in system.named_parameters() if ".readout." in n]
        assert readouts
        assert all(p.requires_grad is not frozen for p in readouts)


def first_batch(manifest, n=8):
    dataset = MoleculeDataset(Manifest.load(manifest))
    return collate_molecules([dataset[i] for i in range(n)])


def test_rotate_fills_the_tables_once_when_training_starts(manifest, tmp_path):
    """Building or loading a system trains nothing; starting does, and never again on weights that have been loaded."""
    system = create_system(KCL, configuration(KCLConfig, manifest, tmp_path, rotate_epochs=2))
    untouched = system.kmpnn.nodes.weight.clone()
    system.initialize()
    assert not torch.equal(system.kmpnn.nodes.weight, untouched)
    table = train_rotate(system.knowledge, system.config.node_dim, epochs=2, seed=system.config.train.seed)
    assert torch.equal(system.kmpnn.nodes.weight, table)
    assert torch.equal(system.gcn.embedding.tables[0].weight, table[:119])
    assert torch.equal(create_system(KCL, system.config).kmpnn.nodes.weight, untouched)


@pytest.mark.parametrize(("system", "config"), [(KCL, KCLConfig), (GraphCL, GraphCLConfig)])
def test_heads_read_the_graph_vector_before_the_projector(system, config, manifest, tmp_path):
    """Its length holds the molecule's size; search uses its direction, and never one view to search the other."""
    extra = {"rotate_epochs": 0} if config is KCLConfig else {}
    built = create_system(system, configuration(config, manifest, tmp_path, **extra)).eval()
    batch = first_batch(manifest)
    with torch.no_grad():
        features, encoded = built.features(batch), built.encode(batch)
        torch.testing.assert_close(features["molecule"], built.gcn(batch["molecule"]))
    assert list(encoded) == ["molecule"]
    torch.testing.assert_close(encoded["molecule"], torch.nn.functional.normalize(features["molecule"], dim=1))
    assert not torch.allclose(features["molecule"].norm(dim=1), torch.ones(8))


@pytest.mark.parametrize("system", ["kcl", "graphcl"])
def test_finetuning_stands_on_the_molecule(system, manifest, tmp_path):
    cls, config = (KCL, KCLConfig) if system == "kcl" else (GraphCL, GraphCLConfig)
    extra = {"rotate_epochs": 0} if cls is KCL else {}
    run = fit(create_system(cls, configuration(config, manifest, tmp_path / "run", **extra)))
    frame = Manifest.load(manifest).frame.assign(oxygen=lambda f: f["smiles"].str.count("O").astype(float))
    Manifest(frame).save(tmp_path / "labelled.csv")
    tuned = create_finetune(
        FinetuneConfig(run=str(run.run_dir), checkpoint="last", labels=("oxygen",), task="regression",
                       data={"data.manifest": str(tmp_path / "labelled.csv")})
    )  # fmt: skip
    assert tuned.config.modality == "molecule"
    assert tuned.config.width == tuned.base.gcn.out_dim


@pytest.mark.parametrize(("system", "config"), [(KCL, KCLConfig), (GraphCL, GraphCLConfig)])
def test_training_lowers_the_loss_and_the_run_loads(system, config, manifest, tmp_path):
    extra = {"rotate_epochs": 3} if config is KCLConfig else {}
    run = fit(create_system(system, configuration(config, manifest, tmp_path / "run", **extra)))
    loaded = load_run(run.run_dir, checkpoint="last").eval()
    dataset = MoleculeDataset(Manifest.load(manifest))
    batch = collate_molecules([dataset[i] for i in range(8)])
    with torch.no_grad():
        vectors = loaded.encode(batch)["molecule"]
    assert vectors.shape == (8, loaded.gcn.out_dim)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(8))
    lines = (run.run_dir / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("train/loss")
    losses = [float(v) for v in (line.split(",")[column] for line in lines[1:]) if v]
    assert len(losses) >= 1
    if len(losses) > 1:
        assert losses[-1] < losses[0]


def test_a_graph_is_no_input_of_an_exported_model(tmp_path):
    system = create_system(GraphCL, override(GraphCLConfig(), {"hidden": 8, "node_dim": 8}))
    samples = [{"molecule": molecule_graph(s), "smiles": s, "id": s, "group": s} for s in ("CCO", "CCN")]
    with pytest.raises(InputError, match=r"m.onnx: GraphCL reads molecule as a MoleculeBatch, .* take tensors alone"):
        export(system, tmp_path / "m.onnx", batch=collate_molecules(samples))
