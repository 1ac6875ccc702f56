"""Makes `tiny_system` importable, and runs it in processes that may be killed."""

import multiprocessing
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def run_tiny(tmp_path_factory):
    """Run `tiny_system.main` in a forked process (imports are done already); returns exit code and stderr."""
    import tiny_system

    logs = tmp_path_factory.mktemp("logs")

    def body(arguments: list[str], log: Path) -> None:
        with log.open("w") as handle:
            os.dup2(handle.fileno(), 2)
            tiny_system.main(arguments)

    def run(*arguments: object, check: bool = True) -> tuple[int, str]:
        log = logs / f"{len(list(logs.iterdir()))}.txt"
        child = multiprocessing.get_context("fork").Process(target=body, args=([str(a) for a in arguments], log))
        child.start()
        child.join(60)
        assert not check or child.exitcode == 0, log.read_text()
        return child.exitcode, log.read_text()

    return run
