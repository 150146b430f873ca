"""Filters by statistics of a volume, as users write them: ``voxels > 900 and thick < .05``.

Names, numbers, arithmetic, comparisons, ``and``, ``or`` and ``not``; nothing else is evaluated.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from foldnorm.preprocessing.core.errors import InputError

OPERATIONS: Mapping[type, Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Not: operator.not_,
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
}  # fmt: skip


@dataclass(frozen=True)
class VolumeFilter:
    """Condition on the statistics of a volume, parsed.

    Attributes:
        text: the condition as written.
        tree: the condition parsed.
    """

    text: str
    tree: ast.expr

    @classmethod
    def parse(cls, text: str) -> "VolumeFilter":
        """Read a condition.

        Raises:
            InputError: it is no condition.
        """
        try:
            tree = ast.parse(text, mode="eval").body
        except (SyntaxError, ValueError):
            raise InputError(f"--keep-if: not a condition: {text!r}") from None
        for node in ast.walk(tree):
            if not isinstance(node, _KNOWN) or (
                isinstance(node, ast.Constant) and type(node.value) not in (int, float)
            ):
                raise InputError(
                    "--keep-if: expected names, numbers, arithmetic, comparisons, and, or, not: "
                    f"{ast.unparse(node) if isinstance(node, ast.expr) else text!r}"
                )
        return cls(text, tree)

    @property
    def names(self) -> set[str]:
        """Names of the statistics in the condition."""
        return {node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name)}

    def holds(self, values: Mapping[str, float]) -> bool:
        """Return whether the condition holds; a statistic that is NaN makes comparisons false.

        Raises:
            InputError: a statistic is not there.
        """
        unknown = sorted(self.names - set(values))
        if unknown:
            raise InputError(
                f"--keep-if: {unknown[0]!r} is none of the statistics {', '.join(values)}"
            )
        try:
            return bool(self._value(self.tree, values))
        except ZeroDivisionError:
            return False

    def _value(self, node: ast.expr, values: Mapping[str, float]) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return values[node.id]
        if isinstance(node, ast.UnaryOp):
            return OPERATIONS[type(node.op)](self._value(node.operand, values))
        if isinstance(node, ast.BinOp):
            left, right = self._value(node.left, values), self._value(node.right, values)
            return OPERATIONS[type(node.op)](left, right)
        if isinstance(node, ast.BoolOp):
            parts = (self._value(part, values) for part in node.values)
            return all(parts) if isinstance(node.op, ast.And) else any(parts)
        assert isinstance(node, ast.Compare)
        terms = [self._value(part, values) for part in (node.left, *node.comparators)]
        pairs = zip(node.ops, terms[:-1], terms[1:], strict=True)
        return all(OPERATIONS[type(op)](a, b) for op, a, b in pairs)


_KNOWN = (ast.Constant, ast.Name, ast.Load, ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare,
          ast.And, ast.Or, *OPERATIONS)  # fmt: skip
