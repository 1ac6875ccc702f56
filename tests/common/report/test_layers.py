"""`evaluate --layers`: every layer of a projection head is measured, and the last one re-weighted."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from counterpoint.common.data.encoding import encode_rows
from counterpoint.common.data.samples import ListSamples
from counterpoint.common.errors import InputError
from counterpoint.common.metrics import Split
from counterpoint.common.metrics import evaluate_features as measure
from counterpoint.common.models import Projector
from counterpoint.common.runs.layers import layer_outputs, layered


class Headed(nn.Module):
    """An encoder that keeps its input, and a head that throws the class away."""

    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleDict({"signal": Projector(6, 5, 4, norm="none")})

    def encode(self, batch):
        return {"signal": self.heads["signal"](batch["x"])}


def samples(n, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator)
    x[:, 0] = (torch.arange(n) % 2) * 4.0 - 2
    return ListSamples([{"x": row, "id": f"{seed}-{i}"} for i, row in enumerate(x)])


def part(system, data):
    found = encode_rows(system, data)
    labels = [str(i % 2) for i in range(len(data))]
    return SimpleNamespace(
        system=system, dataset=data, positions=found.positions, vectors=found.vectors, labels=labels, groups=found.ids
    )


@pytest.fixture
def seen():
    torch.manual_seed(0)
    system = Headed().eval()
    with torch.no_grad():
        system.heads["signal"].blocks[0][0].weight[:, 0] = 0  # the class stands in the first input alone
    test, train = part(system, samples(80, 0)), part(system, samples(120, 1))
    found = measure(Split(test.vectors, test.labels), Split(train.vectors, train.labels), protocols=["labelfree"])
    return SimpleNamespace(encoded=test, others={"train": train}, evaluation=found)


def test_layers_are_the_heads_own_outputs(seen):
    system, batch = seen.encoded.system, {"x": torch.randn(7, 6)}
    found = layer_outputs(system, reweight=0.5)(batch)
    wanted = system.heads["signal"].layers(batch["x"])
    assert list(found) == [*(f"heads.signal, layer {i}" for i in range(3)), "heads.signal, layer 2 x 0.5^k"]
    for one, other in zip(found.values(), wanted):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(found["heads.signal, layer 2 x 0.5^k"][:, 3], wanted[2][:, 3] / 8)
    assert not system.heads["signal"]._forward_pre_hooks  # nothing stays behind


def test_a_head_that_discards_the_class_shows_it_layer_by_layer(seen):
    results = layered(seen, n_boot=20)
    probes = {n: r for n, r in results.items() if n.startswith("logreg")}
    accuracy = [probes[f"logreg of heads.signal, layer {i}"].scores.metrics["balanced_accuracy"] for i in range(3)]
    assert accuracy[0] > 0.95
    assert max(accuracy[1:]) < 0.75
    assert {n.split(" of ")[0] for n in results} == {"labelfree", "knn", "logreg"}


def test_without_labels_the_layers_have_label_free_figures(seen):
    seen.encoded.labels = None
    seen.others = {}
    assert {n.split(" of ")[0] for n in layered(seen, n_boot=20)} == {"labelfree"}


def test_what_cannot_be_measured_is_said():
    with pytest.raises(InputError, match="has no projection head"):
        layer_outputs(nn.Linear(2, 2))
    with pytest.raises(InputError, match="--reweight"):
        layer_outputs(Headed(), reweight=1.5)
