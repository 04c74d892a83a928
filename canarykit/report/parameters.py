"""Parameters of a notebook: which it takes, found by Python's own parser, and values for them from text."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

__all__ = ["parameters_of", "value_of"]

_TYPE_COMMENT = re.compile(r"type:\s*(\S+)\s*(.*)")
_INT = re.compile(r"[+-]?(0|[1-9][0-9]*(_[0-9]+)*)")
_FLOAT = re.compile(r"[+-]?([0-9]+(_[0-9]+)*\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?\.?inf(inity)?", re.IGNORECASE)
_LISTS = ("list", "List", "Sequence", "Iterable", "Collection", "tuple", "Tuple")
_DICTS = ("dict", "Dict", "Mapping", "MutableMapping")
_ORDER = ("int", "float", "bool", "None", "list", "dict", "unknown", "str")
"""Members of a union, in the order in which they are tried: text last, because everything is text."""

_STR, _UNKNOWN = ast.Name("str"), ast.Name("unknown")


def parameters_of(source: str) -> dict[str, dict[str, Any]]:
    """Return the parameters that a cell of Python defines, as papermill describes them.

    Parameters
    ----------
    source : str
        Source of the cell tagged ``parameters``; magics and shell commands in it are left out.

    Returns
    -------
    dict of str to dict
        Per parameter ``name``; ``inferred_type_name``, the annotation as text, ``"None"`` without one; ``default``, the
        source of its value; ``help``, the comment behind it.

    Raises
    ------
    SyntaxError
        The cell is no Python.
    """
    code = _without_magics(source)
    comments = _comments(code)
    found: dict[str, dict[str, Any]] = {}
    for statement in ast.parse(code).body:
        targets: Sequence[ast.expr]
        if isinstance(statement, ast.AnnAssign):
            targets, annotation = [statement.target], _annotation(statement.annotation)
        elif isinstance(statement, ast.Assign):
            targets, annotation = statement.targets, "None"
        else:
            continue
        default = "" if statement.value is None else ast.get_source_segment(code, statement.value) or ""
        said = comments.get(statement.end_lineno or 0, "")
        typed = _TYPE_COMMENT.fullmatch(said)
        if typed is not None:
            annotation, said = (typed[1] if annotation == "None" else annotation), typed[2]
        for target in targets:
            if isinstance(target, ast.Name):
                found[target.id] = {"name": target.id, "inferred_type_name": annotation, "default": default, "help": said}
    return found


def _annotation(node: ast.expr) -> str:
    """Return an annotation as text; one that is quoted as a whole without its quotes."""
    return node.value.strip() if isinstance(node, ast.Constant) and isinstance(node.value, str) else ast.unparse(node)


def _without_magics(source: str) -> str:
    """Return what Python can parse: without a cell magic, with line magics and shell commands turned into calls."""
    try:
        ast.parse(source)
    except SyntaxError:
        from IPython.core.inputtransformer2 import TransformerManager

        lines = source.splitlines()
        while lines and (not lines[0].strip() or lines[0].lstrip().startswith("%%")):
            lines.pop(0)
        return str(TransformerManager().transform_cell("\n".join(lines)))
    return source


def _comments(code: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    return {token.start[0]: token.string.lstrip("#").strip() for token in tokens if token.type == tokenize.COMMENT}


def value_of(text: str, annotation: str, default: str) -> Any:
    """Return the value that a text stands for.

    The annotation decides. Without one, or with one of which nothing is known, the type of the default does; and without
    that, text stays text unless YAML would make something else of it.

    Parameters
    ----------
    text : str
        As written on a command line: text as it is, true, false, null, numbers; lists and dicts as YAML or JSON write them
        in one line.
    annotation, default : str
        See `parameters_of`.

    Raises
    ------
    ValueError
        The text is no such value; its message, which begins with a verb, says of which type it is to be, and what to write.
    """
    declared = _declared(annotation, default)
    try:
        return _convert(text, declared)
    except ValueError as error:
        if _kind(declared) == "unknown":
            raise
        hint = f": {error}" if str(error) else ""
        raise ValueError(f"is {ast.unparse(declared)}, and {text!r} is not{hint}") from error


def _declared(annotation: str, default: str) -> ast.expr:
    """Type of a parameter: its annotation, or what its default is where that says nothing, or nothing of the elements."""
    declared = _UNKNOWN if annotation == "None" else _parsed(annotation)
    kind = _kind(declared)
    if kind == "unknown" or (kind in ("list", "dict") and not isinstance(declared, ast.Subscript)):
        guessed = _type_of(_default(default))
        return guessed if kind in ("unknown", _kind(guessed)) else declared
    return declared


def _default(source: str) -> Any:
    """Value of a default when it is written out; `...` when it is computed, or there is none."""
    try:
        return ast.literal_eval(source)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return ...


def _type_of(value: Any) -> ast.expr:
    """Annotation that fits a value: an int may become a float, a list of texts stays one."""
    if isinstance(value, bool | str):
        return ast.Name(type(value).__name__)
    if isinstance(value, int | float):
        return _parsed("int | float")
    if isinstance(value, Sequence):
        texts = bool(value) and all(isinstance(inside, str) for inside in value)
        return _parsed("list[str]" if texts else "list")
    if isinstance(value, Mapping):
        texts = bool(value) and all(isinstance(inside, str) for inside in value.values())
        return _parsed("dict[str, str]" if texts else "dict")
    return _UNKNOWN


def _parsed(annotation: str) -> ast.expr:
    try:
        return ast.parse(annotation, mode="eval").body
    except SyntaxError:
        return _UNKNOWN


def _name(node: ast.expr) -> str:
    """Last name of an annotation: ``Optional`` of ``typing.Optional[int]``."""
    if isinstance(node, ast.Subscript):
        return _name(node.value)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _inside(node: ast.expr) -> list[ast.expr]:
    """Types in the brackets of an annotation; ones in quotes are unquoted."""
    if not isinstance(node, ast.Subscript):
        return []
    return node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]


def _unquoted(node: ast.expr) -> ast.expr:
    return _parsed(node.value) if isinstance(node, ast.Constant) and isinstance(node.value, str) else node


def _members(node: ast.expr) -> Iterator[ast.expr]:
    """Yield the types of a union; the type itself when it is none."""
    node = _unquoted(node)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        yield from _members(node.left)
        yield from _members(node.right)
    elif _name(node) in ("Optional", "Union", "Annotated", "Final"):
        inside = _inside(node)
        for member in inside[:1] if _name(node) in ("Annotated", "Final") else inside:
            yield from _members(member)
        if _name(node) == "Optional":
            yield ast.Constant(None)
    else:
        yield node


def _kind(node: ast.expr) -> str:
    node = _unquoted(node)
    members = list(_members(node))
    if len(members) > 1:
        return "union"
    (node,) = members or [_UNKNOWN]
    name = "None" if isinstance(node, ast.Constant) and node.value is None else _name(node)
    if name == "NoneType":
        return "None"
    if name in _LISTS:
        return "list"
    if name in _DICTS:
        return "dict"
    return name if name in ("int", "float", "bool", "str", "None", "Literal") else "unknown"


def _convert(text: str, declared: ast.expr, quoted: bool = False) -> Any:
    """Return a value of the declared type; text in quotes within a list or dict is text."""
    members = sorted(_members(declared), key=lambda node: _ORDER.index(kind) if (kind := _kind(node)) in _ORDER else -1)
    problems = []
    for member in members:
        try:
            return _one(text, member, quoted)
        except ValueError as error:
            problems.append(str(error))
    raise ValueError(problems[0] if len(members) == 1 else "")


def _one(text: str, declared: ast.expr, quoted: bool) -> Any:
    kind = _kind(declared)
    if kind == "str":
        return text
    if kind == "Literal":
        return _literal(text, declared)
    if kind == "unknown":
        return text if quoted else _left_alone(text)
    if not quoted:
        if kind == "int" and _INT.fullmatch(text.strip()):
            return int(text)
        if kind == "float" and _FLOAT.fullmatch(text.strip()):
            return float(text.strip().lower().replace(".inf", "inf"))
        if kind == "bool" and text.strip().lower() in ("true", "false"):
            return text.strip().lower() == "true"
        if kind == "None" and text.strip().lower() in ("", "null", "none", "~"):
            return None
        if kind in ("list", "dict"):
            return _collection(text, kind, declared)
    raise ValueError({"bool": "write true or false", "int": "write a whole number such as 5"}.get(kind, ""))


def _literal(text: str, declared: ast.expr) -> Any:
    allowed = [node.value for node in _inside(declared) if isinstance(node, ast.Constant)]
    for value in allowed:
        if text == ("null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)):
            return value
    raise ValueError(f"choose one of {', '.join(map(str, allowed))}")


def _left_alone(text: str) -> Any:
    """Text that everyone reads as text, in quotes or not, and lists and dicts; whatever else it may be is refused."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
        if text.strip().lower() == "none" or _FLOAT.fullmatch(text.strip()):  # null and numbers to others than YAML 1.1
            value = None
    except (yaml.YAMLError, ValueError):
        return text  # it is no YAML at all: "a: b: c", "%x", "@y", 2026-02-31
    if isinstance(node, yaml.ScalarNode):
        if isinstance(value, str):
            return value if node.style else text
        raise ValueError(
            f"has no type that is known, and {text!r} may be text or something else: annotate the parameter in the notebook, "
            f"such as with `: str` or `: float`, or write '\"{text}\"' for text"
        )
    if isinstance(node, yaml.CollectionNode) and node.flow_style:
        return _built(node, _UNKNOWN)
    return text


def _collection(text: str, kind: str, declared: ast.expr) -> Any:
    hint = "write [5, 25, 50]" if kind == "list" else "write {a: 1, b: 2}"
    try:
        node = yaml.compose(text, Loader=yaml.BaseLoader)  # all its scalars are texts
    except yaml.YAMLError as error:
        raise ValueError(hint) from error
    if not isinstance(node, yaml.SequenceNode if kind == "list" else yaml.MappingNode):
        raise ValueError(hint)
    return _built(node, declared)


def _built(node: yaml.Node, declared: ast.expr) -> Any:
    """Return the value of a node of YAML, its scalars as their annotation says."""
    if isinstance(node, yaml.ScalarNode):
        # Within a list or dict that says nothing of its elements, only what is a number to everyone is one.
        if _kind(declared) == "unknown":
            declared = _parsed("int | float | bool | None | str")
        return _convert(node.value, declared, quoted=node.style in ("'", '"'))
    members = [member for member in _members(declared) if _kind(member) in ("list", "dict", "unknown")]
    inside = _inside(members[0]) if members and _kind(members[0]) != "unknown" else []
    if isinstance(node, yaml.SequenceNode):
        if not any(_kind(member) in ("list", "unknown") for member in members):
            raise ValueError("a list stands where there must be none")
        return [_built(child, inside[0] if inside else _UNKNOWN) for child in node.value]
    if not any(_kind(member) in ("dict", "unknown") for member in members):
        raise ValueError("a dict stands where there must be none")
    keys = [key.value if isinstance(key, yaml.ScalarNode) else "" for key, _ in node.value]
    if inside and _kind(inside[0]) not in ("str", "unknown"):
        raise ValueError("keys of a parameter are texts")  # papermill writes them so
    return {
        key: _built(child, inside[1] if len(inside) > 1 else _UNKNOWN) for key, (_, child) in zip(keys, node.value, strict=True)
    }
