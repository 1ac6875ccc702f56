"""Parsers of foreign files in worker processes: whatever a damaged file does to its parser ends at the worker.

    for file, found in isolated_map(read_facts, files, workers=2):
        if isinstance(found, Rejected):
            ...  # the reason in words: refused by the reader, crashed, too slow, too large

A worker loads nothing but what the function needs, works on one item after the other and is kept for the next call in
this program; one that dies is replaced and its item is rejected. The time limit counts the worker's processor time, so
that a busy machine rejects nothing; the memory limit counts what the worker allocates beyond what it held before.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from counterpoint.common.errors import InputError
from counterpoint.common.vertical import Rejected

try:
    import resource
except ImportError:  # not a POSIX system: the clock alone limits
    resource = None

Item = TypeVar("Item")

TIMEOUT = 120.0
"""Seconds of processor time for one item."""
MEMORY = 4 << 30
"""Bytes that one worker may allocate."""
_PATIENCE = 10  # by the clock, this many times the processor time: a reader may wait for a slow disk, not for ever
_START = 300.0


class Isolated:
    """Up to `count` worker processes for functions that read foreign files. Safe to call from several threads.

    >>> from counterpoint.common.data.importing import megabytes
    >>> with Isolated(1) as workers:
    ...     workers.call(megabytes, 3 << 20)
    '3 MB'
    """

    def __init__(self, count: int = 1, timeout: float = TIMEOUT, memory: int = MEMORY) -> None:
        self.timeout, self.memory = timeout, memory
        self._free = threading.Semaphore(max(count, 1))
        self._busy: set[_Worker] = set()
        self._lock = threading.Lock()
        self._ended = False

    def __enter__(self) -> Isolated:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.end()

    def end(self) -> None:
        """Give up what is being done: an interrupt must not wait for a parser that hangs."""
        with self._lock:
            self._ended = True
            for worker in self._busy:
                worker.process.kill()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """`function(*arguments)` in a worker.

        Raises:
            InputError: the function refused its input, failed, died, or passed a limit; the text is the reason.
            ImportError: a library that the function needs is missing.
        """
        ((_, found),) = self.each(_spread, [(function, arguments)])
        if isinstance(found, Rejected):
            raise InputError(found.reason)
        return found

    def each(
        self, function: Callable[[Item], Any], items: Iterable[Item], name: Callable[[Item], str] = str
    ) -> list[tuple[Item, Any]]:
        """(item, result or `Rejected`) for some items, one after the other in one worker."""
        left, done = deque(items), []
        with self._free:
            while left and not self._ended:
                worker = _borrow()
                with self._lock:
                    self._busy.add(worker)
                    if self._ended:
                        worker.process.kill()
                try:
                    for found in worker.work(function, list(left), self.timeout, self.memory):
                        item = left.popleft()
                        done.append((item, found if found[0] is None else Rejected(name(item), found[0])))
                finally:
                    with self._lock:
                        self._busy.discard(worker)
                    _give_back(worker)
        return [(item, found if isinstance(found, Rejected) else found[1]) for item, found in done]


def isolated_map(
    function: Callable[[Item], Any],
    items: Iterable[Item],
    *,
    workers: int = 1,
    timeout: float = TIMEOUT,
    memory: int = MEMORY,
    name: Callable[[Item], str] = str,
    chunk: int = 1,
) -> Iterator[tuple[Item, Any]]:
    """(item, `function(item)`) for every item, in order; in the place of a result a `Rejected` with the reason.

    Args:
        function: importable from a module (workers find it by its name), or a `functools.partial` of such a one; items
            and results travel by pickle.
        workers: processes that work at the same time.
        timeout: seconds of processor time for an item.
        memory: bytes that a worker may allocate.
        name: what `Rejected.source` calls an item.
        chunk: items sent at a time, for very many small ones.

    Raises:
        ImportError: a library that the function needs is missing.

    >>> from counterpoint.common.data.importing import megabytes
    >>> [found for _, found in isolated_map(megabytes, [1 << 20, "no number"])][0]
    '1 MB'
    """
    rest = iter(items)
    with Isolated(workers, timeout, memory) as pool, ThreadPoolExecutor(max(workers, 1)) as threads:
        waiting: deque = deque()
        try:
            while True:
                while len(waiting) < 2 * max(workers, 1) and (part := list(islice(rest, max(chunk, 1)))):
                    waiting.append(threads.submit(pool.each, function, part, name))
                if not waiting:
                    return
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            if waiting:
                pool.end()


def _spread(call: tuple[Callable[..., Any], tuple]) -> Any:
    function, arguments = call
    return function(*arguments)


class _Worker:
    """One process, and the wire to it."""

    def __init__(self) -> None:
        self.wire, theirs = Pipe()
        path = os.pathsep.join(dict.fromkeys(os.path.abspath(p) for p in sys.path))
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115
        command = [sys.executable, "-P", "-c", f"from {__name__} import serve; serve({theirs.fileno()})"]
        with theirs:
            self.process = subprocess.Popen(
                command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=self.errors, env=os.environ | threads | {"PYTHONPATH": path},
            )  # fmt: skip
        if self._answer(_START) != "ready":
            self.kill()
            self.errors.seek(0)
            said = self.errors.read().decode(errors="replace").strip()
            raise RuntimeError(f"a worker process cannot be started:\n{said}")

    def work(
        self, function: Callable[[Item], Any], items: list[Item], timeout: float, memory: int
    ) -> Iterator[tuple[str | None, Any]]:
        """(reason or None, result) for each item; ends early, after a reason, when the process has died."""
        here = (os.getcwd(), list(sys.path), dict(os.environ))
        try:
            # In two layers: the function can be found only once the worker has the caller's path of modules.
            self.wire.send((here, pickle.dumps((function, items)), timeout, memory))
            heard = self._answer(_PATIENCE * timeout) == "heard"
        except (BrokenPipeError, ConnectionError):
            heard = False
        if not heard:  # it was ended from outside while it was idle: the items are for another
            self.kill()
            return
        for _ in items:
            answer = self._answer(_PATIENCE * timeout)
            if answer is None:
                yield self._last_words(timeout), None
                return
            failed, reason, result, told = answer
            for category, text in told:
                warnings.warn(text, category, stacklevel=2)
            if failed is not None:
                self.kill()
                raise failed
            yield reason, result

    def _answer(self, seconds: float) -> Any:
        """What the process says, None when it has died or is killed for its silence."""
        try:
            if self.wire.poll(seconds):
                return pickle.loads(self.wire.recv_bytes())  # noqa: S301 - our own worker's
        except (EOFError, OSError):
            pass
        return None

    def _last_words(self, timeout: float) -> str:
        try:
            code = self.process.wait(1)
        except subprocess.TimeoutExpired:  # it lives, and is silent
            self.kill()
            return f"gives no answer within {_PATIENCE * timeout:g} s; its reader was ended"
        if code == -getattr(signal, "SIGXCPU", 0):
            return f"takes more than {timeout:g} s to read; its reader was ended"
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"ends the program that reads it ({how}); it is damaged, or of another kind than its name says"

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        self.wire.close()
        self.errors.close()


_idle: list[_Worker] = []
_idle_lock = threading.Lock()


def _borrow() -> _Worker:
    with _idle_lock:
        while _idle:
            worker = _idle.pop()
            if worker.alive:
                return worker
            worker.kill()
    return _Worker()


def _give_back(worker: _Worker) -> None:
    with _idle_lock:
        if worker.alive and not worker.wire.closed and len(_idle) < (os.cpu_count() or 1):
            _idle.append(worker)
            return
    worker.kill()


@atexit.register
def _end() -> None:
    while _idle:
        _idle.pop().kill()


def _forget() -> None:
    """A fork must not speak to its parent's workers."""
    global _idle_lock
    _idle_lock = threading.Lock()
    _idle.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def serve(descriptor: int) -> None:
    """The worker's side: do what the wire asks until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the caller's, who then ends us
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    wire = Connection(descriptor)
    _send(wire, "ready")
    with contextlib.suppress(EOFError, OSError):
        while True:
            try:
                here, work, timeout, memory = wire.recv()
            except EOFError:
                return
            _send(wire, "heard")
            _settle(*here)
            try:
                function, items = pickle.loads(work)  # noqa: S301 - our own caller's
            except Exception as error:  # its module, or the function in it
                _answer(wire, (error, None, None, ()))
                continue
            _limit_memory(memory)
            for item in items:
                _limit_time(timeout)
                _answer(wire, _attempt(function, item, memory))


def _send(wire: Connection, message: Any) -> None:
    """By plain pickle: a tensor travels with its values, not as a handle of memory that goes with the worker."""
    wire.send_bytes(pickle.dumps(message))


def _answer(wire: Connection, answer: tuple) -> None:
    try:
        _send(wire, answer)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        _send(wire, (TypeError(f"the result cannot travel between processes: {error}"), None, None, ()))


def _settle(folder: str, path: list[str], environment: dict[str, str]) -> None:
    """Be where the caller is: its folder, its modules, its environment."""
    with contextlib.suppress(OSError):
        os.chdir(folder)
    sys.path[:] = path
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update({k: v for k, v in environment.items() if not k.endswith("_NUM_THREADS")})


def _limit_memory(memory: int) -> None:
    if resource is None or not sys.platform.startswith("linux"):
        return
    with open("/proc/self/status", encoding="ascii") as status:
        held = next((int(line.split()[1]) << 10 for line in status if line.startswith("VmData")), 0)
    resource.setrlimit(resource.RLIMIT_DATA, (held + memory, resource.RLIM_INFINITY))


def _limit_time(timeout: float) -> None:
    if resource is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        end = math.ceil(used.ru_utime + used.ru_stime + timeout)
        resource.setrlimit(resource.RLIMIT_CPU, (end, resource.RLIM_INFINITY))


def _attempt(function: Callable[[Item], Any], item: Item, memory: int) -> tuple:
    """(an error of the installation, reason of a refusal, result, warnings)."""
    failed = reason = result = None
    with warnings.catch_warnings(record=True) as told:
        try:
            result = function(item)
        except ImportError as error:
            failed = error
        except MemoryError:
            reason = f"needs more than {memory >> 20} MB of memory to read; its sizes are damaged, or it is too large"
        except BaseException as error:  # a panic of a Rust library is no Exception
            reason = said(error)
    return failed, reason, result, [(w.category, str(w.message)) for w in told]


def said(error: BaseException) -> str:
    """An error as a reason: our own and the system's say what is wrong, another is one the reader did not foresee.

    >>> said(InputError("no notes")), said(FileNotFoundError(2, "No such file or directory", "a.mid"))
    ('no notes', 'a.mid: no such file or directory')
    >>> said(KeyError("x"))
    "its reader failed (KeyError: 'x'); it is damaged, or of another kind than its name says"
    """
    text = " ".join(str(error).split())
    if isinstance(error, InputError):
        return text
    if isinstance(error, OSError) and error.strerror:
        words = error.strerror[:1].lower() + error.strerror[1:]
        return f"{error.filename}: {words}" if error.filename else words
    text = f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
    return f"its reader failed ({text}); it is damaged, or of another kind than its name says"
