"""Parsers as bad as real ones, for worker processes to import."""

import ctypes
import os
import signal
import warnings
from pathlib import Path

from counterpoint.common.errors import InputError


def parse(word):
    """Do to this process what the word says."""
    if word == "abort":
        os.abort()
    if word == "segmentation fault":
        ctypes.string_at(0)
    if word == "division":
        os.kill(os.getpid(), signal.SIGFPE)
    if word == "exit":
        os._exit(3)
    if word == "unforeseen":
        raise ZeroDivisionError("division by zero")
    if word == "refused":
        raise InputError("no notes in it")
    if word == "missing":
        Path("nowhere.mid").read_bytes()
    if word == "memory":
        bytearray(1 << 30)
    if word == "warning":
        warnings.warn("half of it is empty", UserWarning, stacklevel=1)
    if word == "library":
        import a_library_nobody_has  # noqa: F401
    while word == "hang":
        pass
    return word.upper()


def where(_):
    """The worker's folder and a variable of its environment."""
    return os.getcwd(), os.environ.get("TOLD_TO_THE_WORKER"), os.getpid()
