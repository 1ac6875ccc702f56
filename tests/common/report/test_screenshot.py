"""The report in a real browser: scripts run to the end, both themes differ, a phone shows no sideways scroll."""

import importlib.util
import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CHROME = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = [
    pytest.mark.skipif(CHROME is None, reason="no Chromium or Chrome on the PATH to draw the report with"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("report_example", Path(__file__).with_name("test_report.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.full_report().write(tmp_path_factory.mktemp("report") / "report.html")


def browse(page, *arguments, theme="light"):
    command = [CHROME, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=2000"]
    profile = f"--user-data-dir={page.parent / 'profile'}"
    return subprocess.run(
        [*command, profile, *arguments, f"{page.as_uri()}?theme={theme}"], capture_output=True, timeout=90, check=True
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
