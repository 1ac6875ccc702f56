"""The report: one file, no network, everything escaped; pictures and sounds come back as they went in."""

import base64
import io
import re
import wave
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from counterpoint.common.metrics import Interval, Split, evaluate_features, label_free, rank_queries, retrieval
from counterpoint.common.report import Chip, GalleryRow, Media, Report, compare_figures, compare_runs
from counterpoint.common.report.builder import telling
from counterpoint.common.report.charts import interval_chart, line_chart, ticks
from counterpoint.common.report.embedding_map import embedding_map, project
from counterpoint.common.report.media import audio_uri, image_uri, wav_bytes
from counterpoint.common.runs.figures import figure_cards, telling_figure

VOID = {"meta", "link", "img", "input", "br"}


class Checker(HTMLParser):
    """Collects what the page would load, and fails on tags that are not closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.ids = [], [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.loads += [v for k, v in attrs if k in ("src", "href", "srcset", "action") and v]
        self.ids += [values["id"]] if "id" in values else []
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            assert "alt" in values

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check(html):
    parser = Checker()
    parser.feed(html)
    assert parser.open == []
    return parser


def full_report():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(40, 8, generator=g), torch.randn(40, 8, generator=g)
    t = np.linspace(0, 1, 4000)
    query = Media(
        "query <1>", image=np.random.default_rng(0).random((20, 30)), cmap="magma", audio=(np.sin(900 * t), 4000)
    )
    found = [Media(f"hit {i}", image=np.zeros((8, 8, 3), np.uint8), caption="0.9", correct=i == 1) for i in range(3)]
    curves = {"train": (range(9), np.linspace(2, 1, 9)), "val": ([0, 8], [2.0, float("nan")])}
    labels, links = ["a"] * 40 + ["</script>"] * 40, [(i, 40 + i) for i in range(40)]
    return (
        Report("A <b>run</b>", "On data & more", synthetic=True)
        .section("Results", "First.\n\nSecond.")
        .retrieval(retrieval(a, b, n_boot=50))
        .section("Training")
        .curves("Loss", curves, hlines={"ln": 1.5})
        .intervals("Arms", [("one", 0.5, 0.4, 0.6), ("none", float("nan"), 0, 0)], reference=0.1)
        .monitors("audio", label_free(a, b))
        .embedding_map("Map", torch.cat([a, b]), labels, links=links)
        .gallery("Found", [GalleryRow(query, found, "rank 2"), Media("alone", image=b"\x89PNG....")])
        .table("Runs", pd.DataFrame({"run": ["x", "y"], "score": [0.5, None]}))
        .table("Verdicts", [["claim", Chip("does not hold")]], ["claim", "verdict"])
        .config("Configuration", {"lr": 1e-3, "path": "</pre>"})
        .reproduce(["counterpoint audio demo"])
    )


def test_page_is_well_formed_and_loads_nothing():
    html = full_report().html()
    parser = check(html)
    assert parser.loads
    assert all(v.startswith(("data:", "#")) for v in parser.loads), parser.loads
    assert len(set(parser.ids)) == len(parser.ids)
    assert not re.search(r"https?://|@import|url\(", html.split("<body>")[1])
    assert "default-src 'none'" in html


def noisy_runs(levels, n=300, protocols="retrieval"):
    g = torch.Generator().manual_seed(0)
    a, noise = torch.randn(n, 8, generator=g), torch.randn(n, 8, generator=g)
    splits = {f"noise {s}": Split({"a": a, "b": a + s * noise}) for s in levels}
    return {name: evaluate_features(split, protocols=protocols, n_boot=50) for name, split in splits.items()}


def test_runs_on_the_same_samples_are_compared_one_by_one():
    runs = noisy_runs((1.0, 0.9))
    html = compare_runs(Report("x"), runs, n_boot=200).html()
    check(html)
    assert html.count("better</span>") >= 4  # less noise: MRR and mean rank, both ways
    assert "worse</span>" not in html
    assert "noise 0.9 against noise 1.0: retrieval a → b (pool 300)" in html
    back = compare_runs(Report("x"), dict(reversed(runs.items())), n_boot=200).html()
    assert "better</span>" not in back
    twin = compare_runs(Report("x"), {"one": runs["noise 1.0"], "two": runs["noise 1.0"]}, n_boot=20).html()
    assert twin.count("inconclusive</span>") == html.count('class="chip')


def test_a_verdict_has_the_colour_of_what_it_says():
    said = {"holds": "good", "does not hold": "bad", "undecided: needs 40 seeds": "warn", "inconclusive": "warn"}
    for verdict, kind in said.items():
        html = Report("x").table("t", [[Chip(verdict)]], ["verdict"]).html()
        assert f'class="chip {kind}">{verdict}<' in html


def test_runs_on_other_samples_say_that_they_are_not_paired():
    runs = {**noisy_runs((1.0,)), "few": noisy_runs((0.5,), n=50)["noise 0.5"]}
    html = compare_runs(Report("x"), runs, paired={"few": "it was evaluated on other samples"}, n_boot=20).html()
    assert "few is not paired: it was evaluated on other samples." in html
    assert "better</span>" not in html
    assert "a → b (pool 50): figures" in html


def test_best_of_each_row_is_bold_by_the_direction_of_the_metric():
    def i(v):
        return Interval(v, v - 0.1, v + 0.1, 9, 9)

    runs = {"one": {"R@1": i(0.5), "median_rank": i(9.0)}, "two": {"R@1": i(0.4), "median_rank": i(3.0)}}
    html = compare_figures(Report("x"), runs).html()
    assert re.findall(r'class="best">([\d.]+) ', html) == ["0.5", "3"]


def test_every_navigation_link_has_its_section():
    parser = check(full_report().html())
    assert {v[1:] for v in parser.loads if v.startswith("#")} <= set(parser.ids)


def test_text_is_escaped_everywhere():
    html = full_report().html()
    assert "<b>run</b>" not in html
    assert "A &lt;b&gt;run&lt;/b&gt;" in html
    assert "query &lt;1&gt;" in html
    assert html.count("</script>") == 2  # the map's data and the page's script; the hostile label is escaped


def test_synthetic_data_are_announced_only_when_synthetic():
    assert "Synthetic data" in full_report().html()
    assert "Synthetic data" not in Report("real").html()


def test_headline_shows_interval_baseline_and_percent():
    html = Report("x").headline("R@10", 0.4217, interval=(0.38, 0.46), baseline=("trivial", 0.02), percent=True).html()
    html = html.replace("\u00a0", " ")  # a figure and its unit stay on one line
    assert "42.2 %" in html
    assert "95 % interval 38.0 % to 46.0 %" in html
    assert "trivial 2.0 %" in html


@pytest.mark.parametrize(
    ("pool", "ks", "shown"),
    [
        (100, (1, 5, 10, 25), "R@25"),
        (40, (1, 5, 10, 25), "R@10"),
        (10, (1, 5, 10), "R@1"),
        (2, (1, 5, 10), None),
        (40, (30, 25), None),
    ],
)
def test_the_recall_shown_large_is_one_that_chance_does_not_mostly_reach(pool, ks, shown):
    g = torch.Generator().manual_seed(0)
    both = retrieval(torch.randn(pool, 8, generator=g), torch.randn(pool, 8, generator=g), ks=ks, n_boot=10)
    page = Report("x").retrieval(both).html()
    found = re.findall('class="name">([^<]+)<', page)
    ways = ("a → b", "b → a")
    assert found == [f"{key}, {way}" for way in ways for key in (shown, "median rank") if shown]
    assert page.count(f"{pool} queries, pool of {pool}</caption>") == 2


def classes(accuracy, *, k=2, low=0.0):
    """Figures of one protocol as a classifier has them: (interval, chance) by metric."""
    i = Interval(accuracy, low, 1.0, 9, 9)
    return {"accuracy": (i, 1 / k), "balanced_accuracy": (i, 1 / k), "auroc": (i, 0.5)}


def test_what_everything_is_right_by_is_no_headline():
    """One class: accuracy 100 % where guessing has 100 %. Windows of two classes: a like stands first for anyone."""
    assert telling_figure({m: (i, 1.0) for m, (i, _) in classes(1.0).items()}) is None
    assert telling_figure(classes(0.9)) == "auroc"
    assert telling_figure(classes(0.9, k=4)) == "accuracy"
    uneven = {**classes(0.9, k=4), "accuracy": (Interval(0.9, 0.8, 1.0, 9, 9), 0.9)}
    assert telling_figure(uneven) == "auroc"
    g = torch.Generator().manual_seed(0)
    z, labels = torch.randn(60, 8, generator=g), ["a", "b"] * 30
    likes = rank_queries(z, z, relevant=(labels, labels), exclude_self=True, ks=(1, 5, 10), n_boot=10)
    assert telling(likes) == ("mAP",)
    many = [f"class {i % 10}" for i in range(60)]
    rare = rank_queries(z, z, relevant=(many, many), exclude_self=True, ks=(1, 5, 10), n_boot=10)
    assert telling(rare) == ("R@1", "mAP")


def test_the_labelled_figures_come_first_each_once_and_say_what_they_stand_on():
    """The same figure under a second name makes no second card; the neighbours' k is said to be chosen on the test."""
    g = torch.Generator().manual_seed(0)
    labels = ["a", "b"] * 60
    z = torch.randn(120, 8, generator=g)
    split = Split(z[:60], labels[:60], [str(i // 4) for i in range(60)])
    evaluation = evaluate_features(split, Split(z[60:], labels[60:], [f"t{i}" for i in range(60)]), n_boot=20)
    twice = {**evaluation.results, "probe by patient": evaluation.results["logreg"]}
    page = Report("x")
    figure_cards(page, replace(evaluation, results=twice), label="beat")
    names = re.findall('class="name">([^<]+)<', page.html())
    assert names[0] == "AUROC, probe by patient"
    assert "beat: AUROC, linear probe" not in names
    assert "beat: AUROC, nearest neighbours" in names
    assert "the best of 4 on these samples" in page.html()
    assert "60 samples, 15 groups" in page.html()


def test_a_baseline_within_the_interval_is_said():
    inside = Report("x").headline("AUROC", 0.6, interval=(0.4, 0.8), baseline=0.5).html()
    above = Report("x").headline("AUROC", 0.9, interval=(0.8, 0.95), baseline=0.5).html()
    assert "chance 0.5, within the interval" in inside
    assert "within the interval" not in above
    lone = Report("x").headline("AUROC", 0.9, interval=(-float("inf"), float("inf")), baseline=0.5).html()
    assert "interval" not in lone.partition("AUROC")[2]
    assert "within the interval" not in lone


def test_without_scripts_the_map_is_drawn_and_idle_controls_are_hidden():
    """Every point of every class stands in the drawing, which only shows where scripts do not run."""
    html = Report("x").embedding_map("Map", torch.randn(50, 8), ["a"] * 30 + ["b"] * 20).html()
    (drawing,) = re.findall("<noscript>(<svg.*?</svg>)</noscript>", html)
    assert [path.count("h0") for path in re.findall(r'd="([^"]+)"', drawing)] == [30, 20]
    (hidden,) = re.findall("<noscript><style>(.*?)</style></noscript>", html)
    assert all(name in hidden for name in ("#theme", ".map canvas", ".tools", ".code button"))


def test_a_map_says_how_much_of_the_spread_it_shows():
    x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 4.0, 5.0])
    *_, second, first = spread = np.linalg.eigvalsh(np.cov(x.T.numpy()))
    share = round(100 * (first + second) / sum(spread))
    assert 75 < share < 90
    assert f"(PCA), {share}\u00a0% of the variance." in Report("x").embedding_map("Map", x, ["a"] * 400).html()


def test_paper_is_white_in_both_themes():
    paper = Report("x").html().split("@media print{")[1]
    assert paper.startswith(":root,:root[data-theme=dark],:root:not([data-theme=light]){color-scheme:light;--bg:#fff")


def test_the_caller_may_choose_the_headline():
    page = Report("x").retrieval(retrieval(torch.eye(2), torch.eye(2), n_boot=10).a_to_b, headline=["R@1"]).html()
    assert re.findall('class="name">([^<]+)<', page) == ["R@1, a → b"]


def test_collapse_is_called_by_its_name():
    flat = label_free(torch.ones(100, 4))
    fine = label_free(torch.randn(100, 4, generator=torch.Generator().manual_seed(0)))
    assert Report("x").monitors("z", flat).html().count("collapsed</span>") == 4
    assert "collapsed</span>" not in Report("x").monitors("z", fine).html()


def test_write_replaces_in_one_step_and_makes_folders(tmp_path):
    path = Report("x").write(tmp_path / "deep" / "report.html")
    assert path.read_text().startswith("<!DOCTYPE html>")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_table_rows_of_wrong_length_are_named():
    with pytest.raises(ValueError, match="row 1 has 1 cells, expected 2"):
        Report("x").table("t", [[1, 2], [3]], ["a", "b"])


def decode(uri):
    return base64.b64decode(uri.split(",")[1])


class TestMedia:
    def test_uint8_pictures_are_lossless(self):
        pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(decode(image_uri(pixels))))), pixels)

    def test_floats_span_black_to_white_and_colours_keep_their_exposure(self):
        grey = np.asarray(Image.open(io.BytesIO(decode(image_uri(np.array([[-3.0, 5.0]]))))))
        assert grey[0, :, 0].tolist() == [0, 255]
        colour = np.asarray(Image.open(io.BytesIO(decode(image_uri(np.full((1, 1, 3), 0.2))))))
        assert colour[0, 0, 0] == 51

    def test_tensors_and_constant_pictures_and_nan_are_drawn(self):
        assert image_uri(torch.zeros(3, 3)).startswith("data:image/png")
        assert image_uri(np.array([[np.nan, 1.0]])).startswith("data:image/png")

    def test_wav_holds_the_samples(self):
        x = np.sin(np.linspace(0, 20, 400))
        with wave.open(io.BytesIO(wav_bytes(x, 8000))) as f:
            back = np.frombuffer(f.readframes(400), "<i2") / 32767
        assert np.abs(back - x).max() < 1e-4

    def test_odd_rates_fall_back_to_wav_and_bytes_pass_through(self):
        assert audio_uri((np.zeros(10), 1234)).startswith("data:audio/wav")
        assert decode(audio_uri(b"OggS12")) == b"OggS12"

    @pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((2, 2, 2)), "not svg", b"GIF89"])
    def test_what_is_no_picture_is_refused(self, bad):
        with pytest.raises(ValueError, match="image"):
            image_uri(bad)


class TestCharts:
    def test_points_lie_where_the_axes_say(self):
        svg = line_chart({"y": ([0, 10], [0.0, 1.0])})
        points = re.search(r'curve".*?points="([^"]+)"', svg)[1].split()
        (x0, y0), (x1, y1) = [tuple(map(float, p.split(","))) for p in points]
        ticks_x = [float(v) for v in re.findall(r'class="axis" x1="([\d.]+)" x2="\1"', svg)]
        assert x0 == pytest.approx(ticks_x[0], abs=0.1)
        assert x1 == pytest.approx(ticks_x[-1], abs=0.1)
        assert y0 > y1

    def test_gaps_break_the_curve(self):
        svg = line_chart({"y": ([0, 1, 2, 3, 4], [0.0, 1.0, float("nan"), 1.0, 2.0])})
        assert svg.count("<polyline") == 2

    def test_long_curves_are_thinned_but_keep_their_mean(self):
        svg = line_chart({"y": (range(100_000), np.sin(np.arange(100_000)))})
        assert len(svg) < 40_000

    def test_nothing_recorded_is_said(self):
        assert "No values" in line_chart({"y": ([], [])})
        assert "No values" in interval_chart([])

    @pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 7.9), (1e-8, 3e-8), (0, 12345)])
    def test_ticks_are_few_round_and_inside(self, low, high):
        t = ticks(low, high)
        assert 3 <= len(t) <= 8
        assert all(low - 1e-9 <= v <= high + 1e-9 for v in t)


class TestMap:
    def test_pca_keeps_the_two_largest_variances_and_is_deterministic(self):
        x = np.random.default_rng(0).normal(size=(200, 6)) * np.array([5, 0.1, 0.2, 3, 0.1, 0.1])
        xy = project(x)
        assert np.allclose(xy.var(0), np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1][:2])
        assert np.array_equal(xy, project(x))

    def test_two_columns_stay_as_they_are(self):
        x = np.random.default_rng(0).normal(size=(5, 2))
        assert np.array_equal(project(x), x)

    def test_rare_classes_become_other(self):
        html = embedding_map(np.zeros((60, 2)), [f"c{i % 30}" for i in range(60)])
        assert html.count("<li>") == 16
        assert "other" in html

    def test_lengths_must_agree(self):
        with pytest.raises(ValueError, match="3 points need as many labels"):
            embedding_map(np.zeros((3, 2)), ["a"])


def test_a_narrow_cone_is_watched_and_not_called_collapsed():
    cone = 10 + torch.randn(100, 16, generator=torch.Generator().manual_seed(0))
    page = Report("x").monitors("z", label_free(cone)).html()
    assert "collapsed</span>" not in page
    assert "watch</span>" in page
