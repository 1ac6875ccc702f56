"""SPICE numbers (`0.35u`, `12.5fF`, `3meg`) and parameter expressions (`'2*wn+lmin'`)."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Mapping

_DIGITS = r"(?:\d+\.?\d*|\.\d+)(?:[eEdD][+-]?\d+)?"
_NUMBER = re.compile(rf"^([+-]?{_DIGITS})([a-zA-Zµμ]*)$")
# A numeral inside an expression with the letters and digits that hang on to it; no identifier starts with a digit.
_NUMERAL = re.compile(rf"(?<![\w.])({_DIGITS}[\w.]*)")
_RKM = re.compile(r"^([+-]?\d+)(meg|[a-zµμ])(\d+)([a-zµμ]*)$", re.IGNORECASE)
# Letters that stand for the decimal point; m (milli or mega), f (femto or farad) and the rest are not one thing to all.
_RKM_LETTERS = ("r", "k", "meg", "g", "t", "u", "µ", "μ", "n", "p")
_SUFFIX = {"t": 1e12, "g": 1e9, "meg": 1e6, "x": 1e6, "k": 1e3, "mil": 25.4e-6, "m": 1e-3, "u": 1e-6, "µ": 1e-6,
           "μ": 1e-6, "n": 1e-9, "p": 1e-12, "f": 1e-15, "a": 1e-18}  # fmt: skip
_BINARY = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
           ast.Pow: operator.pow, ast.Mod: operator.mod}  # fmt: skip
_FUNCTIONS = {"max": max, "min": min, "abs": abs, "sqrt": math.sqrt, "int": int, "floor": math.floor, "log": math.log,
              "ln": math.log, "log10": math.log10, "ceil": math.ceil, "exp": math.exp, "pwr": operator.pow,
              "pow": operator.pow, "round": round, "nint": round, "sin": math.sin, "cos": math.cos, "tan": math.tan,
              "atan": math.atan}  # fmt: skip


def parse_number(text: str) -> float:
    """Value of a SPICE number in SI units; letters after the scale suffix are a unit and are ignored.

    Suffixes are case-insensitive as in SPICE (`m` is milli, `meg` is mega). A bare `F` after a number is femto, as
    every SPICE reads it. `4k7`, `1R5`, `2p2`, where the letter stands for the decimal point (IEC 60062), are 4.7k, 1.5
    and 2.2p: simulators that stop reading at the letter would take 4k, which nobody means who writes the 7. Where the
    letter itself has two meanings (`1M5`: mega or milli) the number is refused.

    >>> parse_number("0.01fF"), parse_number("270e-9"), parse_number("3MEG"), parse_number("4k7")
    (1e-17, 2.7e-07, 3000000.0, 4700.0)

    Raises `ValueError`.
    """
    match = _NUMBER.match(text)
    if match is None:
        match = _NUMBER.match(_decimal_point(text))
    if match is None:
        raise ValueError(f"{text!r} is not a SPICE number")
    suffix = match.group(2).lower()
    factor = next((_SUFFIX[suffix[:n]] for n in (3, 1) if suffix[:n] in _SUFFIX and len(suffix) >= n), 1.0)
    # Multiply through decimal text, so that 0.01f is the float 1e-17 and not 1.0000000000000001e-17.
    value = _scaled(match.group(1).lower().replace("d", "e"), factor)
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is beyond the largest number")
    return value


def _decimal_point(text: str) -> str:
    """`4k7` as `4.7k`; other text as it is."""
    match = _RKM.match(text)
    if match is None:
        return text
    whole, letter, part, unit = match.groups()
    if letter.lower() not in _RKM_LETTERS:
        raise ValueError(f"{text!r} can be read in two ways; write it with a decimal point, as in {whole}.{part}")
    return f"{whole}.{part}{'' if letter.lower() == 'r' else letter}{unit}"


def _scaled(digits: str, factor: float) -> float:
    exponent = round(math.log10(factor))
    if factor != 25.4e-6:
        mantissa, _, old = digits.lower().partition("e")
        return float(f"{mantissa}e{int(old or 0) + exponent}")
    return float(digits) * factor


def value_of_expression(expression: str, scope: Mapping[str, float]) -> float:
    """Value of a parameter expression; names are looked up case-insensitively in `scope`.

    Only arithmetic, numbers with suffixes, names and a few functions are understood: nothing is executed.

    >>> value_of_expression("'2*wn + 0.5'", {"wn": 1.0})
    2.5
    """
    text = expression.strip().strip("'\"").strip()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    try:
        return parse_number(text)
    except ValueError:
        pass
    try:
        rewritten = _NUMERAL.sub(lambda m: repr(parse_number(m.group(1))), text)
    except ValueError as error:
        raise ValueError(str(error) if repr(expression) in str(error) else f"{expression!r}: {error}") from None
    wrong = f"{expression!r} is not an expression of numbers and parameters"
    try:
        value = _value(ast.parse(rewritten.replace("^", "**"), mode="eval").body, scope, expression)
    except (SyntaxError, TypeError, RecursionError, MemoryError):
        raise ValueError(wrong) from None
    except (ArithmeticError, ValueError) as error:
        raise ValueError(str(error) if repr(expression) in str(error) else f"{expression!r}: {error}") from None
    if not math.isfinite(value):
        raise ValueError(f"{expression!r} has no finite value")
    return float(value)


def _value(node: ast.expr, scope: Mapping[str, float], source: str) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return node.value
    if isinstance(node, ast.Name):
        if node.id.lower() in scope:
            return scope[node.id.lower()]
        raise KeyError(node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        value = _value(node.operand, scope, source)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        left, right = _value(node.left, scope, source), _value(node.right, scope, source)
        try:
            value = _BINARY[type(node.op)](left, right)
        except ZeroDivisionError:
            raise ValueError(f"{source!r} divides by zero") from None
        if isinstance(value, complex):
            raise ValueError(f"{source!r} has no finite value")
        return value
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.lower() in _FUNCTIONS:
        return _FUNCTIONS[node.func.id.lower()](*(_value(argument, scope, source) for argument in node.args))
    raise ValueError(f"{source!r} is not an expression of numbers and parameters")
