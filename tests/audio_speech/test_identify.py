"""Voting: the arithmetic of shares and ties, and chance for chance."""

import pytest
import torch

from counterpoint.audio_speech.identify import identify


def test_every_snippet_votes_and_the_share_decides():
    keys = torch.eye(4)
    names = ["a", "a", "b", "c"]
    # Two snippets of b: one retrieves b's key, one retrieves a's. a has two keys, so b's share is larger.
    queries = torch.stack([keys[2], keys[0]])
    found = identify(queries, ["b", "b"], keys, names, votes=1)
    assert found.metrics["R@1"] == 1.0
    queries = torch.stack([keys[0], keys[1], keys[2]])
    found = identify(queries, ["b", "b", "b"], keys, names, votes=1)
    assert found.ranks.tolist() == [1.5], "two of two against one of one: a tie"


def test_embeddings_without_information_are_at_chance():
    torch.manual_seed(0)
    names = [str(i % 40) for i in range(400)]
    found = identify(torch.randn(400, 16), names, torch.randn(400, 16), names)
    assert found.pool == found.queries == 40
    assert found.intervals["R@1"].low <= found.chance["R@1"] + 0.03
    assert found.metrics["R@1"] < 0.15
    assert abs(found.metrics["median_rank"] - found.chance["median_rank"]) < 7


def test_all_votes_for_nobody_in_particular_is_the_middle_rank():
    same = torch.ones(6, 3)
    names = ["a", "b", "c"] * 2
    found = identify(same, names, same, names, votes=6)
    assert found.ranks.tolist() == [2.0, 2.0, 2.0]


def test_a_piece_without_keys_is_an_error():
    with pytest.raises(ValueError, match="'z'"):
        identify(torch.eye(2), ["a", "z"], torch.eye(2), ["a", "a"])
    with pytest.raises(ValueError, match="every query"):
        identify(torch.eye(2), ["a"], torch.eye(2), ["a", "a"])
