"""Label-free measures against closed forms."""

import math

import numpy as np
import pytest
import torch

from counterpoint.common import metrics as m


def gaussian(n, dim, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)).double()


class TestRankMe:
    def test_orthonormal_directions_count_fully(self):
        q, _ = torch.linalg.qr(gaussian(100, 12))
        assert m.rankme(q) == pytest.approx(12, abs=1e-9)

    def test_rank_r_with_equal_singular_values(self):
        q, _ = torch.linalg.qr(gaussian(200, 32))
        assert m.rankme(q[:, :5] @ torch.linalg.qr(gaussian(32, 5))[0].T) == pytest.approx(5, abs=1e-6)

    def test_constant_matrix_is_one(self):
        assert m.rankme(torch.full((50, 8), 3.0)) == pytest.approx(1.0, abs=1e-6)
        assert m.rankme(torch.full((50, 8), 3.0), eps=1e-7) == pytest.approx(1.0, abs=1e-4)

    def test_known_spectrum_uses_singular_values_not_their_squares(self):
        z = torch.diag(torch.tensor([3.0, 1.0]).double())
        entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
        assert m.rankme(z) == pytest.approx(math.exp(entropy), abs=1e-12)

    def test_epsilon_is_added_to_the_shares_as_the_paper_has_it(self):
        """p_k = sigma_k / |sigma|_1 + eps, whatever the scale of the features."""
        for scale in (1.0, 100.0):
            assert m.rankme(scale * torch.eye(4), eps=0.1) == pytest.approx(math.exp(-4 * 0.35 * math.log(0.35)))

    def test_covariance_rank_is_of_the_eigenvalues(self):
        z = torch.diag(torch.tensor([3.0, 1.0]).double())
        entropy = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
        assert m.covariance_rank(torch.cat([z, -z])) == pytest.approx(math.exp(entropy), abs=1e-12)
        assert m.covariance_rank(torch.cat([z, -z]) + 50) == pytest.approx(math.exp(entropy), abs=1e-9)

    def test_isotropic_gaussian_approaches_its_dimension_from_below(self):
        reads = [m.rankme(gaussian(n, 64)) for n in (64, 512, 4096)]
        assert reads == sorted(reads)
        assert 63.5 < reads[-1] < 64

    def test_scale_and_rotation_do_not_matter_but_a_shift_does(self):
        z = gaussian(300, 10)
        rotation, _ = torch.linalg.qr(gaussian(10, 10, 1))
        assert m.rankme(7 * z @ rotation) == pytest.approx(m.rankme(z), abs=1e-9)
        assert m.rankme(z + 100) < 1.5 < m.covariance_rank(z + 100)

    def test_gram_route_equals_the_direct_one_in_halves_and_half_precision_is_upcast(self):
        z = gaussian(300, 10)
        gram = sum((part.T @ part for part in z.split(70)), torch.zeros(10, 10).double())
        assert m.rankme_from_gram(gram) == pytest.approx(m.rankme(z), abs=1e-9)
        assert m.rankme(z.half()) == pytest.approx(m.rankme(z), rel=1e-3)


class TestSphere:
    def test_uniformity_equals_the_double_sum(self):
        z = torch.nn.functional.normalize(gaussian(40, 5), dim=1)
        distance = torch.pdist(z) ** 2
        assert m.uniformity(z, t=3.0) == pytest.approx(float((-3 * distance).exp().mean().log()), abs=1e-9)

    def test_uniformity_of_a_collapsed_encoder_is_zero_the_worst(self):
        assert m.uniformity(torch.ones(30, 4)) == pytest.approx(0.0, abs=1e-5)
        assert m.uniformity(gaussian(30, 4)) < -0.5

    def test_alignment_of_independent_directions_is_two(self):
        assert m.alignment(gaussian(4000, 64, 0), gaussian(4000, 64, 1)) == pytest.approx(2.0, abs=0.02)
        assert m.alignment(torch.eye(4), -torch.eye(4)) == pytest.approx(4.0)
        assert m.alignment(torch.eye(4), -torch.eye(4), alpha=1) == pytest.approx(2.0)

    def test_alignment_averages_the_powers_not_the_distances(self):
        """One pair together, one pair opposite: E d^2 = (0 + 4) / 2, E d = 1."""
        a, b = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        assert m.alignment(a, b) == pytest.approx(2.0)
        assert m.alignment(a, b, alpha=1) == pytest.approx(1.0)
        assert m.alignment(2 * a, 2 * b, normalize=False) == pytest.approx(8.0)

    def test_std_is_of_each_dimension_over_the_samples(self):
        assert (
            m.std_of_normalized(torch.tensor([[1.0, 0.0]]).repeat(9, 1)) == 0.0
        )  # unlike its numbers among each other
        assert m.std_of_normalized(torch.eye(2)) == pytest.approx(0.5)  # of these samples, not of a population
        assert m.std_of_normalized(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(0.5)

    def test_std_target_is_one_over_root_dim(self):
        assert m.std_of_normalized(gaussian(5000, 64)) == pytest.approx(1 / 8, rel=0.01)

    def test_mean_cosine_and_tolerance_equal_their_double_sums(self):
        z = torch.nn.functional.normalize(gaussian(30, 6), dim=1)
        labels = torch.arange(30) % 4
        same = (labels[:, None] == labels) & ~torch.eye(30, dtype=torch.bool)
        assert m.tolerance(z, labels) == pytest.approx(float((z @ z.T)[same].mean()), abs=1e-12)
        off = ~torch.eye(30, dtype=torch.bool)
        assert m.mean_cosine(z) == pytest.approx(float((z @ z.T)[off].mean()), abs=1e-12)

    def test_modality_gap_of_opposite_cones(self):
        up, down = torch.tensor([[1.0, 0.0]]).repeat(9, 1), torch.tensor([[-1.0, 0.0]]).repeat(5, 1)
        assert m.modality_gap(up, down) == pytest.approx(2.0)
        assert m.modality_gap(up, up) == 0.0


class TestSpectra:
    def test_alpha_req_recovers_a_power_law(self):
        q, _ = torch.linalg.qr(gaussian(400, 40) - gaussian(400, 40).mean(0))
        z = q * torch.arange(1, 41).double() ** (-1.3 / 2)
        z = z - z.mean(0)
        assert m.alpha_req(z) == pytest.approx(1.3, abs=0.05)

    def exact(self, spectrum, dim, shift=0.0):
        """Features whose covariance has these eigenvalues, turned, in `dim` dimensions."""
        noise = gaussian(500, len(spectrum))
        q, _ = torch.linalg.qr(noise - noise.mean(0))
        turn = torch.linalg.qr(gaussian(dim, len(spectrum), 1))[0].T
        return (q * (499 * spectrum).sqrt()) @ turn + shift

    def test_alpha_req_reads_the_range_asked_for_and_only_what_is_there(self):
        k = torch.arange(1, 21).double()
        spectrum = torch.where(k <= 10, 1 / k, 100 / k**3)  # slope 1, then 3
        for dim, shift in ((20, 0.0), (32, 0.0), (20, 10.0)):  # 12 dimensions are empty; a shift is no direction
            z = self.exact(spectrum, dim, shift)
            assert m.alpha_req(z, last=10) == pytest.approx(1.0, abs=1e-6)
            assert m.alpha_req(z, first=11, last=20) == pytest.approx(3.0, abs=1e-6)
            assert m.alpha_req(z, first=2, last=3) == pytest.approx(1.0, abs=1e-6)
            whole = np.polyfit(k.log().numpy(), spectrum.log().numpy(), 1)[0]
            assert m.alpha_req(z) == pytest.approx(-whole, abs=1e-6)

    def test_nesum_does_not_see_the_mean_and_the_stable_rank_does(self):
        z = self.exact(torch.tensor([4.0, 2.0, 2.0]).double(), 3, shift=30.0)
        assert m.nesum(z) == pytest.approx(2.0, abs=1e-9)
        assert m.stable_rank(z) < 1.01

    def test_stable_rank_and_nesum(self):
        z = torch.diag(torch.tensor([2.0, 1.0, 1.0]).double())
        assert m.stable_rank(z) == pytest.approx(6 / 4)
        assert m.nesum(torch.cat([z, -z])) == pytest.approx(6 / 4)


class TestLidar:
    def test_view_noise_buys_no_rank(self):
        content = gaussian(400, 3)
        views = torch.zeros(400, 4, 12).double()
        views[..., :3] = content[:, None]
        views[..., 3:] = gaussian(400 * 4, 9, 1).view(400, 4, 9)
        assert m.lidar(views) < 3.2
        assert m.rankme(views.reshape(-1, 12)) > 10

    def test_equals_the_written_matrix(self):
        views = gaussian(60 * 3, 5).view(60, 3, 5) + gaussian(60, 5, 1)[:, None]
        means = views.mean(1)
        within = (views - means[:, None]).reshape(-1, 5)
        sigma_w = (within.T @ within / len(within)).numpy() + 1e-4 * np.eye(5)
        centred = (means - means.mean(0)).numpy()
        values, vectors = np.linalg.eigh(sigma_w)
        root = vectors @ np.diag(values**-0.5) @ vectors.T
        eigenvalues = np.linalg.eigvalsh(root @ (centred.T @ centred / 60) @ root)
        p = eigenvalues / eigenvalues.sum()
        assert m.lidar(views) == pytest.approx(np.exp(-(p * np.log(p)).sum()), abs=1e-9)


def test_summary_warns_about_few_samples_and_is_json():
    import json

    summary = m.label_free(gaussian(40, 8), gaussian(40, 8, 1), labels=torch.arange(40) % 2)
    assert summary.notes
    assert json.dumps(summary.as_dict())
    assert not m.label_free(gaussian(64, 8)).notes


def test_summary_draws_a_seeded_subset_of_large_sets():
    z = gaussian(300, 4)
    one, two = m.label_free(z, max_rows=100, seed=1), m.label_free(z, max_rows=100, seed=1)
    assert one == two
    assert one.n == 100
    assert "100 of 300 samples" in one.notes[-1]


def test_the_subset_keeps_pairs_and_labels_with_their_rows():
    y = torch.arange(300) % 3
    z = torch.eye(3).double()[y] + 1e-6 * gaussian(300, 3)
    summary = m.label_free(z, z.clone(), labels=y, max_rows=50, seed=2)
    assert summary.alignment == pytest.approx(0.0, abs=1e-9)
    assert summary.tolerance == pytest.approx(1.0, abs=1e-6)
