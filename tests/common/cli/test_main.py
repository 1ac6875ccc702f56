"""The command line's contract with its users: what appears, what it prints where, and its exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from counterpoint.common.cli.main import main


@pytest.fixture(autouse=True)
def registered(toy):
    """Every test here has the toy vertical."""


def refused(result) -> str:
    """The one sentence of a user's mistake: exit code 2, nothing on stdout, one line, no traceback."""
    code, out, err = result
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("counterpoint: ")
    return err


class TestLevels:
    def test_overview_names_the_plugged_in_vertical(self, cli):
        code, out, _ = cli("--help")
        assert code == 0
        assert "toy" in out
        assert "text files, for tests" in out
        assert "losses" in out

    def test_no_arguments_show_the_overview_but_fail(self, cli):
        code, out, err = cli()
        assert (code, out) == (2, "")
        assert "usage: counterpoint VERTICAL VERB" in err

    def test_only_offered_verbs_appear(self, cli):
        _, out, _ = cli("toy", "--help")
        assert "demo" in out
        _, out, _ = cli("toy", "data", "--help")
        assert "import" in out
        assert "simulate" in out
        assert "preview" not in out

    def test_script_named_after_a_vertical_starts_there(self, cli, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["/somewhere/bin/counterpoint-toy"])
        code, out, _ = cli("systems")
        assert code == 0
        assert "toy-one" in out

    @pytest.mark.parametrize(
        ("argv", "advice"),
        [
            (["toi", "demo"], "did you mean 'toy'"),
            (["toy", "pretrian"], "did you mean 'pretrain'"),
            (["toy", "xyzzy"], "there are: demo"),
            (["toy", "data", "imprt"], "did you mean 'import'"),
            (["toy", "data", "import", "foldr"], "did you mean 'folder'"),
            (["toy", "data", "preview"], "unknown action 'preview'"),
            (["toy", "pretrain", "toy-on"], "did you mean 'toy-one'"),
            (["toy", "demo", "--coutn", "3"], "unknown option '--coutn'; did you mean '--count'"),
            (["toy", "demo", "--coun", "3"], "did you mean '--count'"),
            (["toy", "demo", "--count", "three"], "--count: expected int, got three"),
            (["toy", "demo", "--count"], "argument --count: expected one argument"),
            (["toy", "demo", "stray"], "'stray' was not expected"),
            (["toy", "demo", "--count", "-1"], "count is -1; it must not be negative"),
            (["--versoin"], "unknown option '--versoin'"),
        ],
    )
    def test_a_mistake_is_one_sentence_with_a_remedy(self, cli, argv, advice):
        assert advice in refused(cli(*argv))


class TestOutcomes:
    def test_lines_for_people(self, cli):
        code, out, _ = cli("toy", "demo", "--count", "5")
        assert code == 0
        assert "counted to 5" in out

    def test_json_is_alone_on_stdout_and_has_no_nan(self, cli):
        code, out, err = cli("toy", "demo", "--json")
        assert code == 0
        assert json.loads(out) == {"count": 3, "nothing": None, "files": {"report": "runs/demo/report.html"}}
        assert "chatter" in err

    def test_systems_json(self, cli):
        _, out, _ = cli("toy", "systems", "--json")
        rows = json.loads(out)
        assert {row["name"]: row["status"] for row in rows} == {"toy-one": "experimental", "toy-pair": "experimental"}
        assert rows[0]["missing"] == "4: no check of a claim was run with power", "no record came with the package"
        assert rows[1]["missing"].startswith("1 to 3: not stated; 4:")
        assert {row["verdict"] for row in rows} == {"not checked"}
        assert all({"name", "status", "paper", "summary"} <= row.keys() for row in rows)
        assert all(row["module"].endswith("toy_system") for row in rows), rows

    def test_a_fault_of_ours_keeps_its_traceback(self, cli):
        with pytest.raises(RuntimeError, match="a fault of ours"):
            cli("toy", "demo", "--count", "99")

    def test_a_warning_is_one_line_and_notes_to_programmers_stay_away(self, cli, monkeypatch):
        import warnings

        from counterpoint.common.cli import main as module

        def dispatch(program, argv):
            warnings.warn("only 47 samples:\nthe batch shrinks", UserWarning, stacklevel=1)
            warnings.warn("`torch.jit.script` is deprecated", FutureWarning, stacklevel=1)
            return 0

        monkeypatch.setattr(module, "_dispatch", dispatch)
        assert cli("toy") == (0, "", "counterpoint: warning: only 47 samples: the batch shrinks\n")

    def test_python_dash_m_is_the_same_command(self):
        done = subprocess.run([sys.executable, "-m", "counterpoint", "nonsense"], capture_output=True, text=True)
        assert done.returncode == 2
        assert "unknown vertical 'nonsense'" in done.stderr

    def test_interrupt_is_130(self, cli):
        assert cli("toy", "demo", "--count", "98")[0] == 130

    def test_interrupt_that_a_library_turned_into_exit_is_130(self, cli, monkeypatch):
        import toy_vertical

        def interrupted() -> None:
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt:
                sys.exit(1)

        monkeypatch.setattr(toy_vertical, "demo", interrupted)
        assert cli("toy", "demo")[0] == 130

    def test_missing_library_names_the_extra(self, cli):
        message = refused(cli("toy", "demo", "--count", "97"))
        assert "'a_library_nobody_has' is not installed; pip install 'counterpoint[toys]'" in message

    def test_help_of_a_verb_comes_from_the_signature(self, cli, capsys):
        with pytest.raises(SystemExit) as stop:
            main(["toy", "demo", "--help"])
        assert stop.value.code == 0
        out = capsys.readouterr().out
        assert "how far." in out
        assert "--json" in out


class TestImport:
    def test_rejected_inputs_are_listed_and_the_rest_goes_on(self, cli, tmp_path):
        source = tmp_path / "texts"
        source.mkdir()
        (source / "a.txt").write_text("a")
        (source / "b.txt").write_text("")
        code, out, _ = cli("toy", "data", "import", "folder", source, "--out", tmp_path / "set")
        assert code == 0
        assert "1 rows" in out
        assert "b.txt: is empty" in out
        assert "text only" in out
        command = ("toy", "data", "import", "folder", source, "--strict")
        assert "b.txt is empty" in refused(cli(*command, "--out", tmp_path))
        assert "b.txt is empty" in refused(cli(*command, "true", "--out", tmp_path))
        assert cli(*command, "false", "--out", tmp_path)[0] == 0

    def test_nothing_usable_fails(self, cli, tmp_path):
        source = tmp_path / "texts"
        source.mkdir()
        code, _, err = cli("toy", "data", "import", "folder", source, "--out", tmp_path / "set")
        assert code == 2
        assert "not one input" in err

    def test_missing_folder_is_the_users(self, cli, tmp_path):
        message = refused(cli("toy", "data", "import", "folder", tmp_path / "nowhere", "--out", tmp_path / "set"))
        assert "nowhere: No such file or directory" in message

    def test_out_is_required(self, cli, tmp_path):
        assert "out" in refused(cli("toy", "data", "import", "folder", tmp_path))


class TestCheckAndSplit:
    @pytest.fixture
    def manifest(self, tmp_path):
        rows = ["id,group,file"]
        for i in range(40):
            (tmp_path / f"{i}.txt").write_text("text" if i else "")
            rows.append(f"s{i},g{i // 4},{i}.txt")
        path = tmp_path / "m.csv"
        path.write_text("\n".join(rows) + "\n")
        return path

    def test_check_lists_each_bad_row_with_its_reason(self, cli, manifest):
        (manifest.parent / "7.txt").unlink()
        code, out, err = cli("toy", "data", "check", manifest)
        assert code == 2
        assert "2 of 40 rows cannot be used" in err
        assert "row 1 (s0) 0.txt: 0.txt is empty" in out
        assert "7.txt" in out
        assert "No such file" in out
        code, out, _ = cli("toy", "data", "check", manifest, "--json")
        assert code == 2
        assert [bad["row"] for bad in json.loads(out)["bad"]] == [1, 8]

    def test_check_accepts_a_good_manifest(self, cli, manifest):
        (manifest.parent / "0.txt").write_text("text")
        code, out, _ = cli("toy", "data", "check", manifest)
        assert code == 0
        assert "40 of 40 rows can be used" in out

    def test_split_keeps_groups_whole_and_repeats(self, cli, manifest):
        import pandas

        code, out, _ = cli("toy", "data", "split", manifest, "--json")
        assert code == 0
        written = Path(json.loads(out)["files"]["manifest"])
        assert written == manifest.with_name("m-split.csv")
        table = pandas.read_csv(written)
        assert (table.groupby("group")["split"].nunique() == 1).all()
        assert set(table["split"]) == {"train", "val", "test"}
        cli("toy", "data", "split", manifest, "--out", manifest.with_name("again.csv"))
        assert pandas.read_csv(manifest.with_name("again.csv"))["split"].tolist() == table["split"].tolist()

    def test_leakage_is_refused(self, cli, manifest):
        (manifest.parent / "0.txt").write_text("text")
        manifest.write_text("id,group,split,file\na,g,train,1.txt\nb,g,test,2.txt\n")
        message = refused(cli("toy", "data", "check", manifest))
        assert "g" in message
        assert "train" in message
        assert "test" in message

    @pytest.mark.parametrize(("name", "text"), [("none.csv", None), ("m.txt", "id\n"), ("noid.csv", "a\n1\n")])
    def test_unusable_manifests(self, cli, tmp_path, name, text):
        if text is not None:
            (tmp_path / name).write_text(text)
        assert name in refused(cli("toy", "data", "check", tmp_path / name))


class TestPretrainConfiguration:
    def config(self, cli, *argv):
        code, out, err = cli("toy", "pretrain", "toy-one", *argv, "--print_config")
        assert code == 0, err
        return yaml.safe_load(out)

    def test_defaults_are_the_papers_scale(self, cli):
        config = self.config(cli)
        assert config == {
            "train": {"max_epochs": 100, "precision": "32", "seed": 0},
            "width": 512,
            "scales": [1.0, 2.0],
            "note": None,
        }
        assert self.config(cli, "--preset", "full") == config

    def test_printed_config_feeds_back(self, cli, tmp_path):
        first = self.config(cli, "--preset", "small", "--train.seed", "7", "--scales", "[3, 4]", "--note", "a: b")
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(first))
        assert self.config(cli, "--config", tmp_path / "c.yaml") == first

    def test_order_is_preset_then_file_then_override(self, cli, tmp_path):
        (tmp_path / "c.yaml").write_text("train:\n  max_epochs: 5\n  seed: 5\n")
        config = self.config(cli, "--preset", "small", "--config", tmp_path / "c.yaml", "--train.max_epochs", "3")
        assert config["width"] == 8
        assert config["train"] == {"max_epochs": 3, "precision": "32", "seed": 5}

    @pytest.mark.parametrize(
        ("argv", "advice"),
        [
            (["--train.max_epoch", "3"], "did you mean '--train.max_epochs'"),
            (["--max_epochs", "3"], "did you mean '--train.max_epochs'"),
            (["--train.precision", "fp16"], "--train.precision: expected Literal['32', 'bf16'], got fp16"),
            (["--preset", "smal"], "unknown preset 'smal'; did you mean 'small'"),
            (["--config", "nowhere.yaml"], "nowhere.yaml"),
            (["--width", "0"], "width is 0; it must be at least 1"),
            (["--train.max_epochs", "0"], "train.max_epochs is 0; it must be at least 1"),
            (["--resume", "nowhere"], "nowhere is not a run folder"),
            (["--resume", "nowhere", "--width", "3"], "give no other settings"),
        ],
    )
    def test_mistakes(self, cli, argv, advice):
        assert advice in refused(cli("toy", "pretrain", "toy-one", *argv))

    @pytest.mark.parametrize(
        ("text", "advice"),
        [
            ("train:\n  max_epoch: 3\n", "c.yaml: train.max_epoch is not an option; did you mean train.max_epochs?"),
            ("widht: 3\n", "did you mean width?"),
            ("width: wide\n", "c.yaml: width: expected int, got 'wide'"),
            ("train: [\n", "c.yaml: not valid YAML"),
            ("- 1\n", "c.yaml: holds list; a configuration is a mapping of names to values"),
        ],
    )
    def test_mistakes_in_the_file(self, cli, tmp_path, text, advice):
        (tmp_path / "c.yaml").write_text(text)
        assert advice.lower() in refused(cli("toy", "pretrain", "toy-one", "--config", tmp_path / "c.yaml")).lower()

    def test_resume_without_a_system(self, cli):
        assert "nowhere is not a run folder" in refused(cli("toy", "pretrain", "--resume", "nowhere"))
