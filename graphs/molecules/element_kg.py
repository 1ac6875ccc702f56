"""The element knowledge graph: triples (attribute, relation, element), from RDKit's periodic table or a file.

Elements are nodes 1..118 by atomic number; attributes follow. In a molecule's augmented graph each attribute of its
elements becomes one node with a directed edge to every atom that has it (KCL, Fang et al., AAAI 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import Chem

from counterpoint.common.errors import InputError

N_ELEMENTS = 118
FIRST_ATTRIBUTE = N_ELEMENTS + 1
_NOBLE = (2, 10, 18, 36, 54, 86, 118)


@dataclass(frozen=True)
class ElementGraph:
    """Triples over elements. `attributes[i]` is node `FIRST_ATTRIBUTE + i`; `relations[r]` names relation r."""

    attributes: tuple[str, ...]
    relations: tuple[str, ...]
    triples: np.ndarray  # [n, 3]: attribute number, relation number, atomic number
    source: str

    @property
    def n_nodes(self) -> int:
        """Size of a node table that holds all elements (index = atomic number, 0 unused) and attributes."""
        return FIRST_ATTRIBUTE + len(self.attributes)

    @cached_property
    def of_element(self) -> dict[int, np.ndarray]:
        """For each atomic number its (attribute number, relation number) pairs, [m, 2]."""
        return {z: self.triples[self.triples[:, 2] == z][:, :2] for z in range(1, N_ELEMENTS + 1)}

    def names(self) -> dict[str, Any]:
        """The graph as plain data; `of_names` makes it again."""
        return {
            "attributes": list(self.attributes),
            "relations": list(self.relations),
            "triples": self.triples.tolist(),
            "source": self.source,
        }

    @classmethod
    def of_names(
        cls, attributes: Sequence[str], relations: Sequence[str], triples: Sequence[Sequence[int]], source: str
    ) -> ElementGraph:
        """The inverse of `names`."""
        rows = np.array(triples, dtype=np.int64).reshape(-1, 3)
        return cls(tuple(attributes), tuple(relations), rows, source)

    @classmethod
    def from_triples(cls, triples: list[tuple[str, str, str]], source: str) -> ElementGraph:
        """Number attributes and relations in the order of their first triple; a triple that is repeated counts once."""
        triples = list(dict.fromkeys(triples))
        attributes = tuple(dict.fromkeys(t[0] for t in triples))
        relations = tuple(dict.fromkeys(t[1] for t in triples))
        number = {a: i for i, a in enumerate(attributes)}
        kind = {r: i for i, r in enumerate(relations)}
        table = Chem.GetPeriodicTable()
        symbols = {table.GetElementSymbol(z): z for z in range(1, N_ELEMENTS + 1)}
        rows = [(number[a], kind[r], symbols[e]) for a, r, e in triples]
        return cls(attributes, relations, np.array(rows, dtype=np.int64).reshape(-1, 3), source)


def read_triples(path: str | Path) -> ElementGraph:
    """Load a triples file: one `attribute relation element-symbol` a line (blanks or tabs; `#` comments).

    Raises `InputError` naming the line of an unknown element or of a line without three fields.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a text file of 'attribute relation element' lines")
    table = Chem.GetPeriodicTable()
    symbols = {table.GetElementSymbol(z) for z in range(1, N_ELEMENTS + 1)}
    triples = []
    for line, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = raw.split("#")[0].split()
        if not words:
            continue
        if len(words) != 3:
            raise InputError(f"{path}, line {line}: expected 'attribute relation element', got {len(words)} field(s)")
        if words[2] not in symbols:
            raise InputError(f"{path}, line {line}: {words[2]!r} is no element symbol")
        triples.append((words[0], words[1], words[2]))
    if not triples:
        raise InputError(f"{path}: holds no triple")
    return ElementGraph.from_triples(triples, str(path))


def periodic_table_graph() -> ElementGraph:
    """The built-in graph, from RDKit's periodic table and the group and period rules of chemistry.

    Relations: period, group, block, outer electrons, usual valences, metallicity, state at room temperature, and
    bins of atomic weight, covalent radius and van der Waals radius. It has no melting points, electronegativities or
    ionisation energies, which RDKit does not carry: load a triples file for those.

    >>> kg = periodic_table_graph()
    >>> carbon = {(kg.relations[r], kg.attributes[a]) for a, r in kg.of_element[6]}
    >>> ("group", "group:14") in carbon, ("valence", "valence:4") in carbon
    (True, True)
    """
    table = Chem.GetPeriodicTable()
    weights = np.array([table.GetAtomicWeight(z) for z in range(1, N_ELEMENTS + 1)])
    covalent = np.array([table.GetRcovalent(z) for z in range(1, N_ELEMENTS + 1)])
    vdw = np.array([table.GetRvdw(z) for z in range(1, N_ELEMENTS + 1)])
    triples = []
    for z in range(1, N_ELEMENTS + 1):
        symbol = table.GetElementSymbol(z)
        period, group = _period(z), _group(z)
        facts = {
            "period": period,
            "group": group,
            "block": _block(z),
            "outer_electrons": table.GetNOuterElecs(z),
            "metallicity": _metallicity(z),
            "state": "gas" if z in (1, 2, 7, 8, 9, 10, 17, 18, 36, 54, 86) else "liquid" if z in (35, 80) else "solid",
            "weight": f"bin{_bin(weights, z, 10)}",
            "covalent_radius": f"bin{_bin(covalent, z, 5)}",
            "vdw_radius": f"bin{_bin(vdw, z, 5)}",
        }
        triples += [(f"{relation}:{value}", relation, symbol) for relation, value in facts.items()]
        triples += [(f"valence:{v}", "valence", symbol) for v in table.GetValenceList(z) if v >= 0]
    return ElementGraph.from_triples(triples, "RDKit periodic table")


def _bin(values: np.ndarray, z: int, count: int) -> int:
    edges = np.quantile(values, np.linspace(0, 1, count + 1)[1:-1])
    return int(np.searchsorted(edges, values[z - 1], side="right"))


def _period(z: int) -> int:
    return 1 + sum(z > noble for noble in _NOBLE)


def _group(z: int) -> str:
    """IUPAC group number, or `lanthanoid`/`actinoid`."""
    if 57 <= z <= 71:
        return "lanthanoid"
    if 89 <= z <= 103:
        return "actinoid"
    start = (0, *_NOBLE)[_period(z) - 1]
    position = z - start
    if z == 2:
        return "18"
    if _period(z) == 1 or position <= 2:
        return str(position)
    if _period(z) <= 3:
        return str(position + 10)
    return str(position - 14 if _period(z) >= 6 and position > 17 else position)


def _block(z: int) -> str:
    group = _group(z)
    if group in ("lanthanoid", "actinoid"):
        return "f"
    return "s" if int(group) <= 2 or z == 2 else "d" if int(group) <= 12 else "p"


def _metallicity(z: int) -> str:
    if z in (5, 14, 32, 33, 51, 52, 85):
        return "metalloid"
    nonmetal = {1, 2, 6, 7, 8, 9, 10, 15, 16, 17, 18, 34, 35, 36, 53, 54, 86, 117, 118}
    return "nonmetal" if z in nonmetal else "metal"
