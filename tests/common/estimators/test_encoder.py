"""What the scikit-learn door does for every vertical: names, settings, refusals."""

import runpy

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from counterpoint.common.discover import find_verticals
from counterpoint.common.errors import InputError
from counterpoint.common.estimators import Encoder
from counterpoint.common.estimators.inputs import rows_of, split_at_random
from counterpoint.common.lazy import resolve
from counterpoint.common.trainers.config_files import option_names

X = np.random.default_rng(0).normal(size=(8, 12))
SYSTEMS = [entry for load in find_verticals().values() for entry in load().systems]


@pytest.mark.parametrize("entry", SYSTEMS, ids=lambda entry: entry.name)
def test_no_systems_setting_has_the_name_of_a_parameter(entry):
    own = set(Encoder._get_param_names())
    assert not own & set(option_names(resolve(entry.config)))


@pytest.mark.parametrize(
    ("system", "words"),
    [
        ("ts2vek", "unknown system 'ts2vek'; did you mean 'ts2vec'"),
        ("nothing like it", "unknown system"),
        (3, "system is 3; give a system's name"),
        (int, "int is no ContrastiveSystem"),
        ("audio-sheet", "audio-sheet takes no data in memory: .*counterpoint audio pretrain audio-sheet"),
    ],
)
def test_systems_that_cannot_be_trained_on_x(system, words):
    with pytest.raises(InputError, match=words):
        Encoder(system).fit(X)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_steps": 3}, "'max_steps' is not an option of ts2vec; did you mean 'train__max_steps'"),
        ({"train__max_step": 3}, "did you mean 'train__max_steps'"),
        ({"nothing": 3}, "there are: data, train, optim, encoder"),
        ({"train__max_steps": "many"}, "train__max_steps: expected .* got 'many'"),
        ({"train__max_steps": object()}, "an option of ts2vec cannot be used"),
        ({"preset": "smal"}, "unknown preset 'smal'; did you mean 'small'"),
        ({"what": "dense"}, "what is 'dense'; give encode or features"),
        ({"train__out": "runs/x"}, "give run_folder"),
        ({"train__devices": 2}, "trains in this process, on one device"),
    ],
)
def test_settings_that_cannot_be_used(options, words):
    with pytest.raises(InputError, match=words):
        Encoder("ts2vec", **options).fit(X)


def test_parameters_are_those_given():
    one = Encoder("ts2vec", preset="small", train__max_steps=3)
    assert one.get_params()["train__max_steps"] == 3
    one.set_params(train__max_steps=4, batch_size=7)
    assert (one.get_params()["train__max_steps"], one.batch_size) == (4, 7)
    with pytest.raises(ValueError, match="'train__max_step' is not an option of ts2vec; did you mean"):
        one.set_params(train__max_step=5)
    assert "train__max_step" not in one.get_params()
    assert one.set_params(system="graphcl", temperature=0.2).get_params()["temperature"] == 0.2
    assert "train__max_steps=4" in repr(one)
    assert "train__max_steps" in one._repr_html_()


def test_before_fit():
    with pytest.raises(NotFittedError):
        Encoder().transform(X)
    with pytest.raises(NotFittedError):
        Encoder().get_feature_names_out()


SCRIPT = """
from counterpoint.common.estimators import Encoder
from counterpoint.common.trainers import create_system
from counterpoint.timeseries.configs import TS2VecConfig
from counterpoint.timeseries.ts2vec import TS2Vec

class Mine(TS2Vec):
    @classmethod
    def read(cls, config, assets=None):
        raise AssertionError("data are read before the class is refused")

    learn = read
"""


@pytest.mark.parametrize("call", ["create_system(Mine, TS2VecConfig())", "Encoder(Mine).fit([[0.0, 1.0], [1.0, 0.0]])"])
def test_a_class_of_the_script_is_refused_before_anything_is_read(call, tmp_path):
    (tmp_path / "script.py").write_text(f"{SCRIPT}\n{call}\n")
    with pytest.raises(InputError, match="Mine is defined in the script that runs, .* put the class into a module"):
        runpy.run_path(str(tmp_path / "script.py"), run_name="__main__")


def test_texts_and_objects_are_a_list_and_everything_else_is_numbers():
    one = Encoder()
    assert rows_of(one, [None, "CCO"], reset=True) == [None, "CCO"]
    assert rows_of(one, [[1, None], [2, 3]], reset=True).tolist()[1] == [2.0, 3.0]
    assert one.n_features_in_ == 2
    rows_of(one, ["CCO"], reset=True)
    assert not hasattr(one, "n_features_in_")
    for bad in ([["a", "b"]], [{"a": 1}], [1, 2], [], np.zeros((2, 0)), np.zeros((0, 2))):
        with pytest.raises((ValueError, TypeError)):
            rows_of(one, bad, reset=True)


def test_validation_takes_whole_groups():
    groups = [f"g{i // 4}" for i in range(40)]
    split = split_at_random(groups, 0.2, seed=0)
    assert split.count("val") == 8
    assert all(len({s for s, g in zip(split, groups) if g == name}) == 1 for name in groups)
    assert split_at_random(groups, 0.0, seed=0) == ["train"] * 40
    for fraction in (1.0, -0.1, "half"):
        with pytest.raises(InputError, match="validation_fraction"):
            split_at_random(groups, fraction, seed=0)
