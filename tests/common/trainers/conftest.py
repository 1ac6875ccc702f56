"""Makes `tiny_system` importable, and runs it in processes that may be killed."""

import multiprocessing
import os
import socket
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


@pytest.fixture(scope="session")
def on_two_ranks():
    """Call `body(rank)` in two forked processes joined by gloo through torch's environment variables."""

    def child(body, rank: int, port: int) -> None:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", LOCAL_RANK=str(rank))
        os.environ.update(RANK=str(rank), NODE_RANK="0", GLOO_SOCKET_IFNAME="lo")
        body(rank)

    def run(body) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=child, args=(body, rank, port)) for rank in range(2)]
        for process in children:
            process.start()
        for process in children:
            process.join(60)
        for process in children:
            if process.is_alive():
                process.kill()
        assert [process.exitcode for process in children] == [0, 0]

    return run
