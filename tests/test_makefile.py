"""`make demo`, `make test` and `.ci/run`, with a stand-in for Python that writes down how it was called."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Behaves like an interpreter of the given version; `-m venv DIR` makes DIR with copies of itself.
STANDIN = """#!/bin/bash
case "$*" in
  -c*) exit {too_old} ;;
  --version) echo "Python 3.{minor}.0" ;;
  "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; cp "$0" "$3/bin/counterpoint" ;;
  ".ci/try_imports.py "*) echo "$(basename "$0") $*" >> "{log}"; test ! -e broken ;;
  *) echo "$(basename "$0") $*" >> "{log}" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """A folder with the Makefile, a stand-in Python first on the path, and the log of its calls."""
    log = tmp_path / "calls"
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", folder / ".ci")
    binaries = tmp_path / "bin"
    binaries.mkdir()

    class Checkout:
        path = folder

        @staticmethod
        def python(minor: int = 11):
            for name in ("python3.11", "python3.12", "python3.13", "python3", "python"):
                script = STANDIN.format(too_old=int(minor < 11), minor=minor, log=log)
                (binaries / name).write_text(script)
                (binaries / name).chmod(0o755)

        @staticmethod
        def run(*command: str, **variables: str) -> tuple[subprocess.CompletedProcess, list[str]]:
            log.write_text("")
            inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "COUNTERPOINT", "TORCH"))}
            environment = {**inherited, "PATH": f"{binaries}:/usr/bin:/bin", **variables}
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
            return done, log.read_text().splitlines()

    Checkout.python()
    return Checkout


def test_demo_installs_only_what_it_needs_then_runs(checkout):
    done, calls = checkout.run("make", "demo")
    assert done.returncode == 0, done.stderr
    assert "Making .venv with Python 3.11" in done.stdout
    assert calls == [
        "python -m pip install --disable-pip-version-check -c constraints.txt -e .[audio-speech]",
        "python .ci/try_imports.py audio-speech",
        "counterpoint audio demo",
    ]


def test_an_installation_that_lacks_what_it_promises_is_tried_again(checkout):
    (checkout.path / "broken").touch()
    for command in ("demo", "demo", "test"):
        done, calls = checkout.run("make", command)
        assert done.returncode != 0
        assert "pip install" in calls[0]
        assert "try_imports" in calls[-1]
    (checkout.path / "broken").unlink()
    assert checkout.run("make", "demo")[1][-1] == "counterpoint audio demo"
    assert checkout.run("make", "demo")[1] == ["counterpoint audio demo"]


def test_repeating_calls_no_pip(checkout):
    checkout.run("make", "demo")
    os.utime(checkout.path / "pyproject.toml")
    assert checkout.run("make", "demo")[1] == ["counterpoint audio demo"]


def test_test_installs_everything_once_and_serves_the_demo(checkout):
    _, calls = checkout.run("make", "test")
    assert calls[0].endswith("-e .[all,dev]")
    assert calls[1] == "python .ci/try_imports.py all dev"
    assert "not slow and not gpu" in calls[2]
    assert len(checkout.run("make", "test")[1]) == 1
    assert checkout.run("make", "demo")[1] == ["counterpoint audio demo"]


def test_changed_metadata_installs_again(checkout):
    checkout.run("make", "demo")
    with (checkout.path / "pyproject.toml").open("a") as file:
        file.write("\n# changed\n")
    assert "pip install" in checkout.run("make", "demo")[1][0]


def test_cpu_builds_come_first_from_pytorchs_own_index(checkout):
    _, calls = checkout.run("make", "demo", TORCH="cpu")
    assert "--index-url https://download.pytorch.org/whl/cpu --no-deps torch==" in calls[0]
    assert calls[1].endswith("-e .[audio-speech]")
    done, calls = checkout.run("make", "demo", TORCH="gpu")
    assert done.returncode != 0
    assert "TORCH=gpu is not known" in done.stderr
    assert calls == []


def test_an_old_python_is_refused_in_a_sentence(checkout):
    checkout.python(minor=9)
    done, calls = checkout.run("make", "demo")
    assert done.returncode != 0
    assert "needs Python 3.11 or newer; python3 here is Python 3.9.0" in done.stderr
    assert calls == []
    assert not (checkout.path / ".venv").exists()


@pytest.mark.parametrize("beside", [True, False])
def test_ci_runs_the_demo_then_the_tests_with_the_data_beside_the_checkout(checkout, beside):
    data = checkout.path.parent / "shared" / "data"
    if beside:
        data.mkdir(parents=True)
    (checkout.path.parent / "bin" / "make").write_text(
        f'#!/bin/bash\necho "make $* ${{COUNTERPOINT_DATA:-unset}}" >> {checkout.path.parent / "calls"}\n'
    )
    (checkout.path.parent / "bin" / "make").chmod(0o755)
    _, calls = checkout.run(str(checkout.path / ".ci" / "run"))
    where = data if beside else "unset"
    assert calls == [f"make demo {where}", f"make test {where}", f"make docs {where}"]


def test_ci_stops_at_the_first_failure(checkout):
    (checkout.path.parent / "bin" / "make").write_text("#!/bin/bash\nexit 3\n")
    (checkout.path.parent / "bin" / "make").chmod(0o755)
    assert checkout.run(str(checkout.path / ".ci" / "run"))[0].returncode == 3


def test_the_size_of_a_download_is_read_from_pips_log(tmp_path):
    here = tmp_path / "b-1-py3-none-any.whl"
    here.write_bytes(bytes(500_000))
    log = tmp_path / "log"
    log.write_text(
        "  Downloading https://a/torch-2-cp311.whl (554.6 MB)\n     ---- 554.6/554.6 MB 100.0 MB/s eta 0:00:00\n"
        "  Using cached c-1.tar.gz (900 kB)\n  Using cached https://a/torch-2-cp311.whl (554.6 MB)\n"
        f"Processing {here} (from counterpoint==0.1.0)\n  Downloading d-1-py3-none-any.whl.metadata (5.1 kB)\n"
    )
    command = ["python3", str(ROOT / ".ci" / "download_size.py"), str(log)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == "3 packages, 556 MB to download\n"
