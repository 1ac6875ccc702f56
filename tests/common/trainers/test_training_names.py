"""A run remembers whom it was trained on, and says so when they are scored as if they were new."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from counterpoint.common.data.samples import ListSamples
from counterpoint.common.runs.encode import trained_on
from counterpoint.common.trainers.environment import record_training


class Rows(SimpleNamespace):
    system = SimpleNamespace(pretrained=SimpleNamespace(config=None))

    def __len__(self):
        return len(self.ids)


def test_training_samples_and_groups_are_recognised(tmp_path):
    assert trained_on(tmp_path, Rows(ids=["a"], groups=["p"])) == ""  # a run without a record
    train = ListSamples([{"x": torch.zeros(1), "id": i, "group": g} for i, g in (("a", "p"), ("b", "q"))])
    record_training(tmp_path, "main", train)
    assert trained_on(tmp_path, Rows(ids=["c", "d"], groups=["r", "s"])) == ""
    assert "1 of 2 samples and 1 of 2 groups" in trained_on(tmp_path, Rows(ids=["a", "c"], groups=["p", "r"]))
    assert "0 of 2 samples and 1 of 1 groups" in trained_on(tmp_path, Rows(ids=["c", "d"], groups=["q", "q"]))
    assert '"a"' not in (tmp_path / "training.json").read_text()


def test_a_head_that_knows_one_class_only_is_told_in_words():
    from counterpoint.common.trainers.finetuning import majority_note

    target = torch.tensor([0, 1, 1])
    flat = {"logits": torch.tensor([[0.0, 1.0]] * 3), "target": target}
    assert majority_note(flat, ("n", "v")).startswith("the head calls every one of 3 samples v")
    assert majority_note({**flat, "logits": torch.eye(2)[target]}, ("n", "v")) == ""
    assert majority_note({**flat, "target": torch.tensor([1, 1, 1])}, ("n", "v")) == ""
