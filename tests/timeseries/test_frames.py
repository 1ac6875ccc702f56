"""Frames keep energy between their bounds; the system contrasts, maps, and infers from time alone."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from counterpoint.common.cli.main import main
from counterpoint.common.trainers import create_system, fit, load_run, override
from counterpoint.timeseries.configs import FrameProjectionsConfig
from counterpoint.timeseries.frame_projections import FrameProjections, LatentMapping
from counterpoint.timeseries.frames import GaborFrame, fourier
from counterpoint.timeseries.simulate import ecg
from counterpoint.timeseries.splits import split_patients


@pytest.mark.parametrize("time", [7, 64, 150, 257])
def test_fourier_keeps_energy_and_inner_products(time):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 4, time, 3, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(fourier(x).square().sum((1, 2)), x.square().sum(1))
    torch.testing.assert_close((fourier(x) * fourier(y)).sum((1, 2)), (x * y).sum(1))


@pytest.mark.parametrize(("time", "frequencies", "cycles"), [(64, 8, 6.0), (128, 32, 6.0), (150, 16, 3.0)])
def test_gabor_energy_stays_between_the_stated_bounds_and_reaches_them(time, frequencies, cycles):
    frame = GaborFrame(frequencies, cycles)
    lower, upper = frame.bounds(time)
    assert lower > 0.2
    steps = torch.arange(time, dtype=torch.float64)
    # Real sinusoids at the FFT's frequencies are the eigenvectors of the frame operator: the extremes are reached.
    waves = torch.stack([torch.cos(2 * torch.pi * k * steps / time) for k in range(time // 2 + 1)])[..., None]
    noise = torch.randn(20, time, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for x, reached in ((waves, True), (noise, False)):
        ratio = frame(x).square().sum((1, 2)) / x.square().sum(1)
        assert ratio.min() >= lower - 1e-9
        assert ratio.max() <= upper + 1e-9
        if reached:
            assert ratio.min().item() == pytest.approx(lower, rel=1e-6)
            assert ratio.max().item() == pytest.approx(upper, rel=1e-6)


def test_gabor_finds_a_tone_in_time_and_frequency():
    frame, time = GaborFrame(24), 256
    x = torch.zeros(1, time, 1)
    x[0, 100:180, 0] = torch.sin(2 * torch.pi * 0.1 * torch.arange(80.0))
    found = frame(x)[0, 1:, :, 0]
    atom, when = np.unravel_index(int(found.argmax()), found.shape)
    assert frame.centres(time)[atom].item() == pytest.approx(0.1, rel=0.15)
    assert 100 < when < 180


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    windows = split_patients(
        ecg(patients=6, trials=2, windows=4, length=64), {"train": 0.34, "val": 0.33, "test": 0.33}
    )
    out = tmp_path_factory.mktemp("frames") / "run"
    config = override(
        FrameProjectionsConfig(),
        {
            "width": 8, "dim": 8, "frequencies": 6, "mapper_epochs": 2, "mapper_channels": 8,
            "train": {"batch_size": 8, "max_epochs": 2, "tensorboard": False, "accelerator": "cpu", "monitor_every": 0,
                      "out": str(out)},
        },
    )  # fmt: skip
    system = create_system(FrameProjections, config, windows)
    start = {name: p.clone() for name, p in system.named_parameters()}
    fit(system)
    return system, windows, start, out


def test_both_stages_train_what_they_should_and_the_run_comes_back(trained):
    system, windows, start, out = trained
    for name, p in system.named_parameters():
        assert not torch.equal(p, start[name]), name
    z = system.embed_windows(windows)
    assert z.shape == (len(windows), 3 * 16)
    torch.testing.assert_close(load_run(out, "last").embed_windows(windows), z)


def test_mapper_stage_leaves_the_encoders_alone(trained):
    system = trained[0]
    stages = system.stages()
    system.begin_stage(stages[1], 10)
    moving = {name for name, p in system.named_parameters() if p.requires_grad}
    assert moving == {name for name, _ in system.named_parameters() if name.startswith("mappers")}


def test_inference_runs_the_time_encoder_alone(trained):
    system, windows, *_ = trained
    for name in ("fourier", "gabor"):
        for p in system.encoders[name].parameters():
            p.data.fill_(torch.nan)
    assert torch.isfinite(system.embed_windows(windows)).all()


def test_gradients_are_harmonised_from_the_command_line_in_the_stage_that_shares_them(tmp_path, capsys):
    """The mapper stage has no embedding `time`: it trains as it is."""
    words = {
        "data.patients": 9, "data.length": 64, "width": 8, "dim": 8, "frequencies": 4, "mapper_epochs": 1,
        "train.max_epochs": 1, "train.batch_size": 16, "train.log_every": 1, "train.tensorboard": "false",
        "train.monitor_every": 0, "train.accelerator": "cpu", "train.out": tmp_path / "run",
        "train.plugins": "harmonize", "harmonize.shared": "time", "harmonize.gamma_start": -1,
    }  # fmt: skip
    arguments = [str(word) for name, value in words.items() for word in (f"--{name}", value)]
    assert main(["timeseries", "pretrain", "frame-projections", *arguments]) == 0
    with (tmp_path / "run" / "metrics.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert {row["stage"] for row in rows} == {"frames", "mappers"}
    assert {row["stage"] for row in rows if row["train/gradient_cosine"]} == {"frames"}
    assert all(row["train/map_fourier"] for row in rows if row["stage"] == "mappers" and row["train/loss"])
    assert "stage 'mappers' no two losses meet" in capsys.readouterr().err


def test_loss_and_gradients_equal_the_official_code(trained):
    held = json.loads((Path(__file__).parent / "oracles" / "timeseries.json").read_text())["frame_projections"]

    def tensor(value):
        return torch.tensor(value, dtype=torch.float64)

    system, windows, *_ = trained
    system = create_system(FrameProjections, system.config, windows).double()
    system.begin_stage(system.stages()[0], 10)
    names = {"conv1": "down", "deconv": "up"}
    for view, weights in held["predictors"].items():
        system.predictors[view] = LatentMapping(held["params"]["hidden"]).double()
        state = {names[k.split(".")[0]] + "." + k.split(".")[1]: tensor(w) for k, w in weights.items()}
        system.predictors[view].load_state_dict(state)
    z = {view: tensor(rows).requires_grad_() for view, rows in held["inputs"].items()}
    terms = system.losses({}, {view: normalize(rows, dim=1) for view, rows in z.items()})
    loss = sum(system.loss_weights.get(name, 1.0) * rows.mean() for name, rows in terms.items())
    assert loss.item() == pytest.approx(held["value"], rel=0, abs=1e-8)
    loss.backward()
    for view, rows in z.items():
        torch.testing.assert_close(rows.grad, tensor(held["gradients"][view]), rtol=0, atol=1e-8)
    for view, weights in held["predictor_gradients"].items():
        for name, wanted in weights.items():
            layer, kind = name.split(".")
            found = getattr(getattr(system.predictors[view], names[layer]), kind).grad
            torch.testing.assert_close(found, tensor(wanted), rtol=0, atol=1e-8)


def test_training_follows_the_official_schedule(trained):
    optim = FrameProjectionsConfig().optim
    assert (optim.name, optim.weight_decay, optim.schedule.kind, optim.schedule.warmup) == ("adam", 1e-6, "cosine", 0)
    contrast, mappers = trained[0].stages()
    assert contrast.optim is None
    assert mappers.optim.schedule.kind == "constant"


@pytest.mark.parametrize("width", [7, 8])
def test_mapping_keeps_the_width(width):
    assert LatentMapping(3)(torch.randn(2, width)).shape == (2, width)
