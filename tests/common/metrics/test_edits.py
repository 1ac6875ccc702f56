"""Edits between texts against all alignments by brute force; rates of sets of texts."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterpoint.common.metrics import edit_counts, error_rate

SHORT = st.text("abc", max_size=5)


def brute_force(r, h):
    """(edits, -substitutions) of the best of all ways to pair units in their order."""
    ways = []
    for pairs in range(min(len(r), len(h)) + 1):
        for left, right in itertools.product(
            itertools.combinations(range(len(r)), pairs), itertools.combinations(range(len(h)), pairs)
        ):
            swaps = sum(r[i] != h[j] for i, j in zip(left, right))
            ways.append((swaps + len(r) + len(h) - 2 * pairs, -swaps))
    return min(ways)


@given(SHORT, SHORT)
def test_counts_are_those_of_the_best_of_all_alignments(r, h):
    found = edit_counts(r, h)
    assert (found.distance, -found.substitutions) == brute_force(r, h)
    assert found.insertions - found.deletions == len(h) - len(r)
    assert min(found.substitutions, found.insertions, found.deletions) >= 0


@given(SHORT, SHORT, SHORT)
def test_the_distance_is_a_metric(a, b, c):
    far = lambda x, y: edit_counts(x, y).distance  # noqa: E731
    assert far(a, b) == far(b, a)
    assert (far(a, b) == 0) == (a == b)
    assert far(a, c) <= far(a, b) + far(b, c)


def test_a_rate_is_of_all_units_together_and_may_exceed_one():
    found = error_rate(["a b c", "d"], ["a b c", "x y z"], n_boot=20)
    assert found.rate.value == 3 / 4  # not the mean of 0 and 3
    assert error_rate(["d"], ["x y z"], n_boot=5).rate.value == 3
    assert error_rate(["a b", "c"], ["", ""], n_boot=5).rate.value == 1
    letters = error_rate(["ab  cd"], [" ab cx "], unit="character", n_boot=5)
    assert (letters.rate.value, letters.edits.length) == (1 / 5, 5)


def test_intervals_draw_whole_groups():
    said, heard = ["a"] * 8, ["a"] * 4 + ["b"] * 4
    alone = error_rate(said, heard, n_boot=200).rate
    grouped = error_rate(said, heard, ["u"] * 4 + ["v"] * 4, n_boot=200).rate
    assert (grouped.low, grouped.high, grouped.groups) == (0, 1, 2)
    assert 0 < alone.low < alone.value < alone.high < 1


def test_refusals():
    with pytest.raises(ValueError, match="2 references and 1 hypotheses"):
        error_rate(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="no reference holds a word"):
        error_rate(["", " "], ["a", "b"])
    with pytest.raises(ValueError, match='"word" or "character", got \'phone\''):
        error_rate(["a"], ["a"], unit="phone")
