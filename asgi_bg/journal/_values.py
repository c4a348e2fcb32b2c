"""Values on their way through JSON: those that msgspec does not know, and what changes."""

from __future__ import annotations

import functools
import inspect
import ipaddress
import marshal
import math
import re
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any, Final, Literal, TypeAlias, get_args, get_origin

import msgspec

from asgi_bg._failures import describe_error

NONFINITE: Final = "JSON has no nan and no infinity"

# Their constructors take what their str() gives.
_TEXTUAL = (
    PurePath,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
    complex,
)
# msgspec writes these, but nothing derived from them. A datetime is a date too.
_PLAIN: list[tuple[type, Callable[[Any], Any]]] = [
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (bytes, lambda value: bytes(memoryview(value))),
    (Decimal, Decimal),
    (datetime, lambda value: datetime.combine(value, value.timetz())),
    (date, lambda value: date(value.year, value.month, value.day)),
    (timedelta, lambda value: timedelta(value.days, value.seconds, value.microseconds)),
]
_SERIES = (list, tuple, set, frozenset)
# Factories that give the same at any time.
_STEADY = (None, dict, list, set)
# What msgspec says so ends with the value, and some values are not to be shown (J10).
_VALUE_TOLD = re.compile(r"(Invalid (?:enum )?value) .*?(?= - at `|$)", re.DOTALL)


SameTypes: TypeAlias = Literal["all", "containers", "none"]
"""Which types a copy must share with the original, if it equals that otherwise.

Where an annotation asks for a tuple, a list may become one. Fields of a dataclass hold what
they hold, whatever their annotations ask for.
"""


class NotKept(ValueError):
    """A value would not survive; the message is the reason."""


def kind_of(value: object) -> str:
    """Return the name of a value's type."""
    return describe_type(type(value))


def describe_type(hint: Any) -> str:
    """Return how a type is written, without its module where that is possible."""
    if isinstance(hint, type) and not get_args(hint):
        return hint.__qualname__.rpartition("<locals>.")[2]
    return str(hint)


def describe_reason(exc: BaseException) -> str:
    """Return in one line why a value cannot be written or read, without the value (J10)."""
    if isinstance(exc, NotKept):
        return str(exc)
    if isinstance(exc, RecursionError):
        return "it is nested too deeply, or contains itself"
    if isinstance(exc, msgspec.MsgspecError):
        return _VALUE_TOLD.sub(r"\1", str(exc))
    if type(exc).__module__.startswith("pydantic") and hasattr(exc, "errors"):
        failure: Any = exc  # whose own words tell the value
        told: list[Any] = failure.errors(
            include_url=False, include_context=False, include_input=False
        )
        return "; ".join(": ".join([*map(str, each["loc"]), each["msg"]]) for each in told)
    return describe_error(exc)


def decoder_of(hint: Any) -> Callable[[Any], Any]:
    """Return what reads JSON as a type; raise if msgspec does not know how."""
    return msgspec.json.Decoder(hint, dec_hook=_read_foreign).decode


def write_foreign(value: Any) -> Any:
    """Make what msgspec does not know into something that it does.

    Of a pydantic model only the fields that were set are written: what is read then knows
    as well as the original which those are, as ``exclude_unset`` needs it.
    """
    if is_pydantic(type_of(value)):
        return _write_pydantic(value, exclude_unset=not _has_unsteady_default(value))
    if isinstance(value, _TEXTUAL):
        return str(value)
    for kind, plain in _PLAIN:
        if isinstance(value, kind):
            return plain(value)
    raise NotKept(f"JSON has nothing for a {kind_of(value)}")


def write_foreign_in_full(value: Any) -> Any:
    """Do the same, but write all fields of pydantic models."""
    if is_pydantic(type_of(value)):
        return _write_pydantic(value, exclude_unset=False)
    return write_foreign(value)


def _read_foreign(kind: Any, value: Any) -> Any:
    if is_pydantic(kind):
        try:
            # As JSON again: strict models take a string for a date from nothing else.
            return pydantic_decoder_of(kind)(msgspec.json.encode(value))
        except ValueError as exc:
            raise NotKept(describe_reason(exc)) from None
    # Abstract types, such as numbers.Real or typing.Hashable.
    abstract: object = get_origin(kind) or kind
    if isinstance(abstract, type) and isinstance(value, abstract):
        return value
    if isinstance(kind, type) and issubclass(kind, _TEXTUAL) and isinstance(value, str):
        return kind(value)
    raise NotKept(f"JSON has nothing for a {describe_type(kind)}")


def is_readable(hint: Any) -> bool:
    """Whether values can be read as a type that a decoder can be had for."""
    if isinstance(hint, type) and (is_pydantic(hint) or issubclass(hint, _TEXTUAL)):
        return True
    # Of any other class msgspec knows nothing, and lets a decoder try.
    return not isinstance(msgspec.inspect.type_info(hint), msgspec.inspect.CustomType)


def is_pydantic(kind: object) -> bool:
    """Whether a type is a pydantic model, or otherwise made for pydantic, which is loaded."""
    return (
        hasattr(kind, "__get_pydantic_core_schema__")
        and isinstance(kind, type)
        and "pydantic" in sys.modules
    )


def pydantic_decoder_of(hint: Any) -> Callable[[Any], Any]:
    """Return what reads JSON as a type by pydantic; raise if that does not know how."""
    adapter = _adapter_of(hint)
    names = {"by_alias": False, "by_name": True} if _reads_names() else {}

    def decode(text: Any) -> Any:
        # Of msgspec.Raw it knows nothing.
        return adapter.validate_json(text if isinstance(text, str) else bytes(text), **names)

    return decode


def _write_pydantic(value: Any, *, exclude_unset: bool) -> msgspec.Raw:
    text = _adapter_of(type_of(value)).dump_json(
        value,
        # Names of fields are the same for reading and writing; aliases need not be.
        by_alias=not _reads_names(),
        exclude_unset=exclude_unset,
        round_trip=True,
        # What does not fit its field is found when it is read.
        warnings=False,
    )
    return msgspec.Raw(text)


@functools.lru_cache(maxsize=256)
def _adapter_of(kind: Any) -> Any:
    return sys.modules["pydantic"].TypeAdapter(kind)


@functools.lru_cache(maxsize=1)
def _reads_names() -> bool:
    """Whether pydantic can be told to read fields by name, as it can since 2.11."""
    return "by_name" in inspect.signature(_adapter_of(int).validate_json).parameters


def _has_unsteady_default(value: Any) -> bool:
    """Whether a field that was not set has a default that may be another the next time."""
    if _is_model(value):
        for name, field in type_of(value).model_fields.items():
            if name not in value.model_fields_set and field.default_factory not in _STEADY:
                return True
    return any(_has_unsteady_default(part) for _, part in parts_of(value) or ())


def type_of(value: object) -> Any:
    """Return the type of a value as one of which nothing is known when types are checked."""
    return type(value)


def _is_model(value: Any) -> bool:
    return hasattr(type_of(value), "__pydantic_fields_set__")


def parts_of(value: Any) -> list[tuple[str, Any]] | None:
    """Return what a value is made of, each with how to get there; None for an atom."""
    kind = type_of(value)
    if issubclass(kind, dict):
        # Keys are data, and data is not shown.
        return [("[...]", part) for pair in value.items() for part in pair]
    if issubclass(kind, _SERIES):
        return [(f"[{index}]", part) for index, part in enumerate(value)]
    if _is_model(value):
        hidden = (value.__pydantic_extra__, value.__pydantic_private__)
        held: list[dict[str, Any]] = [value.__dict__, *(each or {} for each in hidden)]
        return [(f".{name}", part) for each in held for name, part in each.items()]
    if issubclass(kind, msgspec.Struct):
        names = [*kind.__struct_fields__]
    elif is_dataclass(kind):
        names = [field.name for field in fields(kind)]
    elif hasattr(kind, "__attrs_attrs__"):
        names = [field.name for field in kind.__attrs_attrs__]
    else:
        return None
    return [(f".{name}", getattr(value, name, None)) for name in names]


def has_nonfinite(value: Any) -> bool:
    """Whether there is a nan or an infinity in it, for which msgspec writes null."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if value is None or isinstance(value, (str, int)):
        return False  # as most of them are, and have no parts
    return any(has_nonfinite(part) for _, part in parts_of(value) or ())


def is_same_plain(copy: Any, value: Any) -> bool:
    """Whether values are equal and made of the same types, which are JSON's own.

    marshal, by which nothing is read, is a comparison here: it tells a list from a tuple
    and an int from a bool, refuses what is derived from them, and is many times as fast as
    Python code could be. Its version 2 writes the same value always in the same way.
    """
    return marshal.dumps(copy, 2) == marshal.dumps(value, 2)


def find_change(
    value: Any, copy: Any, same: SameTypes, *, same_within: SameTypes | None = None, path: str = ""
) -> str | None:
    """Say where and how a copy is not what it was made from, if it is not.

    Args:
        value: The original.
        copy: What came back.
        same: Which types must be the same.
        same_within: The same for what they are made of, where that differs.
        path: Where in the whole they are.
    """
    parts, copies = parts_of(value), parts_of(copy)
    if type(value) is not type(copy) and (
        same == "all" or (same == "containers" and parts is not None)
    ):
        return _tell_change(value, copy, path)
    if parts is None or copies is None:
        return None if _is_same_atom(value, copy) else _tell_change(value, copy, path)
    if _family_of(value) is not _family_of(copy):
        return _tell_change(value, copy, path)
    if isinstance(copy, (set, frozenset)):
        return None if set(value) == copy else _tell_change(value, copy, path)
    same = same_within or same
    if _family_of(value) not in (dict, list):
        if value == copy:
            return None  # by an __eq__ of its own, perhaps
        same = "containers" if same == "none" else same
    if len(parts) != len(copies):
        return f"{_place(value, path)} would come back with parts missing"
    for (step, part), (_, other) in zip(parts, copies, strict=True):
        change = find_change(part, other, same, path=path + step)
        if change is not None:
            return change
    return None


def _family_of(value: Any) -> type:
    """Return what all have in common that a value may become; of most, their own type."""
    if isinstance(value, dict):
        return dict
    return list if isinstance(value, _SERIES) else type_of(value)


def _is_same_atom(value: Any, copy: Any) -> bool:
    if isinstance(value, datetime) and isinstance(copy, datetime):
        # In the hour that clocks go through twice, two time zones never agree.
        same_clock = value.replace(tzinfo=None, fold=0) == copy.replace(tzinfo=None, fold=0)
        return same_clock and value.utcoffset() == copy.utcoffset()
    if isinstance(value, Decimal) and value.is_nan():
        return str(value) == str(copy)
    return bool(value == copy)


def _tell_change(value: Any, copy: Any, path: str) -> str:
    same = type(value) is type(copy)
    return f"{_place(value, path)} would come back " + (
        "different" if same else f"as {kind_of(copy)}"
    )


def _place(value: Any, path: str) -> str:
    return f"its part {path}, of type {kind_of(value)}," if path else "it"
