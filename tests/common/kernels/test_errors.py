"""Wrong arguments are refused with a sentence that names the argument and what was expected."""

import jaxtyping
import pytest
import torch

from counterpoint.common.kernels import Diagonal, Index, Pairs, SameLabel, Self, contrast_stats


@pytest.fixture(autouse=True)
def _only_our_own_messages():
    """Switches off the shape checks of the test run, which would speak first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


Q, K = torch.randn(4, 3), torch.randn(5, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"q": Q[0]}, ValueError, "q must be"),
        ({"q": Q.long()}, TypeError, "q must be a floating-point"),
        ({"k": torch.randn(5, 2)}, ValueError, "last dimension"),
        ({"scale": torch.ones(5)}, ValueError, "1-d scale is per row"),
        ({"scale": torch.ones(2, 3)}, ValueError, "scale must be"),
        ({"col_scale": torch.ones(4)}, ValueError, "col_scale must be"),
        ({"row_bias": torch.ones(5)}, ValueError, "row_bias must be"),
        ({"col_bias": torch.ones(5, dtype=torch.int64)}, TypeError, "col_bias must be a floating-point"),
        ({"valid_cols": torch.ones(5)}, TypeError, "valid_cols must be a bool"),
        ({"positive": Index(torch.zeros(5, dtype=torch.int64))}, ValueError, "positive=Index"),
        ({"positive": Index(torch.tensor([0, 1, 2, 5]))}, ValueError, "positive names column 5"),
        ({"positive": Self()}, TypeError, "positive must be Diagonal or Index"),
        ({"exclude": "self"}, TypeError, "exclude must be Self"),
        ({"exclude": SameLabel(torch.arange(4))}, ValueError, "as many columns as rows"),
        ({"exclude": SameLabel(torch.arange(4), torch.arange(4))}, ValueError, "col_ids"),
        ({"only": Pairs(torch.tensor([0, 1]), torch.tensor([0]))}, ValueError, "only=Pairs"),
        ({"exclude": Diagonal(), "only": Diagonal()}, ValueError, "no pair would be left"),
        ({"backend": "fast"}, ValueError, "backend must be one of"),
        ({"distributed": "star"}, ValueError, "distributed must be"),
    ],
)
def test_the_argument_is_named(arguments, error, says):
    with pytest.raises(error, match=says):
        contrast_stats(**{"q": Q, "k": K, **arguments})


def test_ids_must_be_integers():
    with pytest.raises(TypeError, match=r"Index\(idx"):
        Index(torch.rand(3))
