"""`--objective` and `compare`: another objective in place of a system's own, and several on the same data and seeds."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

FEW = ("--train.max_epochs", "2")


@pytest.fixture
def data(toy, cli):
    assert cli("toy", "data", "simulate", "--out", "toy")[0] == 0


def compared(cli, *words):
    return cli("toy", "compare", "toy-pair", *FEW, *words)


class TestObjective:
    def test_a_chosen_objective_trains_under_its_own_name_and_loads_again(self, data, cli):
        code, _, err = cli("toy", "pretrain", "toy-pair", *FEW, "--objective", "HCL(beta=0.5)", "--train.out", "run")
        assert code == 0, err
        assert "val/hcl" in Path("run/metrics.csv").read_text().splitlines()[0]
        assert yaml.safe_load(Path("run/config.yaml").read_text())["config"]["objective"] == "HCL(beta=0.5)"
        assert cli("toy", "evaluate", "run", "--label", "side")[0] == 0

    @pytest.mark.parametrize(
        ("objective", "said"),
        [
            ("HLC", "unknown objective 'HLC'; did you mean 'HCL'"),
            ("HCL(bta=1)", "unknown option of HCL 'bta'; did you mean 'beta'"),
            ("HCL(0.5)", "give a name with its options by name, as in 'HCL(beta=0.5)'"),
            ("HCL(beta=open('x'))", "give a name with its options by name"),
            ("ALBEFContrast", "objective ALBEFContrast needs momentum encoders"),
            ("SogCLR", "must be told n_samples (the number of training samples), as in 'SogCLR(n_samples=1000)'"),
            ("SupCon", "SupCon needs a label of every sample, which the batches of this system do not hold"),
            ("WMSE(group_size=4096)", "objective WMSE: "),
            ("NTXent(temperature=-1)", "objective NTXent(temperature=-1): "),
        ],
    )
    def test_what_this_system_cannot_serve_is_refused_in_words(self, data, cli, objective, said):
        code, _, err = cli("toy", "pretrain", "toy-pair", *FEW, "--objective", objective, "--train.out", "run")
        assert code == 2
        assert said in err.strip().splitlines()[-1]
        assert "Traceback" not in err


class TestCompare:
    def test_the_same_objective_in_other_words_differs_by_nothing(self, data, cli):
        """Initial weights, batches and views are the same, so a difference would be a fault of the comparison."""
        code, out, err = compared(
            cli, "--objectives", "published,InfoNCE(temperature=0.1)", "--seeds", "2", "--label", "side", "--out", "all"
        )
        assert code == 0, err
        found = json.loads(Path("all/comparison.json").read_text())
        one, same = found["objectives"]
        assert one["values"] == same["values"]
        assert one["figures"] == same["figures"]
        assert same["difference"]["value"] == 0
        assert same["verdict"] == "undecided"
        assert found["figure"].startswith("knn")
        assert all(megabytes > 0 for megabytes in one["megabytes_per_step"])
        assert "differences from published" in out
        # Another seed is another training.
        assert one["figures"][0] != one["figures"][1]

    def test_what_a_step_keeps_in_memory_is_every_tensor_of_its_backward_pass_once(self):
        from counterpoint.common.runs.comparing import _StepCost

        cost, x, w = _StepCost(), torch.randn(1000, 8), torch.randn(8, 4, requires_grad=True)
        cost.on_train_batch_start()
        y = (x @ w).exp()  # keeps x, w, and its own result
        (y + y.detach()[:5].repeat(200, 1)).sum().backward()
        cost.on_train_batch_end()
        assert cost.megabytes == pytest.approx(4 * (8000 + 4000) / 1e6, rel=0.01)  # x needs no gradient: w is not kept
        assert cost.seconds == [], "the step that is looked at is not timed"
        cost.on_train_batch_start()
        cost.on_train_batch_end()
        assert len(cost.seconds) == 1

    def test_what_is_there_is_taken_and_what_was_cut_goes_on(self, data, cli):
        words = ("--objectives", "published,DCL", "--seeds", "0,1", "--out", "all")
        assert compared(cli, *words)[0] == 0
        first = json.loads(Path("all/comparison.json").read_text())
        before = Path("all/DCL/seed-0/metrics.csv").stat().st_mtime_ns
        shutil.rmtree("all/DCL/seed-1")
        assert compared(cli, *words)[0] == 0
        again = json.loads(Path("all/comparison.json").read_text())
        assert Path("all/DCL/seed-0/metrics.csv").stat().st_mtime_ns == before
        assert [o["figures"] for o in again["objectives"]] == [o["figures"] for o in first["objectives"]]

    def test_runs_of_other_settings_are_refused(self, data, cli):
        words = ("--objectives", "published,DCL", "--seeds", "1", "--out", "all")
        assert compared(cli, *words)[0] == 0
        code, _, err = compared(cli, *words, "--dim", "8")
        assert code == 2
        assert "holds a run of other settings; choose another --out" in err

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("--objectives", "DCL"), "two or more different ones"),
            (("--objectives", "DCL,DCL"), "two or more different ones"),
            (("--objectives", "DCL,HLC"), "unknown objective 'HLC'"),
            (("--objectives", "DCL,HCL", "--seeds", "x"), "give how many, as in 5"),
            (("--objectives", "DCL,HCL", "--objective", "DCL"), "name the objectives to compare in --objectives"),
            (("--objectives", "DCL,HCL", "--resume", "x"), "--resume belongs to pretrain"),
        ],
    )
    def test_mistakes_end_before_anything_is_trained(self, data, cli, words, said):
        code, _, err = compared(cli, *words, "--out", "all")
        assert code == 2
        assert said in err.strip().splitlines()[-1]
        assert not Path("all").exists()

    def test_a_figure_that_is_not_there_is_named(self, data, cli):
        words = ("--objectives", "published,DCL", "--seeds", "1", "--out", "all", "--figure", "retrival: MRR")
        code, _, err = compared(cli, *words)
        assert code == 2
        assert "unknown figure" in err

    def test_systems_whose_objective_is_their_method_say_so(self, cli):
        code, _, err = cli("timeseries", "compare", "ts2vec", "--objectives", "DCL,HCL")
        assert code == 2
        assert "the objective of ts2vec is part of its method; systems that take another one: frame-projections" in err
