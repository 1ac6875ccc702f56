"""`evaluate`, `search` and `report` of vectors that another encoder made: every file form, every odd file in words."""

import json

import numpy as np
import pandas as pd
import pytest

N = 60
RNG = np.random.default_rng(0)
CODES = np.arange(N) % 3
Z = (RNG.normal(size=(N, 4)) + 3 * np.eye(4)[CODES]).astype("float32")
FACTS = pd.DataFrame(
    {
        "id": [f"s{i}" for i in range(N)],
        "group": [f"p{i // 4}" for i in range(N)],
        "split": ["train"] * 40 + ["test"] * 20,
        "label": [f"c{c}" for c in CODES],
    }
)


def write(folder, name="a.parquet", z=Z, **changes):
    FACTS.assign(embedding=list(z), **changes).to_parquet(folder / name)
    return folder / name


@pytest.fixture
def measured(toy, cli):
    def run(*argv):
        code, out, err = cli("toy", "evaluate", *argv, "--bootstrap", 5, "--json")
        assert code == 0, err
        return json.loads(out)

    return run


def test_every_form_of_the_same_vectors_has_the_same_figures(measured, tmp_path):
    wanted = measured("--embeddings", write(tmp_path))["results"]["logreg of embedding"]["scores"]["metrics"]
    wide = pd.concat([FACTS, pd.DataFrame(Z, columns=[f"e{i}" for i in range(4)])], axis=1)
    wide.to_parquet(tmp_path / "wide.parquet")
    np.save(tmp_path / "m.npy", Z)
    FACTS.to_csv(tmp_path / "facts.csv", index=False)
    FACTS.sample(frac=1, random_state=1).rename(columns={"label": "what"})[["id", "what"]].to_csv(
        tmp_path / "shuffled.csv", index=False
    )
    np.savez(tmp_path / "z.npz", x=Z, **{n: FACTS[n].to_numpy(dtype=str) for n in FACTS})
    forms = [
        ("--embeddings", tmp_path / "wide.parquet"),
        ("--embeddings", f"x={tmp_path / 'm.npy'}", "--ids", tmp_path / "facts.csv"),
        ("--embeddings", tmp_path / "z.npz"),
        ("--embeddings", write(tmp_path, "b.parquet", label="?"), "--labels", f"{tmp_path / 'shuffled.csv'}:what"),
    ]
    for form in forms:
        results = measured(*form)["results"]
        (name,) = [name for name in results if name.startswith("logreg")]
        assert results[name]["scores"]["metrics"] == pytest.approx(wanted), form
        assert results[name]["scores"]["intervals"]["accuracy"]["groups"] == 5


def test_two_modalities_are_matched_by_id_and_retrieved(measured, tmp_path):
    order = RNG.permutation(N)
    FACTS.iloc[order].assign(other=list(Z[order])).to_parquet(tmp_path / "b.parquet")
    found = measured("--embeddings", write(tmp_path), tmp_path / "b.parquet")["results"]
    assert found["retrieval embedding -> other (pool 20)"]["metrics"]["R@1"] == 1.0


def test_what_is_missing_and_what_flatters_is_said(measured, tmp_path):
    np.save(tmp_path / "m.npy", Z)
    found = measured("--embeddings", tmp_path / "m.npy")
    assert any("no groups are given" in said for said in found["notes"])
    assert any("no splits are given" in said for said in found["notes"])
    twins = Z.copy()
    twins[50] = twins[3]
    (warning,) = measured("--embeddings", write(tmp_path, z=twins))["warnings"]
    assert "1 of 20 vectors of embedding, split test, stand in another split too (first: 's50' and 's3')" in warning
    twins = Z.copy()
    twins[[44, 51]] = twins[50]
    (warning,) = measured("--embeddings", write(tmp_path, z=twins))["warnings"]
    assert "2 of 20 vectors of embedding, split test, are exact copies of others of them (first: 's50' of" in warning
    flat = measured("--embeddings", write(tmp_path, z=np.ones_like(Z)))
    assert not any("exact copies" in said for said in flat["warnings"])
    assert "COLLAPSED" in json.dumps(flat["results"])


def test_search_and_report(toy, cli, tmp_path):
    path = write(tmp_path)
    code, out, _ = cli("toy", "search", "--embeddings", path, "--id", "s3", "--top", 4, "--json")
    hits = json.loads(out)["neighbours"]
    cosine = (Z @ Z[3]) / np.linalg.norm(Z, axis=1) / np.linalg.norm(Z[3])
    cosine[3] = -2
    assert [h["id"] for h in hits] == [f"s{i}" for i in np.argsort(-cosine)[:4]]
    assert hits[0]["label"] == FACTS["label"][int(hits[0]["id"][1:])]
    code, out, err = cli("toy", "report", "--embeddings", path, "--bootstrap", 5)
    assert code == 0, err
    assert "Embedding map" in (tmp_path / "a-report.html").read_text()


ODD = {
    "nan": (lambda z: np.where(np.arange(z.size).reshape(z.shape) == 13, np.nan, z), "1 of 60 rows (first: row 3)"),
    "huge": (lambda z: np.where(np.arange(z.size).reshape(z.shape) == 13, 1e30, z), "such as 1e+30 in row 3"),
    "flat": (lambda z: z[:, 0], "must be a non-empty matrix [samples, dim], got shape (60,)"),
    "cube": (lambda z: z[None], "got shape (1, 60, 4)"),
    "empty": (lambda z: z[:0], "non-empty matrix"),
    "text": (lambda z: z.astype(str), "must hold real numbers"),
    "objects": (lambda z: np.array([{"a": 1}], dtype=object), "it holds Python objects; save numeric arrays only"),
}


@pytest.mark.parametrize("name", list(ODD))
def test_odd_arrays(toy, cli, tmp_path, name):
    make, words = ODD[name]
    np.save(tmp_path / f"{name}.npy", make(Z), allow_pickle=True)
    code, _, err = cli("toy", "evaluate", "--embeddings", tmp_path / f"{name}.npy")
    assert code == 2
    assert words in err


@pytest.mark.parametrize(
    ("make", "more", "words"),
    [
        (lambda p: write(p, id=["s0"] * N), (), "id 's0' stands in 60 rows"),
        (lambda p: write(p, group=["p"] * N), (), "group 'p' stands in train and test (sample 's40'); split by group"),
        (lambda p: write(p, group=[None, *FACTS["group"][1:]]), (), "sample 's0' has no group (1 have none)"),
        (lambda p: write(p, split="fold1"), (), "sample 's0' is of the split 'fold1'"),
        (lambda p: write(p), ("--labels", "colour"), "--labels: unknown column or file 'colour'"),
        (lambda p: write(p), ("--split", "val"), "unknown split 'val'"),
        (lambda p: write(p), ("--protocols", "kn"), "unknown protocol 'kn'"),
        (lambda p: write(p, z=[[1.0, 2.0]] * 59 + [[1.0]]), (), "row 59 holds 1 numbers, row 0 holds 2"),
        (lambda p: p / "none.npy", (), "none.npy: no such file"),
        (lambda p: p, (), "holds no .parquet file"),
    ],
)
def test_odd_tables(toy, cli, tmp_path, make, more, words):
    folder = tmp_path / "in"
    folder.mkdir()
    code, _, err = cli("toy", "evaluate", "--embeddings", make(folder), *more)
    assert code == 2
    assert words in err
    assert len(err.strip().splitlines()) == 1


def test_modalities_of_different_lengths(toy, cli, tmp_path):
    np.save(tmp_path / "a.npy", Z)
    np.save(tmp_path / "b.npy", Z[:50])
    code, _, err = cli("toy", "evaluate", "--embeddings", tmp_path / "a.npy", tmp_path / "b.npy")
    assert code == 2
    assert "the modalities differ in length (a 60, b 50)" in err


@pytest.mark.parametrize("verb", ["evaluate", "search", "report"])
def test_the_help_of_both_ways(toy, cli, verb, capsys):
    for words, told in ((("--embeddings", "--help"), "--ids"), (("--help",), "--embeddings")):
        with pytest.raises(SystemExit) as stop:
            cli("toy", verb, *words)
        assert stop.value.code == 0
        assert told in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["evaluate", "search", "report"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("runs/nowhere", "--embeddings", "a.parquet"), "runs/nowhere: --embeddings takes vectors in place of a RUN"),
        (("--embeddings", "a.parquet", "--seed", "1", "one"), "one: --embeddings takes vectors in place of a RUN"),
        (("one", "--embeddings", "a.parquet"), "one: --embeddings takes vectors in place of a RUN"),
        (("a.parquet",), "a.parquet: a file of vectors, not a run; give it as --embeddings a.parquet"),
        (("--embeddings", "b.parquet", "--id", "s3"), "b.parquet: no such file; did you mean a.parquet?"),
        (("nowhere", "--id", "s3"), "nowhere: not a run folder"),
    ],
)
def test_a_mistyped_run_or_file_is_one_sentence(toy, cli, tmp_path, verb, words, said):
    write(tmp_path)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "config.yaml").write_text("system: none\n")
    words = [w for w in words if w not in ("--id", "s3")] if verb != "search" else words
    code, _, err = cli("toy", verb, *words)
    assert code == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1


def test_what_a_protocol_lacks_is_said_in_options(toy, cli, tmp_path):
    FACTS[["id"]].assign(vector=list(Z)).to_parquet(tmp_path / "bare.parquet")
    _, out, _ = cli("toy", "evaluate", "--embeddings", "bare.parquet", "--bootstrap", 5)
    assert "not run: knn: needs labels; --labels COLUMN, FILE or FILE:COLUMN that holds them" in out
    assert "not run: retrieval: needs two modalities; --embeddings takes a file for each" in out
    code, _, err = cli("toy", "evaluate", "--embeddings", "bare.parquet", "--protocols", "probe")
    assert code == 2
    assert "protocol 'probe' needs labels, which the data given lack; --labels COLUMN" in err
