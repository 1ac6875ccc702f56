"""Encoders by name: shapes from window to vector, masks and gaps, refusals, and checkpoints that rebuild them."""

import json
import warnings

import numpy as np
import pytest
import torch

from counterpoint.common.cli.main import main
from counterpoint.common.errors import InputError
from counterpoint.common.trainers import Assets, create_system, load_run, override
from counterpoint.timeseries import DBPM, Comet, FrameProjections, TS2Vec, from_tsai
from counterpoint.timeseries.backbones import named_encoder, step_vectors, window_vectors
from counterpoint.timeseries.configs import OF_STEPS, OF_WINDOWS, EncoderConfig
from counterpoint.timeseries.manifest import WindowDataset
from counterpoint.timeseries.rocket import MiniRocket, minirocket_features
from counterpoint.timeseries.simulate import ecg
from counterpoint.timeseries.splits import split_patients
from counterpoint.timeseries.tsai_parts import tsai_steps

needs_tsai = pytest.mark.usefixtures("tsai")
LENGTH = Assets(length=48)
# Sizes that keep the tests fast.
OPTIONS = {
    "InceptionTime": {"nf": 4}, "XceptionTime": {"nf": 2}, "FCN": {"layers": [4, 4, 4]}, "TST": {"d_model": 16},
    "PatchTST": {"d_model": 16, "d_ff": 16}, "RNN_FCN": {"hidden_size": 5, "conv_layers": [4, 4, 4]},
}  # fmt: skip


@pytest.fixture
def tsai():
    pytest.importorskip("tsai", reason="tsai comes with the extra timeseries")


@pytest.fixture(scope="module")
def windows():
    found = ecg(patients=6, trials=2, windows=4, length=48)
    return split_patients(found, {"train": 0.34, "val": 0.33, "test": 0.33})


def small(name: str, steps_for: str = "", **changes: object):
    options = OPTIONS.get(name, {})
    return named_encoder(EncoderConfig(name, 6, 4, options=options, **changes), 3, LENGTH, steps_for).eval()


def tiny(cls: type, name: str, **changes: object):
    encoder = {"name": name, "dim": 6, "hidden": 4, "options": OPTIONS.get(name, {})}
    train = {"batch_size": 8, "max_epochs": 1, "tensorboard": False}
    return override(cls.Config(), {"encoder": encoder, "train": train, **changes})


@needs_tsai
@pytest.mark.parametrize("name", OF_STEPS[1:])
def test_steps_come_out_where_they_went_in(name):
    encoder, x = small(name, "a test"), torch.randn(2, 48, 3)
    z = encoder(x)
    assert z.shape == (2, 48, 6)
    torch.testing.assert_close(encoder(x, steps=slice(5, 9)), z[:, 5:9])
    assert step_vectors(encoder, x[:, :30]).shape == (2, 30, 6)
    torch.testing.assert_close(window_vectors(encoder, x), z.amax(1))


@needs_tsai
@pytest.mark.parametrize("name", OF_WINDOWS)
def test_windows_become_vectors_and_have_no_steps(name):
    encoder, x = small(name), torch.randn(2, 48, 3)
    assert window_vectors(encoder, x).shape == (2, 6)
    with pytest.raises(InputError, match=f"{name} gives one vector a window and none a time step.*InceptionTime"):
        step_vectors(encoder, x)
    with pytest.raises(InputError, match=f"--encoder {name} gives one vector a window, and ts2vec needs.*InceptionT"):
        small(name, "ts2vec")
    with pytest.raises(InputError, match="windows of 48 samples and got 40"):
        encoder(x[:, :40])


@needs_tsai
@pytest.mark.parametrize("name", ["InceptionTime", "TST", "RNN_FCN"])
def test_a_window_is_encoded_by_itself_and_gaps_stay_finite(name):
    encoder, x = small(name), torch.randn(4, 48, 3)
    torch.testing.assert_close(window_vectors(encoder, x)[1:2], window_vectors(encoder, x[1:2]))
    x[0, 10:20] = torch.nan
    assert torch.isfinite(window_vectors(encoder, x)).all()


@needs_tsai
def test_a_masked_step_and_a_missing_one_are_the_same():
    """Of both nothing enters but that they are hidden: latent zeros."""
    encoder, x = small("InceptionTime"), torch.randn(2, 48, 3)
    keep = torch.ones(2, 48, dtype=torch.bool)
    keep[:, 10:20] = False
    missing = x.clone()
    missing[:, 10:20] = torch.nan
    torch.testing.assert_close(encoder(x, keep), encoder(missing))
    assert not torch.allclose(encoder(x, keep), encoder(x))


@needs_tsai
def test_a_part_of_a_window_takes_the_first_positions_of_a_transformer():
    encoder, x = small("TST"), torch.randn(2, 48, 3)
    positions = encoder.blocks[0].positions
    with torch.no_grad():
        positions[30:] += 5
        before = encoder(x[:, :30])
        positions[30:] -= 5
    torch.testing.assert_close(encoder(x[:, :30]), before)
    with pytest.raises(InputError, match="TST was built for windows of 48 samples and got 49"):
        encoder(torch.randn(1, 49, 3))


@needs_tsai
def test_tsais_whole_model_is_what_the_part_leads_to():
    """The layers taken are all that tsai's own forward pass has before its head."""
    for name in ("InceptionTime", "FCN", "ResNet"):
        model, x = from_tsai(name, 3, 5).eval(), torch.randn(2, 3, 40)
        part = tsai_steps(name, 3, 40, {})
        part.load_state_dict(_renamed(part, model))
        torch.testing.assert_close(model.fc(part.eval()(x.transpose(1, 2)).mean(1)), model(x))


def _renamed(part, model):
    """tsai's weights under the names of the part, which holds the same layers in the same order."""
    mine, theirs = part.state_dict(), {k: v for k, v in model.state_dict().items() if not k.startswith("fc.")}
    assert [v.shape for v in mine.values()] == [v.shape for v in theirs.values()]
    return dict(zip(mine, theirs.values()))


@needs_tsai
def test_bad_options_end_in_one_sentence():
    with pytest.raises(InputError, match="tsai's InceptionTime cannot be built with {'layers': 3}: .*layers"):
        named_encoder(EncoderConfig("InceptionTime", options={"layers": 3}), 3, LENGTH)
    with pytest.raises(InputError, match="options are for encoders of tsai; ts2vec takes dim, hidden and depth"):
        named_encoder(EncoderConfig(options={"nf": 3}), 3, LENGTH)
    with pytest.raises(InputError, match="--encoder.name is GPT; it must be one of ts2vec, InceptionTime"):
        EncoderConfig("GPT")
    with pytest.raises(InputError, match="TST is built for windows of one length"):
        named_encoder(EncoderConfig("TST"), 3, Assets())


@needs_tsai
def test_importing_an_architecture_silences_no_warning_of_the_process():
    before = list(warnings.filters)
    from_tsai("PatchTST", 3, None, 96)
    assert warnings.filters == before


@needs_tsai
@pytest.mark.parametrize(
    ("cls", "name", "changes"),
    [(TS2Vec, "InceptionTime", {}), (Comet, "TST", {}), (DBPM, "RNN_FCN", {"mining": None}),
     (FrameProjections, "FCN", {"width": 3, "dim": 4, "frequencies": 4})],
)  # fmt: skip
def test_every_system_takes_an_encoder_by_name(windows, cls, name, changes):
    system = create_system(cls, tiny(cls, name, **changes), windows)
    dataset = WindowDataset(windows)
    batch = system.draw_views(dataset.collate([dataset[i] for i in range(8)]))
    loss = sum(term.mean() for term in system.losses(batch, system.embed(batch)).values())
    loss.backward()
    parts = system.encoders["time"] if cls is FrameProjections else system.encoder
    assert torch.isfinite(loss)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in parts.parameters())
    assert system.eval().represent(batch["x"]).shape[0] == 8


@needs_tsai
def test_shared_passes_equal_separate_ones_with_an_encoder_by_name(windows):
    """No randomness inside the blocks: COMET's unmasked passes may be one."""
    system = create_system(Comet, tiny(Comet, "TST"), windows).train()
    hidden = system.encoder.project(torch.from_numpy(windows.stack(range(6))))
    torch.testing.assert_close(system.encoder.blocks_only(hidden), system.encoder.blocks_only(hidden))


@needs_tsai
@pytest.mark.parametrize(("system", "name"), [("comet", "InceptionTime"), ("ts2vec", "TST"), ("dbpm", "RNN_FCN")])
def test_the_command_line_names_it_and_the_checkpoint_rebuilds_it(tmp_path, system, name):
    words = ["--data.patients", "6", "--data.length", "48", "--encoder", name, "--encoder.dim", "6"]
    words += ["--encoder.hidden", "4", "--encoder.options", json.dumps(OPTIONS[name]), "--train.batch_size", "16"]
    words += ["--train.max_steps", "2", "--train.validate_every_epochs", "99", "--train.tensorboard", "false"]
    words += ["--train.out", str(tmp_path / "run")]
    assert main(["timeseries", "pretrain", system, *words]) == 0
    one, other = load_run(tmp_path / "run"), load_run(tmp_path / "run")
    x = torch.randn(3, 256, 12)
    assert one.config.encoder.name == name
    torch.testing.assert_close(one.eval().represent(x), other.eval().represent(x), rtol=0, atol=0)
    kinds = {file.suffix for file in (tmp_path / "run" / "checkpoints" / "last").rglob("*") if file.is_file()}
    assert kinds <= {".json", ".yaml", ".safetensors", ".npy", ".txt", ""}, kinds


def test_a_system_that_contrasts_steps_refuses_before_it_trains(capsys, tmp_path):
    words = ["--data.patients", "6", "--encoder=RNN_FCN", "--train.out", str(tmp_path / "run")]
    assert main(["timeseries", "pretrain", "comet", *words]) == 2
    assert (
        "--encoder RNN_FCN gives one vector a window, and comet needs a feature a time step" in capsys.readouterr().err
    )


@needs_tsai
@pytest.mark.parametrize(("channels", "length", "features"), [(1, 64, 1000), (3, 50, 9996), (12, 100, 336)])
def test_minirocket_equals_tsais(channels, length, features):
    x = np.random.default_rng(0).normal(size=(20, channels, length)).astype(np.float32)
    theirs = from_tsai("MiniRocketFeatures", channels, length, features, random_state=5)
    theirs.fit(torch.from_numpy(x))
    # It draws the windows of its biases in two steps: an order of all, then 84 of these.
    order = np.random.RandomState(5).choice(len(x), len(x), False)
    assert torch.equal(MiniRocket.fit(x[order], 5, features).transform(x), theirs(torch.from_numpy(x)))


def test_minirocket_is_a_share_of_time_and_says_what_it_cannot(windows):
    train = np.flatnonzero((windows.frame["split"] == "train").to_numpy())
    z = minirocket_features(windows, train, seed=1, features=168)
    assert z.shape == (len(windows), 168)
    assert 0 <= z.min() < z.max() <= 1
    torch.testing.assert_close(z, minirocket_features(windows, train, seed=1, features=168), rtol=0, atol=0)
    with pytest.raises(InputError, match="there are none"):
        minirocket_features(windows, train[:0])
    with pytest.raises(InputError, match="windows of 10 samples or more, and these have 9"):
        MiniRocket.fit(np.zeros((2, 1, 9), np.float32))
