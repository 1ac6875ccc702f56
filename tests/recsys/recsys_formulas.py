"""The formula by which the frozen numbers' inputs are made, and small graphs."""

import json
from pathlib import Path

import numpy as np
import torch

from counterpoint.recsys.models.propagation import SparseMatrix, bipartite_adjacency, interaction_matrix


def frozen(name):
    """Numbers of an official code."""
    return json.loads((Path(__file__).parent / "oracles" / f"{name}.json").read_text())


def formula(rows, columns, phase):
    """M(r, c, ph)[i, j] = sin(.7 i + 1.3 j + ph + .11 i j)."""
    i, j = torch.arange(rows, dtype=torch.float64)[:, None], torch.arange(columns, dtype=torch.float64)
    return torch.sin(0.7 * i + 1.3 * j + phase + 0.11 * i * j)


def adjacency(edges, n_users, n_items):
    """The normalised graph of a list of (user, item), in float64."""
    users, items = np.array(edges).T
    return SparseMatrix(bipartite_adjacency(interaction_matrix(users, items, n_users, n_items))).double()
