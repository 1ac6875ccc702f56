"""Every public metric measures arrays, lists, columns of pandas and Arrow and files exactly as it measures tensors."""

import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from counterpoint.common import metrics as m
from counterpoint.common.metrics.inputs import as_array, as_list, as_matrix, as_numbers, as_table, vector_columns

N = 40
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 3)) + np.eye(3)[np.arange(N) % 2]
Y = X + 0.3 * RNG.normal(size=(N, 3))
LABELS = ["a", "b"] * (N // 2)
CODES = np.array([0, 1] * (N // 2))
GROUPS = [f"g{i // 4}" for i in range(N)]
TARGET = (X @ [1.0, 2.0, 3.0]).tolist()
PROBABILITIES = np.stack([np.linspace(0.1, 0.9, N), np.linspace(0.9, 0.1, N)], axis=1)
CODED = m.encode_labels(LABELS)[0]
MANY = m.encode_labels(np.stack([CODES, 1 - CODES], axis=1))[0]


def table(z):
    return pa.table({f"e{i}": column for i, column in enumerate(np.asarray(z, dtype=float).T)})


def parquet(tmp_path, z):
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.parquet"
    pq.write_table(table(z), path)
    return path


def npy(tmp_path, z):
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.npy"
    np.save(path, z)
    return str(path)


MATRICES = {
    "array": lambda tmp, z: np.asarray(z),
    "lists": lambda tmp, z: np.asarray(z).tolist(),
    "column of vectors": lambda tmp, z: pd.Series(list(z)),
    "frame": lambda tmp, z: pd.DataFrame(z),
    "nullable frame": lambda tmp, z: pd.DataFrame(z).astype("Float64"),
    "Arrow lists": lambda tmp, z: pa.chunked_array([pa.array(list(z[:2])), pa.array(list(z[2:]))]),
    "Arrow fixed lists": lambda tmp, z: pa.FixedSizeListArray.from_arrays(pa.array(z.reshape(-1)), z.shape[1]),
    "Arrow table": lambda tmp, z: table(z),
    "Parquet": parquet,
    "npy": npy,
}
COLUMNS = {
    "array": np.array,
    "tuple": tuple,
    "Series": pd.Series,
    "categorical": lambda v: pd.Series(v).astype("category"),
    "nullable": lambda v: pd.Series(v).convert_dtypes(),
    "Index": pd.Index,
    "frame of one column": lambda v: pd.DataFrame({"x": v}),
    "Arrow": pa.array,
    "Arrow chunks": lambda v: pa.chunked_array([pa.array(v[:5]), pa.array(v[5:])]),
    "Arrow dictionary": lambda v: pa.array(v).dictionary_encode(),
    "Arrow table": lambda v: pa.table({"x": v}),
}
QUICK = {"n_boot": 4}
ONE_OF = {"x": lambda z: z[:20], "y": lambda z: z[20:]}

# name -> call with M (a matrix in some form), C (a column in some form).
CALLS = {
    "alignment": lambda M, C: m.alignment(M(X), M(Y)),
    "alpha_req": lambda M, C: m.alpha_req(M(X)),
    "auroc": lambda M, C: m.auroc(C(TARGET), C((CODES == 1).tolist())),
    "bootstrap_columns": lambda M, C: m.bootstrap_columns({"a": C(TARGET)}, C(GROUPS), n=9),
    "bootstrap_interval": lambda M, C: m.bootstrap_interval(C(TARGET), C(GROUPS), n=9),
    "bootstrap_weights": lambda M, C: m.bootstrap_weights(lambda w: {"n": float(w.sum())}, N, C(GROUPS), n=9),
    "calibration": lambda M, C: m.calibration(M(PROBABILITIES), C(CODES.tolist())),
    "cca": lambda M, C: m.cca(M(X), M(Y)),
    "cka": lambda M, C: m.cka(M(X), M(Y)),
    "class_names": lambda M, C: m.class_names(C(LABELS)),
    "cluster": lambda M, C: m.cluster(M(X), C(LABELS)),
    "compare_evaluations": lambda M, C: m.compare_evaluations(RUN, RUN, C(GROUPS), n_boot=9),
    "covariance_rank": lambda M, C: m.covariance_rank(M(X)),
    "defines_groups": lambda M, C: m.defines_groups(C(GROUPS), C(GROUPS)),
    "encode_labels": lambda M, C: [s.codes for s in m.encode_labels(C(LABELS), C(LABELS[:6]))],
    "entropy_rank": lambda M, C: m.entropy_rank(C(np.abs(TARGET).tolist())),
    "error_rate": lambda M, C: m.error_rate(C(LABELS), C(LABELS[::-1]), C(GROUPS), n_boot=9),
    "evaluate_features": lambda M, C: m.evaluate_features(
        m.Split({"a": M(X), "b": M(Y)}, C(LABELS), C(GROUPS)), protocols=["knn", "retrieval", "labelfree"], **QUICK
    ).results,
    "few_shot": lambda M, C: m.few_shot(M(X), C(LABELS), n_query=3, episodes=5, groups=C(GROUPS)),
    "fit_temperature": lambda M, C: m.fit_temperature(M(PROBABILITIES), C(CODES.tolist())),
    "hungarian_accuracy": lambda M, C: m.hungarian_accuracy(C(CODES.tolist()), C((1 - CODES).tolist())),
    "knn": lambda M, C: m.knn(M(X), C(LABELS), M(Y), C(LABELS), groups=C(GROUPS), **QUICK),
    "label_efficiency": lambda M, C: m.label_efficiency(
        M(X), C(LABELS), M(Y), C(LABELS), train_groups=C(GROUPS), seeds=(0, 1), fractions=(0.5, 1.0), method="knn"
    ),
    "label_free": lambda M, C: m.label_free(M(X), M(Y), labels=C(CODES.tolist()), max_rows=30),
    "layer_grid": lambda M, C: m.layer_grid({"u": M(X)}, {"v": M(Y)}),
    "lidar": lambda M, C: m.lidar(np.stack([X, Y], axis=1).tolist()),
    "logistic_probe": lambda M, C: m.logistic_probe(
        M(X), C(LABELS), M(Y), C(LABELS), groups=C(GROUPS), train_groups=C(GROUPS), c_grid=(0.1, 1.0), folds=2, **QUICK
    ),
    "mean_cosine": lambda M, C: m.mean_cosine(M(X)),
    "modality_gap": lambda M, C: m.modality_gap(M(X), M(Y)),
    "mutual_knn": lambda M, C: m.mutual_knn(M(X), M(Y), k=3),
    "nesum": lambda M, C: m.nesum(M(X)),
    "paired_difference": lambda M, C: m.paired_difference(C(TARGET), C(TARGET[::-1]), C(GROUPS), n=9),
    "prompt_ensemble": lambda M, C: m.prompt_ensemble(M(X)),
    "rank_queries": lambda M, C: m.rank_queries(
        M(X), M(Y), relevant=(C(LABELS), C(LABELS)), groups=C(GROUPS), **QUICK
    ),
    "rankme": lambda M, C: m.rankme(M(X)),
    "rankme_from_gram": lambda M, C: m.rankme_from_gram(M(X.T @ X)),
    "retrieval": lambda M, C: m.retrieval(
        M(X), M(Y), relevant=C(list(range(N))), groups=C(GROUPS), groups_b=C(GROUPS), **QUICK
    ),
    "ridge_probe": lambda M, C: m.ridge_probe(
        M(X), C(TARGET), M(Y), C(TARGET), groups=C(GROUPS), train_groups=C(GROUPS), folds=2, **QUICK
    ),
    "score_classes": lambda M, C: m.score_classes(M(PROBABILITIES), CODED, groups=C(GROUPS), **QUICK),
    "score_multilabel": lambda M, C: m.score_multilabel(M(PROBABILITIES), MANY, groups=C(GROUPS), **QUICK),
    "score_regression": lambda M, C: m.score_regression(
        C(TARGET), C(TARGET[::-1]), train_mean=0.0, groups=C(GROUPS), **QUICK
    ),
    "shuffled_control": lambda M, C: m.shuffled_control(
        lambda y: float(y[0] == "a"), C(LABELS), chance=0.5, groups=C(GROUPS), repeats=3
    ),
    "simpleshot": lambda M, C: m.simpleshot(M(X), C(LABELS), M(Y), C(LABELS), groups=C(GROUPS), **QUICK),
    "singular_values": lambda M, C: m.singular_values(M(X)),
    "stable_rank": lambda M, C: m.stable_rank(M(X)),
    "std_of_normalized": lambda M, C: m.std_of_normalized(M(X)),
    "group_shares": lambda M, C: m.group_shares(lambda w: float(w.sum()), len(GROUPS), C(GROUPS)),
    "seeds_and_groups": lambda M, C: m.seeds_and_groups(M(X.T), C(GROUPS), n=9),
    "t_interval": lambda M, C: m.t_interval(C(TARGET)),
    "task_of": lambda M, C: (m.task_of(C(LABELS)), m.task_of(C(TARGET))),
    "tolerance": lambda M, C: m.tolerance(M(X), C(LABELS)),
    "uniformity": lambda M, C: m.uniformity(M(X)),
    "utilization": lambda M, C: m.utilization(M(X), M(Y)),
    "zero_shot": lambda M, C: m.zero_shot(
        M(X), C(LABELS), {"a": M(X[::2]), "b": M(X[1::2])}, groups=C(GROUPS), **QUICK
    ),
}
# Functions that take no data of samples: functions, names, scores of quadruples or results instead.
WITHOUT = {
    "corruption_sweep", "edit_counts", "json_ready", "lower_is_better", "missing_modality", "probe_shares", "protocol",
    "winoground",
}  # fmt: skip
RUN = m.evaluate_features(m.Split(torch.as_tensor(X), LABELS, GROUPS), protocols="knn", n_boot=4)


def same(found, wanted, where=""):
    """Nested figures, equal up to the rounding of other memory layouts."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys(), where
        for key in wanted:
            same(found[key], wanted[key], f"{where}/{key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), where
        for i, (a, b) in enumerate(zip(found, wanted)):
            same(a, b, f"{where}[{i}]")
    elif isinstance(wanted, float):
        assert math.isclose(found, wanted, rel_tol=1e-5, abs_tol=1e-6), (where, found, wanted)
    else:
        assert found == wanted, where


def figures(call, matrix, column):
    return m.json_ready(call(matrix, column))


def test_every_public_function_is_called_here():
    functions = {n for n in m.__all__ if callable(getattr(m, n)) and not isinstance(getattr(m, n), type)}
    assert functions - WITHOUT == set(CALLS)


@pytest.mark.parametrize("name", list(CALLS))
def test_what_holds_the_numbers_makes_no_difference(name, tmp_path):
    wanted = figures(CALLS[name], torch.as_tensor, list)
    for form, make in MATRICES.items():
        same(figures(CALLS[name], lambda z, make=make: make(tmp_path, z), list), wanted, f"{name}, {form}: ")
    for form, make in COLUMNS.items():
        same(figures(CALLS[name], torch.as_tensor, make), wanted, f"{name}, {form}: ")


class TestMissing:
    def test_a_missing_label_is_missing_in_every_form(self):
        values = ["a", None, "b"]
        forms = [values, pd.Series(values), pd.Series(values, dtype="string"), pd.Series(values, dtype="category")]
        for form in [*forms, pa.array(values), pa.array(values).dictionary_encode(), np.array(values, dtype=object)]:
            assert m.encode_labels(form)[0].codes.tolist() == [0, -1, 1]

    def test_whole_numbers_with_a_hole_stay_the_same_classes(self):
        for form in (pd.Series([1, None, 2], dtype="Int64"), pd.Series([1, None, 2]), pa.array([1, None, 2])):
            coded = m.encode_labels(form)[0]
            assert coded.classes == ("1", "2")
            assert coded.codes.tolist() == [0, -1, 1]

    def test_numbers_with_a_hole_are_a_regression_in_every_form(self):
        values = [v / 7 for v in range(60)] + [None]
        for form in (values, pd.Series(values), pd.Series(values, dtype="Float64"), pa.array(values)):
            assert m.task_of(form) == "regression"
            assert np.isnan(as_numbers(form)).tolist() == [False] * 60 + [True]

    def test_a_missing_group_is_refused_in_every_form(self):
        for form in (["g", None], pd.Series(["g", None], dtype="string"), pa.array(["g", None]), pd.array(["g", None])):
            with pytest.raises(ValueError, match="row 1 has no group"):
                m.bootstrap_interval([1.0, 2.0], form)

    def test_several_columns_of_labels_are_multi_label(self):
        many = pd.DataFrame({"x": [1, 0, None], "y": [0, 1, 1]}).astype("Int64")
        for form in (many, pa.table(many), as_table(many), [[1.0, 0.0], [0.0, 1.0], [math.nan, 1.0]]):
            assert m.task_of(form) == "multilabel"
            assert np.array_equal(m.encode_labels(form)[0].matrix, as_table(many), equal_nan=True)


class TestRefusals:
    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda tmp: [[1.0, 2.0], [1.0]], "row 1 holds 1 numbers, row 0 holds 2"),
            (lambda tmp: pd.Series([[1.0, 2.0], [1.0]]), "row 1 holds 1 numbers"),
            (lambda tmp: pa.array([[1.0, 2.0], [1.0]]), "row 1 holds 1 numbers"),
            (lambda tmp: pa.array([[1.0, 2.0], None]), "row 1 holds no vector"),
            (lambda tmp: [["a", "b"]], "row 0 holds other things than numbers"),
            (lambda tmp: np.array([[1 + 1j]]), "real numbers, got complex128"),
            (lambda tmp: np.array([["a", "b"]]), "real numbers, got <U1"),
            (lambda tmp: pd.DataFrame({"e0": [1.0], "name": ["x"]}), "no column of vectors; its columns are e0, name"),
            (lambda tmp: pd.DataFrame({"id": [1], "a": [1.0]}), "no column of vectors"),
            (lambda tmp: pa.table({"u": [[1.0]], "v": [[1.0]]}), r"several vectors \(u, v\)"),
            (lambda tmp: tmp / "none.npy", "none.npy: no such file"),
            (lambda tmp: tmp / "z.pkl", "are read from .parquet and .npy files"),
            (lambda tmp: pickled(tmp), "objects.npy: cannot be read"),
        ],
    )
    def test_the_reason_is_said(self, make, words, tmp_path):
        with pytest.raises(ValueError, match=words):
            as_matrix(make(tmp_path))

    def test_one_value_a_row(self):
        with pytest.raises(ValueError, match="one column is needed, the table has a, b"):
            as_list(pa.table({"a": [1], "b": [2]}))
        with pytest.raises(ValueError, match="not a number a row"):
            as_numbers(["x"])


def pickled(folder):
    """A file that would run code if it were unpickled."""
    path = folder / "objects.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return path


def test_numbered_columns_are_vectors_in_the_order_of_their_numbers():
    names = [f"e{i}" for i in (10, 2, 0, 1, 3, 4, 5, 6, 7, 8, 9)]
    frame = pd.DataFrame({n: [float(n[1:])] for n in names} | {"id": ["a"], "year1": [1999]})
    assert as_matrix(frame).tolist() == [[float(i) for i in range(11)]]
    assert vector_columns(pa.table(frame).schema) == {"e": [f"e{i}" for i in range(11)]}
    holed = pa.schema({"e0": pa.float32(), "e2": pa.float32()})
    assert vector_columns(holed) == {}  # e1 is missing: no vector of these is whole


def test_a_form_is_kept_where_it_serves():
    z = torch.zeros(2, 3)
    assert as_matrix(z) is z
    assert as_array(LABELS).tolist() == LABELS
