"""SPEF and DSPF in: units, name map, couplings counted once, errors with lines.

`pytest.approx` allows 1e-12 by default, a thousand times a femtofarad: hence `rel=1e-6, abs=0`.
"""

import pytest

from counterpoint.graphs.circuits.flatten import flatten_netlist
from counterpoint.graphs.circuits.graph import TERMINALS, build_graph
from counterpoint.graphs.circuits.parasitics import read_dspf, read_spef
from counterpoint.graphs.circuits.spice import NetlistError, read_spice

SPEF = """*SPEF "ieee 1481-1999"
*DESIGN "toy"
*DIVIDER /
*DELIMITER :
*C_UNIT 1 FF
*R_UNIT 1 KOHM
*NAME_MAP
*1 clk
*2 data[0]
*7 u1
*D_NET *1 3.5
*CONN
*P *1 I
*I *7:A I
*CAP
1 *1 1.0
2 *7:A 0.5
3 *1:5 *2:3 2.0
*RES
1 *1 *7:A 0.2
*END
*D_NET *2 2.25
*CONN
*I *7:Y O
*CAP
1 *7:Y 0.25
2 *2:3 *1:5 2.0
*END
"""


def test_spef_units_names_and_couplings_once(tmp_path):
    path = tmp_path / "toy.spef"
    path.write_text(SPEF)
    parasitics = read_spef(path)
    assert parasitics.design == "toy"
    assert parasitics.ground == pytest.approx({"clk": 1.5e-15, "data[0]": 0.25e-15}, rel=1e-6, abs=0)
    assert parasitics.coupling == pytest.approx({("clk", "data[0]"): 2e-15}, rel=1e-6, abs=0)
    assert parasitics.resistance["clk"] == pytest.approx(200.0)
    assert parasitics.pins == {"clk": ["u1:A"], "data[0]": ["u1:Y"]}
    for net in parasitics.nets:
        coupled = sum(c for pair, c in parasitics.coupling.items() if net in pair)
        assert parasitics.ground[net] + coupled == pytest.approx(parasitics.total[net], rel=1e-6, abs=0)


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("*C_UNIT 1 FF", "*C_UNIT 1 XF", 5, "is not one of FF, PF"),
        ("*C_UNIT 1 FF", "*T_UNIT 1 PS", 11, "before any *C_UNIT"),
        ("*2 data[0]\n", "", 17, "*2 is not in the *NAME_MAP"),
        ("2 *7:A 0.5", "2 *7:A half", 17, "'half' is not a number"),
        ("2 *7:A 0.5", "2 *7:A", 17, "3 or 4 fields"),
        ("*RES\n1 *1 *7:A 0.2\n*END", "*RES", 20, "*END is missing"),
        ('*SPEF "ieee 1481-1999"', "", 1, "no *SPEF header"),
        ("*D_NET *2 2.25", "*D_NET *1 2.25", 22, "described twice"),
        ('*DESIGN "toy"', "*DESIGN", 2, "*DESIGN names no design"),
        ("*DELIMITER :", "*DELIMITER", 4, "*DELIMITER names no character"),
        ("*P *1 I", "*P", 13, "*P names no node"),
        ("*1 clk", "*1", 8, "*1 names no net"),
        ("2 *7:A 0.5", "2 *7:A nan", 17, "'nan' is not a number"),
    ],
)
def test_spef_errors_name_the_line(tmp_path, old, new, line, words):
    path = tmp_path / "bad.spef"
    path.write_text(SPEF.replace(old, new, 1))
    with pytest.raises(NetlistError) as error:
        read_spef(path)
    assert f"bad.spef, line {line}: " in str(error.value)
    assert words in str(error.value)


def test_a_capacitor_between_two_nodes_of_one_net_is_no_coupling(tmp_path):
    path = tmp_path / "own.spef"
    path.write_text(SPEF.replace("3 *1:5 *2:3 2.0", "3 *1:5 *2:3 2.0\n4 *1:5 *1:6 9.0"))
    assert read_spef(path).coupling == pytest.approx({("clk", "data[0]"): 2e-15}, rel=1e-6, abs=0)


def test_truncated_spef_says_so(tmp_path):
    path = tmp_path / "cut.spef"
    path.write_text(SPEF[: SPEF.rindex("*END")])
    with pytest.raises(NetlistError, match="'data\\[0\\]' has no \\*END; the file may be truncated"):
        read_spef(path)


def test_a_spef_cut_anywhere_is_refused(tmp_path):
    """Also between two nets, where the nets that are left are whole but couple to ones that are not."""
    path = tmp_path / "cut.spef"
    for end in range(len(SPEF.rstrip())):
        path.write_text(SPEF[:end])
        with pytest.raises(NetlistError):
            read_spef(path)
    path.write_text(SPEF[: SPEF.index("*D_NET *2")])
    with pytest.raises(NetlistError, match=r"line 18: a coupling ends at 'data\[0\]:3', whose net no \*D_NET"):
        read_spef(path)


DSPF = """*|DSPF 1.3
*|DESIGN "toy"
*|GROUND_NET VSS
*|DELIMITER :
.SUBCKT toy in out VSS
*|NET in 1.5F
*|P (in I 0 0 0)
*|I (M1:g M1 g I 0 0 0)
*|S (in:1 1.0 2.0)
C1 in VSS 0.5f
C2 in:1 out:2 1.0f
R1 in in:1 10
R2 in:1 M1:g 20
*|NET out 1.25F
*|P (out O 0 0 0)
*|S (out:2 1.0 2.0)
C3 out:2 0 0.25f
.ENDS
"""


def test_dspf_ground_coupling_and_resistance(tmp_path):
    path = tmp_path / "toy.spf"
    path.write_text(DSPF)
    parasitics = read_dspf(path)
    assert parasitics.ground == pytest.approx({"in": 0.5e-15, "out": 0.25e-15}, rel=1e-6, abs=0)
    assert parasitics.coupling == pytest.approx({("in", "out"): 1e-15}, rel=1e-6, abs=0)
    assert parasitics.resistance["in"] == pytest.approx(30.0)
    assert parasitics.pins == {"in": ["M1:g"]}


def test_dspf_error_names_the_line(tmp_path):
    path = tmp_path / "bad.spf"
    path.write_text(DSPF.replace("C2 in:1 out:2 1.0f", "C2 in:1 nowhere:9 1.0f"))
    with pytest.raises(NetlistError, match="line 11: C2 ends at node"):
        read_dspf(path)


def test_dspf_errors_of_a_cut_file_name_the_line(tmp_path):
    path = tmp_path / "cut.spf"
    path.write_text(DSPF[: DSPF.index("C3 out")])
    with pytest.raises(NetlistError, match="line 5: .subckt has no .ends; the file may be truncated"):
        read_dspf(path)
    path.write_text(DSPF.replace("*|P (in I 0 0 0)", "*|P ()"))
    with pytest.raises(NetlistError, match=r"line 7: \*\|P names no node"):
        read_dspf(path)
    path.write_text(DSPF.replace("C1 in VSS 0.5f", "C1 in VSS"))
    with pytest.raises(NetlistError, match="line 10: C1 needs two nodes and a value"):
        read_dspf(path)


def test_dspf_devices_and_continued_cards(tmp_path):
    """After the instance section's comment, R and C are devices; before it, a card may go on in the next line."""
    path = tmp_path / "toy.spf"
    devices = "* Instance Section\nM1 out M1:g VSS VSS nch w=1u l=1u\nR9 out in rpoly w=1u\n.ENDS"
    path.write_text(DSPF.replace("C2 in:1 out:2 1.0f", "C2 in:1\n+ out:2 1.0f").replace(".ENDS", devices))
    parasitics = read_dspf(path)
    assert parasitics.coupling == pytest.approx({("in", "out"): 1e-15}, rel=1e-6, abs=0)
    graph = build_graph(flatten_netlist(read_spice(path)), parasitics)
    assert graph.nets == ["in", "out"]
    assert graph.coupling_farad.tolist() == pytest.approx([1e-15], rel=1e-6, abs=0)
    on_gate = [graph.nets[n] for n, t in zip(graph.pin_net, graph.pin_terminal, strict=True) if TERMINALS[t] == "g"]
    assert on_gate == ["in"]  # M1:g is a node of net in


def test_dividers_become_slashes_and_names_match_in_any_spelling(tmp_path):
    """`*DIVIDER .`, escaped and angle-bracketed buses, capitals: the nets are the netlist's."""
    path = tmp_path / "toy.spef"
    path.write_text(
        '*SPEF "x"\n*DIVIDER .\n*DELIMITER :\n*C_UNIT 1 FF\n*NAME_MAP\n*1 XI1.MID\n*2 bus\\<3\\>\n'
        "*D_NET *1 2\n*CAP\n1 *1:1 *2:1 2\n*END\n*D_NET *2 2.5\n*CAP\n1 *2:1 *1:1 2\n2 *2 0.5\n*END\n"
    )
    netlist = tmp_path / "toy.sp"
    netlist.write_text(".subckt c a\nM1 a mid vss vss nmos\n.ends\nxi1 bus[3] c\nM2 bus[3] bus[3] vss vss nmos\n")
    graph = build_graph(flatten_netlist(read_spice(netlist)), read_spef(path))
    assert [[graph.nets[i] for i in pair] for pair in graph.coupling.T] == [["bus[3]", "xi1/mid"]]
    assert graph.ground_farad[graph.nets.index("bus[3]")].item() == pytest.approx(0.5e-15, rel=1e-6, abs=0)
    assert "capacitors at unknown nets dropped" not in graph.report


@pytest.mark.realdata
def test_the_clock_generators_spef_adds_up(data_dir):
    """623 nets; ground plus coupling of each net equals the total the file states for it."""
    path = data_dir / "graphs" / "circuits" / "sky130_saradc" / "adc_clkgen_with_edgedetect.spef"
    parasitics = read_spef(path)
    assert len(parasitics.nets) == 623
    sums = dict(parasitics.ground)
    for (a, b), value in parasitics.coupling.items():
        sums[a] += value
        sums[b] += value
    off = [n for n in parasitics.nets if abs(sums[n] - parasitics.total[n]) > 0.02 * parasitics.total[n] + 1e-18]
    assert len(off) <= 0.05 * len(parasitics.nets), off[:5]
