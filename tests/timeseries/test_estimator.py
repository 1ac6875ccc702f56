"""Time-series systems through the scikit-learn door: scikit-learn's own checks, and what a user does with it."""

import io
import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from counterpoint.common import runs
from counterpoint.common.data import Manifest
from counterpoint.common.data.embeddings import EmbeddingStore
from counterpoint.common.errors import InputError, NonFiniteLossError
from counterpoint.common.estimators import Encoder
from counterpoint.common.trainers import create_system, fit, load_run, load_yaml
from counterpoint.timeseries.configs import TS2VecConfig
from counterpoint.timeseries.ts2vec import TS2Vec
from counterpoint.timeseries.windows import WindowSet

TINY = {
    "preset": "small", "encoder__dim": 4, "encoder__hidden": 4, "encoder__depth": 1, "train__max_steps": 2,
    "train__accelerator": "cpu",
}  # fmt: skip
# Every check of scikit-learn 1.6 to 1.9 applies and passes; one that does not is named here with the reason.
EXPECTED_TO_FAIL: dict[str, str] = {}


@parametrize_with_checks([Encoder("ts2vec", **TINY)], expected_failed_checks=lambda _: EXPECTED_TO_FAIL)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def encoder(**changes):
    return Encoder("ts2vec", **{**TINY, "random_state": 0, **changes})


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).normal(size=(24, 20)).astype(np.float32)


@pytest.fixture(scope="module")
def fitted(X):
    return encoder().fit(X)


def test_it_is_fit_and_embed_and_nothing_else(X, tmp_path):
    """The same figures as training on the same windows and `embed` on the same series in files."""
    own = Encoder("ts2vec", **TINY, random_state=3, run_folder=tmp_path / "run").fit(X)
    rows = []
    for i, series in enumerate(X):
        np.savez(tmp_path / f"{i}.npz", x=series[:, None], fs=1.0, leads=np.array(["channel1"]))
        rows.append({"id": f"s{i}", "file": f"{i}.npz", "split": "train"})
    Manifest.from_rows(rows).save(tmp_path / "manifest.csv")
    runs.embed(tmp_path / "run", tmp_path / "vectors", split="train", manifest=tmp_path / "manifest.csv")
    store = EmbeddingStore(tmp_path / "vectors")
    assert [name.split(":")[0] for name in store.ids] == [f"s{i}" for i in range(len(X))]
    assert torch.equal(torch.from_numpy(own.transform(X)), torch.as_tensor(store.vectors("signal")))

    config = load_yaml(tmp_path / "run" / "config.yaml")["config"]
    config["train"]["out"], config["data"]["manifest"] = str(tmp_path / "other"), str(tmp_path / "manifest.csv")
    config["data"]["step"] = config["data"]["length"]
    from counterpoint.common.trainers import from_dict

    result = fit(create_system(TS2Vec, from_dict(TS2VecConfig, config)))
    weights, expected = (load_run(run).state_dict() for run in (tmp_path / "run", result.run_dir))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_a_kept_run_does_not_take_other_data_for_its_own(X, tmp_path):
    encoder(run_folder=tmp_path / "run").fit(X)
    with pytest.raises(InputError, match=r"trained on data given in Python, .* \(--manifest\)"):
        runs.embed(tmp_path / "run", split="train")
    with pytest.raises(InputError, match=r"holds a run already; .* run_folder, or set train__overwrite"):
        encoder(run_folder=tmp_path / "run").fit(X)


@pytest.mark.parametrize("copied", ["pickle", "joblib"])
@pytest.mark.parametrize("system", ["ts2vec", "comet", "dbpm", "frame-projections"])
def test_every_system_travels_as_plain_state(system, copied, X, monkeypatch):
    options = {name: value for name, value in TINY.items() if not name.startswith("encoder__") or "frame" not in system}
    if system == "frame-projections":
        options |= {"dim": 4, "width": 4, "frequencies": 4, "mapper_epochs": 1}
    else:
        options["train__max_epochs"] = 1
    one = Encoder(system, **options).fit(np.stack([X, X[::-1]], axis=1), groups=np.arange(24) // 3)

    def no_unpickling(*args, **kwargs):
        raise AssertionError("weights are unpickled")

    monkeypatch.setattr(torch, "load", no_unpickling)
    if copied == "pickle":
        two = pickle.loads(pickle.dumps(one))  # noqa: S301
    else:
        file = io.BytesIO()
        joblib.dump(one, file)
        file.seek(0)
        two = joblib.load(file)
    assert two.get_params() == one.get_params()
    stacked = np.stack([X, X[::-1]], axis=1)
    np.testing.assert_array_equal(two.transform(stacked), one.transform(stacked))
    state = one.__getstate__()["system_"]
    assert {name: type(value) for name, value in state.items()} == {
        "system": str, "config": dict, "assets": dict, "weights": bytes,
    }  # fmt: skip


def test_an_unfitted_one_travels_and_is_cloned(X):
    one = encoder(train__max_steps=np.int64(3), data__leads=("II",))
    for two in (pickle.loads(pickle.dumps(one)), clone(one)):  # noqa: S301
        assert two.get_params() == one.get_params()
        assert not hasattr(two, "system_")
    assert clone(one).fit(X).system_.progress.total_step == 3


def test_a_pipeline_is_cross_validated_by_group(X):
    """Groups reach the encoder fold by fold, and the folds keep them whole."""
    groups, y = np.repeat(np.arange(8), 3), np.tile([0, 1], 12)
    pipe = make_pipeline(encoder(), LogisticRegression())
    scores = cross_val_score(pipe, X, y, groups=groups, cv=GroupKFold(3), params={"encoder__groups": groups},
                             error_score="raise")  # fmt: skip
    assert scores.shape == (3,)
    assert np.isfinite(scores).all()
    search = GridSearchCV(pipe, {"encoder__encoder__dim": np.array([3, 5])}, cv=GroupKFold(2)).fit(X, y, groups=groups)
    assert search.best_estimator_[0].n_features_out_ == search.best_params_["encoder__encoder__dim"]


def test_groups_are_the_samples_groups(X, monkeypatch):
    seen = []

    class Watching(TS2Vec):
        def losses(self, batch, embeddings):
            seen.extend(zip(batch["id"], batch["group"]))
            return super().losses(batch, embeddings)

    groups = [f"p{i // 5}" for i in range(24)]
    Encoder(Watching, **TINY).fit(X, groups=groups)
    assert len(seen) == 48
    assert all(group == groups[int(name)] for name, group in seen)
    with pytest.raises(InputError, match="groups holds 3 values and X 24 rows"):
        encoder().fit(X, groups=[1, 2, 3])
    with pytest.raises(InputError, match=r"groups\[1\] is missing"):
        encoder().fit(X[:2], groups=[1, None])


def test_labels_change_nothing(X, fitted):
    assert (encoder().fit(X, np.arange(24)).transform(X) == fitted.transform(X)).all()


def test_names_and_frames(X, fitted):
    frame = pd.DataFrame(X, index=[f"r{i}" for i in range(24)], columns=[f"t{i}" for i in range(20)])
    one = encoder().fit(frame).set_output(transform="pandas")
    found = one.transform(frame)
    assert list(found.columns) == list(one.get_feature_names_out()) == [f"encoder{i}" for i in range(4)]
    assert list(found.index) == list(frame.index)
    assert one.n_features_out_ == 4
    np.testing.assert_array_equal(found.to_numpy(), fitted.transform(X))
    with pytest.raises(ValueError, match="feature names"):
        one.transform(frame[frame.columns[::-1]])


def test_other_shapes_are_refused(X, fitted):
    with pytest.raises(ValueError, match="X has 19 features, but Encoder is expecting 20"):
        fitted.transform(X[:, 1:])
    three = encoder().fit(np.stack([X, X], axis=1))
    with pytest.raises(InputError, match="series of 19 samples and the encoder was trained on 20"):
        three.transform(np.stack([X, X], axis=1)[..., 1:])
    with pytest.raises(ValueError, match="X has 3 features, but Encoder is expecting 2"):
        three.transform(np.stack([X, X, X], axis=1))
    with pytest.raises(ValueError, match="X has 20 features, but Encoder is expecting 2"):
        three.transform(X)
    for bad, words in ((["CCO", "CCN"], "give an array of numbers"), (X[..., None, None], "has shape")):
        with pytest.raises(InputError, match=words):
            encoder().fit(bad)
    with pytest.raises(InputError, match="data__leads names 3: I, II, III"):
        encoder(data__leads=["I", "II", "III"]).fit(X)


def test_rows_that_say_nothing_are_left_out_and_missing_in_the_result(X, fitted):
    flat = X.copy()
    flat[3], flat[5] = 7.0, np.nan
    with pytest.warns(UserWarning, match=r"X\[3\] is flat or more than half missing .*1 more rows.*: not trained on"):
        one = encoder().fit(flat)
    assert one.system_.progress.total_step == 2
    with pytest.warns(UserWarning, match="NaN in the result"):
        found = fitted.transform(flat)
    assert np.flatnonzero(np.isnan(found).any(1)).tolist() == [3, 5]
    kept = np.delete(np.arange(24), [3, 5])
    np.testing.assert_array_equal(found[kept], fitted.transform(X)[kept])
    with pytest.raises(InputError, match="X makes no sample"):
        encoder().fit(np.ones((4, 20)))
    with pytest.warns(UserWarning, match="NaN in the result"):
        assert np.isnan(fitted.transform(np.ones((2, 20)))).all()


def test_missing_values_are_the_verticals(X, fitted):
    """NaN at the end is padding, as of a shorter recording; an infinite value is a missing one, and told."""
    short, hole, infinite = (X[:1].copy() for _ in range(3))
    short[:, 7:], hole[:, 4], infinite[:, 4] = np.nan, np.nan, np.inf
    recording = WindowSet.build([X[0, :7, None]], 20, 20, [{"id": "r"}], fs=1.0, pad=True)
    expected = fitted.system_.embed_windows(recording.normalized("train", fitted.system_.form))
    np.testing.assert_array_equal(fitted.transform(short), expected.numpy())
    with pytest.warns(UserWarning, match="1 infinite values in X are taken as missing"):
        found = fitted.transform(infinite)
    np.testing.assert_array_equal(found, fitted.transform(hole))
    assert (found != fitted.transform(X[:1])).any()


def test_a_series_is_encoded_alike_in_any_company(X):
    for level in ("trial", "window", "train", "none"):
        one = encoder(data__normalize=level).fit(X)
        np.testing.assert_allclose(one.transform(X[4:6])[1], one.transform(X)[5], atol=1e-6)
    with pytest.raises(InputError, match="data__normalize=patient .* transform is not told"):
        encoder(data__normalize="patient").fit(X)


@pytest.mark.parametrize(("option", "value"), [("beats", True), ("step", 5), ("manifest", "m.csv"), ("length", 7)])
def test_settings_of_recordings_in_files_are_refused(option, value, X):
    with pytest.raises(InputError, match=f"data__{option}"):
        encoder(**{f"data__{option}": value}).fit(X)


def test_filters_need_the_rate_and_are_applied(X):
    with pytest.raises(InputError, match="in hertz; give data__fs"):
        encoder(data__high=10.0).fit(X)
    long = np.cumsum(np.random.default_rng(1).normal(size=(6, 200)), axis=1)
    plain, smooth = (encoder(data__fs=100.0, data__high=high, data__normalize="none") for high in (None, 5.0))
    assert np.abs(plain.fit(long).transform(long) - smooth.fit(long).transform(long)).max() > 1e-3


def test_seeds(X, fitted):
    assert (encoder().fit(X).transform(X) == fitted.transform(X)).all()
    assert (encoder(random_state=1).fit(X).transform(X) != fitted.transform(X)).any()
    drawn = [encoder(random_state=np.random.RandomState(5)).fit(X).system_.config.train.seed for _ in range(2)]
    assert drawn[0] == drawn[1]
    with pytest.raises(InputError, match="random_state and train__seed are the same"):
        encoder(train__seed=3).fit(X)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    encoder().fit(X).transform(X)
    assert (np.random.get_state()[1] == before[0]).all()
    assert torch.equal(torch.get_rng_state(), before[1])


def test_silent_and_nothing_left_behind(X, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder(train__batch_size=8).fit(X).transform(X)
    assert capfd.readouterr() == ("", "")
    assert [path for path in tmp_path.rglob("*") if path.name != "tmp"] == []


class Interrupted(TS2Vec):
    """Ctrl-C in the middle of a step."""

    at = 2

    def after_update(self):
        super().after_update()
        if self.progress.total_step == self.at:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupted_training_keeps_what_it_has(X):
    import signal

    handler = signal.getsignal(signal.SIGINT)
    with pytest.warns(UserWarning, match="interrupted at step 3; the encoder keeps the best weights so far"):
        one = Encoder(Interrupted, **{**TINY, "train__max_steps": 50}).fit(X)
    assert one.system_.progress.total_step == 3
    assert signal.getsignal(signal.SIGINT) is handler
    same = Encoder(TS2Vec, **{**TINY, "train__max_steps": 3}).fit(X)
    np.testing.assert_array_equal(one.transform(X), same.transform(X))


def test_validation_keeps_the_best_weights(X, tmp_path):
    groups = np.arange(24) // 2
    one = encoder(validation_fraction=0.25, run_folder=tmp_path / "run", train__max_steps=6).fit(X, groups=groups)
    assert "val/loss" in one.metrics_
    data = runs_data(tmp_path / "run")
    assert data["train"]["samples"] + data["val"]["samples"] == 24
    assert data["val"]["samples"] == 6
    with pytest.raises(InputError, match="validation_fraction is 1.5"):
        encoder(validation_fraction=1.5).fit(X)


def runs_data(run):
    from counterpoint.common.trainers.environment import read_environment

    return read_environment(run)["data"]["train"]


class Diverging(TS2Vec):
    def losses(self, batch, embeddings):
        return {"hierarchical": super().losses(batch, embeddings)["hierarchical"] * float("nan")}


def test_a_training_that_diverges_names_the_rows(X):
    with pytest.raises(NonFiniteLossError, match=r"hierarchical = nan at step 0, in the batch of rows \d+, .* of X"):
        Encoder(Diverging, **TINY).fit(X)


def test_epochs_that_a_person_gives_beat_the_steps_of_a_preset(X):
    options = {name: value for name, value in TINY.items() if name != "train__max_steps"}
    one = Encoder("ts2vec", **options, train__max_epochs=3, train__batch_size=12).fit(X)
    assert one.system_.progress.total_step == 6
