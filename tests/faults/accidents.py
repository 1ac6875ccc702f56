"""Forty accidents that happen to files: each takes the good bytes and gives damaged ones."""

import random
from collections.abc import Callable

HUGE = (b"0", b"-1", b"nan", b"inf", b"1e999", b"99999999999999999999", b"1000000000", b"")


def _cut(share: float):
    return lambda data, rng: data[: int(len(data) * share)]


def _over(content: bytes, share: float):
    """Bytes written over the file's at a place."""

    def damage(data: bytes, rng: random.Random) -> bytes:
        at = int(len(data) * share)
        return data[:at] + content[: len(data) - at] + data[at + len(content) :]

    return damage


def _flip(count: int):
    def damage(data: bytes, rng: random.Random) -> bytes:
        changed = bytearray(data)
        for _ in range(count):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        return bytes(changed)

    return damage


def _repeat(share: float):
    def damage(data: bytes, rng: random.Random) -> bytes:
        at = int(len(data) * share)
        return data[: at + 40] + data[at:]

    return damage


def _swap(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    a, b = rng.randrange(len(data)), rng.randrange(len(data))
    changed[a], changed[b] = changed[b], changed[a]
    return bytes(changed)


def _number(to: bytes):
    """One digit of the file edited."""

    def damage(data: bytes, rng: random.Random) -> bytes:
        digits = [i for i, byte in enumerate(data) if chr(byte).isdigit()]
        at = rng.choice(digits) if digits else rng.randrange(len(data))
        return data[:at] + to + data[at + 1 :]

    return damage


ACCIDENTS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "emptied": _cut(0.0),
    "one byte left": lambda data, rng: data[:1],
    **{f"cut after {n} of 8": _cut(n / 8) for n in range(1, 8)},
    "last byte lost": lambda data, rng: data[:-1],
    "first byte lost": lambda data, rng: data[1:],
    **{f"{n} bits flipped": _flip(n) for n in (1, 2, 8, 64)},
    **{f"block zeroed at {n} of 4": _over(bytes(40), n / 4) for n in range(4)},
    **{f"size claimed at {n} of 4": _over(b"\xff\xff\xff\x7f", n / 4) for n in range(4)},
    **{f"block repeated at {n} of 4": _repeat(n / 4) for n in range(4)},
    "two bytes swapped": _swap,
    "bytes swapped in pairs": lambda data, rng: b"".join(data[i : i + 2][::-1] for i in range(0, len(data), 2)),
    "doubled": lambda data, rng: data * 2,
    "as UTF-16": lambda data, rng: data.decode("latin-1").encode("utf-16"),
    "with Windows' line ends": lambda data, rng: data.replace(b"\n", b"\r\n"),
    "noise": lambda data, rng: rng.randbytes(len(data)),
    **{f"a digit becomes {text.decode() or 'nothing'}": _number(text) for text in HUGE},
}
