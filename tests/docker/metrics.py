"""Names of metrics in PromQL, for tests that ask whether they exist."""

import re

_TEXT = re.compile(r'"(?:\\.|[^"\\])*"')
_SELECTOR = re.compile(r"\{[^}]*\}|\[[^\]]*\]")
_LABELS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_NAME = re.compile(r"(?<![\w:.])[a-zA-Z_][\w:]*(?!\w|\s*\()")
_OPERATORS = {"and", "or", "unless", "by", "on", "offset", "bool", "group_left"}


def metric_names(expression: str) -> set[str]:
    """The metrics that an expression reads; not functions, labels or operators."""
    for part in (_TEXT, _SELECTOR, _LABELS):
        expression = part.sub(" ", expression)
    return {name for name in _NAME.findall(expression) if name not in _OPERATORS}
