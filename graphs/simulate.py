"""Synthetic molecules and circuits with known rules, to try the vertical without data. All of it says synthetic."""

from __future__ import annotations

import random
from collections.abc import Iterator

from rdkit import Chem
from rdkit.Chem import Crippen, rdMolDescriptors

from counterpoint.graphs.molecules.rdkit_log import quiet_rdkit

RINGS = (
    "c1ccccc1", "c1ccncc1", "c1ccsc1", "c1ccoc1", "C1CCCCC1", "C1CCNCC1", "C1CCOCC1", "c1ccc2ccccc2c1",
    "c1ccc2[nH]ccc2c1", "c1cncnc1", "C1CCCC1", "c1cc[nH]c1", "C1CNCCN1", "c1ccc2ncccc2c1",
)  # fmt: skip
GROUPS = (
    "C", "CC", "CCC", "C(C)C", "O", "OC", "N", "NC", "N(C)C", "C(=O)O", "C(=O)N", "C(=O)OC", "C#N", "F", "Cl", "Br",
    "C(F)(F)F", "S(=O)(=O)N", "OCC", "CO", "CN", "[N+](=O)[O-]",
)  # fmt: skip
LINKERS = ("", "C", "CC", "O", "N", "C(=O)N", "C(=O)", "S", "OC", "CN")


def molecules(n: int, seed: int = 0) -> Iterator[dict[str, object]]:
    """`n` different molecules of one or two rings with groups, and properties that RDKit computes from the structure.

    `lipophilic`: Crippen logP above 2.5 (0/1); `logp`; `tpsa` (polar surface, square angstrom). These labels are
    computed, not measured: they test the machinery, not chemistry.
    """
    rng = random.Random(seed)
    seen: set[str] = set()
    while len(seen) < n:
        smiles = _ring(rng, first=True)
        if rng.random() < 0.6:
            smiles += rng.choice(LINKERS) + _ring(rng, first=False)
        with quiet_rdkit():
            molecule = Chem.MolFromSmiles(smiles)
        if molecule is None:
            continue
        canonical = Chem.MolToSmiles(molecule)
        if canonical in seen:
            continue
        seen.add(canonical)
        logp = Crippen.MolLogP(molecule)
        yield {
            "id": f"synthetic-{len(seen):05d}",
            "smiles": canonical,
            "lipophilic": float(logp > 2.5),
            "logp": round(logp, 4),
            "tpsa": round(rdMolDescriptors.CalcTPSA(molecule), 2),
        }


def _ring(rng: random.Random, first: bool) -> str:
    """A ring with up to two groups; ring bond numbers 1 and 2 are reused as 3 and 4 in the second ring."""
    ring = rng.choice(RINGS)
    if not first:
        ring = ring.replace("2", "4").replace("1", "3")
    prefix = rng.choice(GROUPS) if first and rng.random() < 0.7 else ""
    if prefix.endswith((")", "]")) or "(" in prefix:
        prefix = ""
    atoms = [i for i, c in enumerate(ring) if c in "cC" and i + 1 < len(ring) and ring[i + 1] in "cCn"]
    for position in sorted(rng.sample(atoms, min(len(atoms), rng.choice((0, 1, 1, 2)))), reverse=True):
        ring = ring[: position + 1] + f"({rng.choice(GROUPS)})" + ring[position + 1 :]
    return prefix + ring


def netlist(name: str, seed: int, stages: int = 60) -> str:
    """A synthetic extracted block in Magic's spelling: chains of inverters, mirrors and pass gates, with capacitors.

    Coupling grows with the widths of the devices on both nets and falls with their distance in the chain; ground
    capacitance grows with the width on the net; both carry 20 % noise.
    """
    rng = random.Random(seed)
    lines = [f"* synthetic block {name} (seed {seed})", f".subckt {name} in out bias VDD VSS"]
    nets = ["in"]
    width: dict[str, float] = {"in": 1.0, "bias": 1.0}
    device = 0

    def transistor(d: str, g: str, s: str, kind: str, w: float) -> None:
        nonlocal device
        bulk = "VSS" if kind == "n" else "VDD"
        lines.append(f"X{device} {d} {g} {s} {bulk} sky130_fd_pr__{kind}fet_01v8 w={w} l=0.15")
        device += 1
        for net in (d, g):
            width[net] = width.get(net, 0.0) + w

    for i in range(stages):
        out = "out" if i == stages - 1 else f"n{i}"
        w = rng.choice((0.42, 0.84, 1.68, 3.36, 6.72))
        source = nets[-1]
        style = rng.random()
        if style < 0.6:
            transistor(out, source, "VSS", "n", w)
            transistor(out, source, "VDD", "p", 2 * w)
        elif style < 0.8:
            transistor(out, source, f"t{i}", "n", w)
            transistor(f"t{i}", "bias", "VSS", "n", w)
            transistor(out, out, "VDD", "p", w)
        else:
            transistor(out, "bias", source, "n", w)
            transistor(source, "bias", out, "p", w)
        nets.append(out)
    number = 0
    for i, a in enumerate(nets):
        for step in (1, 2, 3):
            if i + step < len(nets) and rng.random() < 1.1 - 0.3 * step:
                b = nets[i + step]
                value = 0.05 * (width[a] * width[b]) ** 0.7 / step**2 * rng.uniform(0.8, 1.2)
                lines.append(f"C{number} {a} {b} {value:.4f}fF")
                number += 1
    for net, w in width.items():
        if net not in ("VDD", "VSS"):
            lines.append(f"C{number} {net} VSS {0.3 * w * rng.uniform(0.8, 1.2):.4f}fF")
            number += 1
    return "\n".join([*lines, ".ends", ""])
