"""The package list is complete, and the wheel holds every module and nothing else."""

import ast
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from counterpoint.common.discover import find_verticals

ROOT = Path(__file__).resolve().parents[1]
# Top-level folders of the checkout that are not part of the package.
OUTSIDE = {"tests", "benchmarks", "notebooks", "docs", "build", "dist", "runs"}


def modules() -> dict[str, str]:
    """Every module of the package: file relative to the root -> dotted package that holds it."""
    found = {}
    for file in ROOT.rglob("*.py"):
        parts = file.relative_to(ROOT).parts
        if parts[0] not in OUTSIDE and not any(part.startswith(".") or part.endswith(".egg-info") for part in parts):
            found["/".join(parts)] = ".".join(["counterpoint", *parts[:-1]])
    return found


def records() -> list[str]:
    """The records of checks that go with the verticals, relative to the root."""
    return [str(file.relative_to(ROOT)) for file in ROOT.glob("*/fidelity.json") if file.parent.name not in OUTSIDE]


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_package_list_is_complete_and_has_nothing_extra():
    assert sorted(project()["tool"]["setuptools"]["packages"]) == sorted(set(modules().values()))


def test_every_package_has_an_init():
    files = modules()
    for package in set(files.values()):
        folder = "/".join(package.split(".")[1:])
        assert (f"{folder}/__init__.py" if folder else "__init__.py") in files, f"{package} has no __init__.py"


def test_every_entry_point_can_be_loaded():
    scripts = project()["project"]["scripts"]
    verticals = project()["project"]["entry-points"]["counterpoint.verticals"]
    targets = {*scripts.values(), *verticals.values()}
    code = "from counterpoint.common.lazy import resolve\n" + "\n".join(f"resolve({target!r})" for target in targets)
    subprocess.run([sys.executable, "-c", code], check=True)
    # `counterpoint-audio` starts at the vertical its name ends in.
    assert {name.partition("-")[2] for name in scripts} - {""} == set(verticals)


def test_extra_all_holds_every_vertical():
    extras = project()["project"]["optional-dependencies"]
    (everything,) = extras["all"]
    named = set(everything.removeprefix("counterpoint[").removesuffix("]").split(","))
    assert named == set(extras) - {"all", "dev", "bench"}


@pytest.fixture(scope="module")
def installed() -> dict:
    """The functions of the script by which the Makefile checks an installation."""
    return runpy.run_path(str(ROOT / ".ci" / "try_imports.py"))


def own_verticals():
    """The suite's own; tests of the contract register one of another package in the same process."""
    found = (load() for load in find_verticals().values())
    return [vertical for vertical in found if vertical.package.startswith("counterpoint.")]


def test_extras_are_spelled_in_their_normalised_form_everywhere(installed):
    extras = set(project()["project"]["optional-dependencies"])
    assert {installed["normalised"](extra) for extra in extras} == extras
    assert {vertical.extra for vertical in own_verticals()} <= extras
    pages = [ROOT / "Makefile", *(ROOT / name for name in modules()), *ROOT.glob("*.md"), *ROOT.glob("[a-z]*/*.md")]
    for page in pages:
        for named in re.findall(r"(?:counterpoint|[' ]\.)\[([\w,-]+)\]", page.read_text(encoding="utf-8")):
            assert set(named.split(",")) <= extras, f"{page} names {named}"


# Used without an import of ours: the file and the text there that show how.
USED_IN = {
    "tensorboard": ("common/trainers/fitting.py", "TensorBoardLogger("),  # Lightning's writer
    "pytest_timeout": ("pyproject.toml", "\ntimeout = "),
    "xdist": ("Makefile", "-n $(WORKERS)"),
    "ruff": ("Makefile", "/ruff check"),
    "material": ("mkdocs.yml", "name: material"),
    "mkdocstrings": ("mkdocs.yml", "- mkdocstrings:"),
    "mkdocstrings_handlers": ("mkdocs.yml", "handlers:\n        python:"),
    "latex2mathml": ("docs/pages.py", "latex2mathml.converter"),
    "einops": ("medical/taps.py", "monai.networks.nets.swin_unetr"),  # MONAI's Swin transformer asks for it
    "pylibjpeg": ("medical/readers/dicom.py", ".pixel_array"),  # pydicom finds it, and through it the decoders
    "gdcm": ("medical/readers/dicom.py", ".pixel_array"),
    "openjpeg": ("medical/readers/dicom.py", ".pixel_array"),
    "tsai": ("timeseries/tsai_parts.py", '"tsai.models.'),  # imported by name, when a configuration asks for it
    "setuptools": ("pyproject.toml", '"setuptools.build_meta"'),
    "build": ("tests/test_packaging.py", '"-m", "build"'),
    "ipykernel": ("tests/notebooks/test_notebooks.py", 'kernel_name="python3"'),
}
# Imported where they are at hand; none of them has to be installed.
NOT_DECLARED = {
    "common": {"triton", "soundfile"},  # PyTorch's CUDA builds bring Triton; reports embed WAV without soundfile
    "tests": {"triton", "a_library_nobody_has"},
    "benchmarks": {"inf_cl", "cut_cross_entropy", "chemprop", "torchgeo"},  # compared with, installed by hand
}


def third_party(folder: Path) -> dict[str, str]:
    """Import name -> a file of the folder that imports it, without Python's own and the folder's own modules."""
    files = list(ROOT.glob("*.py")) if folder == ROOT else list(folder.rglob("*.py"))
    names = (name for file in files for name in (file.stem, file.parent.name))
    own = {"counterpoint", *sys.stdlib_module_names, *names}
    found = {}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "importorskip":
                names += [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            found |= {name.split(".")[0]: str(file.relative_to(ROOT)) for name in names}
    return {name: file for name, file in found.items() if name not in own}


def test_every_declared_dependency_is_used_and_every_used_one_declared(installed):
    """A vertical may import the core's dependencies and its own extra's; `common`, those of no vertical."""
    extras = set(project()["project"]["optional-dependencies"])
    verticals = {vertical.package.split(".")[1]: vertical.extra for vertical in own_verticals()}
    may_use = {folder: {extra} for folder, extra in verticals.items()}
    may_use["common"] = extras - {"all", "dev", "bench", *verticals.values()}
    may_use |= {"tests": {"all", "dev"}, "notebooks": {"all", "dev"}, "benchmarks": {"all", "dev", "bench"}, ".": set()}

    def declared(extra: str | None) -> set[str]:
        return {installed["import_name"](requirement) for requirement in installed["requirements"](extra)}

    used = {folder: third_party(ROOT / folder) for folder in may_use}
    for folder, names in used.items():
        allowed = set().union(NOT_DECLARED.get(folder, ()), *map(declared, [None, *may_use[folder]]))
        assert {name: file for name, file in names.items() if name not in allowed} == {}, f"not declared for {folder}"
    seen = {name for names in used.values() for name in names}
    seen |= {name for name, (file, text) in USED_IN.items() if text in (ROOT / file).read_text(encoding="utf-8")}
    assert set().union(*map(declared, [None, *extras])) - seen == set()


def test_every_dependency_has_one_tested_version(installed):
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {installed["normalised"](line.split("==")[0]): line for line in lines if not line.startswith("#")}
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pins.values())
    for requirement in (entry for extra in (None, "all", "dev") for entry in installed["requirements"](extra)):
        wanted = Requirement(requirement)
        pin = pins[installed["normalised"](wanted.name)]
        assert wanted.specifier.contains(pin.partition("==")[2]), f"{pin} is outside {requirement}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy of what git knows or would add: no network, no leftovers of an earlier build."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    listed = ["pyproject.toml", "README.md", "LICENSE", *modules(), *records()]
    for name in listed:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    for decoy in ("tests/test_decoy.py", "benchmarks/decoy.py", "notebooks/decoy.py"):
        (source / decoy).parent.mkdir(parents=True, exist_ok=True)
        (source / decoy).write_text("")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder / "dist"), str(source)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (folder / "dist").glob("*.whl")
    return built


def test_wheel_holds_every_module_and_nothing_else(wheel):
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    code = {name for name in names if name.endswith(".py")}
    assert code == {f"counterpoint/{name}" for name in modules()}
    # Beside them what the checks found, and no other data file.
    assert project()["tool"]["setuptools"]["package-data"] == {"*": ["fidelity.json"]}
    assert set(names) - code == {f"counterpoint/{name}" for name in records()}


def test_wheel_runs_in_a_fresh_folder(wheel, tmp_path):
    """Installed beside the checkout's dependencies, but from the wheel alone: the command answers."""
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import counterpoint; assert counterpoint.__file__.startswith(sys.argv[1]), counterpoint.__file__\n"
        "from counterpoint.common.cli.main import main; sys.argv[:] = ['counterpoint']\n"
        "raise SystemExit(main(['--help']))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(target)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for vertical in project()["project"]["entry-points"]["counterpoint.verticals"]:
        assert vertical in done.stdout
