"""The command line over recordings, from files to answers."""

import json
import sys
from pathlib import Path

import pytest

from counterpoint.common.cli.main import main

sys.path.insert(0, str(Path(__file__).parent))
from sound_files import speech, tone, write

TINY = ["--data.sample_rate", "8000", "--data.seconds", "0.3", "--train.batch_size", "6", "--train.max_steps", "3"]
CLAP = ["--mel.fft_size", "128", "--mel.hop", "80", "--mel.bands", "20", "--mel.fmax", "4000", "--dim", "8",
        "--audio.channels", "4,8", "--audio.dim", "16", "--text.width", "16", "--text.layers", "1",
        "--text.heads", "2", "--data.caption", "the digit {digit}"]  # fmt: skip


def run(capsys, *arguments: str) -> dict:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("sounds")
    out = folder / "out"
    source = str(speech(folder / "in"))
    options = ["--out", str(out), "--pattern", "{digit}_{speaker}_{take}", "--workers", "1"]
    assert main(["audio", "data", "import", "sounds", source, *options]) == 0
    return str(out / "manifest.parquet")


def test_clap_from_recordings_to_answers(manifest, tmp_path, capsys):
    trained = str(tmp_path / "clap")
    checked = run(capsys, "audio", "data", "check", manifest)
    assert checked["bad"] == []
    run(capsys, "audio", "pretrain", "clap", "--data.manifest", manifest, *TINY, *CLAP, "--train.out", trained)
    found = run(capsys, "audio", "evaluate", trained, "--label", "digit", "--bootstrap", "5")
    names = json.dumps(found)
    assert "caption -> sound" in names
    assert "knn" in names
    hits = run(capsys, "audio", "search", trained, "--text", "the digit 2", "--top", "2")["neighbours"]
    assert len(hits) == 2
    assert hits[0]["id"].split("_")[0] in "012"
    question = write(tmp_path / "mine.flac", tone(1.0, rate=22050), 22050)
    answers = run(capsys, "audio", "search", trained, "--file", str(question), "--to", "caption", "--top", "3")
    assert {hit["id"] for hit in answers["neighbours"]} == {"the digit 0", "the digit 1", "the digit 2"}


def test_cpc_trains_goes_on_and_embeds(manifest, tmp_path, capsys):
    trained = str(tmp_path / "cpc")
    size = ["--width", "8", "--context", "8", "--steps", "3", "--optim.schedule.kind", "infinite"]
    run(capsys, "audio", "pretrain", "cpc", "--data.manifest", manifest, *TINY, *size, "--train.out", trained)
    more = str(tmp_path / "more")
    run(capsys, "audio", "pretrain", "cpc", "--continue_from", trained, "--data.manifest", manifest, *TINY, *size,
        "--train.out", more)  # fmt: skip
    assert run(capsys, "audio", "embed", trained)["files"]


def test_words_that_nobody_said(manifest, tmp_path, capsys):
    trained = str(tmp_path / "clap")
    run(capsys, "audio", "pretrain", "clap", "--data.manifest", manifest, *TINY, *CLAP, "--train.out", trained)
    assert main(["audio", "search", trained, "--text", "xylophone"]) == 2
    assert "no training caption has a word of it" in capsys.readouterr().err


def test_scores_are_told_from_recordings(manifest, capsys, tmp_path):
    assert main(["audio", "pretrain", "audio-sheet", "--preset", "small", "--data.manifest", manifest,
                 "--train.out", str(tmp_path / "x")]) == 2  # fmt: skip
    assert "score" in capsys.readouterr().err
