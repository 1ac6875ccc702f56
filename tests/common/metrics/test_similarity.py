"""Likeness of representations: what it must not depend on, and what it must see."""

import pytest
import torch

from counterpoint.common import metrics as m


def gaussian(n, dim, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)).double()


X = gaussian(80, 6)
Y = X @ gaussian(6, 5, 1) + gaussian(80, 5, 2)


def test_biased_cka_is_the_cosine_of_the_centred_kernels():
    centring = torch.eye(80).double() - 1 / 80
    k, l = (centring @ (z @ z.T) @ centring for z in (X, Y))
    expected = float((k * l).sum() / (k.norm() * l.norm()))
    assert m.cka(X + 3, Y - 5, debiased=False) == pytest.approx(expected)


def test_cka_of_a_collapsed_encoder_is_none_and_few_samples_are_refused():
    flat = torch.full((80, 4), 0.1).double()
    assert m.cka(flat, X) == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(ValueError, match="at least four"):
        m.cka(X[:3], Y[:3])


def test_neighbours_are_by_angle_and_exactly_k():
    lengths = torch.linspace(0.01, 9, 80).double()[:, None]
    for k in (1, 3, 79):
        assert m.mutual_knn(lengths * X, lengths.flip(0) * Y, k=k) == pytest.approx(m.mutual_knn(X, Y, k=k))
    assert m.mutual_knn(X, Y, k=79) == 1.0  # all the others
    with pytest.raises(ValueError, match="between 1 and 79"):
        m.mutual_knn(X, Y, k=80)


def test_canonical_correlations_do_not_depend_on_the_basis():
    plain = m.cca(X, Y).correlations
    turned = m.cca(X @ gaussian(6, 6, 3) + 4, Y @ gaussian(5, 5, 4) - 2).correlations
    assert turned == pytest.approx(plain, abs=1e-8)
    assert plain == sorted(plain, reverse=True)
    q = [torch.linalg.qr(z - z.mean(0))[0] for z in (X, Y)]
    assert plain == pytest.approx(torch.linalg.svdvals(q[0].T @ q[1]).tolist())


def test_repeated_columns_add_no_correlation():
    doubled = m.cca(torch.cat([X, X[:, :3]], 1), Y).correlations
    assert doubled == pytest.approx(m.cca(X, Y).correlations, abs=1e-6)


def test_ridge_takes_away_what_is_by_chance_whatever_the_units():
    a, b = gaussian(40, 30, 5), gaussian(40, 30, 6)
    assert m.cca(a, b).correlations[0] == pytest.approx(1.0, abs=1e-6)  # 30 + 30 dimensions for 40 samples
    shrunk = m.cca(a, b, ridge=1.0).correlations[0]
    assert shrunk < 0.8
    assert m.cca(1000 * a, b / 1000, ridge=1.0).correlations[0] == pytest.approx(shrunk)


def test_the_shared_subspace_keeps_the_pairs_together():
    shared = gaussian(300, 3)
    a = torch.cat([shared, gaussian(300, 4, 1)], 1) @ gaussian(7, 7, 2)
    b = torch.cat([shared, gaussian(300, 2, 3)], 1) @ gaussian(5, 5, 4) + 7
    fit = m.cca(a[:150], b[:150], components=3)
    left, right = fit.transform_x(a[150:]), fit.transform_y(b[150:])
    assert left.shape == right.shape == (150, 3)
    assert m.retrieval(left, right, n_boot=2).a_to_b.metrics["R@1"] > 0.95


def test_the_grid_of_layers_asks_for_the_first_model_first():
    grid = m.layer_grid({"a": X, "b": Y}, {"c": X}, measure=lambda x, y: float(x.shape[1] - 10 * y.shape[1]))
    assert grid == {"a": {"c": 6.0 - 60}, "b": {"c": 5.0 - 60}}


def test_utilization_is_the_mean_squared_distance_to_the_nearest_example():
    generator = torch.Generator().manual_seed(0)
    q, x = (torch.randn(n, 5, generator=generator).double() for n in (40, 60))
    distance = torch.cdist(*(torch.nn.functional.normalize(z, dim=1) for z in (q, x)))
    assert m.utilization(q, x) == pytest.approx(float((distance.amin(1) ** 2).mean()), abs=1e-6)
    assert m.utilization(x[:10], x) == pytest.approx(0.0, abs=1e-6)
    with_mixtures = torch.cat([x, 0.5 * x[:-1] + 0.5 * x[1:]])
    assert m.utilization(q, with_mixtures) < m.utilization(q, x)  # more examples never lie farther
