"""Describes the public names of `streamer.client`, on which programs that import it may rely."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
from types import ModuleType
from typing import Any

#: Matches an assignment to a public attribute of `self`.
_SET = re.compile(r"\bself\.([a-z]\w*)\s*(?::[^=\n]+)?=(?!=)")


def describe_library(module: ModuleType) -> dict[str, Any]:
    """Return each public name with its kind, its signature and its public members."""
    public = [getattr(module, name) for name in sorted(module.__all__)]
    return {name: _describe(getattr(module, name), public) for name in sorted(module.__all__)}


def _describe(value: Any, public: list[Any]) -> dict[str, Any]:
    if not inspect.isclass(value):
        return {"kind": _kind(value), "signature": _signature(value)}
    if issubclass(value, enum.Enum):
        return {"kind": "enum", "values": {member.name: member.value for member in value}}
    return {
        "kind": "class",
        "bases": [
            base.__name__ for base in value.__mro__[1:] if base in public or issubclass(base, BaseException)
        ],
        "signature": _signature(value),
        "members": {
            name: "attribute" if name in _fields(value) else _describe_member(value, name)
            for name in sorted(_fields(value) | _methods(value))
        },
    }


def _own(value: type) -> list[type]:
    """Return those classes among the class and its bases that belong to `streamer`."""
    return [base for base in value.__mro__ if base.__module__.partition(".")[0] == "streamer"]


def _fields(value: type) -> set[str]:
    """Return the public names of annotated fields and of attributes that `__init__` sets."""
    names = {name for base in _own(value) for name in inspect.get_annotations(base)}
    for base in _own(value):
        if inspect.isfunction(init := vars(base).get("__init__")) and not dataclasses.is_dataclass(base):
            names |= set(_SET.findall(inspect.getsource(init)))
    return {name for name in names if not name.startswith("_")}


def _methods(value: type) -> set[str]:
    """Return the public methods and properties, and the special methods for `with` and `for` and the like."""
    special = {"__aenter__", "__aiter__", "__enter__", "__getitem__", "__iter__", "__len__"}
    names = {name for base in _own(value) for name in vars(base)}
    return {name for name in names if not name.startswith("_") or name in special}


def _describe_member(owner: type, name: str) -> str:
    member = inspect.getattr_static(owner, name)
    if isinstance(member, staticmethod | classmethod):
        return f"{type(member).__name__} {_signature(getattr(owner, name))}"
    if inspect.isfunction(member):
        return f"{_kind(member)} {_signature(member)}"
    return "attribute"


def _kind(value: Any) -> str:
    if inspect.isasyncgenfunction(value):
        return "asynchronous generator"
    if inspect.iscoroutinefunction(value):
        return "coroutine"
    return "function" if callable(value) else type(value).__name__


def _signature(value: Any) -> str:
    """Return the parameters with their defaults, but without types, because types may be renamed."""
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    parameters = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
    plain = signature.replace(parameters=parameters, return_annotation=signature.empty)
    return str(plain)
