"""Recordings that cannot be read: refused, or left out, told and listed."""

import json

import numpy as np
import pytest

from counterpoint.common.cli.main import main
from counterpoint.common.data import Manifest
from counterpoint.common.errors import InputError
from counterpoint.timeseries.configs import SignalConfig
from counterpoint.timeseries.manifest import WindowDataset, load_windows

TINY = ("--data.length", "50", "--encoder.dim", "4", "--encoder.hidden", "4", "--encoder.depth", "1",
        "--train.batch_size", "4", "--train.max_steps", "2", "--train.tensorboard", "false")  # fmt: skip


@pytest.fixture
def manifest(tmp_path):
    """Twelve recordings of two leads; the first one is cut off, and another one of each split is none."""
    rng, rows = np.random.default_rng(0), []
    for i in range(12):
        np.savez(tmp_path / f"r{i}.npz", x=rng.normal(size=(100, 2)), fs=50.0, leads=["I", "II"])
        split = ("train", "train", "train", "val", "test", "test")[i % 6]
        rows.append({"id": f"r{i}", "group": f"p{i}", "split": split, "file": f"r{i}.npz"})
    broken = (tmp_path / "r0.npz").read_bytes()
    (tmp_path / "r0.npz").write_bytes(broken[: len(broken) // 2])
    (tmp_path / "r4.npz").write_bytes(b"no array")
    Manifest.from_rows(rows, tmp_path).save(tmp_path / "manifest.csv")
    return tmp_path / "manifest.csv"


@pytest.fixture
def cli(capsys):
    def run(*argv):
        code = main([str(word) for word in argv])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_one_sentence_names_the_recording_unless_it_may_be_left_out(manifest):
    config = SignalConfig(manifest=str(manifest), length=50)
    with pytest.raises(InputError, match=r"r0\.npz"):
        load_windows(config)
    with pytest.raises(InputError, match=r"row 1 \(id r0\).*2 of 12 rows fail.*--train.max_bad"):
        load_windows(config, on_error="skip", max_bad=0.1)
    windows = load_windows(config, on_error="skip", max_bad=0.2)
    assert windows.frame["record"].drop_duplicates().tolist() == [f"r{i}" for i in range(12) if i not in (0, 4)]
    assert {split: [b.id for b in bad] for split, bad in windows.left_out.items()} == {"train": ["r0"], "test": ["r4"]}


def test_rows_after_one_left_out_keep_their_numbers(manifest):
    windows = load_windows(SignalConfig(manifest=str(manifest), length=100), on_error="skip", max_bad=0.2)
    data = WindowDataset(windows.where(split="test"))
    assert [(name.partition(":")[0], data.row_of(i)) for i, name in enumerate(data.ids)] == [
        ("r5", 5), ("r10", 10), ("r11", 11),
    ]  # fmt: skip


def test_what_a_bad_first_recording_says_binds_no_other(manifest):
    """It has a lead that the others lack, and a rate that the filter refuses: both are forgotten with it."""
    np.savez(manifest.parent / "r0.npz", x=np.random.default_rng(1).normal(size=(100, 1)), fs=10.0, leads=["V9"])
    config = SignalConfig(manifest=str(manifest), length=50, high=20.0)
    windows = load_windows(config, on_error="skip", max_bad=0.2)
    assert windows.leads == ("I", "II")
    assert windows.fs == 50.0
    assert "band-pass limit" in windows.left_out["train"][0].reason


def test_a_run_lists_them_and_embed_and_evaluate_name_them(cli, manifest, tmp_path):
    run, names = tmp_path / "run", ("--data.manifest", manifest, "--train.out", tmp_path / "run")
    code, _, err = cli("timeseries", "pretrain", "ts2vec", *names, *TINY)
    assert code == 2
    assert "r0.npz" in err
    skip = ("--train.on_error", "skip", "--train.max_bad", "0.2")
    code, _, err = cli("timeseries", "pretrain", "ts2vec", *names, *TINY, *skip)
    assert code == 0, err
    assert "left out: " in err
    assert "row 1 (id r0)" in err
    listed = [json.loads(line) for line in (run / "bad_samples.jsonl").read_text().splitlines()]
    assert [(bad["index"], bad["id"]) for bad in listed] == [(0, "r0"), (4, "r4")]
    assert all(bad["reason"] for bad in listed)
    code, out, _ = cli("timeseries", "embed", run, "--shard", "2", "--json")
    assert code == 0
    assert [name for name, _ in json.loads(out)["left_out"]] == ["r4"]
    code, out, _ = cli("timeseries", "evaluate", run, "--bootstrap", "10", "--baseline", "none", "--json")
    assert code == 0
    assert [bad["id"] for bad in json.loads(out)["left_out"]] == ["r4"]
