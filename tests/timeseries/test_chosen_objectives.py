"""Objectives with parts of their own train through `objective`: heads, classes and centres move with the encoders."""

import pytest
import torch

from counterpoint.common.data.embeddings import embed_to_parquet
from counterpoint.common.errors import InputError
from counterpoint.common.trainers import create_system, fit, load_run, override
from counterpoint.timeseries.configs import FrameProjectionsConfig
from counterpoint.timeseries.frame_projections import FrameProjections
from counterpoint.timeseries.manifest import WindowDataset
from counterpoint.timeseries.simulate import ecg
from counterpoint.timeseries.splits import split_patients

TINY = {
    "width": 4, "dim": 8, "frequencies": 3, "mapper_epochs": 0,
    "train": {"batch_size": 8, "max_steps": 4, "tensorboard": False, "accelerator": "cpu", "monitor_every": 0},
}  # fmt: skip


@pytest.fixture(scope="module")
def windows():
    return split_patients(ecg(patients=6, trials=2, windows=4, length=64), {"train": 0.34, "val": 0.33, "test": 0.33})


def system(windows, objective="", **more):
    changes = {**TINY, "objective": objective}
    return create_system(FrameProjections, override(override(FrameProjectionsConfig(), changes), more), windows)


@pytest.fixture(scope="module")
def vectors(windows, tmp_path_factory):
    """What `embed` writes of the splits train and val with an encoder."""
    place = tmp_path_factory.mktemp("vectors")
    encoder = system(windows).eval()
    for split in ("train", "val"):
        embed_to_parquet(encoder, WindowDataset(windows.where(split=split), of=windows), place / split)
    return place


CHOICES = {
    "AMCL(dim=8)": "objective.objective.heads.",
    "AMCLSimSiam(dim=8, heads=2)": "objective.objective.predictors.",
    "AMCLBarlow(batch=8, dim=8)": "objective.objective.objective.temperature.",
    "M3CoL(dims=(8, 8, 8), n_classes=4, hidden=8)": "objective.objective.objective.fusion.",
    "MLCD(n_classes=5, dim=8, nearest=2, vectors=('{0}/train', '{0}/val'))": "objective.objective.objective.centres",
}


@pytest.mark.parametrize(("choice", "moves"), CHOICES.items())
def test_it_trains_with_its_own_parts_and_loads_again(windows, vectors, tmp_path, choice, moves):
    trained = system(windows, choice.format(vectors), train={"out": str(tmp_path / "run")})
    before = {n: p.clone() for n, p in trained.named_parameters()}
    result = fit(trained)
    name = choice.partition("(")[0].lower()
    assert torch.isfinite(torch.tensor(result.metrics[f"val/{name}"]))
    moved = {n for n, p in trained.named_parameters() if not torch.equal(p, before[n])}
    for start in (moves, "encoders.time", "encoders.gabor"):
        assert any(n.startswith(start) for n in moved), start
    loaded = load_run(result.run_dir, "last")
    assert all(torch.equal(p, q) for p, q in zip(loaded.state_dict().values(), trained.state_dict().values()))


def test_m3col_passes_to_soft_targets_as_the_training_goes_on(windows, tmp_path):
    choice = "M3CoL(dims=(8, 8, 8), n_classes=4, hidden=8, switch=0.5)"
    trained = system(windows, choice, train={"out": str(tmp_path / "run")})
    fit(trained)
    assert trained.objective.objective.objective.progress == 0.75, "the last of four steps"
    classes = trained.objective.objective.classes
    assert 1 < int((classes >= 0).sum()) <= 4


def test_samples_without_an_embedding_are_named(windows, vectors, tmp_path):
    choice = f"MLCD(n_classes=5, dim=8, nearest=2, vectors='{vectors}/val')"
    with pytest.raises(InputError, match=r"hold no embedding of sample 'p\d+"):
        fit(system(windows, choice, train={"out": str(tmp_path / "run")}))
    with pytest.raises(InputError, match="nearest must lie between 1 and n_classes"):
        system(windows, f"MLCD(n_classes=5, dim=8, vectors='{vectors}/val')")


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("M3CoL(dims=(8, 8), n_classes=4)", r"was told dims=\(8, 8\), and the views' widths are \(8, 8, 8\)"),
        ("M3CoL(dims=(8, 8, 8), n_classes=1)", "the labels have more different values"),
        ("AMCL(dim=9)", r"made for embeddings of width 9.*choose 'AMCL\(dim=8\)'"),
        ("HBI(dim=8)", "HBI needs tokens of both sides, and this system gives one vector of each view"),
        ("AMCLMoCo(dim=8, heads=2)", "AMCLMoCo needs queries and momentum keys through several heads"),
    ],
)
def test_what_does_not_fit_is_said(windows, tmp_path, choice, said):
    with pytest.raises(InputError, match=said):
        fit(system(windows, choice, train={"out": str(tmp_path / "run")}))
