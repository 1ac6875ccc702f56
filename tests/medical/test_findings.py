"""Zero-shot findings: uncertain labels do not count, a constant encoder is at chance, prompt files in words."""

import numpy as np
import pytest
import torch

from counterpoint.common.errors import InputError
from counterpoint.medical.findings import read_findings, score_findings

AXES = torch.eye(3)


def test_scores_are_those_of_the_difference_of_prompts_and_uncertain_labels_do_not_count():
    z = torch.tensor([[1.0, 0, 0.2], [0.9, 0.1, 0], [0.1, 1, 0], [0, 0.8, 0.5], [0.5, 0.5, 0]])
    prompts = {"a": (AXES[:1], AXES[1:2])}
    plain = score_findings(z, prompts, {"a": [1, 1, 0, 0, 1]}, n_boot=20)
    assert plain.metrics["a"] == 1.0
    assert plain.counts["a"] == (3, 5)
    # The wrong ones are called uncertain or unknown: they leave the figure as it is.
    part = score_findings(z, prompts, {"a": [1, -1, 0, None, float("nan")]}, n_boot=20)
    assert (part.metrics["a"], part.counts["a"]) == (1.0, (1, 2))


def test_an_encoder_without_knowledge_is_at_chance():
    z = torch.ones(40, 3)
    labels = {"a": [i % 2 for i in range(40)]}
    found = score_findings(z, {"a": (AXES[:1], AXES[1:2])}, labels, [str(i // 2) for i in range(40)], n_boot=50)
    assert found.metrics["a"] == 0.5
    assert found.metrics["mean"] == found.chance["mean"] == 0.5


def test_labels_of_one_kind_and_odd_ones_are_told():
    z, prompts = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), {"a": (AXES[:1], AXES[1:2])}
    found = score_findings(z, prompts, {"a": [0, 0, -1, 0]}, n_boot=5)
    assert found.metrics == {}
    assert "nothing can be told apart" in found.notes[0]
    with pytest.raises(InputError, match="label column 'a' holds 2"):
        score_findings(z, prompts, {"a": [0, 1, 2, 0]}, n_boot=5)


def test_prompt_files_are_read_or_refused_in_words(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("nodule:\n  present: [A nodule., Nodules are seen.]\n  absent: No nodule.\n")
    assert read_findings(file) == {"nodule": {"present": ["A nodule.", "Nodules are seen."], "absent": ["No nodule."]}}
    for text, said in (
        ("a: [x]", "needs present and absent"),
        ("[1]", "must map"),
        ("a: {present: [], absent: x}", "one or"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=f"p.yaml.*{said}"):
            read_findings(file)
    with pytest.raises(InputError, match="no such file of prompts"):
        read_findings(tmp_path / "none.json")


def test_intervals_are_over_patients():
    rng = np.random.default_rng(0)
    z = torch.tensor(rng.normal(size=(60, 3)), dtype=torch.float32)
    y = (z[:, 0] + 0.8 * torch.randn(60, generator=torch.Generator().manual_seed(1)) > 0).float().tolist()
    prompts = {"a": (AXES[:1], -AXES[:1])}
    apart = score_findings(z, prompts, {"a": y}, n_boot=300)
    together = score_findings(z, prompts, {"a": y}, [str(i // 10) for i in range(60)], n_boot=300)
    assert together.intervals["a"].value == apart.intervals["a"].value
    assert together.intervals["a"].low != apart.intervals["a"].low
