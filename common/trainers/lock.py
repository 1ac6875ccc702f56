"""One training at a time in a run folder."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from counterpoint.common.errors import InputError
from counterpoint.common.main_process import main_process

LOCK, HOLDER = ".lock", ".lock.json"
_PATIENCE = 15.0  # seconds: data-loading processes outlive a killed training for some, and the lock with them


@contextlib.contextmanager
def locked_run(run_dir: Path) -> Iterator[None]:
    """Hold the folder's lock, or raise an `InputError` that names who does. The first process of a training holds it.

    The operating system releases the lock of a process that died.
    """
    if not main_process():
        yield
        return
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(run_dir / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if _alive(run_dir):
                raise
            lock.acquire(timeout=_PATIENCE)
        me = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now().isoformat(" ", "seconds")}
        (run_dir / HOLDER).write_text(json.dumps(me), encoding="utf-8")
    except Timeout as error:
        raise InputError(f"{run_dir}: {_held(run_dir)}; wait for its end, or choose another train.out") from error
    except OSError as error:
        raise InputError(f"{run_dir}: the run folder cannot be written ({error.strerror or error})") from error
    try:
        yield
    finally:
        (run_dir / HOLDER).unlink(missing_ok=True)
        lock.release()


def _holder(run_dir: Path) -> dict:
    try:
        return dict(json.loads((run_dir / HOLDER).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # between the lock and the note
        return {}


def _held(run_dir: Path) -> str:
    who = _holder(run_dir)
    if not who:
        return "another process trains in this folder"
    return f"process {who.get('pid')} on {who.get('host')} trains in this folder since {who.get('since')}"


def _alive(run_dir: Path) -> bool:
    who = _holder(run_dir)
    if who.get("host") != socket.gethostname() or not isinstance(who.get("pid"), int):
        return True
    try:
        os.kill(who["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
