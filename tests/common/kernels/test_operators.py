"""The engine as PyTorch operators: opcheck, no graph break, first and second derivatives."""

import subprocess
import sys

import pytest
import torch

from counterpoint.common.kernels import Diagonal, Index, SameLabel, Self, contrast_stats, pair_sum
from counterpoint.common.kernels.flatten import flatten
from counterpoint.common.kernels.packing import TENSORS, pack
from counterpoint.common.kernels.registration import _contrast


def tensors():
    torch.manual_seed(0)
    shapes = {"q": (3, 2), "k": (4, 2), "scale": (2, 3), "col_bias": (4,)}
    return {name: torch.randn(*s, dtype=torch.float64, requires_grad=True) for name, s in shapes.items()}


def statistics(q, k, scale, col_bias, **more):
    stats = contrast_stats(
        q,
        k,
        scale=scale,
        col_bias=col_bias,
        positive=Index(torch.tensor([0, -1, 3])),
        exclude=[Self(), SameLabel(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1, 3]))],
        columns=True,
        mean=True,
        backend="tiled",
        **more,
    )
    return stats.lse, stats.positive, stats.mean, stats.columns.lse, stats.columns.mean


@pytest.mark.parametrize("same", [False, True])
def test_opcheck(same):
    q = torch.randn(4, 3, requires_grad=True)
    k = q if same else torch.randn(5, 3, requires_grad=True)
    exclude = [Self(), Index(torch.tensor([0, 1, 2, 3]))]
    problem, _, _ = flatten(q, k, scale=torch.tensor(2.0), positive=Diagonal(), exclude=exclude, columns=True)
    masks, layout = pack(problem)
    given = [
        t if t is None else t.detach().requires_grad_(t.requires_grad) for t in map(problem.__getattribute__, TENSORS)
    ]
    torch.library.opcheck(_contrast, (*given, masks, layout, "tiled", True))


def test_gradients_of_first_and_second_order():
    given = tuple(tensors().values())
    assert torch.autograd.gradcheck(statistics, given)
    assert torch.autograd.gradgradcheck(statistics, given)


def test_second_order_of_a_self_similarity():
    z = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)

    def loss(z, scale):
        stats = contrast_stats(z, z, scale=scale, exclude=Self(), positive=Diagonal(1), backend="tiled")
        return stats.lse, stats.positive

    assert torch.autograd.gradcheck(loss, (z, scale))
    assert torch.autograd.gradgradcheck(loss, (z, scale))


COMPILED = """
import torch
from counterpoint.common.kernels import Diagonal, SameLabel, Self, contrast_stats

torch.manual_seed(0)
q, k = torch.randn(20, 8, requires_grad=True), torch.randn(24, 8, requires_grad=True)
scale = torch.tensor(5.0, requires_grad=True)
row_ids, col_ids = torch.arange(20) % 3, torch.arange(24) % 5

def loss(q, k, scale, backend):
    masks = [Self(), SameLabel(row_ids, col_ids)]
    stats = contrast_stats(q, k, scale=scale, positive=Diagonal(), exclude=masks, columns=True, backend=backend)
    return (stats.lse - stats.positive).mean() + stats.columns.lse.mean()

for backend in ("dense", "tiled"):
    expected = loss(q, k, scale, backend)
    found = torch.compile(loss, backend="aot_eager", fullgraph=True)(q, k, scale, backend)
    torch.testing.assert_close(found, expected)
    for a, b in zip(torch.autograd.grad(found, (q, k, scale)), torch.autograd.grad(expected, (q, k, scale))):
        torch.testing.assert_close(a, b)
"""


def test_no_graph_break_under_compile():
    """In a process of its own: the test run's shape checks are not for the compiler."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_queue_without_gradient_is_not_given_one():
    q, queue = torch.randn(6, 3, requires_grad=True), torch.randn(9, 3)
    contrast_stats(q, queue, backend="tiled").lse.sum().backward()
    expected = torch.autograd.grad(contrast_stats(q, queue, backend="dense").lse.sum(), q)[0]
    torch.testing.assert_close(q.grad, expected)
    assert queue.grad is None


@pytest.mark.parametrize("fn", ["softplus", "sigmoid"])
def test_pair_sums_have_first_and_second_derivatives(fn):
    def sums(q, k, scale, col_bias):
        return pair_sum(q, k, fn=fn, scale=scale[0], col_bias=col_bias, positive=Diagonal(), exclude=Self(),
                        row_offset=1, backend="tiled")  # fmt: skip

    given = tuple(tensors().values())
    assert torch.autograd.gradcheck(sums, given)
    assert torch.autograd.gradgradcheck(sums, given)
