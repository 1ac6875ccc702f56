"""Fidelity checks: paired seeds, honest verdicts, nothing run twice, tables that keep what they do not know."""

import json
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from counterpoint.common.errors import InputError
from counterpoint.common.trainers.reproduce import Claim, Measured, code_of, judge, reproduce

CLAIM = Claim("ssl-helps", "self-supervised towers win", "scratch", "ssl", "R@10", data="synthetic", source="paper")


def test_verdict_equals_a_paired_t_test_at_five_percent():
    rng = np.random.default_rng(0)
    for shift in (-0.3, -0.05, 0.0, 0.05, 0.3):
        base = rng.normal(size=6)
        better = base + shift + 0.1 * rng.normal(size=6)
        v = judge(CLAIM, range(6), base.tolist(), better.tolist())
        significant = ttest_1samp(better - base, 0).pvalue < 0.05
        mean = (better - base).mean()
        assert v.verdict.partition(":")[0] == (
            "holds" if significant and mean > 0 else "does not hold" if significant else "undecided"
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
    assert judge(CLAIM, range(2), [0.1, 0.1], [0.9, 0.9]).verdict == "undecided: needs 3 seeds at least"
    diverged = judge(CLAIM, range(3), [0.1, float("nan"), 0.1], [0.9, 0.9, 0.9])
    assert diverged.verdict == "undecided: an arm gave no finite figure"
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
    assert calls == [("scratch", 0), ("scratch", 1), ("scratch", 2)]
    assert again == [("ssl", 0), ("ssl", 1), ("ssl", 2)]
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
        assert reproduce(CLAIM, run, seeds=(0, 1, 2), out=tmp_path).verdict.startswith("undecided")
    assert len(count) == 6


class Known:
    """Two arms whose figures have known parts: of the seed, of the group (a test patient), of both, and the gain."""

    def __init__(self, gain, seed=0.02, group=0.2, rest=0.1):
        self.gain, self.deviations, self.calls = gain, (seed, group, rest), []

    def __call__(self, arm, seed, groups=40):
        self.calls.append((arm, seed, groups))
        of_seed, of_group, of_both = self.deviations
        hard = np.random.default_rng(5).normal(size=(5000, 2))[:groups]  # the same patients for every run
        hard -= hard.mean(0)  # the gain is that of these very patients
        patients = of_group * (hard @ [0.8, 0.6] if arm == "ssl" else hard[:, 0])  # by halves hard for both arms
        own = np.random.default_rng([seed, arm == "ssl"])
        shares = 0.7 + of_seed * own.normal() + patients + of_both * own.normal(size=groups)
        shares += (arm == "ssl") * self.gain
        return Measured.of({f"p{i}": float(x) for i, x in enumerate(shares)})


SIZED = replace(CLAIM, effect=0.05, held_out=40)


def test_the_plan_is_made_before_the_method_is_run_and_does_not_change_with_it(tmp_path):
    plans = []
    for gain in (0.0, 0.5):
        run, said = Known(gain), []
        verdict = reproduce(
            SIZED, run, range(30), out=tmp_path / str(gain), tell=lambda s, r=run, l=said: l.append((s, list(r.calls)))
        )
        (sentence, before), plan = said[0], verdict.plan
        assert [c[:2] for c in before] == [("scratch", s) for s in range(5)], "a pilot of the baseline alone"
        assert sentence == f"ssl-helps: {plan.sentence}"
        plans.append(plan)
    assert plans[0] == plans[1]


def test_an_experiment_of_the_planned_size_resolves_half_of_the_claimed_effect(tmp_path):
    met = []
    for trial in range(6):
        run = Known(0.05, seed=0.03)
        verdict = reproduce(
            replace(SIZED, name=f"trial-{trial}"), run, range(100 * trial, 100 * trial + 60), out=tmp_path
        )
        i, plan = verdict.improvement, verdict.plan
        assert (len(verdict.seeds), verdict.groups) == (plan.seeds, plan.groups)
        met.append((i.high - i.low) / 2 <= plan.half_width)
        assert verdict.powered or not met[-1]
    assert np.mean(met) > 0.6


def test_generated_groups_grow_and_given_ones_do_not(tmp_path):
    run = Known(0.03, group=0.2)
    grown = reproduce(SIZED, run, range(40), out=tmp_path / "generated")
    assert grown.groups > 40
    assert {c[2] for c in run.calls} == {40, grown.groups}
    few = Known(0.03, group=0.4)
    given = reproduce(replace(SIZED, held_out=0), lambda arm, seed: few(arm, seed), range(10), out=tmp_path / "given")
    assert given.groups == 40
    assert re.search(r"no number of seeds over 40 groups; 5 seeds take \d+ groups$", given.plan.sentence)
    assert given.verdict.startswith("undecided: needs ")
    assert given.verdict.endswith("groups, these data have 40")


def test_a_budget_below_the_plan_says_how_many_seeds_would_decide(tmp_path):
    run = Known(0.02, seed=0.1)
    verdict = reproduce(SIZED, run, range(5), out=tmp_path)
    assert verdict.plan.seeds > 5
    assert "(5 allowed)" in verdict.plan.sentence
    needed = int(re.fullmatch(r"undecided: needs (\d+) seeds( and \d+ groups)?", verdict.verdict)[1])
    assert needed > 5


def test_a_narrow_interval_always_decides():
    """It cannot hold both no effect and the claimed one: what excludes the claimed one alone is a refusal."""
    small = Claim("x", "s", "a", "b", "m", effect=0.1)
    noise = np.array([-0.01, 0.0, 0.01, -0.005, 0.005])
    for gain in np.linspace(-0.05, 0.15, 21):
        v = judge(small, range(5), [0.5] * 5, (0.5 + gain + noise).tolist())
        assert (v.improvement.high - v.improvement.low) / 2 <= 0.05
        assert v.verdict == ("holds" if v.improvement.low > 0 else "does not hold")


def test_groups_that_differ_between_seeds_are_no_common_groups():
    """Other patients for every seed: seeds alone are drawn, and hold what their patients add."""
    arms = [[Measured(0.1 * s, {f"{s}-{i}": 0.1 * s for i in range(9)}) for s in range(4)] for _ in range(2)]
    v = judge(CLAIM, range(4), *arms)
    assert v.groups == 0


def test_a_threshold_is_met_by_groups_too(tmp_path):
    claim = Claim("reaches", "reaches .95", "0.95", "m", "accuracy", effect=0.05)
    right = {f"s{i}": float(i > 0) for i in range(40)}
    few = reproduce(claim, lambda arm, seed: 0.95 if arm == "0.95" else Measured.of(right), range(5), out=tmp_path)
    assert few.plan.sentence == "the baseline is the number 0.95: there is nothing to pilot"
    assert few.verdict.startswith("undecided: needs "), "39 of 40 do not show more than 95 %"


def test_runs_of_older_code_are_kept_where_the_code_gives_the_same_figure(tmp_path, monkeypatch):
    module, calls = "counterpoint.common.trainers.reproduce", []
    monkeypatch.setattr(f"{module}.known_hash", lambda target: "old")
    run = lambda arm, seed: calls.append((arm, seed)) or seed + (arm == "ssl")  # noqa: E731
    reproduce(CLAIM, run, range(4), out=tmp_path, rests_on="m:f")
    monkeypatch.setattr(f"{module}.known_hash", lambda target: "new")
    calls.clear()
    reproduce(CLAIM, run, range(4), out=tmp_path, rests_on="m:f")
    assert calls == [("scratch", 0), ("ssl", 0)]
    monkeypatch.setattr(f"{module}.known_hash", lambda target: "newest")
    other = lambda arm, seed: calls.append((arm, seed)) or seed + 2 * (arm == "ssl")  # noqa: E731
    calls.clear()
    assert reproduce(CLAIM, other, range(4), out=tmp_path, rests_on="m:f").improvement.value == 2
    assert len(calls) == 5, "one of the baseline, and the method anew"


def test_the_code_behind_a_run_is_named():
    def made(name):
        return lambda arm, seed: 0.0

    here = __name__
    assert code_of(partial(made, "x")).endswith(":test_the_code_behind_a_run_is_named")
    assert code_of(sample_run) == code_of(partial(sample_run, 1)) == f"{here}:sample_run"


def sample_run(data, arm, seed):
    return 0.0


def test_arms_and_names_are_checked():
    with pytest.raises(ValueError, match="both arms"):
        Claim("x", "s", "a", "a", "m")
    with pytest.raises(ValueError, match="names files"):
        Claim("a/b", "s", "a", "b", "m")
