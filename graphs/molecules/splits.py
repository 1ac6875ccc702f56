"""Scaffold groups and splits of molecules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rdkit import Chem
from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles

from counterpoint.common.errors import InputError, LeakageError
from counterpoint.graphs.molecules.smiles import parse_smiles


def scaffold_groups(smiles: Sequence[str], *, chirality: bool = False) -> list[str]:
    """The Bemis-Murcko scaffold (canonical SMILES) of each molecule: the group id of a scaffold split.

    Molecules without a ring have the empty scaffold; each of them is a group of its own, named by its own SMILES,
    since sharing "no ring" makes no two molecules alike.

    >>> scaffold_groups(["c1ccccc1CC", "c1ccccc1O", "CCO"])
    ['c1ccccc1', 'c1ccccc1', 'acyclic:CCO']
    """
    groups = []
    for text in smiles:
        molecule = parse_smiles(text)
        scaffold = MurckoScaffoldSmiles(mol=molecule, includeChirality=chirality)
        groups.append(scaffold or f"acyclic:{Chem.MolToSmiles(molecule)}")
    return groups


def scaffold_split(
    groups: Sequence[str], fractions: Mapping[str, float], *, balanced: bool = False, seed: int = 0
) -> np.ndarray:
    """Deterministic scaffold split: an array of split names, no group in two splits.

    Plain (DeepChem's definition): groups from large to small (ties by name) fill the first split, then the next, so
    that test holds the rare scaffolds. `balanced`: groups larger than half of the smallest split come first, the rest
    in an order drawn from `seed`; every seed is another split.

    >>> scaffold_split(["a", "a", "a", "b", "c"], {"train": 0.6, "test": 0.4}).tolist()
    ['train', 'train', 'train', 'test', 'test']
    """
    if abs(sum(fractions.values()) - 1) > 1e-6 or min(fractions.values()) <= 0:
        raise InputError(f"fractions must be positive and add to 1, got {dict(fractions)}")
    n = len(groups)
    members: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    order = sorted(members, key=lambda g: (-len(members[g]), g))
    if balanced:
        limit = min(fractions.values()) * n / 2
        large = [g for g in order if len(members[g]) > limit]
        small = [g for g in order if len(members[g]) <= limit]
        rng = np.random.default_rng(seed)
        order = [large[i] for i in rng.permutation(len(large))] + [small[i] for i in rng.permutation(len(small))]
    names = list(fractions)
    room = {name: fraction * n for name, fraction in fractions.items()}
    filled = dict.fromkeys(names, 0)
    split = np.empty(n, dtype=object)
    for group in order:
        size = len(members[group])
        name = next((s for s in names if filled[s] + size <= room[s] + 1e-9), None)
        if name is None:  # fits nowhere whole: the split with most room left takes it
            name = max(names, key=lambda s: room[s] - filled[s])
        split[members[group]] = name
        filled[name] += size
    empty = [name for name in names if filled[name] == 0]
    if empty:
        raise InputError(
            f"split {empty[0]!r} got no molecule: {len(members)} scaffold group(s) cannot be cut that way; give more "
            "molecules, or choose --split random or none"
        )
    return split


def check_scaffold_leakage(
    smiles: Sequence[str], split: Sequence[str] | np.ndarray, groups: Sequence[str] | None = None
) -> None:
    """Raise `LeakageError` when one scaffold (of `groups`, where they are known) stands in two splits, naming the
    scaffold and both molecules."""
    seen: dict[str, tuple[str, str]] = {}
    for group, text, name in zip(groups or scaffold_groups(smiles), smiles, split, strict=True):
        other, example = seen.setdefault(group, (name, text))
        if other != name:
            raise LeakageError(
                f"scaffold {group} stands in {other!r} ({example}) and in {name!r} ({text}); split by scaffold groups"
            )
