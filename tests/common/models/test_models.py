"""Heads and teachers."""

import pytest
import torch
from torch import nn

from counterpoint.common.models import EMATeacher, Projector


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
