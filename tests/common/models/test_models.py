"""Heads and teachers."""

import pytest
import torch
from torch import nn

from counterpoint.common.models import ConcatEncoder, EMATeacher, Projector


def test_projector_layers_end_in_its_output_and_reweighting_is_a_fixed_geometric_diagonal():
    torch.manual_seed(0)
    h = torch.randn(6, 8)
    plain, weighted = Projector(8, 16, 5, n_layers=3), Projector(8, 16, 5, n_layers=3, fixed_reweight=0.5)
    weighted.load_state_dict(plain.state_dict(), strict=False)
    layers = plain.eval().layers(h)
    assert [x.shape[1] for x in layers] == [8, 16, 16, 5]
    torch.testing.assert_close(plain(h), layers[-1])
    torch.testing.assert_close(weighted.eval()(h), plain(h) * torch.tensor([1, 0.5, 0.25, 0.125, 0.0625]))
    assert {n for n, _ in weighted.named_parameters()} == {n for n, _ in plain.named_parameters()}
    assert torch.equal(Projector(8, 16, 8, n_layers=0)(h), h)


def test_projector_refuses_what_it_cannot_be():
    with pytest.raises(ValueError, match="norm is one of"):
        Projector(2, 2, 2, norm="group")
    with pytest.raises(ValueError, match="keeps the width"):
        Projector(2, 2, 3, n_layers=0)
    with pytest.raises(ValueError, match="fixed_reweight"):
        Projector(2, 2, 2, fixed_reweight=2.0)


def test_teacher_is_the_exponential_average_and_converges_to_a_resting_student():
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    teacher = EMATeacher(student, 0.9)
    start = teacher.module[0].weight.clone()
    with torch.no_grad():
        student[0].weight += 1
    for _ in range(5):
        teacher.update()
    torch.testing.assert_close(teacher.module[0].weight, start + (1 - 0.9**5))
    student(torch.randn(8, 3))  # moves the running statistics
    teacher.update()
    torch.testing.assert_close(teacher.module[1].running_mean, 0.1 * student[1].running_mean)  # from zero
    teacher.update(momentum=0.0)
    assert torch.equal(teacher.module[1].running_mean, student[1].running_mean)
    assert int(teacher.module[1].num_batches_tracked) == 1
    assert not any(p.requires_grad for p in teacher.parameters())
    assert {id(p) for p in teacher.parameters()}.isdisjoint({id(p) for p in student.parameters()})
    with pytest.raises(ValueError, match="momentum"):
        teacher.update(1.5)


def test_teacher_has_no_dropout_and_no_graph():
    teacher = EMATeacher(nn.Sequential(nn.Linear(100, 100), nn.Dropout(0.5))).train()
    x = torch.ones(2, 100, requires_grad=True)
    assert torch.equal(teacher(x), teacher.module[0](x))
    assert not teacher(x).requires_grad


@pytest.mark.parametrize(
    "layer",
    [
        nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True),
        nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True),
        nn.LSTM(8, 8, num_layers=2, dropout=0.5, batch_first=True),
    ],
)
def test_teacher_has_no_dropout_inside_attention_and_recurrent_layers_either(layer):
    teacher = EMATeacher(layer).train()
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    inputs = (x, x, x) if isinstance(layer, nn.MultiheadAttention) else (x,)
    first, second = (out if isinstance(out := teacher(*inputs), torch.Tensor) else out[0] for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_teacher_normalises_by_the_batch_while_the_student_trains():
    teacher = EMATeacher(nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.9))).train()
    out = teacher(5 + 2 * torch.randn(64, 3, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(out.mean(0), torch.zeros(3), atol=1e-5, rtol=0)


def test_projector_normalises_and_activates_hidden_layers_only_unless_asked():
    h = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    for norm in ("batch", "layer"):
        head = Projector(8, 16, 5, n_layers=3, norm=norm)
        hidden, out = head.layers(h)[2].detach(), head(h).detach()
        assert float(hidden.min()) == 0.0  # after the activation
        assert float(out.min()) < 0 < float(out.max())
        assert [block[0].bias is None for block in head.blocks] == [True, True, False]
        assert abs(float(out.std(0).mean()) - 1) > 0.1
        normed = Projector(8, 16, 5, n_layers=3, norm=norm, last_norm=True)(h)
        axis = 0 if norm == "batch" else 1
        torch.testing.assert_close(normed.mean(axis), torch.zeros(normed.shape[1 - axis]), atol=1e-5, rtol=0)
    assert [block[0].bias is None for block in Projector(8, 16, 5, norm="none", bias=False).blocks] == [False, True]
    assert [tuple(b[0].weight.shape) for b in Projector(8, 16, 5, n_layers=1).blocks] == [(5, 8)]


def test_concatenated_stages_are_of_unit_length_and_one_weight_each_when_asked():
    class Stage(nn.Module):
        def __init__(self, scale, names):
            super().__init__()
            self.scale, self.names = scale, names

        def features(self, batch):
            return dict.fromkeys(self.names, self.scale * batch["x"])

    batch = {"x": torch.tensor([[3.0, 4.0]])}
    stages = [Stage(1.0, ["a", "b"]), Stage(10.0, ["b", "c"])]
    raw, equal = ConcatEncoder(stages), ConcatEncoder(stages, normalize_each=True)
    assert raw.features(batch).keys() == {"b"}  # what every stage has
    assert raw.features(batch)["b"].tolist() == [[3.0, 4.0, 30.0, 40.0]]
    torch.testing.assert_close(equal.features(batch)["b"], torch.tensor([[0.6, 0.8, 0.6, 0.8]]))
    for encoder in (raw, equal):
        torch.testing.assert_close(encoder(batch)["b"].norm(dim=1), torch.ones(1))
    both = ConcatEncoder([Stage(1.0, ["a", "b"])] * 2)
    assert both.encode(batch, "a").keys() == {"a"}
    with pytest.raises(ValueError, match="at least one encoder"):
        ConcatEncoder([])
