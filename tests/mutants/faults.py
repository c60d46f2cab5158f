"""Which faults are put into a module: Cosmic Ray's operators, less what is no fault."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_item import MutationSpec, WorkItem
from parso.tree import NodeOrLeaf

_BINARY = {
    "Add": "Sub", "Sub": "Add", "Mul": "Div", "Div": "Mul", "FloorDiv": "Div", "Mod": "Div", "Pow": "Mul",
    "LShift": "RShift", "RShift": "LShift", "BitAnd": "BitOr", "BitOr": "BitAnd", "BitXor": "BitAnd",
}  # fmt: skip
_COMPARISONS = {
    "Lt": ("LtE", "GtE"), "LtE": ("Lt", "Gt"), "Gt": ("GtE", "LtE"), "GtE": ("Gt", "Lt"),
    "Eq": ("NotEq",), "NotEq": ("Eq",), "Is": ("IsNot",), "IsNot": ("Is",),
}  # fmt: skip
OPERATORS = (
    *(f"ReplaceBinaryOperator_{a}_{b}" for a, b in _BINARY.items()),
    *(f"ReplaceComparisonOperator_{a}_{b}" for a, others in _COMPARISONS.items() for b in others),
    *(f"ReplaceUnaryOperator_{change}" for change in ("USub_UAdd", "Delete_Invert", "Delete_Not")),
    "AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd",
    "ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ExceptionReplacer", "NumberReplacer",
    "ZeroIterationForLoop",
)  # fmt: skip
"""A neighbour and the opposite of everything. Left out: what breaks nearly every test at once and so proves nothing
(removed decorators, unknown names, every other arithmetic operator)."""

NO_FAULT = {
    "tfpdef": "annotation of a parameter",
    "annassign": "annotation of a name",
    "raise_stmt": "the wording of an error",
    "decorator": "settings of a decorator, such as frozen",
    "parameters": "the marks * and / between parameters",
}
"""Places where a change is no fault, and what they are."""
NO_FAULT_ARGUMENTS = {
    "strict": "strict=True of zip, a guard that never fires",
    "frozen": "a guard that never fires",
    "indent": "the layout of a file",
}
"""Arguments of calls likewise."""


def faults_of(source: str, module: str, only: Sequence[str] = ()) -> list[WorkItem]:
    """Return all faults of a module (of some of its definitions).

    A fault's id is of its definition and line, not of its place in the file: it stays when other lines change.
    """
    tree = get_ast(source)
    lines = source.splitlines()
    seen: Counter[tuple[object, ...]] = Counter()
    found = []
    for name in OPERATORS:
        positions = _positions(tree, get_operator(f"core/{name}")())
        for occurrence, (node, start, end) in enumerate(positions):
            definition = _definition(node)
            if no_fault(node, start) or (only and not set(only) & set(definition.split("."))):
                continue
            line = lines[start[0] - 1]
            key = (module, definition, line.strip(), start[1] - len(line) + len(line.lstrip()), name)
            identity = hashlib.sha256(repr((*key, seen[key])).encode()).hexdigest()
            seen[key] += 1
            change = MutationSpec(Path(module), f"core/{name}", occurrence, start, end, definition_name=definition)
            found.append(WorkItem.single(identity, change))
    return sorted(found, key=lambda item: item.job_id)


def mutated(source: str, item: WorkItem) -> str:
    """Return the source with the fault in it."""
    (change,) = item.mutations
    code: str = mutate_code(source, get_operator(change.operator_name)(), change.occurrence)
    return code


def changed_line(before: str, after: str) -> tuple[str, str]:
    """Return the first line that differs, before and after."""
    lines = zip(before.splitlines(), after.splitlines(), strict=False)
    return next((old.strip(), new.strip()) for old, new in lines if old != new)


def _positions(tree: NodeOrLeaf, operator: Operator) -> Iterator[tuple[NodeOrLeaf, tuple[int, int], tuple[int, int]]]:
    for node in ast_nodes(tree):
        for start, end in operator.mutation_positions(node):
            yield node, start, end


def no_fault(node: NodeOrLeaf, start: tuple[int, int]) -> str | None:
    """Return why a change of a node would be no fault, if so."""
    below = node.get_leaf_for_position(start) if hasattr(node, "children") else node
    if below.get_code().strip() == "TYPE_CHECKING":
        return "imports for type checkers"
    while (above := below.parent) is not None:
        reason = NO_FAULT.get(above.type)
        if above.type == "parameters" and below.type == "param":
            reason = None
        if above.type == "annassign" and below is not above.children[1]:
            reason = None
        if above.type == "funcdef" and below is above.annotation:
            reason = "annotation of a result"
        if above.type == "argument":
            reason = NO_FAULT_ARGUMENTS.get(above.children[0].get_code().strip())
        if reason:
            return reason
        below = above
    return None


def _definition(node: NodeOrLeaf) -> str:
    names = []
    above: NodeOrLeaf | None = node
    while above is not None:
        if above.type in ("funcdef", "classdef"):
            names.append(above.name.value)
        above = above.parent
    return ".".join(reversed(names))
