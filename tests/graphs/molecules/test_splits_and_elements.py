"""Scaffold splits hold no scaffold twice; the element graph states chemistry."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterpoint.common.errors import InputError, LeakageError
from counterpoint.graphs.molecules.element_kg import periodic_table_graph, read_triples
from counterpoint.graphs.molecules.splits import check_scaffold_leakage, scaffold_groups, scaffold_split


@given(st.lists(st.integers(0, 30), min_size=40, max_size=150), st.booleans(), st.integers(0, 99))
def test_no_group_is_cut_and_sizes_are_near(groups, balanced, seed):
    groups = [f"s{g}" for g in groups] + [f"t{i}" for i in range(20)]
    split = scaffold_split(groups, {"train": 0.8, "val": 0.1, "test": 0.1}, balanced=balanced, seed=seed)
    for group in set(groups):
        assert len({s for g, s in zip(groups, split, strict=True) if g == group}) == 1
    largest = max(groups.count(g) for g in set(groups))
    assert abs((split == "train").sum() - 0.8 * len(groups)) <= largest + 1


def test_plain_split_is_deterministic_and_balanced_depends_on_seed():
    groups = [f"g{i % 37}" for i in range(300)]
    plain = [scaffold_split(groups, {"train": 0.8, "test": 0.2}, seed=s) for s in (0, 1)]
    assert (plain[0] == plain[1]).all()
    balanced = [scaffold_split(groups, {"train": 0.8, "test": 0.2}, balanced=True, seed=s) for s in (0, 1)]
    assert (balanced[0] != balanced[1]).any()


def test_one_scaffold_cannot_be_split():
    with pytest.raises(InputError, match="1 scaffold group"):
        scaffold_split(["a"] * 10, {"train": 0.8, "test": 0.2})


def test_leakage_names_both_molecules():
    with pytest.raises(LeakageError, match=r"c1ccccc1 stands in 'train' \(Cc1ccccc1\) and in 'test' \(Oc1ccccc1\)"):
        check_scaffold_leakage(["Cc1ccccc1", "CCO", "Oc1ccccc1"], ["train", "test", "test"])


def test_ring_free_molecules_are_their_own_groups():
    groups = scaffold_groups(["CCO", "OCC", "CCN"])
    assert groups[0] == groups[1] != groups[2]


@pytest.mark.parametrize(
    ("z", "period", "group", "block", "metallicity"),
    [(1, 1, "1", "s", "nonmetal"), (2, 1, "18", "s", "nonmetal"), (6, 2, "14", "p", "nonmetal"),
     (17, 3, "17", "p", "nonmetal"), (26, 4, "8", "d", "metal"), (14, 3, "14", "p", "metalloid"),
     (57, 6, "lanthanoid", "f", "metal"), (79, 6, "11", "d", "metal"), (92, 7, "actinoid", "f", "metal"),
     (82, 6, "14", "p", "metal"), (118, 7, "18", "p", "nonmetal"), (30, 4, "12", "d", "metal")],
)  # fmt: skip
def test_periodic_table_facts(z, period, group, block, metallicity):
    kg = periodic_table_graph()
    facts = {kg.relations[r]: kg.attributes[a] for a, r in kg.of_element[z] if kg.relations[r] != "valence"}
    assert facts["period"] == f"period:{period}"
    assert facts["group"] == f"group:{group}"
    assert facts["block"] == f"block:{block}"
    assert facts["metallicity"] == f"metallicity:{metallicity}"


def test_triples_file(tmp_path):
    path = tmp_path / "kg.txt"
    path.write_text("Family1 isfamilyof  H\n# note\nFamily1\tisfamilyof\tLi\nheavy isWeightOf Pb\n")
    kg = read_triples(path)
    assert (kg.attributes, kg.relations) == (("Family1", "heavy"), ("isfamilyof", "isWeightOf"))
    assert kg.of_element[3].tolist() == [[0, 0]]
    assert kg.of_element[82].tolist() == [[1, 1]]
    path.write_text("Family1 isfamilyof Xx\n")
    with pytest.raises(InputError, match="line 1: 'Xx' is no element symbol"):
        read_triples(path)


@pytest.mark.realdata
def test_kcl_triples_have_their_published_counts(data_dir):
    kg = read_triples(data_dir / "graphs" / "molecules" / "kcl_element_triples.txt")
    assert (len(kg.triples), len(kg.relations), len(kg.attributes)) == (
        1640,
        17,
        107,
    )
    assert len(np.unique(kg.triples[:, 2])) == 118
