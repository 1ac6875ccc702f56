"""The report in a real browser: scripts run to the end, both themes differ, a phone shows no sideways scroll."""

import importlib.util
import io
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from counterpoint.common.metrics import Interval
from counterpoint.common.report import GalleryRow, Media, Report, compare_runs

CHROME = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = [
    pytest.mark.skipif(CHROME is None, reason="no Chromium or Chrome on the PATH to draw the report with"),
]


@pytest.fixture(scope="module", params=["one run", "several runs"])
def page(request, tmp_path_factory):
    spec = importlib.util.spec_from_file_location("report_example", Path(__file__).with_name("test_report.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if request.param == "one run":
        report = module.full_report()
    else:
        report = compare_runs(Report("Runs compared"), module.noisy_runs((1.0, 0.9, 0.5)), n_boot=50)
    return report.write(tmp_path_factory.mktemp("report") / "report.html")


def browse(page, *arguments, theme="light"):
    command = [CHROME, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=2000"]
    command += ["--no-first-run", "--disable-background-networking", "--disable-sync", "--disable-component-update"]
    profile = f"--user-data-dir={page.parent / 'profile'}"
    return subprocess.run(
        [*command, profile, *arguments, f"{page.as_uri()}?theme={theme}"], capture_output=True, timeout=1100, check=True
    ).stdout.decode()


def shot(page, width, height, theme):
    target = page.with_name(f"{theme}-{width}.png")
    browse(page, f"--window-size={width},{height}", f"--screenshot={target}", theme=theme)
    return np.asarray(Image.open(io.BytesIO(target.read_bytes())).convert("RGB")).astype(float)


def test_scripts_run_to_their_end(page):
    dom = browse(page, "--dump-dom")
    assert 'data-ready="yes"' in dom
    assert ">Dark</button>" in dom


def test_light_is_light_and_dark_is_dark_and_neither_is_empty(page):
    light, dark = shot(page, 1200, 1600, "light"), shot(page, 1200, 1600, "dark")
    assert light.mean() > 200
    assert dark.mean() < 70
    for picture in (light, dark):
        rows_with_ink = (picture.std(axis=(1, 2)) > 4).mean()
        assert rows_with_ink > 0.4


def test_phone_width_has_no_sideways_scroll(page):
    probe = page.with_name("probe.html")
    script = "<script>document.documentElement.dataset.wide=document.documentElement.scrollWidth-innerWidth</script>"
    probe.write_text(page.read_text().replace("</body>", script + "</body>"))
    assert 'data-wide="0"' in browse(probe, "--window-size=500,900", "--dump-dom")


def framed(page, width, script):
    """What `script`, an expression of the document `d`, says of the page on a screen of that width: in a frame, because
    a browser window is no narrower than 500 pixels."""
    host = page.with_name(f"frame-{width}.html")
    host.write_text(
        f"<body style='margin:0'><iframe src='{page.name}' style='border:0;width:{width}px;height:900px'></iframe>"
        "<script>"
        "addEventListener('load', () => setTimeout(() => { const d = document.querySelector('iframe').contentDocument;"
        f"document.documentElement.dataset.said = {script}; }}, 300))</script>"
    )
    found = browse(host, "--allow-file-access-from-files", "--disable-web-security", "--dump-dom")
    return re.search('data-said="([^"]*)"', found)[1]


PHONE, DESKTOP = 390, 1200


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_every_picture_of_a_row_is_in_view_without_scrolling(tmp_path, width):
    """The right answer stands last where it is not among the best: it must not be cut off at the right."""
    hits = [Media(f"hit {i}", image=np.zeros((9, 9)), correct=i == 5) for i in range(6)]
    page = Report("x").section("A").gallery("Found", [GalleryRow(Media("query", image=np.zeros((9, 9))), hits)])
    page = page.write(tmp_path / "r.html")
    said = framed(page, width, """[...d.querySelectorAll('.item')].map(i => { const b = i.getBoundingClientRect();
      const card = i.closest('.card').getBoundingClientRect();
      return b.width > 100 && b.left >= card.left && b.right <= card.right; }).join(' ')""")  # fmt: skip
    assert said == " ".join(["true"] * 7)


def test_a_table_that_is_wider_than_its_box_says_so_and_nothing_else_does(tmp_path):
    """A hint stands before each table that is wider than its box, and goes when there is room."""
    wide = [[f"{i} {'n' * 30}" for i in range(6)]]
    report = Report("x").section("A").table("wide", wide, list("abcdef")).table("narrow", [[1]], ["a"])
    page = report.write(tmp_path / "r.html")
    hints = """[...d.querySelectorAll('.scroll')].map(box => { const hint = box.previousElementSibling;
      return hint && hint.checkVisibility() ? hint.textContent : 'all seen'; }).join('|')"""
    assert framed(page, PHONE, hints) == "scroll →|all seen"
    assert framed(page, 2000, hints).split("|")[1] == "all seen"


def test_a_table_of_figures_fits_a_phone(tmp_path):
    rows = [("balanced_accuracy", Interval(0.577, -0.134, 0.722, 9, 9), 0.5)]
    page = Report("x").section("A").figures("nearest neighbours: 39 samples", rows).write(tmp_path / "r.html")
    fits = "[...d.querySelectorAll('.scroll')].every(box => box.scrollWidth <= box.clientWidth)"
    assert framed(page, PHONE, fits) == "true"


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_the_words_of_a_chart_have_a_normal_size_as_drawn(tmp_path, width):
    """Neither tiny on a phone nor blown up where one chart stands alone."""
    line = {"loss": ([0, 20], [3.0, 1.0])}
    report = Report("x").section("A").curves("Loss", line).section("B")
    page = report.intervals("Arms", [("one", 0.5, 0.4, 0.6)], reference=0.1).write(tmp_path / "r.html")
    drawn = """[...d.querySelectorAll('svg text')].map(t => { const svg = t.ownerSVGElement;
      return parseFloat(getComputedStyle(t).fontSize) * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
      }).join(' ')"""
    said = framed(page, width, drawn)
    sizes = [float(size) for size in said.split()]
    assert len(sizes) > 8
    assert min(sizes) >= 11
    assert max(sizes) <= 18


def test_the_button_of_the_navigation_covers_no_link(tmp_path):
    """With more sections than fit, the links scroll in a box of their own that ends before the button."""
    report = Report("x")
    for i in range(30):
        report.section(f"A section with a long name {i}", "text")
    page = report.write(tmp_path / "r.html")
    script = """<script>addEventListener('load', () => { const links = document.querySelector('nav .links');
      const all = [...links.querySelectorAll('a')], button = document.getElementById('theme').getBoundingClientRect();
      links.scrollLeft = 1e6; const last = all.at(-1).getBoundingClientRect(), box = links.getBoundingClientRect();
      const seen = document.elementFromPoint(last.left + last.width / 2, last.top + last.height / 2);
      document.documentElement.dataset.bar = [all.length, links.scrollWidth > links.clientWidth,
        box.right <= button.left, last.right <= box.right + 1, seen === all.at(-1), button.right <= innerWidth,
      ].join(' '); })</script>"""
    page.write_text(page.read_text().replace("</body>", script + "</body>"))
    for width in (500, 1280):
        found = browse(page, f"--window-size={width},900", "--dump-dom")
        assert 'data-bar="30 true true true true true"' in found


def test_tab_reaches_every_control_in_reading_order_and_enter_sorts(page):
    """What a keyboard reaches: links, buttons, scrolling tables; a heading's button sorts its column both ways."""
    probe = page.with_name("keys.html")
    script = """<script>addEventListener('load', () => {
      const all = [...document.querySelectorAll('a[href], button, input, [tabindex="0"], summary, audio')]
        .filter(e => e.checkVisibility());
      const deaf = all.filter(e => { e.focus(); return document.activeElement !== e; });
      const head = document.querySelector('th.num button'), th = head.closest('th');
      const column = [...th.parentNode.children].indexOf(th);
      const read = () => [...th.closest('table').tBodies[0].rows].map(r => +r.cells[column].dataset.v).join();
      head.click(); const once = read(); head.click();
      const numbers = once.split(',').map(Number), sorted = [...numbers].sort((a, b) => a - b);
      document.documentElement.dataset.keys = [all.length > 5, deaf.length, all[0].className,
        once === sorted.join() || once === sorted.reverse().join(), th.getAttribute('aria-sort') !== 'none'].join(' ');
    })</script>"""
    probe.write_text(page.read_text().replace("</body>", script + "</body>"))
    assert 'data-keys="true 0 skip true true"' in browse(probe, "--dump-dom")
