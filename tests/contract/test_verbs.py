"""Every other verb on the vertical of another package, through the command line."""

import json

import pandas as pd
import pytest
import torch

from counterpoint.common.trainers import from_pretrained, load_run


def test_the_umbrella_lists_it(done, cli):
    assert json.loads(done("systems", "--json"))[0]["name"] == "common-words"


def test_a_folder_of_tunes_becomes_a_manifest_that_is_checked_and_trained_on(done, cli, ballads, songs):
    source = ballads / "field"
    source.mkdir()
    table = pd.read_parquet(songs)
    for row in table.itertuples():
        name = row.id
        (source / f"{name}.tune").write_bytes((songs.parent / row.file).read_bytes())
        (source / f"{name}.json").write_text(json.dumps({"says1": row.says1, "says2": row.says2, "mood": row.mood}))
    (source / "broken.tune").write_text("60 sixty-two\n")
    (source / "alone.tune").write_text("60 62\n")
    found = json.loads(done("data", "import", "tunes", source, "--out", "imported", "--json"))
    assert found["rows"] == len(table)
    assert {rejected["source"].rpartition("/")[2] for rejected in found["rejected"]} == {"broken.tune", "alone.tune"}
    done("data", "split", "imported/manifest.parquet", "--seed", 1)
    assert "no group stands in two splits" in done("data", "check", "imported/manifest-split.parquet")
    (source / f"{table['id'].iloc[0]}.tune").write_text("60\n")
    code, _, err = cli("data", "check", "imported/manifest-split.parquet")
    assert code == 2
    assert "1 of 32 rows cannot be used" in err


def test_a_split_by_time_is_held_to(done, cli, ballads, songs, run):
    words = ("--kind", "time", "--by", "day", "--train", 0.5, "--val", 0.25, "--out", songs.with_name("timed.parquet"))
    done("data", "split", songs, *words)
    assert "the splits are apart by time" in done("data", "check", songs.with_name("timed.parquet"))
    figures = json.loads(done("evaluate", run, "--manifest", "songs/timed.parquet", "--bootstrap", 5, "--json"))
    assert figures["samples"] == {"test": 16}
    table = pd.read_parquet(songs.with_name("timed.parquet"))
    table.loc[0, "split"] = "test"
    table.to_parquet(songs.with_name("leaking.parquet"))
    facts = songs.with_name("timed.parquet.meta.json").read_text()
    songs.with_name("leaking.parquet.meta.json").write_text(facts)
    code, _, err = cli("pretrain", "common-words", "--data.manifest", "songs/leaking.parquet", "--train.out", "runs/no")
    assert code == 2
    assert "time" in err


def test_preview_and_demo(done, ballads):
    done("data", "preview", "songs/manifest.parquet")
    assert "SYNTHETIC" in (ballads / "preview.html").read_text().upper()
    figures = json.loads(done("demo", "--out", "demo", "--songs", 16, "--steps", 2, "--json"))
    assert figures["results"]
    assert (ballads / "demo/run/report.html").is_file()


def test_heads_learn_the_rows_labels_for_both_of_their_verses(done, ballads, run, songs):
    from ballads.system import CommonWords

    words = ("--labels", "mood", "--train.max_epochs", 2, "--train.out", "runs/head", "--train.tensorboard", "false")
    found = json.loads(done("finetune", run, *words, "--train.micro_batch_size", 3, "--json"))
    assert any(name.startswith("test/") for name in found["metrics"])
    head = load_run(ballads / "runs/head")
    assert isinstance(head.base, CommonWords)
    table = pd.read_parquet(songs)
    train = head.datasets().train
    moods = table["mood"][table["split"] == "train"].tolist()
    said = [head.config.classes[int(target)] for target in train.targets]
    assert said == [mood for mood in moods for _ in range(2)]
    assert [train.row_of(i) for i in range(4)] == [0, 0, 1, 1]
    report = json.loads((ballads / "runs/head/finetune.json").read_text())
    assert report["labels"] == ["mood"]
    done("evaluate", "runs/head", "--label", "mood", "--bootstrap", 5)


def test_two_runs_are_told_apart(done, ballads, run):
    words = ("--preset", "small", "--train.tensorboard", "false", "--train.max_steps", 2, "--train.out", "runs/two")
    done("pretrain", "common-words", *words)
    out = ballads / "against.json"
    figures = json.loads(done("evaluate", run, "--against", "runs/two", "--bootstrap", 20, "--json", "--out", out))
    ways = {d["protocol"].partition(" (")[0] for d in figures["against"]["differences"]}
    assert {"retrieval tune -> caption", "retrieval caption -> tune"} <= ways
    done("report", run, "runs/two", "--bootstrap", 20, "--examples", 1)
    assert "Retrieved by one" in (run / "comparison.html").read_text()
    done("report", run, "--bootstrap", 20, "--examples", 1, "--label", "mood")
    page = (run / "report.html").read_text()
    for part in ("Retrieved: tune → caption", "Retrieved: caption → tune", "image/svg+xml", "what belongs to it"):
        assert part in page, part


@pytest.mark.parametrize("name", ["encoder.onnx", "encoder.pt2"])
def test_formats_of_tensors_alone_are_refused_in_a_sentence(cli, run, ballads, name):
    code, _, err = cli("export", run, "--out", name, "--modality", "tune")
    assert code == 2
    assert "reads tune as a Ragged" in err
    assert not (ballads / name).exists()


def test_a_folder_of_weights_and_words_loads_back(done, run, ballads):
    done("export", run, "--out", "model")
    there, here = from_pretrained(ballads / "model"), load_run(run)
    assert there.assets == here.assets
    for name, value in here.state_dict().items():
        assert torch.equal(there.state_dict()[name], value)


def test_objectives_are_compared(done, ballads, songs):
    words = ("--preset", "small", "--train.tensorboard", "false", "--train.max_steps", 2, "--train.monitor_every", 0)
    objectives = ("--objectives", "published,DCL", "--seeds", 1, "--bootstrap", 5)
    found = json.loads(done("compare", "common-words", *words, *objectives, "--json"))
    assert [arm["objective"] for arm in found["objectives"]] == ["published", "DCL"]
    chosen = load_run(ballads / "runs/common-words-objectives/DCL/seed-0")
    assert not chosen.loss.objective.normalize, "the lengths that the metric counts are trained"


def test_the_claim_is_checked(done, ballads):
    found = json.loads(done("reproduce", "common-words", "--seeds", "0,1", "--json"))
    verdict = found["common-words-spread"]
    assert verdict["verdict"].startswith("undecided"), "two seeds decide nothing"
    assert all(value > 0 for values in verdict["figures"].values() for value in values)


def test_a_verb_of_the_fields_own_is_listed_and_run(done, cli, run):
    code, out, _ = cli("--help")
    assert code == 0
    assert "hum" in out
    assert json.loads(done("hum", run, "--caption", "high falling", "--json"))["tune"]


def test_curating_says_that_rows_are_no_samples(cli, run):
    code, _, err = cli("data", "curate", run, "--out", "kept.parquet", "--keep", 0.5)
    assert code == 2
    assert "no manifest with one row per sample" in err


def test_what_cannot_be_corrupted_says_so(cli, run):
    code, _, err = cli("evaluate", run, "--corrupt", "noise")
    assert code == 2
    assert "hold no tensors of numbers to corrupt" in err
