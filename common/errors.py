"""The suite's few named exceptions. The command line turns every `InputError` into one sentence and exit code 2."""


class InputError(ValueError):
    """The user's input cannot be used: names the file, row or option, what was found, and what would be accepted.

    >>> raise InputError("scores.csv, row 7: tempo 'fast' is not a number; give beats per minute")
    Traceback (most recent call last):
    ...
    counterpoint.common.errors.InputError: scores.csv, row 7: tempo 'fast' is not a number; give beats per minute
    """


class LeakageError(InputError):
    """The same group (patient, scene, piece, molecule, user) stands in two splits."""


class LostProcessError(InputError):
    """Another process of a training over several died or hangs; the run resumes from its last checkpoint."""


class NonFiniteLossError(RuntimeError):
    """Training met a NaN or infinite loss; the message names the terms and the file with the batch's sample ids."""


class CollapseWarning(UserWarning):
    """The label-free monitors see a representation that uses few of its dimensions."""
