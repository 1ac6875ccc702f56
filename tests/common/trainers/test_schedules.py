"""Schedules: values at the joints, continuity, and what a continual run may rely on."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from counterpoint.common.errors import InputError
from counterpoint.common.trainers import OptimConfig, ParamGroup, Schedule, ScheduleConfig
from counterpoint.common.trainers.optim import LARS, build_optimizer, parameter_groups
from counterpoint.common.trainers.schedules import KINDS


@given(
    st.sampled_from(KINDS),
    st.integers(20, 300),
    st.floats(0, 0.3),
    st.floats(0, 0.3),
    st.floats(0, 0.3),
    st.floats(0.01, 0.9),
)
def test_schedules_are_continuous_and_stay_in_bounds(kind, total, warmup, decay, cooldown, final):
    schedule = Schedule.from_config(ScheduleConfig(kind, warmup, final, decay, cooldown), 2.0, total)
    values = [schedule(n) for n in range(total + 50)]
    assert all(0 <= v <= 2.0 + 1e-12 for v in values)
    shortest = min(
        [p for p in (schedule.warmup, schedule.decay, schedule.cooldown, schedule.anneal_steps) if p] or [total]
    )
    if min(total - schedule.warmup, shortest) > 8:
        fine = [schedule(n / 8) for n in range(8 * total)]
        # No phase is steeper than an annealing over a factor of 100: ln(100) < 5 times the straight line.
        assert max(abs(a - b) for a, b in itertools.pairwise(fine)) < 5 * 2.0 / (shortest * 8)


def test_cosine_and_wsd_by_their_formulas():
    cosine = Schedule.from_config(ScheduleConfig("cosine", warmup=10, final=0.1), 3.0, 110)
    assert cosine(5) == pytest.approx(1.5)
    assert cosine(35) == pytest.approx(0.3 + 2.7 * (1 + math.cos(math.pi / 4)) / 2)
    assert cosine(110) == pytest.approx(0.3)
    wsd = Schedule.from_config(ScheduleConfig("wsd", warmup=0.1, decay=0.2), 1.0, 100)
    assert [wsd(n) for n in (5, 10, 80, 90, 100)] == pytest.approx([0.5, 1, 1, 0.5, 0])


def test_infinite_by_its_formula():
    config = ScheduleConfig("infinite", warmup=10, cooldown=20, constant=0.5, decay=0, final=0.01)
    schedule = Schedule.from_config(config, 1.0, 100)
    assert [schedule(n) for n in (0, 5, 10, 20, 30, 1e6)] == pytest.approx([0, 0.5, 1, 0.75, 0.5, 0.5])
    schedule.begin_anneal(60, 20)
    assert schedule(60) == pytest.approx(0.5)
    assert schedule(70) == pytest.approx(0.5 * (0.01 / 0.5) ** 0.5)
    assert schedule(80) == schedule(200) == pytest.approx(0.01)


def test_annealing_belongs_to_the_run_and_not_to_the_next_stage():
    config = ScheduleConfig("infinite", warmup=10, cooldown=20, constant=0.5, decay=0.2, final=0.01)
    first = Schedule.from_config(config, 1.0, 100)
    second = first.continued(200)
    assert first(79) == second(0) == second(159) == 0.5  # a new stage goes on at the constant rate, without warm-up
    assert second(200) == pytest.approx(0.01)
    flat = Schedule.from_config(ScheduleConfig("infinite", warmup=10, cooldown=0, constant=1.0, decay=0), 1.0, 100)
    assert flat(10) == flat(99) == 1.0


def test_begin_anneal_survives_a_checkpoint():
    make = lambda: Schedule("infinite", peak=1.0, end=0.1, total=100, level=0.4)  # noqa: E731
    schedule, again = make(), make()
    schedule.begin_anneal(10, 5)
    again.load_state_dict(schedule.state_dict())
    assert [again(n) for n in range(20)] == [schedule(n) for n in range(20)]


def test_wrong_use_is_refused():
    with pytest.raises(InputError, match="'cosin' is not one of constant"):
        Schedule("cosin", 1.0, 0.0, 10)
    with pytest.raises(ValueError, match="anneals"):
        Schedule("cosine", 1.0, 0.0, 10).begin_anneal(3, 2)


def test_biases_norms_and_scalars_do_not_decay_and_prefixes_have_their_rates():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    config = OptimConfig(lr=1.0, weight_decay=0.1, groups=(ParamGroup("2", 0.1), ParamGroup("2.bias", 0.0)))
    groups = parameter_groups(model.named_parameters(), config)
    table = {n: (g["lr"], g["weight_decay"]) for g in groups for n in g["names"]}
    assert table == {
        "0.weight": (1.0, 0.1),
        "0.bias": (1.0, 0.0),
        "1.weight": (1.0, 0.0),
        "1.bias": (1.0, 0.0),
        "2.weight": (0.1, 0.1),
    }
    with pytest.raises(InputError, match="'head'"):
        parameter_groups(model.named_parameters(), OptimConfig(groups=(ParamGroup("head"),)))


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "lars"])
def test_every_optimizer_descends(name):
    torch.manual_seed(0)
    w = nn.Parameter(torch.randn(3, 3))
    optimizer = build_optimizer([{"params": [w], "weight_decay": 0.01}], OptimConfig(name=name, lr=0.05))
    before = float((w**2).sum())
    for _ in range(50):
        optimizer.zero_grad()
        (w**2).sum().backward()
        optimizer.step()
    assert float((w**2).sum()) < before


def test_lars_by_hand():
    w = nn.Parameter(torch.full((2, 2), 2.0))
    optimizer = LARS([{"params": [w], "weight_decay": 0.5}], lr=1.0, momentum=0.9, trust=0.01)
    w.grad = torch.ones(2, 2)
    optimizer.step()
    # g + beta w = 2, |w| = 4, |g + beta w| = 4: the update is 0.01 * 4 / 4 * 2
    torch.testing.assert_close(w.data, torch.full((2, 2), 2.0 - 0.02))


@pytest.mark.parametrize(
    ("descent", "half"),
    [("cosine", 0.5), ("linear", 0.5), ("inverse_sqrt", 1 - (6**-0.5 - 1) / (11**-0.5 - 1))],
)
def test_the_way_down_of_the_infinite_schedule(descent, half):
    """From the peak at the warm-up's end to the constant value; at half of it the written fraction is left."""
    config = ScheduleConfig("infinite", warmup=10, cooldown=20, constant=0.4, decay=0, descent=descent)
    schedule = Schedule.from_config(config, 2.0, 100)
    assert schedule(10) == pytest.approx(2.0)
    assert schedule(20) == pytest.approx(0.8 + 1.2 * half)
    assert [schedule(n) for n in (30, 60, 99)] == pytest.approx([0.8] * 3)
    steps = [schedule(10 + n) - schedule(11 + n) for n in range(20)]
    assert all(step > 0 for step in steps)
    if descent == "inverse_sqrt":
        assert steps == sorted(steps, reverse=True)  # fast first, then slower and slower


def test_an_unknown_way_down_is_refused():
    with pytest.raises(InputError, match="descent 'sqrt' is not one of cosine, linear, inverse_sqrt"):
        Schedule.from_config(ScheduleConfig("infinite", descent="sqrt"), 1.0, 10)
