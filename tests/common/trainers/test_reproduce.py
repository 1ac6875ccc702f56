"""Fidelity checks: paired seeds, honest verdicts, nothing run twice, tables that keep what they do not know."""

import json

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from counterpoint.common.errors import InputError
from counterpoint.common.trainers.reproduce import Claim, judge, reproduce, write_table

CLAIM = Claim("ssl-helps", "self-supervised towers win", "scratch", "ssl", "R@10", data="synthetic", source="paper")


def test_verdict_equals_a_paired_t_test_at_five_percent():
    rng = np.random.default_rng(0)
    for shift in (-0.3, -0.05, 0.0, 0.05, 0.3):
        base = rng.normal(size=6)
        better = base + shift + 0.1 * rng.normal(size=6)
        v = judge(CLAIM, range(6), base.tolist(), better.tolist())
        significant = ttest_1samp(better - base, 0).pvalue < 0.05
        mean = (better - base).mean()
        assert v.verdict == (
            "holds" if significant and mean > 0 else "does not hold" if significant else "inconclusive"
        )


def test_pairing_by_seed_sees_a_small_gain_under_large_seed_effects():
    base = np.array([0.1, 0.9, 0.5, 0.3, 0.7])
    better = base + [0.02, 0.03, 0.02, 0.03, 0.025]
    assert judge(CLAIM, range(5), base.tolist(), better.tolist()).verdict == "holds"


def test_lower_is_better_turns_the_sign_and_a_margin_must_be_passed():
    loss = Claim("x", "s", "a", "b", "loss", higher_is_better=False)
    assert judge(loss, range(3), [1.0, 1.1, 1.2], [0.5, 0.6, 0.7]).verdict == "holds"
    strict = Claim("x", "s", "a", "b", "acc", margin=0.2)
    assert judge(strict, range(3), [0.5, 0.5, 0.5], [0.6, 0.61, 0.6]).verdict == "does not hold"


def test_two_seeds_and_diverged_arms_decide_nothing():
    assert judge(CLAIM, range(2), [0.1, 0.1], [0.9, 0.9]).verdict == "inconclusive"
    diverged = judge(CLAIM, range(3), [0.1, float("nan"), 0.1], [0.9, 0.9, 0.9])
    assert diverged.verdict == "inconclusive"
    assert json.loads(json.dumps(diverged.as_dict()))["improvement"]["value"] is None


class Crash(Exception):
    pass


def test_an_interrupted_check_goes_on_where_it_stopped(tmp_path):
    calls = []

    def run(arm, seed):
        if len(calls) == 3:
            raise Crash
        calls.append((arm, seed))
        return seed + (arm == "ssl")

    with pytest.raises(Crash):
        reproduce(CLAIM, run, seeds=(0, 1, 2), out=tmp_path)
    store = tmp_path / "ssl-helps.runs.jsonl"
    store.write_text(store.read_text() + '{"claim": "ssl-h')  # killed while writing
    again = []

    def rest(arm, seed):
        again.append((arm, seed))
        return seed + (arm == "ssl")

    verdict = reproduce(CLAIM, rest, seeds=(0, 1, 2), out=tmp_path)
    assert calls == [("scratch", 0), ("ssl", 0), ("scratch", 1)]
    assert again == [("ssl", 1), ("scratch", 2), ("ssl", 2)]
    assert verdict.verdict == "holds"
    assert json.loads((tmp_path / "ssl-helps.json").read_text())["verdict"] == "holds"
    reproduce(CLAIM, rest, seeds=(0, 1, 2), out=tmp_path)
    assert len(again) == 3


def test_more_seeds_later_reuse_the_earlier_ones(tmp_path):
    count = []
    run = lambda arm, seed: count.append(1) or float(seed)  # noqa: E731
    reproduce(CLAIM, run, seeds=(0, 1), out=tmp_path)
    reproduce(CLAIM, run, seeds=(0, 1, 2, 3), out=tmp_path)
    assert len(count) == 8


def test_stored_runs_of_another_metric_are_refused(tmp_path):
    reproduce(CLAIM, lambda arm, seed: 1.0, seeds=(0,), out=tmp_path)
    other = Claim("ssl-helps", "s", "scratch", "ssl", "MRR")
    with pytest.raises(InputError, match="holds 'R@10'"):
        reproduce(other, lambda arm, seed: 1.0, seeds=(0,), out=tmp_path)


def test_nan_runs_are_stored_and_not_silently_run_again(tmp_path):
    count = []
    run = lambda arm, seed: count.append(1) or float("nan")  # noqa: E731
    for _ in range(2):
        assert reproduce(CLAIM, run, seeds=(0, 1, 2), out=tmp_path).verdict == "inconclusive"
    assert len(count) == 6


def test_table_replaces_its_rows_keeps_others_and_the_text_around(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("# Audio\n\n<!-- fidelity:begin -->\n<!-- fidelity:end -->\n\nEnd | of text\n")
    first = judge(CLAIM, range(3), [0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    other = judge(Claim("bar", "says | things", "x", "y", "m"), range(3), [1.0, 2.0, 3.0], [1.0, 2.1, 2.9])
    write_table(readme, [first, other])
    once = readme.read_text()
    assert once.startswith("# Audio\n\n<!-- fidelity:begin -->\n| check |")
    assert once.endswith("<!-- fidelity:end -->\n\nEnd | of text\n")
    assert "**holds**" in once
    assert "**inconclusive**" in once
    write_table(readme, [judge(CLAIM, range(3), [0.4, 0.5, 0.6], [0.1, 0.2, 0.3])])
    twice = readme.read_text()
    assert twice.count("ssl-helps") == 1
    assert "**does not hold**" in twice
    assert "says \\| things" in twice
    write_table(readme, [])
    assert readme.read_text() == twice


def test_a_readme_without_markers_says_what_to_put_in(tmp_path):
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(InputError, match="fidelity:begin"):
        write_table(tmp_path / "README.md", [])


def test_arms_and_names_are_checked():
    with pytest.raises(ValueError, match="both arms"):
        Claim("x", "s", "a", "a", "m")
    with pytest.raises(ValueError, match="names files"):
        Claim("a/b", "s", "a", "b", "m")
