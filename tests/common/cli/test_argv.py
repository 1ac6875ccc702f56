"""The natural spellings of several values, positionals anywhere, and sentences that say what to type."""

from pathlib import Path
from typing import Literal

import pytest

from counterpoint.common.cli.options import call
from counterpoint.common.errors import InputError
from counterpoint.common.vertical import Outcome


def command(
    source: Path,
    *others: Path,
    seeds: tuple[int, ...] = (7,),
    pair: tuple[float, float] = (0.9, 0.999),
    words: tuple[str, ...] = (),
    kinds: tuple[Literal["x", "y"], ...] | None = None,
    count: int = 1,
    strict: bool = False,
) -> Outcome:
    """Say what was understood.

    Args:
        source: the first.
        *others: further ones, as many
            as wanted.
        seeds: some seeds.
    """
    found = [str(source), [str(o) for o in others], list(seeds), list(pair), list(words), kinds, count, strict]
    return Outcome(dict(zip(("source", "others", "seeds", "pair", "words", "kinds", "count", "strict"), found)))


@pytest.fixture
def understood(capsys):
    def run(text):
        import json

        assert call("c", command, ["--json", *text.split()]) == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.mark.parametrize(
    "text",
    [
        "a --seeds 0,1,2",
        "a --seeds 0 1 2",
        "a --seeds [0,1,2]",
        "a --seeds=0,1,2",
        "a --seeds 0, 1, 2",
        "--seeds 0 1 2 a",
    ],
)
def test_every_spelling_of_several_numbers_is_the_same(understood, text):
    assert understood(text) == understood("a --seeds [0,1,2]")
    assert understood(text)["seeds"] == [0, 1, 2]


def test_one_value_is_a_list_of_one_and_brackets_may_be_empty(understood):
    assert understood("a --seeds 3")["seeds"] == [3]
    assert understood("a --seeds -3 -4")["seeds"] == [-3, -4]
    assert understood("a --words 3")["words"] == ["3"]
    assert understood("a --words []")["words"] == []
    assert understood("a --kinds x y")["kinds"] == ["x", "y"]
    assert understood("a --kinds null")["kinds"] is None


def test_a_fixed_number_of_values_leaves_the_rest_to_the_positionals(understood):
    assert understood("--pair 0.5 0.25 a b")["others"] == ["b"]
    assert understood("--pair 0.5,0.25 a")["pair"] == [0.5, 0.25]


def test_positionals_may_stand_anywhere(understood):
    said = understood("a --count 3 b --strict c --seeds 1 2")
    assert (said["source"], said["others"], said["count"], said["strict"]) == ("a", ["b", "c"], 3, True)
    assert understood("a --strict false b")["strict"] is False
    assert understood("--count -3 -- -odd")["source"] == "-odd"


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("a --seeds 0,x", "--seeds: expected values (int) as in --seeds 0,1,2, got 0,x"),
        ("a --seeds [0,x]", "--seeds: expected values (int) as in --seeds 0,1,2, got [0,x]"),
        ("a --pair 0.5", "--pair: expected 2 values (float) as in --pair 0.5,1.0, got 0.5"),
        ("a --kinds z", "--kinds: expected values of x, y as in --kinds x,y, got z"),
        ("a --seeds 0 --seeds 1", "--seeds is given twice"),
        ("a --seeds", "--seeds"),
        ("a --seed 1 2", "did you mean '--seeds'"),
        ("a --count 1 --strict --coutn=3", "did you mean '--count'"),
    ],
)
def test_a_mistake_says_what_to_type(text, advice):
    with pytest.raises(InputError) as error:
        call("c", command, text.split())
    assert advice in str(error.value)
    assert "\n" not in str(error.value)


def test_help_lists_the_further_positionals(capsys):
    with pytest.raises(SystemExit):
        call("c", command, ["--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "further ones, as many as wanted." in out
    assert "some seeds." in out
