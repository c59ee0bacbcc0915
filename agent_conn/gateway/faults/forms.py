"""Faults as forms: what a page can ask for, and the fault made of what it sends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from agent_conn._identity import is_header_name
from agent_conn.errors import ConfigurationError
from agent_conn.gateway.faults.kinds import FAULTS, Fault, OpenFault, Reset
from agent_conn.gateway.faults.words import kind_in_words

MAX_TEXT = 4_096
MAX_TIMES = 10_000
BY_NAME: Mapping[str, type[Fault]] = {one.__name__: one for one in FAULTS}


def describe_faults() -> list[dict[str, Any]]:
    """Return every fault with its fields, for a page that makes a form of it."""
    return [
        {
            "name": one.__name__,
            "label": kind_in_words(one),
            "about": " ".join((one.__doc__ or "").replace("`", "").split("\n\n")[0].split()),
            "live": issubclass(one, get_args(OpenFault)),
            "fields": [_describe_field(one, item) for item in fields(one)],
        }
        for one in FAULTS
    ]


def build_fault(name: object, values: object) -> Fault:
    """Make the fault `name` of a form's `values`.

    Raises:
        ConfigurationError: there is no such fault or field, or a value is wrong.
    """
    kind = BY_NAME.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ConfigurationError(f"fault must be one of {', '.join(BY_NAME)}")
    if not isinstance(values, dict):
        raise ConfigurationError(f"fields must be an object, got {type(values).__name__}")
    known = {item.name: item for item in fields(kind)}
    if unknown := values.keys() - known.keys():
        raise ConfigurationError(
            f"fields must be those of {kind.__name__}, got {min(unknown)!a:.40}"
        )
    hints = get_type_hints(kind)
    given = {key: _convert(key, hints[key], value) for key, value in values.items()}
    for item in known.values():
        if item.name not in given and _is_required(item):
            raise ConfigurationError(f"{kind.__name__} needs {item.name}")
    return kind(**given)


def check_times(value: object) -> int | None:
    """Return how many connections a fault is to strike; None is all of them.

    Raises:
        ConfigurationError: it is not a whole number from 1.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_TIMES:
        raise ConfigurationError(
            f"times must be a whole number from 1 to {MAX_TIMES} or null, got {value!a:.40}"
        )
    return value


def _describe_field(kind: type[Fault], item: Field[Any]) -> dict[str, Any]:
    hint = get_type_hints(kind)[item.name]
    default: Any = None if item.default is MISSING else item.default
    if isinstance(default, bytes):
        default = default.decode("latin-1")
    described = {"name": item.name, "default": default, "required": _is_required(item)}
    if get_origin(hint) is Literal:
        # What is left of the choices on a live connection is for the page's form to say.
        live = ["open"] if kind is Reset else list(get_args(hint))
        return {**described, "kind": "choice", "choices": list(get_args(hint)), "live": live}
    if get_origin(hint) is Mapping:
        return {**described, "kind": "headers"}
    kinds = {int: "integer", float: "number", bool: "flag"}
    return {**described, "kind": kinds.get(hint, "text")}


def _is_required(item: Field[Any]) -> bool:
    return item.default is MISSING and item.default_factory is MISSING


def _convert(name: str, hint: object, value: object) -> Any:  # noqa: ANN401  (of the kind of the hint)
    match value:
        case bool() if hint is bool:
            return value
        case int() | float() if _is_number(hint, value):
            return int(value) if hint is int else float(value)
        case str() if hint is bytes and len(value) <= MAX_TEXT:
            return value.encode("latin-1", "replace")
        case str() if hint is str and len(value) <= MAX_TEXT and value.isprintable():
            return value
        case str() if get_origin(hint) is Literal and value in get_args(hint):
            return value
        case dict() if get_origin(hint) is Mapping:
            return _convert_headers(name, value)
    kind = getattr(hint, "__name__", str(hint))
    raise ConfigurationError(f"{name} must be a valid {kind}, got {type(value).__name__}")


def _is_number(hint: object, value: float) -> bool:
    if isinstance(value, bool) or not math.isfinite(value):
        return False
    return hint is float or (hint is int and value == int(value))


def _convert_headers(name: str, value: dict[object, object]) -> dict[str, str]:
    checked: dict[str, str] = {}
    for key, text in value.items():
        if not (is_header_name(key) and isinstance(text, str) and text.isprintable()):
            raise ConfigurationError(f"{name} must map header names to printable values")
        checked[str(key)] = text
    return checked
