"""The vertical of another team's package, installed for the tests of this folder, and its runs, trained once."""

import multiprocessing
import os
import socket
import sys
from pathlib import Path

import pytest

from counterpoint.common.cli.main import main

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def ballads(tmp_path_factory):
    """The package with its entry points; the command line runs in the folder that is returned."""
    site = tmp_path_factory.mktemp("site")
    metadata = site / "ballads-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: ballads\nVersion: 1.0\n")
    points = "[counterpoint.verticals]\nballads = ballads.cli:vertical\n"
    points += "[counterpoint.plugins]\nshort_captions = ballads.cli:short_captions\n"
    (metadata / "entry_points.txt").write_text(points)
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        patch.syspath_prepend(str(site))
        patch.setattr(sys, "argv", ["counterpoint"])
        patch.chdir(folder)
        yield folder


@pytest.fixture
def cli(ballads, monkeypatch, capsys):
    """`counterpoint ballads ...`: (exit code, stdout, stderr)."""
    monkeypatch.chdir(ballads)

    def run(*argv):
        capsys.readouterr()
        code = main(["ballads", *(str(word) for word in argv)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def done(cli):
    """The same, of which nothing but success is expected: its stdout."""

    def run(*argv):
        code, out, err = cli(*argv)
        assert code == 0, err
        return out

    return run


SMALL = ("--preset", "small", "--train.tensorboard", "false", "--train.accelerator", "cpu")


@pytest.fixture(scope="module")
def songs(ballads):
    """Synthetic songs, and newer ones with new words."""
    simulate = ("ballads", "data", "simulate", "--songs", "32", "--out")
    assert main([*simulate, "songs"]) == 0
    assert main([*simulate, "newer", "--seed", "1", "--newer", "true"]) == 0
    return ballads / "songs" / "manifest.parquet"


@pytest.fixture(scope="module")
def run(songs):
    """A run through both stages, encoded three samples at a time, with rows weighed by a plug-in."""
    words = ("--train.micro_batch_size", "3", "--train.plugins", "short_captions", "--short_captions.power", "0.5")
    assert main(["ballads", "pretrain", "common-words", *SMALL, *words, "--train.out", "runs/one"]) == 0
    return songs.parents[1] / "runs" / "one"


@pytest.fixture(scope="module")
def forked():
    """Call `body(rank)` in each of `world` forked processes, joined by gloo where there are two."""

    def child(body, rank, world, port):
        if world > 1:
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE=str(world))
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), NODE_RANK="0", GLOO_SOCKET_IFNAME="lo")
        body(rank)

    def call(body, world=1):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=child, args=(body, rank, world, port)) for rank in range(world)]
        for process in children:
            process.start()
        for process in children:
            process.join(200)
        for process in children:
            if process.is_alive():
                process.kill()
        return [process.exitcode for process in children]

    return call
