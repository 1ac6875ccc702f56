"""From simulated data to a trained run and everything one can ask of it, on the command line alone."""

import json
from dataclasses import replace

import pytest

from counterpoint.common.data.search import Hit
from counterpoint.common.errors import InputError
from counterpoint.common.runs.encode import NoSplit, open_split
from counterpoint.common.runs.neighbours import Neighbours, by_votes, elect


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which the toy system was trained once; tests copy nothing and change nothing in it."""
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def run(toy, cli, trained, monkeypatch):
    monkeypatch.chdir(trained)
    if not (trained / "runs").exists():
        assert cli("toy", "data", "simulate", "--out", "toy")[0] == 0
        settings = ("--train.max_epochs", "8", "--optim.lr", "0.05", "--train.out", "runs/one")
        code, out, err = cli("toy", "pretrain", "toy-pair", *settings, "--json")
        assert code == 0, err
        assert json.loads(out)["run_dir"] == "runs/one"
    return trained / "runs" / "one"


def test_evaluation_has_pool_chance_and_intervals_by_group(run, cli):
    code, out, _ = cli("toy", "evaluate", run, "--json")
    assert code == 0
    figures = json.loads(out)
    assert figures["samples"] == {"test": 30}
    assert figures["groups"] == {"test": 10}
    way = figures["results"]["retrieval left -> right (pool 30)"]
    assert way["chance"]["R@1"] == pytest.approx(1 / 30)
    assert way["metrics"]["R@10"] > 0.8
    assert way["intervals"]["R@10"]["groups"] == 10
    assert way["intervals"]["R@10"]["low"] <= way["metrics"]["R@10"] <= way["intervals"]["R@10"]["high"]
    assert figures["results"]["labelfree of left"]["n"] == 30
    assert figures["results"]["nearest is own"] == {"rows": 30, "modalities": ["left", "right"]}
    assert "labels" in figures["skipped"]["knn"]
    assert json.loads((run / "evaluation-test.json").read_text())["results"] == figures["results"]
    _, out, _ = cli("toy", "evaluate", run)
    assert "retrieval left -> right" in out
    assert "chance" in out
    assert "not run: knn: needs labels" in out


def test_labels_bring_probes_that_learn_from_the_training_split(run, cli):
    code, out, err = cli("toy", "evaluate", run, "--label", "side", "--protocols", "[probe,knn]", "--json")
    assert code == 0, err
    figures = json.loads(out)
    assert figures["samples"] == {"test": 30, "train": 60, "val": 30}
    assert figures["results"]["logreg of left"]["scores"]["intervals"]["balanced_accuracy"]["value"] > 0.7


class TestZeroShot:
    """Classes described by right views of training samples; left views of test samples are classified."""

    @pytest.fixture
    def prompts(self, run, tmp_path):
        from toy_system import views

        described: dict[str, list[str]] = {"positive": [], "negative": []}
        for seed in range(1000, 1040):  # seeds that no split holds
            view = views(seed, 0.1)
            described[view["side"]].append(" ".join(f"{x:.9g}" for x in view["right"].tolist()))
        as_file = tmp_path / "one.json"
        as_file.write_text(json.dumps([float(x) for x in described["positive"][0].split()]))
        described["positive"][0] = as_file.name
        file = tmp_path / "prompts.json"
        file.write_text(json.dumps(described))
        return file

    def test_descriptions_in_the_other_modality_classify_without_training(self, run, cli, prompts):
        options = ("--label", "side", "--prompts", prompts, "--described_in", "right", "--json")
        code, out, err = cli("toy", "evaluate", run, "--protocols", "zeroshot", *options)
        assert code == 0, err
        found = json.loads(out)["results"]
        assert set(found) == {"zeroshot of left", "zeroshot of right"}
        assert found["zeroshot of left"]["metrics"]["accuracy"] > 0.75
        assert found["zeroshot of left"]["intervals"]["accuracy"]["groups"] == 10

    def test_swapped_descriptions_turn_the_figures_over(self, run, cli, prompts):
        described = json.loads(prompts.read_text())
        prompts.write_text(json.dumps({"positive": described["negative"], "negative": described["positive"]}))
        options = ("--label", "side", "--prompts", prompts, "--described_in", "right", "--json")
        found = json.loads(cli("toy", "evaluate", run, "--protocols", "zeroshot", *options)[1])["results"]
        assert found["zeroshot of left"]["metrics"]["accuracy"] < 0.25

    def test_it_comes_with_the_other_protocols_where_classes_are_described(self, run, cli, prompts):
        plain = json.loads(cli("toy", "evaluate", run, "--label", "side", "--json")[1])
        assert "descriptions" in plain["skipped"]["zeroshot"]
        both = json.loads(cli("toy", "evaluate", run, "--label", "side", "--prompts", prompts, "--json")[1])
        assert {"zeroshot of left", "logreg of left"} <= set(both["results"])

    @pytest.mark.parametrize(
        ("text", "advice"),
        [
            ('{"positive": "1 2"}', "class 'positive'"),
            ('{"positive": []}', "needs one or more descriptions"),
            ("[1, 2]", "must map each class to its descriptions"),
            ("{", "not a JSON or YAML file"),
            (None, "no such file"),
            ("{positive: 'p'}", "class 'positive'"),
        ],
    )
    def test_mistakes(self, run, cli, tmp_path, text, advice):
        file = tmp_path / "bad.yaml"
        if text is not None:
            file.write_text(text)
        code, _, err = cli("toy", "evaluate", run, "--label", "side", "--prompts", file)
        assert code == 2
        assert advice in err

    def test_an_undescribed_class_and_a_missing_label_field(self, run, cli, tmp_path):
        file = tmp_path / "half.json"
        file.write_text(json.dumps({"positive": " ".join(["1"] * 12)}))
        options = ("--prompts", file, "--protocols", "zeroshot")
        code, _, err = cli("toy", "evaluate", run, "--label", "side", *options)
        assert code == 2
        assert "no description of class 'negative'" in err
        code, _, err = cli("toy", "evaluate", run, *options)
        assert code == 2
        assert "--label says" in err


def test_evaluation_repeats_exactly(run, cli):
    first, second = (cli("toy", "evaluate", run, "--json")[1] for _ in range(2))
    assert first == second


def test_evaluation_on_another_manifest(run, cli):
    assert cli("toy", "data", "simulate", "--out", "other", "--rows", "60", "--seed", "5000")[0] == 0
    code, out, _ = cli("toy", "evaluate", run, "--manifest", "other/manifest.csv", "--json")
    assert code == 0
    assert json.loads(out)["samples"] == {"test": 15}


@pytest.mark.parametrize(
    ("argv", "advice"),
    [
        (("--split", "tset"), "did you mean 'test'"),
        (("--checkpoint", "bset"), "--checkpoint: expected"),
        (("--manifest", "nowhere.csv"), "nowhere.csv"),
        (("--label", "sied"), "did you mean 'side'"),
        (("--protocols", "[retreival]"), "did you mean 'retrieval'"),
        (("--protocols", "[knn]"), "needs labels"),
    ],
)
def test_mistakes(run, cli, argv, advice):
    code, _, err = cli("toy", "evaluate", run, *argv)
    assert code == 2
    assert advice in err


def test_a_split_that_no_data_have_is_told_before_run_or_data_are_opened(tmp_path):
    """The folder is no run at all, and still the name of the split is what is wrong first."""
    with pytest.raises(InputError, match="unknown split 'tset'; did you mean 'test'") as raised:
        open_split(tmp_path, "best", "tset")
    assert not isinstance(raised.value, NoSplit)


def test_a_split_that_the_data_lack_is_told_with_those_there_are(run, cli, monkeypatch):
    import toy_system

    from counterpoint.common.trainers import Datasets

    whole = toy_system.Pair.datasets
    monkeypatch.setattr(toy_system.Pair, "datasets", lambda self: Datasets(whole(self).train, whole(self).val, None))
    with pytest.raises(NoSplit, match="unknown split 'test'; there are: train, val"):
        open_split(run, "best", "test")


def test_a_folder_that_is_no_run(toy, cli, tmp_path):
    code, _, err = cli("toy", "evaluate", tmp_path)
    assert code == 2
    assert "not a run folder" in err


def test_report_is_one_file_with_the_fields_pictures(run, cli):
    code, out, _ = cli("toy", "report", run, "--examples", "2")
    assert code == 0
    page = (run / "report.html").read_text()
    assert str(run / "report.html") in out
    for part in (
        "Retrieved: left → right",
        "Embedding map",
        "Collapse monitors",
        "data:image/png;base64",
        "max_epochs: 8",
    ):
        assert part in page, part
    assert "http" not in page.split("<body", 1)[1].replace("http://www.w3.org", "")


def test_with_labels_the_report_begins_with_the_labelled_figures(run, cli, tmp_path):
    import re

    def cards(*options):
        code, _, err = cli("toy", "report", run, "--out", tmp_path / "r.html", "--bootstrap", "20", *options)
        assert code == 0, err
        page = (tmp_path / "r.html").read_text()
        return re.findall('class="name">([^<]+)</div><div class="value">([^<]+)<.*?chance ([^<,]+)[,<]', page)

    plain = cards()
    assert [name.split(",")[0] for name, *_ in plain] == ["R@10", "median rank"] * 2
    labelled = cards("--label", "side")
    assert labelled[-4:] == plain
    new = labelled[:-4]
    assert 1 <= len(new) <= 8
    assert len({name.split(", ", 1)[1] for name, *_ in new}) == len(new), "one card for each protocol"
    assert all(name.startswith("side: ") for name, *_ in new), "the label asked for is named"
    figures = json.loads(cli("toy", "evaluate", run, "--label", "side", "--out", tmp_path / "e.json", "--json")[1])
    scores = figures["results"]["logreg of left"]["scores"]
    value, chance = {name: figures for name, *figures in new}["side: AUROC, linear probe of left"]  # of two classes
    assert float(value) == pytest.approx(scores["metrics"]["auroc"], rel=0.01)
    assert float(chance) == scores["chance"]["auroc"] == 0.5


def test_what_is_made_from_synthetic_data_says_so(run, cli, tmp_path):
    said = "vectors drawn at random"
    options = {
        "evaluate": ("--protocols", "labelfree", "--out", tmp_path / "e.json"),
        "embed": ("--out", tmp_path / "vectors"),
        "search": ("--id", "s12", "--html", tmp_path / "found.html"),
        "report": ("--out", tmp_path / "report.html"),
        "export": ("--out", tmp_path / "model"),
    }
    for verb, more in options.items():
        code, out, err = cli("toy", verb, run, *more)
        assert code == 0, err
        assert verb in ("report", "export") or f"SYNTHETIC data: {said}" in out, verb
    for page in ("found.html", "report.html"):
        assert f"Synthetic data: {said}" in (tmp_path / page).read_text()
    assert f"**Synthetic**: {said}" in (tmp_path / "model" / "README.md").read_text()
    assert json.loads((tmp_path / "e.json").read_text())["synthetic"] == said
    assert said in (run / "environment.json").read_text()


def test_without_a_second_modality_the_gallery_shows_neighbours_among_the_others(run):
    """Framed right where the label agrees, and nothing is its own neighbour."""
    from dataclasses import replace

    from toy_vertical import vertical

    from counterpoint.common.report import Report
    from counterpoint.common.runs.opened import OpenRun
    from counterpoint.common.runs.page import add_gallery

    encoded = OpenRun.load(run, label="side").encoded()
    alone = replace(encoded, vectors={"left": encoded.vectors["left"]})
    seen = []

    class Watched(Report):
        def gallery(self, title, rows):
            seen.extend(rows)
            return super().gallery(title, rows)

    add_gallery(Watched("neighbours"), vertical, alone, 3, 0)
    side = dict(zip(alone.ids, alone.labels))
    assert len(seen) == 3
    for row in seen:
        assert row.query.label not in [hit.label for hit in row.results]
        assert [hit.correct for hit in row.results] == [side[hit.label] == side[row.query.label] for hit in row.results]
        assert any(hit.correct for hit in row.results)
    seen.clear()
    add_gallery(Watched("neighbours"), vertical, replace(alone, labels=None), 3, 0)
    assert {hit.correct for row in seen for hit in row.results} == {None}


def test_a_partner_that_is_not_among_the_best_ends_the_row_with_its_rank(run):
    """Its rank is the one the metric counts, for every query; a partner among the best is not shown twice."""
    from dataclasses import replace

    import torch
    from toy_vertical import vertical

    from counterpoint.common.metrics import rank_queries
    from counterpoint.common.report import Report
    from counterpoint.common.runs.opened import OpenRun
    from counterpoint.common.runs.page import add_gallery

    encoded = OpenRun.load(run).encoded()
    noise = torch.randn(30, 16, generator=torch.Generator().manual_seed(3))
    tied = torch.ones(30, 16) / 4
    for right in (encoded.vectors["right"] + 0.4 * noise, tied):
        vectors = {"left": encoded.vectors["left"], "right": torch.nn.functional.normalize(right, dim=1)}
        rows, lengths = [], []

        class Watched(Report):
            def gallery(self, title, found, rows=rows):
                rows.append(found)
                return super().gallery(title, found)

        page = Watched("found")
        add_gallery(page, vertical, replace(encoded, vectors=vectors), 30, 0)
        ranks = rank_queries(vectors["left"], vectors["right"]).ranks
        place = dict(zip(encoded.ids, ranks.tolist()))
        for row in rows[0]:
            (own,) = [hit for hit in row.results if hit.label == row.query.label]
            assert [hit.correct for hit in row.results] == [hit is own for hit in row.results]
            lengths.append(len(row.results))
            if lengths[-1] == 6:
                assert own is row.results[-1]
                assert own.rank == int(place[own.label] + 0.5)
            if right is not tied:
                assert (lengths[-1] == 6) == (place[own.label] > 5)
                assert f"<b>{own.rank}.</b> {own.label}" in page.html()
        assert set(lengths) == {5, 6}


@pytest.fixture
def another(run, cli, trained):
    """A second run of the same system on the same data, trained much less."""
    if not (trained / "runs" / "two").exists():
        settings = ("--train.max_epochs", "1", "--optim.lr", "0.0001", "--train.out", "runs/two")
        code, _, err = cli("toy", "pretrain", "toy-pair", *settings, "--json")
        assert code == 0, err
    return trained / "runs" / "two"


class TestTwoRuns:
    def test_evaluation_against_another_run_is_paired(self, run, another, cli, tmp_path):
        out = ("--out", tmp_path / "e.json")
        code, text, err = cli("toy", "evaluate", run, "--against", another, "--json", *out)
        assert code == 0, err
        found = {(d["protocol"], d["metric"]): d for d in json.loads(text)["against"]["differences"]}
        way = found["retrieval left -> right (pool 30)", "MRR"]
        assert way["verdict"] == "better"
        assert way["difference"]["groups"] == 10
        assert way["difference"]["value"] == pytest.approx(way["second"] - way["first"])
        assert found["retrieval left -> right (pool 30)", "mean_rank"]["difference"]["value"] < 0
        itself = json.loads(cli("toy", "evaluate", run, "--against", run, "--json", *out)[1])["against"]["differences"]
        assert {d["verdict"] for d in itself} == {"inconclusive"}
        assert "second is" in cli("toy", "evaluate", run, "--against", another, *out)[1]

    def test_other_samples_are_not_paired_even_when_they_are_as_many(self, run):
        from dataclasses import replace

        from counterpoint.common.runs.measure import Examined, not_paired
        from counterpoint.common.runs.opened import OpenRun

        encoded = OpenRun.load(run).encoded()
        one = Examined(encoded, {}, None)
        assert not_paired(one, Examined(replace(encoded), {}, None)) == ""
        other = Examined(replace(encoded, ids=[*encoded.ids[1:], "new"]), {}, None)
        assert (
            not_paired(one, other) == "it was evaluated on other samples (30, of which 29 are among the first run's 30)"
        )
        queries = Examined(replace(encoded, pools={"text": encoded}), {}, None)
        others = Examined(replace(encoded, pools={"text": other.encoded}), {}, None)
        assert not_paired(queries, queries) == ""
        assert "other samples of text (30, of which 29" in not_paired(queries, others)
        assert "samples of their own" in not_paired(one, queries)

    def test_one_page_compares_them(self, run, another, cli, tmp_path):
        out = tmp_path / "both.html"
        code, text, err = cli("toy", "report", run, another, "--out", out, "--examples", "1", "--bootstrap", "100")
        assert code == 0, err
        assert str(out) in text
        page = out.read_text()
        for part in (
            "one and two compared",
            "Settings that differ",
            ">optim.lr<",
            "two against one: retrieval left → right",
            "worse</span>",
        ):
            assert part in page, part
        for part in (
            "Retrieved by one",
            "left → right: 1 queries",
            "two: config.yaml",
            "one: all modalities",
            "two is",
        ):
            assert part in page, part
        assert f"counterpoint toy report {run} {another} --split test" in page

    def test_without_a_name_it_goes_beside_the_first_and_leaves_its_own_report_alone(self, run, another, cli):
        assert cli("toy", "report", another, run, "--examples", "0", "--bootstrap", "10")[0] == 0
        assert (another / "comparison.html").is_file()

    @pytest.mark.parametrize(
        ("argv", "advice"),
        [
            (("report", "{run}", "{run}"), "a run is given twice"),
            (("report", "{run}", "nowhere"), "nowhere"),
            (("evaluate", "{run}", "--against", "nowhere"), "nowhere"),
        ],
    )
    def test_mistakes(self, run, cli, argv, advice):
        code, _, err = cli("toy", *(word.format(run=run) for word in argv))
        assert code == 2
        assert advice in err


class TestRobustness:
    def figures(self, cli, *argv):
        code, out, err = cli("toy", "evaluate", *argv, "--json")
        assert code == 0, err
        return json.loads(out)["results"]

    def test_noise_that_drowns_the_input_leaves_chance_and_none_changes_nothing(self, run, cli, tmp_path):
        out = ("--out", tmp_path / "e.json", "--bootstrap", "10")
        sweep = ("--corrupt", "noise,quantize", "--severities", "0", "100")
        found = self.figures(cli, run, *sweep, *out)["corrupted left, R@10"]
        assert found["chance"] == pytest.approx(1 / 3)
        for scores in found["scores"].values():
            assert scores[0] == found["clean"] > 0.8
            assert scores[1] == pytest.approx(1 / 3, abs=0.2)
        # Quantized to one step every input is the same, and a constant encoder is exactly at chance one way.
        assert found["scores"]["quantize"][1] == pytest.approx(1 / 3, abs=0.05)
        again = self.figures(cli, run, *sweep, *out, "--batch_size", "7")["corrupted left, R@10"]
        assert again == found

    def test_labels_make_the_figure_an_accuracy(self, run, cli, tmp_path):
        out = ("--out", tmp_path / "e.json", "--bootstrap", "10")
        found = self.figures(cli, run, "--label", "side", "--corrupt", "noise", "--severities", "100", *out)
        sweep = found["corrupted right, kNN balanced accuracy"]
        assert sweep["chance"] == 0.5
        assert sweep["clean"] > 0.7
        assert sweep["scores"]["noise"][0] == pytest.approx(0.5, abs=0.2)

    def test_a_missing_modality_calibration_and_the_shuffled_control(self, run, cli, tmp_path):
        options = ("--label", "side", "--protocols", "missing,probe,control", "--out", tmp_path / "e.json")
        found = self.figures(cli, run, *options, "--bootstrap", "10")
        assert set(found["missing of left, right"]["scores"]) == {"left+right", "left", "right"}
        assert found["control of left"]["leak"] is False
        assert 0 <= found["logreg of left"]["calibration"]["ece"] < 0.5
        _, text, _ = cli("toy", "evaluate", run, *options)
        for line in ("calibration of logreg of left: ECE", "shuffled labels score at chance", "with left+right"):
            assert line in text, line

    @pytest.mark.parametrize(
        ("argv", "advice"),
        [
            (("--corrupt", "noize"), "did you mean 'noise'"),
            (("--corrupt", "noise", "--severities", "-1"), "at least 0"),
            (("--corrupt", "cut", "--severities", "2"), "at most 1"),
        ],
    )
    def test_mistakes(self, run, cli, argv, advice):
        code, _, err = cli("toy", "evaluate", run, *argv)
        assert code == 2
        assert advice in err


def test_resume_needs_only_the_folder(run, cli):
    """A finished run resumed does nothing more and says the same."""
    code, out, err = cli("toy", "pretrain", "--resume", run, "--json")
    assert code == 0, err
    assert json.loads(out)["run_dir"] == str(run)


def test_a_run_is_not_overwritten_by_accident(run, cli):
    code, _, err = cli("toy", "pretrain", "toy-pair", "--train.out", "runs/one")
    assert code == 2
    assert "--resume" in err


def test_resume_of_another_system_is_refused(run, cli):
    code, _, err = cli("toy", "pretrain", "toy-one", "--resume", run)
    assert code == 2
    assert "holds a run of Pair, not of toy-one" in err


def test_embeddings_are_parquet_and_repeating_writes_nothing(run, cli, tmp_path):
    import pandas

    folder = tmp_path / "vectors"
    command = ("toy", "embed", run, "--out", folder, "--shard", "8", "--columns", "[side]", "--json")
    code, out, err = cli(*command)
    assert code == 0, err
    assert json.loads(out)["modalities"] == {"left": 16, "right": 16}
    parts = sorted(folder.glob("part-*.parquet"))
    assert [len(pandas.read_parquet(part)) for part in parts] == [8, 8, 8, 6]
    times = [part.stat().st_mtime_ns for part in parts]
    assert set(pandas.read_parquet(parts[0])["side"]) == {"positive", "negative"}
    assert cli(*command)[0] == 0
    assert [part.stat().st_mtime_ns for part in parts] == times
    assert "other data" in cli("toy", "embed", run, "--out", folder, "--split", "val")[2]


class TestSearch:
    def test_across_modalities_a_sample_finds_its_partner(self, run, cli):
        code, out, err = cli("toy", "search", run, "--id", "s12", "--source", "left", "--to", "right", "--json")
        assert code == 0, err
        answer = json.loads(out)
        assert answer["pool"] == 30
        assert len(answer["neighbours"]) == 10
        assert "s12" in [hit["id"] for hit in answer["neighbours"][:3]]
        cosines = [hit["cosine"] for hit in answer["neighbours"]]
        assert cosines == sorted(cosines, reverse=True)

    def test_within_a_modality_it_does_not_find_itself(self, run, cli):
        within = ("--source", "left", "--to", "left", "--top", "29", "--json")
        _, out, _ = cli("toy", "search", run, "--id", "s12", *within)
        found = [hit["id"] for hit in json.loads(out)["neighbours"]]
        assert len(set(found)) == 29
        assert "s12" not in found

    def test_by_a_file_of_ones_own(self, run, cli, tmp_path):
        """The file holds the left view of a test sample: its right view comes up as for the sample itself."""
        from toy_system import views

        (tmp_path / "mine.json").write_text(json.dumps(views(12, 0.1)["left"].tolist()))
        query = ("--source", "left", "--to", "right", "--json")
        by_id = json.loads(cli("toy", "search", run, "--id", "s12", *query)[1])
        code, out, err = cli("toy", "search", run, "--file", tmp_path / "mine.json", *query)
        assert code == 0, err
        by_file = json.loads(out)
        assert by_file["query"] == "mine.json"
        assert [h["id"] for h in by_file["neighbours"]] == [h["id"] for h in by_id["neighbours"]]

    def test_by_text(self, run, cli):
        from toy_system import views

        query = ("--source", "left", "--to", "right", "--json")
        by_id = json.loads(cli("toy", "search", run, "--id", "s12", *query)[1])
        text = " ".join(f"{x:.9g}" for x in views(12, 0.1)["left"].tolist())
        code, out, err = cli("toy", "search", run, f"--text={text}", *query)
        assert code == 0, err
        by_text = json.loads(out)
        assert by_text["query"] == text
        assert [h["id"] for h in by_text["neighbours"]] == [h["id"] for h in by_id["neighbours"]]

    def test_pictures(self, run, cli, tmp_path):
        code, out, _ = cli("toy", "search", run, "--id", "s12", "--top", "3", "--html", tmp_path / "found.html")
        assert code == 0
        assert "rank  cosine" in out
        page = (tmp_path / "found.html").read_text()
        assert page.count("data:image/png;base64") == 4
        # In the caption and in the words that stand for the picture.
        assert page.count("cosine 0.") + page.count("cosine 1.") == 2 * 3
        assert "<h1>Nearest to s12</h1>" in page

    @pytest.mark.parametrize(
        ("argv", "advice"),
        [
            ((), "give one of --id, --file and --text"),
            (("--id", "s12", "--file", "x"), "give one of --id, --file and --text"),
            (("--id", "s12", "--text", "x"), "give one of --id, --file and --text"),
            (("--id", "s1x2"), "s12"),
            (("--id", "s12", "--source", "lefft"), "did you mean 'left'"),
            (("--file", "nowhere.json"), "nowhere.json: no such file"),
            (("--id", "s12", "--top", "0"), "top is 0"),
            (("--id", "s12", "--threshold", "high"), "--threshold high: give a number, auto, or auto:SHARE"),
        ],
    )
    def test_mistakes(self, run, cli, argv, advice):
        code, _, err = cli("toy", "search", run, *argv)
        assert code == 2
        assert advice in err

    def test_answers_below_a_threshold_are_left_out(self, run, cli):
        query = ("toy", "search", run, "--id", "s12", "--source", "left", "--to", "right", "--json")
        everything = json.loads(cli(*query)[1])["neighbours"]
        value = (everything[2]["cosine"] + everything[3]["cosine"]) / 2
        code, out, err = cli(*query, "--threshold", str(value))
        assert code == 0, err
        assert [h["id"] for h in json.loads(out)["neighbours"]] == [h["id"] for h in everything[:3]]

    def test_nothing_similar(self, run, cli, tmp_path):
        query = ("toy", "search", run, "--id", "s12", "--source", "left", "--to", "right", "--threshold", "1.01")
        code, out, err = cli(*query, "--html", tmp_path / "found.html")
        assert code == 0, err
        assert "nothing similar" in out
        found = json.loads(cli(*query, "--json")[1])
        assert (found["neighbours"], found["nothing similar"]) == ([], True)

    def test_a_threshold_learnt_on_validation(self, run, cli):
        query = ("toy", "search", run, "--id", "s12", "--source", "left", "--to", "right", "--threshold", "auto")
        code, out, err = cli(*query)
        assert code == 0, err
        assert "which 5 % of" in out
        assert "unrelated validation pairs reach" in out
        found = json.loads(cli(*query, "--json")[1])
        assert min(hit["cosine"] for hit in found["neighbours"]) >= found["threshold"]["value"]
        assert (run / "thresholds.json").is_file()

    def test_a_store_of_other_data_does_not_answer(self, run, cli, tmp_path):
        import pandas

        table = pandas.read_csv("toy/manifest.csv")
        table.assign(id=table["id"].str.replace("s", "t")).to_csv("renamed.csv", index=False)
        options = ("--split", "test")
        code, _, err = cli("toy", "search", run, "--id", "s12", *options)
        assert code == 0, err
        code, _, err = cli("toy", "search", run, "--id", "t12", *options, "--manifest", "renamed.csv")
        assert code == 2
        assert "was made of other data than the test split searched in; give the --manifest" in err


class TestCurate:
    def test_drops_the_worst_pairs_and_says_which(self, run, cli, tmp_path):
        import pandas

        out = tmp_path / "kept.csv"
        code, text, err = cli("toy", "data", "curate", run, "--out", out, "--split", "test", "--keep", "0.8", "--json")
        assert code == 0, err
        assert json.loads(text)["kept"] == 24
        kept, gone = pandas.read_csv(out), pandas.read_csv(tmp_path / "kept.dropped.csv")
        assert len(gone) == 6
        assert not set(kept["id"]) & set(gone["id"])
        assert gone["reason"].str.startswith("low score").all()

    def test_one_of_each_pair_of_duplicates_stays_and_examples_are_followed(self, run, cli, tmp_path):
        """The same vectors under two names: ids s0.. and t0.. with equal seeds."""
        import pandas

        table = pandas.read_csv("toy/manifest.csv")
        twins = table.assign(id=table["id"].str.replace("s", "t"))
        pandas.concat([table, twins]).to_csv("twins.csv", index=False)
        options = ("--manifest", "twins.csv", "--split", "test", "--duplicates", "0.9999")
        command = ("toy", "data", "curate", run, "--out", tmp_path / "kept.csv", *options)
        assert json.loads(cli(*command, "--json")[1])["kept"] == 30
        code, _, err = cli(*command, "--like", "[s12]", "--top", "1", "--json")
        assert code == 0, err
        assert pandas.read_csv(tmp_path / "kept.csv")["id"].str[1:].tolist() == ["12"]

    @pytest.mark.parametrize(
        ("argv", "advice"),
        [
            ((), "nothing to do"),
            (("--keep", "2"), "keep must lie in"),
            (("--like", "[s12]"), "go together"),
            (("--like", "[x12]", "--top", "2"), "unknown id 'x12'"),
            (("--duplicates", "0.9", "--modality", "lfet"), "did you mean 'left'"),
        ],
    )
    def test_mistakes(self, run, cli, tmp_path, argv, advice):
        command = ("toy", "data", "curate", run, "--out", tmp_path / "kept.csv", "--split", "test")
        code, _, err = cli(*command, *argv)
        assert code == 2
        assert advice in err
        assert not (tmp_path / "kept.csv").exists()


class TestExport:
    def test_onnx_gives_the_sources_numbers(self, run, cli, tmp_path):
        code, out, err = cli("toy", "export", run, "--out", tmp_path / "m.onnx", "--modality", "left", "--json")
        assert code == 0, err
        figures = json.loads(out)
        assert figures["outputs"] == ["left_embedding"]
        assert figures["inputs"] == ["left"]
        assert figures["largest_difference"] <= 1e-4
        assert (tmp_path / "m.onnx").stat().st_size > 0

    def test_a_folder_loads_back(self, run, cli, tmp_path):
        from counterpoint.common.trainers import from_pretrained, load_run

        assert cli("toy", "export", run, "--out", tmp_path / "m")[0] == 0  # no ending: a folder
        there, here = from_pretrained(tmp_path / "m").state_dict(), load_run(run).state_dict()
        assert all((there[name] == here[name]).all() for name in here)

    def test_mistakes(self, run, cli, tmp_path):
        code, _, err = cli("toy", "export", run, "--out", tmp_path / "m.pt2", "--modality", "lfet")
        assert code == 2
        assert "did you mean 'left'" in err
        code, _, err = cli("toy", "export", run, "--out", tmp_path / "m.pt2", "--format", "onnx")
        assert code == 2
        assert "ends as torch files do" in err


class TestFormats:
    def test_a_verticals_own_are_listed_and_written(self, run, cli, tmp_path, capsys):
        from counterpoint.common.cli.main import main

        told = {"export": "card (.card): the name of the class", "embed": "names (.txt): an id a line"}
        for verb, listed in told.items():
            with pytest.raises(SystemExit) as stop:
                main(["toy", verb, "--help"])
            assert stop.value.code == 0
            assert listed in " ".join(capsys.readouterr().out.split())
        assert cli("toy", "export", run, "--out", tmp_path / "m.card", "--modality", "left")[0] == 0
        assert (tmp_path / "m.card").read_text() == "Pair left\n"
        code, out, _ = cli("toy", "embed", run, "--format", "names", "--json")
        assert code == 0
        written = run / "embeddings-test-names.txt"
        assert len(written.read_text().splitlines()) == json.loads(out)["rows"] > 0

    def test_an_unknown_one_is_told_the_nearest(self, run, cli, tmp_path):
        code, _, err = cli("toy", "export", run, "--out", tmp_path / "m", "--format", "onxn")
        assert (code, "did you mean 'onnx'" in err) == (2, True)
        code, _, err = cli("toy", "embed", run, "--format", "parquett")
        assert (code, "did you mean 'parquet'" in err) == (2, True)


class TestFinetune:
    def test_labels_on_top(self, run, cli):
        options = ("--labels", "[side]", "--train.max_epochs", "2", "--train.out", "runs/head", "--train.overwrite")
        code, out, err = cli("toy", "finetune", run, *options, "--json")
        assert code == 0, err
        assert any(name.startswith("test/") for name in json.loads(out)["metrics"])

    def test_mistakes(self, run, cli):
        assert "which run?" in cli("toy", "finetune")[2]
        assert "did you mean '--labels'" in cli("toy", "finetune", run, "--lables", "[side]")[2]
        assert "did you mean" in cli("toy", "finetune", run, "--train.max_epoch", "2")[2]
        code, _, err = cli("toy", "finetune", run)
        assert code == 2
        assert "labels" in err


def test_what_embed_writes_is_evaluated_without_the_run(run, cli, tmp_path):
    assert cli("toy", "embed", run, "--out", tmp_path / "vectors")[0] == 0
    code, out, err = cli("toy", "evaluate", "--embeddings", tmp_path / "vectors", "--bootstrap", 5)
    assert code == 0, err
    assert "no splits are given" in out
    assert "retrieval" in out


def test_neighbours_are_named_in_the_fields_words_where_there_are_some():
    found = Neighbours("CCO", "m", "m", [4], ["x7"], ["g"], [0.5], 9, captions=("CCN",))
    assert found.as_dict()["neighbours"] == [{"rank": 1, "id": "x7", "group": "g", "cosine": 0.5, "what": "CCN"}]
    assert found.lines[-1].split() == ["1", "0.5000", "x7", "g", "CCN"]
    assert "what" not in Neighbours("a", "m", "m", [4], ["x7"], ["g"], [0.5], 9).as_dict()["neighbours"][0]


def test_windows_of_a_query_vote_for_places_and_for_groups():
    a, b, c = (Hit(row, f"x{row}", score, score) for row, score in ((0, 0.9), (1, 0.2), (2, 0.3)))
    answers = [[a, b], [replace(c, score=0.1), replace(b, score=0.4)], [c, b]]
    ranked = by_votes(answers, 4)
    assert [(one.hit.id, one.votes, one.window, one.hit.score) for one in ranked] == [
        ("x1", 3, 1, 0.4), ("x2", 2, 2, 0.3), ("x0", 1, 0, 0.9)
    ]  # fmt: skip
    # Three votes of six for g, which has one sample of four; three for h, which has two, and none for the last.
    assert elect(answers, ["h", "g", "h", "i"]) == (("g", pytest.approx(2 / 3)), ("h", pytest.approx(1 / 3)))
    found = Neighbours(
        "a.wav", "m", "n", [1], ["x1"], ["g"], [0.4], 4, captions=("bar 1",), windows=3, votes=(3,),
        moments=("0:04-0:08",), elected=elect(answers, ["h", "g", "h", "i"]),
    )  # fmt: skip
    figures = found.as_dict()
    assert figures["windows"] == 3
    assert list(figures["groups by votes"]) == ["g", "h"]
    assert figures["neighbours"][0]["asked by"] == "0:04-0:08"
    assert found.lines[0].endswith("its 3 windows vote")
    assert found.lines[2].split() == ["rank", "cosine", "id", "group", "windows", "what", "asked", "by"]
    assert found.lines[-1] == "groups by votes: g 67 %, h 33 %"
