"""Zero-shot classification: cosines to descriptions, and what is left out."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from counterpoint.common import metrics as m


def gaussian(n, dim, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)).double()


WORDS = {c: gaussian(3, 6, i + 10) for i, c in enumerate("abc")}


def test_probabilities_are_the_softmax_of_cosines():
    labels = [*"abc"] * 20
    z = gaussian(60, 6, 7) * torch.linspace(0.1, 5, 60).double()[:, None]
    scores = m.zero_shot(z, labels, WORDS, n_boot=2)
    prompts = torch.stack([m.prompt_ensemble(p) for p in WORDS.values()])
    p = (torch.nn.functional.normalize(z, dim=1) @ prompts.T / 0.01).softmax(1)
    areas = [roc_auc_score(np.array(labels) == c, p[:, i]) for i, c in enumerate("abc")]
    assert scores.metrics["auroc"] == pytest.approx(np.mean(areas))


def test_samples_without_a_label_are_left_out_and_counted():
    labels = [None, *"abc"] * 15
    scores = m.zero_shot(gaussian(60, 6, 7), labels, WORDS, n_boot=2)
    assert (scores.n, scores.unlabelled) == (45, 15)


def test_descriptions_that_cancel_out_are_refused():
    with pytest.raises(ValueError, match="cancel out"):
        m.prompt_ensemble(torch.tensor([[1.0, 0.0], [-2.0, 0.0]]))


def test_where_lengths_count_a_class_scores_the_mean_of_its_descriptions_products():
    z = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).double()
    words = {str(c): torch.randn(4, 3, generator=torch.Generator().manual_seed(1 + c)).double() * 5 for c in range(3)}
    labels = [str(i % 3) for i in range(20)]
    found = m.zero_shot(z, labels, words, metric="dot", n_boot=2)
    scores = torch.stack([(z @ w.T).mean(1) for w in words.values()], 1)
    guessed = [str(int(i)) for i in scores.argmax(1)]
    assert found.metrics["accuracy"] == pytest.approx(np.mean([a == b for a, b in zip(guessed, labels)]))
    by_angle = m.zero_shot(z, labels, words, n_boot=2)
    assert by_angle.metrics["accuracy"] != found.metrics["accuracy"]
