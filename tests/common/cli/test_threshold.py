"""`search --threshold`: nothing similar, by a score that validation samples decide."""

import numpy as np
import pandas
import pytest
import torch

from counterpoint.common.data import ListSamples
from counterpoint.common.data.embeddings import EmbeddingStore
from counterpoint.common.data.links import Links
from counterpoint.common.errors import InputError
from counterpoint.common.metrics.scores import score_named
from counterpoint.common.runs.threshold import Threshold, given_threshold, kept_threshold, learn_threshold, share_asked


class Memory(EmbeddingStore):
    """Embeddings in memory."""

    frame = ids = modalities = None

    def __init__(self, groups, vectors):
        self.frame = pandas.DataFrame({"group": groups, "sample": range(len(groups))})
        self.modalities, self.ids, self.z = tuple(vectors), list(map(str, range(len(groups)))), vectors

    def part(self, modality):
        return self

    def vectors(self, modality):
        return self.z[modality]


class Said(ListSamples):
    """Forty samples, and what belongs together."""

    def __init__(self, links):
        super().__init__([{"x": i} for i in range(40)])
        self.links = links

    def relevant(self, query, key):
        return self.links.get((query, key))


def learnt(links, source, to, share=0.25, groups=None):
    z = {name: torch.randn(40, 6, generator=torch.Generator().manual_seed(i)) for i, name in enumerate("ab")}
    store = Memory(groups or [str(i) for i in range(40)], z)
    found = learn_threshold(store, Said(links), source, to, score_named("cosine"), share)
    unit = {name: torch.nn.functional.normalize(v, dim=1).numpy() for name, v in z.items()}
    return found, unit[source] @ unit[to].T


@pytest.mark.parametrize("share", [0.05, 0.25])
def test_it_is_the_score_that_this_share_of_unrelated_pairs_reach(share):
    found, scores = learnt({}, "a", "b", share)
    unrelated = scores[~np.eye(40, dtype=bool)]
    assert found.pairs == len(unrelated) == 1560
    assert np.mean(unrelated >= found.value) == pytest.approx(share, abs=1e-3)
    assert found.misses == np.mean(np.diag(scores) < found.value)


def test_what_belongs_together_is_no_unrelated_pair():
    links = {("a", "b"): Links.equal([i % 4 for i in range(40)])}
    found, scores = learnt(links, "a", "b")
    same = np.equal.outer(np.arange(40) % 4, np.arange(40) % 4)
    assert found.pairs == (~same).sum()
    assert np.mean(scores[~same] >= found.value) == pytest.approx(0.25, abs=2e-3)
    assert found.misses == np.mean(np.where(same, scores, -9).max(1) < found.value)


def test_within_a_modality_an_answer_in_another_one_tells():
    """One group alone: samples of one caption belong together, others do not; nothing is its own neighbour."""
    links = {("a", "b"): Links.equal([i % 4 for i in range(40)])}
    found, scores = learnt(links, "a", "a", groups=["one"] * 40)
    same = np.equal.outer(np.arange(40) % 4, np.arange(40) % 4)
    assert found.pairs == (~same).sum()
    best = np.where(same & ~np.eye(40, dtype=bool), scores, -9).max(1)
    assert found.misses == np.mean(best < found.value)


def test_within_a_modality_of_which_nothing_is_said_groups_tell():
    found, _ = learnt({}, "a", "a", groups=[str(i // 10) for i in range(40)])
    assert (found.pairs, found.misses) == (40 * 30, None)
    with pytest.raises(InputError, match="no two samples that are known not to belong together"):
        learnt({}, "a", "a", groups=["one"] * 40)


def test_it_is_learnt_once_for_the_same_weights_and_data(tmp_path):
    calls = []

    def learn():
        calls.append(1)
        return Threshold(0.5, 0.05, None, len(calls))

    first = kept_threshold(tmp_path, "a -> b, 0.05", ["model", "data"], learn)
    assert kept_threshold(tmp_path, "a -> b, 0.05", ["model", "data"], learn) == first
    assert kept_threshold(tmp_path, "b -> a, 0.05", ["model", "data"], learn).pairs == 2
    assert kept_threshold(tmp_path, "a -> b, 0.05", ["other model", "data"], learn).pairs == 3
    (tmp_path / "thresholds.json").write_text("{damaged")
    assert kept_threshold(tmp_path, "a -> b, 0.05", ["model", "data"], learn).pairs == 4


@pytest.mark.parametrize("text", ["auto:0", "auto:1.5", "auto:x"])
def test_a_share_that_is_none(text):
    with pytest.raises(InputError, match="the share of false alarms lies between 0 and 1"):
        share_asked(text)


@pytest.mark.parametrize("text", ["high", "nan", "0,5"])
def test_a_number_that_is_none(text):
    with pytest.raises(InputError, match="give a number, auto, or auto:SHARE"):
        given_threshold(text)
