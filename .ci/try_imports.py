"""Import what an installation promises: `python try_imports.py [EXTRA ...]` tries the core and the named extras of
pyproject.toml, and ends with exit code 1 and the names that fail. The Makefile notes an installation only after it.
"""

import importlib
import re
import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Where a package is imported by another name than the one it is installed by.
IMPORT_NAMES = {
    "faiss-cpu": "faiss",
    "open-clip-torch": "open_clip",
    "mkdocs-material": "material",
    "mkdocstrings-python": "mkdocstrings_handlers",
    "pillow": "PIL",
    "python-gdcm": "gdcm",
    "pylibjpeg-openjpeg": "openjpeg",
    "pynrrd": "nrrd",
    "pytest-xdist": "xdist",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}


def normalised(name: str) -> str:
    """A package's or an extra's name as installers compare it (PEP 503, PEP 685)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def import_name(requirement: str) -> str:
    """`scikit-learn>=1.6` -> `sklearn`."""
    name = normalised(re.match(r"[\w.-]+", requirement)[0])
    return IMPORT_NAMES.get(name, name.replace("-", "_"))


def requirements(extra: str | None = None) -> list[str]:
    """The core's requirements, or an extra's with the extras that it names in turn."""
    found = []
    for entry in PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]:
        nested = re.fullmatch(rf"{PROJECT['name']}\[(.+)\]", entry)
        for name in nested[1].split(",") if nested else []:
            found += requirements(name.strip())
        found += [] if nested else [entry]
    return found


def failures(extras: list[str]) -> dict[str, str]:
    """Import name -> why it cannot be imported."""
    wanted = [PROJECT["name"], *(import_name(entry) for extra in (None, *extras) for entry in requirements(extra))]
    failed = {}
    for name in dict.fromkeys(wanted):
        try:
            importlib.import_module(name)
        except Exception as error:  # a broken build raises OSError, RuntimeError and others
            failed[name] = f"{type(error).__name__}: {error}"
    return failed


if __name__ == "__main__":
    failed = failures(sys.argv[1:])
    if failed:
        reasons = "\n".join(f"  {name}: {reason}" for name, reason in failed.items())
        sys.exit(f"the installation is not complete; these cannot be imported:\n{reasons}")
