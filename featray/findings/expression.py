"""Findings. Evaluate arithmetic over columns from a config: parsed by Python, computed by NumPy, without `eval`.

Anything not in the lists below is refused when the settings are read, before any computation.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, Final

import numpy as np

from featray.errors import ConfigError
from featray.findings.samples import Floats

_BINARY: Final[dict[type[ast.AST], Callable[..., Any]]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.And: np.logical_and,
    ast.Or: np.logical_or,
}
_UNARY: Final[dict[type[ast.AST], Callable[..., Any]]] = {
    ast.USub: np.negative,
    ast.UAdd: np.positive,
    ast.Not: np.logical_not,
}
_CALLS: Final[dict[str, Callable[..., Any]]] = {
    "abs": np.abs,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "log": np.log,
    "min": np.minimum,
    "max": np.maximum,
}
_OF_SEVERAL: Final = ("min", "max")


class Expression:
    """An expression over columns.

    Attributes:
        columns: names of the columns that it uses, sorted.

    Raises:
        ConfigError: the text is not such an expression, or names an unknown column.
    """

    def __init__(self, name: str, text: str, known: frozenset[str]) -> None:
        self._where = f"derive.events: {name}.expression"
        try:
            self._root = ast.parse(text.strip(), mode="eval").body
            names = {node.id for node in ast.walk(self._root) if isinstance(node, ast.Name)} - _CALLS.keys()
            with np.errstate(all="ignore"):
                self._compute(self._root, dict.fromkeys(names, np.ones(1, np.float32)))
        except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
            raise ConfigError(f"{self._where}: is not arithmetic over columns: {text!r}") from None
        if unknown := sorted(names - known):
            raise ConfigError(f"{self._where}: {', '.join(unknown)}: no such column of faces or blendshapes")
        if not names:
            raise ConfigError(f"{self._where}: uses no column: {text!r}")
        self.columns = tuple(sorted(names))

    def __call__(self, columns: Mapping[str, Floats]) -> Floats:
        """Return the expression's values, float32 `[n]`; NaN where a column is null or the result is not finite."""
        with np.errstate(all="ignore"):
            value = np.asarray(self._compute(self._root, columns), np.float64)
        for name in self.columns:
            value = np.where(np.isnan(columns[name]), np.nan, value)
        return np.where(np.isfinite(value), value, np.nan).astype(np.float32)

    def _compute(self, node: ast.AST, columns: Mapping[str, Floats]) -> Any:
        def value(child: ast.AST) -> Any:
            return self._compute(child, columns)

        if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
            return np.float64(node.value)
        if isinstance(node, ast.Name) and node.id in columns:
            return columns[node.id].astype(np.float64)
        if isinstance(node, ast.BinOp):
            return self._table(_BINARY, node.op)(value(node.left), value(node.right))
        if isinstance(node, ast.BoolOp):
            return reduce(self._table(_BINARY, node.op), map(value, node.values))
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            return self._table(_BINARY, node.ops[0])(value(node.left), value(node.comparators[0])).astype(np.float64)
        if isinstance(node, ast.UnaryOp):
            return self._table(_UNARY, node.op)(value(node.operand))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            name, count = node.func.id, len(node.args)
            if name in _CALLS and (count > 1 if name in _OF_SEVERAL else count == 1):
                arguments = [value(argument) for argument in node.args]
                return reduce(_CALLS[name], arguments) if name in _OF_SEVERAL else _CALLS[name](*arguments)
        raise ConfigError(f"{self._where}: {ast.unparse(node)!r} is not supported; see `derive.events` in the docs")

    def _table(self, table: dict[type[ast.AST], Callable[..., Any]], node: ast.AST) -> Callable[..., Any]:
        if type(node) not in table:
            raise ConfigError(f"{self._where}: {type(node).__name__} is not supported; see `derive.events` in the docs")
        return table[type(node)]
