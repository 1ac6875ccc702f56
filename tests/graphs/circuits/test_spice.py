"""SPICE in: what each dialect's spelling means, and what a broken file says."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterpoint.common.errors import InputError
from counterpoint.graphs.circuits.flatten import flatten_netlist
from counterpoint.graphs.circuits.numbers import parse_number, value_of_expression
from counterpoint.graphs.circuits.spice import NetlistError, read_spice, self_contained


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "cell.sp"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1.0), ("0.01fF", 1e-17), ("3464n", 3464e-9), ("1.386e+11p", 0.1386), ("2k", 2000.0), ("5MEG", 5e6),
     ("3m", 3e-3), ("100F", 1e-13), ("1mil", 25.4e-6), (".5u", 5e-7), ("-2.5pF", -2.5e-12), ("1kOhm", 1e3),
     ("4k7", 4700.0), ("2p2", 2.2e-12), ("1R5", 1.5), ("1meg5", 1.5e6), ("2n2F", 2.2e-9), ("-4K7", -4700.0),
     ("1d3", 1000.0), ("1D-3u", 1e-9), ("2\u03bc", 2e-6), ("2\u00b5", 2e-6)],
)  # fmt: skip
def test_numbers(text, value):
    assert parse_number(text) == pytest.approx(value, rel=1e-12, abs=0)
    assert value_of_expression(f"{{2*{text}}}", {}) == pytest.approx(2 * value, rel=1e-12, abs=0)


@pytest.mark.parametrize("text", ["1M5", "1m5", "4F7", "4.5k7", "4k7.2", "0x10", "1_000", "1.5.2"])
def test_numbers_that_can_be_read_in_two_ways_or_none_are_refused(text):
    for written in (text, f"'{text}'", f"{{1*{text}}}"):
        with pytest.raises(ValueError, match=text):
            value_of_expression(written, {})


@given(st.floats(-1e6, 1e6), st.floats(0.1, 1e3))
def test_expressions_follow_arithmetic(a, b):
    found = value_of_expression("'(x + 2*y)/y - -1'", {"x": a, "y": b})
    assert found == pytest.approx((a + 2 * b) / b + 1, rel=1e-9, abs=1e-9)


def test_expressions_execute_nothing():
    with pytest.raises(ValueError, match="not an expression"):
        value_of_expression("__import__('os').getcwd()", {})


def test_hierarchy_parameters_and_nets(tmp_path):
    """Instance values win over the cell's defaults, inner nets get the instance's path, ports take the outer net."""
    path = write(
        tmp_path,
        """title line
.param unit=1u
.global vdd!
.subckt inv in out vss w=2
+ l=0.15u
M1 out in mid vss nmos_rvt w='w*unit' l=l $ a comment
M2 out in vdd! vdd! pmos_rvt w = 3u  l = l
R1 mid vss 100
.ends inv
.SUBCKT buf a y vss
Xa a n vss INV w=4
Xb n y vss / inv
C1 a y 12.5fF
.ENDS
""",
    )
    flat = flatten_netlist(read_spice(path))
    assert flat.name == "buf"
    devices = {d.name: d for d in flat.devices}
    assert devices["Xa/M1"].params == pytest.approx({"w": 4e-6, "l": 0.15e-6})
    assert devices["Xb/M1"].params["w"] == pytest.approx(2e-6)
    assert dict(devices["Xa/M1"].pins) == {"d": "n", "g": "a", "s": "Xa/mid", "b": "vss"}
    assert dict(devices["Xb/M2"].pins)["s"] == "vdd!"
    assert {d.kind for d in flat.devices} == {"nmos", "pmos"}
    assert flat.capacitors == [("a", "y", pytest.approx(12.5e-15, rel=1e-6, abs=0))]
    assert sorted(r[2] for r in flat.resistors) == [100.0, 100.0]


def test_magic_transistors_written_as_x_and_subnodes(tmp_path):
    path = write(
        tmp_path,
        "X0 out.t1 in.t0 VSS.t2 VSS.t1 sky130_fd_pr__nfet_01v8 w=2 l=0.15\n"
        "**devattr s=1,2\nX1 out in vdd vdd sky130_fd_pr__pfet_01v8_lvt w=4 l=0.15\nC0 out in.n3 0.5fF\n",
    )
    flat = flatten_netlist(read_spice(path))
    assert [d.kind for d in flat.devices] == ["nmos", "pmos"]
    assert dict(flat.devices[0].pins) == {"d": "out", "g": "in", "s": "VSS", "b": "VSS"}
    assert flat.capacitors == [("out", "in", pytest.approx(0.5e-15, rel=1e-6, abs=0))]
    assert "out.t1" in flatten_netlist(read_spice(path), merge_subnodes=False).nets


def test_backslash_continuation_and_double_slash_comments(tmp_path):
    path = write(tmp_path, "// header\n.param a=2 \\\n   b=3\nM1 d g s b nfet w='a*b' // width\n")
    assert flatten_netlist(read_spice(path)).devices[0].params["w"] == 6.0


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("R1 a b 1k\n.subckt x a b\nR1 a b 1\n", 2, "has no .ends"),
        ("R1 a b 1k\n.ends\n", 2, ".ends without .subckt"),
        ("+ a b\n", 1, "follows no card"),
        ("R1 a b 1k\nM1 d g nmos\n", 2, "needs at least three nets"),
        ("R1 a b 1k\n.frobnicate\n", 2, "unknown card .frobnicate"),
        (".subckt i a b\nR1 a b 1\n.ends\nX1 n1 i\n", 4, "connects 1 nets to i, which has 2 ports"),
        ("C1 a b 1..2f\n", 1, "is not a SPICE number"),
        ("C1 a b 'cx'\n", 1, "parameter 'cx' has no value"),
        ("C1 a b 'sqrt(-1)'\n", 1, "\"'sqrt(-1)'\": "),
        ("C1 a b 'pow(1)'\n", 1, "not an expression"),
        ("C1 a b '(-1)**0.5'\n", 1, "no finite value"),
        ("C1 a b '9**9**9'\n", 1, "out of range"),
        ("C1 a b 1e999\n", 1, "beyond the largest number"),
        ("C1 a b 1f m=0\n", 1, "m=0 is no number of copies"),
        (".subckt i a A\nR1 a A 1\n.ends\n", 1, "names a port twice"),
        (".subckt i a b\nR1 a b 1\n.ends\n.subckt I a\nR1 a 0 1\n.ends\n", 4, "is defined twice (first in line 1)"),
        ("* t\nR231 = osc_out.t12 40.0005\n", 2, "is no device: its name holds '='"),
        ("\\\n", 1, "no device or instance was found"),
        ("R1 a b 1\nM1 d g s b 5\n", 2, "number 5 for a model"),
        ("R1 a b 1\nE1 y 0 a\n", 2, "E1 needs 2 controlling nets, got 1"),
        ("R1 a b 1\nF1 y 0 V9 2\n", 2, "controlled by V9, which the top level does not hold"),
        ("R1 a b 1\nE1 y 0 POLY(x) a b 1\n", 2, "POLY needs its number of controls"),
        ("R1 a b 1M5\n", 1, "read in two ways"),
        ("R1 a b 1\nV1 a 0 1..2\n", 2, "not a SPICE number"),
        ("R1 a b 1\nr1 b c 2\n", 2, "r1 is named twice in the top level (first in line 1)"),
        ("simulator lang=spectre\nm0 (a b c d) nmos\n", 1, "Spectre's own language"),
    ],
)
def test_errors_name_file_and_line(tmp_path, text, line, words):
    path = write(tmp_path, text)
    with pytest.raises(NetlistError) as error:
        flatten_netlist(read_spice(path))
    assert f"cell.sp, line {line}: " in str(error.value)
    assert words in str(error.value)


def test_nets_are_the_same_whatever_their_case(tmp_path):
    """SPICE knows no case: port A and net a of the body are one net, and the first spelling names it."""
    path = write(
        tmp_path,
        ".subckt inv A Y VSS\nM1 y a vss vss nmos w=1u l=1u\nM2 Mid MID mid vss nmos\n.ends\nX1 In OUT 0 inv\n"
        "X2 OUT in2 0 INV\nM3 out IN 0 0 nmos\n",
    )
    flat = flatten_netlist(read_spice(path))
    pins = {d.name: dict(d.pins) for d in flat.devices}
    assert pins["X1/M1"] == {"d": "OUT", "g": "In", "s": "0", "b": "0"}
    assert set(pins["X1/M2"].values()) == {"X1/Mid", "0"}
    assert pins["M3"]["d"] == pins["X2/M1"]["g"] == "OUT"


def test_defaults_that_depend_on_a_given_parameter_follow_it(tmp_path):
    path = write(tmp_path, ".subckt a p w=1 l='2*w'\nM1 p p p p nmos w=w l=l ad='W*L'\n.ends\nX1 n a w=4\nX2 n a\n")
    params = {d.name: d.params for d in flatten_netlist(read_spice(path)).devices}
    assert params == {"X1/M1": {"w": 4, "l": 8, "ad": 32}, "X2/M1": {"w": 1, "l": 2, "ad": 2}}


def test_a_parameter_without_a_value_is_counted(tmp_path):
    flat = flatten_netlist(read_spice(write(tmp_path, "M1 d g s b nmos w=w0 l=1u\nM2 d g s b nmos w=w0 l=1u\n")))
    assert flat.unresolved == {"nmos.w": 2}


def devices_of(path):
    return {d.name: d for d in flatten_netlist(read_spice(path)).devices}


def test_values_and_what_controls_a_source(tmp_path):
    """Gains, values at rest and couplings are kept; a control touches the nets that it reads."""
    path = write(
        tmp_path,
        """* title
.param rload=2k
L1 a y 1n
L2 b 0 2n
K1 L1 L2 0.9
V1 b 0 dc 1.8
V2 c 0 pulse(0.2 1.8 1n 1n)
V3 d 0 pwl(0 0.4 1n 1)
I1 a 0 ac 1 dc 1u
E1 y 0 a b 10
E2 y 0 (a,b) 11
E3 y 0 vol='v(c, d)*i(V1)'
G1 y 0 POLY(2) a b c d 0 1
F1 y 0 V1 2
S1 y 0 a b sw
W1 y 0 V1 csw
R1 a b rload
R2 a b 1k 0.01 0.02
M1 y a b 0 nmos
""",
    )
    found, flat = devices_of(path), flatten_netlist(read_spice(path))
    values = {n: d.params["value"] for n, d in found.items() if "value" in d.params}
    assert values == {"L1": 1e-9, "L2": 2e-9, "K1": 0.9, "V1": 1.8, "V2": 0.2, "V3": 0.4, "I1": 1e-6, "E1": 10.0,
                      "E2": 11.0, "F1": 2.0}  # fmt: skip
    nets = {n: [net for _, net in d.pins] for n, d in found.items()}
    assert nets["E1"] == nets["E2"] == nets["S1"] == ["y", "0", "a", "b"]
    assert nets["E3"] == ["y", "0", "c", "d", "b", "0"]  # the nets it probes, then those of V1
    assert nets["G1"] == ["y", "0", "a", "b", "c", "d"]
    assert nets["F1"] == nets["W1"] == ["y", "0", "b", "0"]
    assert nets["K1"] == ["a", "y", "b", "0"]
    assert [r for _, _, r in flat.resistors] == [2000.0, 1000.0]


@pytest.mark.parametrize("card", [".option scale=1e-6", ".OPTIONS post Scale = 1u", ".option scale='unit'"])
def test_option_scale_multiplies_sizes(tmp_path, card):
    path = write(tmp_path, f"* t\n.param unit=1u\nM1 d g s b nmos w=2 l=0.18 ad=3 nf=2\n{card}\n")
    sizes = devices_of(path)["M1"].params
    assert sizes == pytest.approx({"w": 2e-6, "l": 0.18e-6, "ad": 3e-12, "nf": 2.0}, rel=1e-9, abs=0)
    path.write_text("M1 d g s b nmos w=2\n.option scale=0\n")
    with pytest.raises(ValueError, match="scale=0 is no positive number"):
        flatten_netlist(read_spice(path))


def test_areas_and_words_behind_a_model(tmp_path):
    path = write(tmp_path, "* t\nQ1 c b e 2N2222 1.5\nQ2 c b e 2N2222\nD1 a k 1N4148 2\nM1 1 2 3 4 nch off\n")
    assert {n: (d.model, len(d.pins)) for n, d in devices_of(path).items()} == {
        "Q1": ("2N2222", 3), "Q2": ("2N2222", 3), "D1": ("1N4148", 2), "M1": ("nch", 4)}  # fmt: skip


def test_spectre_instances_in_brackets(tmp_path):
    path = write(
        tmp_path,
        "subckt inv a y vss\nM0 ( y a vss vss) nfet w=1u l=40n\nends inv\n"
        "subckt top a y vss\nI0 (a y vss) inv\nC0 (a y) capacitor c=1f\nV0 (a vss) vsource dc=1.8\nends top\n",
    )
    flat = flatten_netlist(read_spice(path))
    assert dict(flat.devices[0].pins) == {"d": "y", "g": "a", "s": "vss", "b": "vss"}
    assert (flat.devices[0].name, flat.devices[0].kind) == ("I0/M0", "nmos")
    assert flat.capacitors == [("a", "y", pytest.approx(1e-15, rel=1e-9, abs=0))]
    assert flat.devices[1].params == {"value": 1.8}


def test_copies_of_a_capacitor_add_up(tmp_path):
    flat = flatten_netlist(read_spice(write(tmp_path, "C1 a b 2f m=3\nR1 a b 6 m=3\nM1 a b c d nmos\n")))
    assert flat.capacitors[0][2] == pytest.approx(6e-15, rel=1e-9, abs=0)
    assert flat.resistors[0][2] == 2.0


def test_includes_count_where_they_stand(tmp_path):
    """Inside a sub-circuit the file's cards belong to that sub-circuit; a missing file is named."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "body.inc").write_text("M1 y a vss vss nmos\n.include 'deeper.inc'\n")
    (tmp_path / "lib" / "deeper.inc").write_text("C1 a y 1f\n")
    path = write(
        tmp_path, ".subckt inv a y vss\n.include lib/body.inc\n.ends\n.inc '/gone/models.sp'\nX1 in out 0 inv\n"
    )
    netlist = read_spice(path)
    assert [e.name for e in netlist.cell("inv").elements] == ["M1", "C1"]
    assert netlist.missing_includes == ("/gone/models.sp",)
    alone = tmp_path / "elsewhere" / "cell.sp"
    alone.parent.mkdir()
    alone.write_text(self_contained(path))
    assert [d.name for d in flatten_netlist(read_spice(alone)).devices] == ["X1/M1"]
    assert len(flatten_netlist(read_spice(alone)).capacitors) == 1


def test_a_file_that_includes_itself_by_another_way_is_refused(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "b.sp").write_text("R2 a b 1\n.include ../d/../cell.sp\n")
    path = write(tmp_path, "R1 a b 1\n.include d/b.sp\n")
    with pytest.raises(NetlistError, match="b.sp, line 2: .include .* includes itself"):
        read_spice(path)
    assert "includes" not in self_contained(path)


def test_recursion_is_refused(tmp_path):
    path = write(tmp_path, ".subckt a p\nX1 p a\n.ends\nX0 n a\n")
    with pytest.raises(NetlistError, match="instantiates itself"):
        flatten_netlist(read_spice(path))


def test_a_circle_of_cells_has_no_top(tmp_path):
    path = tmp_path / "r.sp"
    path.write_text(".subckt a x y\nX1 x y b\n.ends\n.subckt b x y\nX1 x y a\n.ends\n")
    with pytest.raises(ValueError, match="in a circle"):
        flatten_netlist(read_spice(path))


def test_a_title_may_begin_with_the_letter_of_a_device(tmp_path):
    """ "My ..." is no MOSFET in line 1; the same words further down are an error."""
    cards = "M1 out in vdd vdd pch w=1u l=0.1u\nC1 out in 1f\n.end\n"
    path = tmp_path / "t.sp"
    path.write_text("My inverter, version two\n" + cards)
    netlist = read_spice(path)
    assert len(flatten_netlist(netlist).devices) == 1
    assert "taken as the title" in netlist.notes[0]
    path.write_text("* title\nMy inverter, version two\n" + cards)
    with pytest.raises(ValueError, match="line 2: My needs"):
        read_spice(path)


def test_several_tops_ask_for_a_name(tmp_path):
    path = write(tmp_path, ".subckt a p\nR1 p 0 1\n.ends\n.subckt b p\nR1 p 0 1\n.ends\n")
    with pytest.raises(ValueError, match=r"2 cells could be the top \(a, b\)"):
        flatten_netlist(read_spice(path))
    assert flatten_netlist(read_spice(path), top="b").name == "b"


@pytest.mark.realdata
def test_the_sar_adc_has_its_known_devices_and_capacitors(data_dir):
    """Counts stated with the data: 6116 devices and 18705 capacitors in the extracted matrix."""
    folder = data_dir / "graphs" / "circuits" / "sky130_saradc"
    flat = flatten_netlist(read_spice(folder / "adc_array_matrix_12bit.mag.C.postlayout.spice"))
    assert len(flat.devices) == 6116
    assert len(flat.capacitors) == 18705
    supply = sum("VSS" in (a, b) or "VDD" in (a, b) for a, b, _ in flat.capacitors)
    assert (len(flat.capacitors) - supply, supply) == (17208, 1497)


@pytest.mark.slow
@pytest.mark.realdata
def test_every_spice_file_of_the_sample_data_reads(data_dir):
    """All but the Spectre test benches, which say so, and one file whose last line is missing."""
    files = [p for p in (data_dir / "graphs" / "circuits").rglob("*") if p.suffix in (".sp", ".spice")]
    refused = {}
    for path in files:
        try:
            read_spice(path)
        except NetlistError as error:
            refused[path.stem] = str(error)
    assert len(files) > 90
    assert "has no .ends" in refused.pop("COMP_GM_STAGE_0415")
    assert all(name.endswith("_test") for name in refused)
    assert all("Spectre's own language" in words for words in refused.values())


def test_a_file_outside_of_the_folder_is_not_included(tmp_path):
    (tmp_path / "secret").write_text("root:secret:word\n")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "secret")
    for name in ("../secret", str(tmp_path / "secret"), "link"):
        path = write(tmp_path / "in", f"R1 a b 1\n.include {name}\n")
        for read in (read_spice, self_contained):
            with pytest.raises(InputError, match="outside of the netlist's folder") as refused:
                read(path)
            assert "root:" not in str(refused.value)


def test_a_hierarchy_is_counted_before_it_is_flattened(tmp_path):
    cells = ".subckt c0 a b\nR1 a b 1\n.ends\n"
    for level in range(1, 10):
        cells += f".subckt c{level} a b\n" + "".join(f"X{i} a b c{level - 1}\n" for i in range(10)) + ".ends\n"
    path = write(tmp_path, cells)
    with pytest.raises(InputError, match="c9 expands to 1,000,000,000 devices"):
        flatten_netlist(read_spice(path))
    assert len(flatten_netlist(read_spice(path), top="c2").resistors) == 100
