"""Files that were cut or edited by accident: a result or one sentence, never anything else."""

import random

import numpy as np
import pytest
import torch

from counterpoint.common.errors import InputError
from counterpoint.graphs.circuits.flatten import flatten_netlist
from counterpoint.graphs.circuits.graph import build_graph
from counterpoint.graphs.circuits.parasitics import read_dspf, read_spef
from counterpoint.graphs.circuits.spice import read_spice
from counterpoint.graphs.molecules.reader import read_molecules
from counterpoint.graphs.nodes.reader import read_graph

SPEF = """*SPEF "IEEE 1481-1998"
*DESIGN "t"
*DIVIDER /
*DELIMITER :
*C_UNIT 1 FF
*R_UNIT 1 OHM
*NAME_MAP
*1 net\\[1\\]
*2 b
*D_NET *1 1.5
*CONN
*P *1 I
*I *2:A I *L 0.1
*CAP
1 *1:1 0.5
2 *1:1 *2:1 1.0
*RES
1 *1:1 *1:2 3.0
*END
*D_NET *2 1.0
*CAP
1 *2:1 *1:1 1.0
*END
"""
DSPF = """*|DSPF 1.3
*|DIVIDER /
*|GROUND_NET VSS
.SUBCKT t a b VSS
*|NET a 1.5FF
*|P (a I 0 1 2)
*|I (M1:G M1 G I 0 1 2)
C1 a:1 VSS 0.5f
C2 a:1 b:1 1.0f
R1 a a:1 2.0
*|NET b 1.0FF
*|S (b:1 1 2)
R2 b b:1 1
* Instance Section
M1 b M1:G VSS VSS nch w=1u l=1u
.ENDS
"""
SPICE = """title
.param w=1u k='2*w'
.subckt inv a y vdd vss wn=1u
M1 y a vss vss nch w=wn l='0.1u*2'
M2 y a vdd vdd pch w={2*wn}
C1 a y 1f
.ends inv
X1 in out vdd 0 inv wn=k
Xa out in vdd 0 inv
R1 in out 1k
L1 in out 1n
V1 vdd 0 dc 1.8
E1 out 0 in vdd 10
F1 out 0 V1 2
.option scale=1e-6
.include other.sp
.end
"""
CSV = 'smiles,id,act\nCCO,a,1\nc1ccccc1,b,0\n"C[N+](C)C.[Cl-]",c,\n'
SDF = """
     RDKit          2D

  2  1  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 C   0  0  0  0  0  0  0  0  0  0  0  0
    1.2990    0.7500    0.0000 O   0  0  0  0  0  0  0  0  0  0  0  0
  1  2  1  0
M  END
>  <act>  (1)
1.5

$$$$
"""
STRANGE = ["1e999", "nan", "-inf", "*9", "{", "sqrt(-1)", "pow(1)", "9**9**9", "é", "1" * 400, "max()", "k", "\x0b"]


def damaged(text: str, rng: random.Random) -> str:
    """One accident: cut short, a line lost, doubled or moved, a word lost or replaced, a character typed or lost."""
    lines = text.split("\n")
    at, line = rng.randrange(len(text) + 1), rng.randrange(len(lines))
    words = lines[line].split() or [""]
    word = rng.randrange(len(words))
    kind = rng.randrange(8)
    if kind == 0:
        return text[:at]
    if kind == 1:
        return text[:at] + rng.choice("*|:+.\\/='\"{}()[]- \t\n1e^$;,%#") + text[at:]
    if kind == 2:
        return text[:at] + text[at + 1 + rng.randrange(5) :]
    if kind in (3, 4):
        words[word : word + 1] = [rng.choice(STRANGE)] if kind == 3 else []
        lines[line] = " ".join(words)
    elif kind == 5:
        del lines[line]
    else:
        lines.insert(rng.randrange(len(lines)), lines[line] if kind == 6 else lines.pop(line))
    return "\n".join(lines)


def graph_of(path):
    return build_graph(flatten_netlist(read_spice(path)))


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [("t.spef", SPEF, read_spef), ("t.spf", DSPF, read_dspf), ("t.sp", SPICE, graph_of), ("flat.spf", DSPF, graph_of),
     ("m.csv", CSV, read_molecules), ("m.sdf", SDF * 2, read_molecules)],
)  # fmt: skip
def test_an_accident_ends_in_a_result_or_in_one_sentence(tmp_path, name, text, read):
    path, rng = tmp_path / name, random.Random(name)
    path.write_text(text)
    read(path)
    sentences = []
    for _ in range(150):
        broken = text
        for _ in range(rng.choice((1, 1, 2, 3))):
            broken = damaged(broken, rng)
        path.write_text(broken)
        try:
            read(path)
        except InputError as error:
            sentences.append(str(error))
    assert sentences
    assert not [s for s in sentences if "\n" in s.strip() or not (name in s or s.startswith("circuit "))]


@pytest.mark.slow
def test_many_broken_netlists_end_in_a_result_or_in_one_sentence(tmp_path):
    path, rng = tmp_path / "t.sp", random.Random(1)
    refused = 0
    for _ in range(1200):
        broken = SPICE
        for _ in range(rng.choice((1, 2, 3, 5))):
            broken = damaged(broken, rng)
        path.write_text(broken)
        try:
            graph_of(path)
        except InputError:
            refused += 1
    assert 300 < refused < 1200


@pytest.mark.parametrize("name", ["g.pt", "g.npz"])
def test_a_saved_graph_with_damaged_bytes_is_one_sentence(tmp_path, name):
    """Cut anywhere, or with bytes changed: what the unpickler, zip or zlib raise never gets through."""
    path, rng = tmp_path / name, random.Random(name)
    parts = {"x": np.eye(8, dtype=np.float32), "edge_index": np.array([[0, 1, 2], [1, 2, 3]])}
    if name.endswith(".npz"):
        np.savez_compressed(path, **parts)
    else:
        torch.save({k: torch.from_numpy(v) for k, v in parts.items()}, path)
    read_graph(path)
    whole, sentences = path.read_bytes(), []
    for step in range(120):
        broken = bytearray(whole[: rng.randrange(len(whole))] if step % 2 else whole)
        for _ in range(rng.randrange(1, 9)):
            if broken:
                broken[rng.randrange(len(broken))] = rng.randrange(256)
        path.write_bytes(bytes(broken))
        try:
            read_graph(path)
        except InputError as error:
            sentences.append(str(error))
    assert len(sentences) >= 60
    assert all(str(path) in s for s in sentences)
