"""A file names a class: its module is imported only where it is trusted."""

import sys

import pytest

from counterpoint.common.errors import InputError
from counterpoint.common.trainers.run_folder import load_run
from counterpoint.common.trainers.trusted import trusted_system


def test_an_unknown_module_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "hostile.py").write_text("open('ran', 'w')\nclass System: pass\n")
    (tmp_path / "config.yaml").write_text("system: hostile:System\nconfig: {}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"config.yaml: names hostile:System, .* set COUNTERPOINT_ALLOW=hostile"):
        load_run(tmp_path)
    assert not (tmp_path / "ran").exists()
    assert "hostile" not in sys.modules
    for allowed in ({"allow": ("hostile",)}, {}):
        if not allowed:
            monkeypatch.setenv("COUNTERPOINT_ALLOW", "other, hostile")
        with pytest.raises(InputError, match="hostile:System is not a ContrastiveSystem"):
            load_run(tmp_path, **allowed)
    sys.modules.pop("hostile")


def test_an_imported_module_lends_nothing_but_systems():
    with pytest.raises(InputError, match="belongs to no installed vertical"):
        trusted_system("os:system", "config.yaml")
    with pytest.raises(InputError, match="not a ContrastiveSystem"):
        trusted_system("counterpoint.common.lazy:resolve", "config.yaml")
