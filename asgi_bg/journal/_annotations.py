"""What a function's parameters take: how a value of each is read back from JSON."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import typing
from collections import abc
from collections.abc import Callable, Iterator
from types import FunctionType, MethodType
from typing import Annotated, Any, Literal, NewType, Optional, TypeAlias, TypeVar, cast

from asgi_bg._failures import describe_error
from asgi_bg.journal._values import (
    decoder_of,
    describe_type,
    find_change,
    is_pydantic,
    is_readable,
    is_same_plain,
    pydantic_decoder_of,
    type_of,
)

if sys.version_info >= (3, 14):
    import annotationlib

    # Annotations are evaluated when asked for, and names under TYPE_CHECKING do not exist.
    _signature = functools.partial(
        inspect.signature, annotation_format=annotationlib.Format.FORWARDREF
    )
else:
    _signature = inspect.signature

_CONTAINERS = frozenset(
    {dict, list, tuple, set, frozenset, abc.Mapping, abc.MutableMapping, abc.Sequence}
    | {abc.MutableSequence, abc.Collection, abc.Iterable, abc.Set, abc.MutableSet}
)
_WIDER: list[tuple[Any, Any]] = [(int, int | bool), (int | None, int | bool | None)]
_ALIAS_TYPES: tuple[Any, ...] = (NewType, getattr(typing, "TypeAliasType", NewType))


class Parameter:
    """What is known of a parameter, or of what a function returns.

    Attributes:
        hint: The type that msgspec reads it as.
        shown: How its annotation is written.
        decode: Reads a value from its JSON; raises where it is not of the type.
        is_native: Whether msgspec reads it, and nothing else.
        is_readable: Whether there are values that can be read as it.
        is_typed: Whether its type says all: a value that came back equal is the same.
        is_open: Whether nothing is said about its type.
        remark: Why the type says no more, and nothing if it says all.
        advice: What to do about that.
    """

    __slots__ = (
        "advice",
        "decode",
        "hint",
        "is_native",
        "is_open",
        "is_readable",
        "is_typed",
        "remark",
        "shown",
    )

    def __init__(self, hint: Any = Any, remark: str = "", advice: str = "") -> None:
        self.shown = describe_type(hint)
        # A bool is an int to everybody but msgspec. Not looked up, as hints may have no hash.
        self.hint = next((wide for narrow, wide in _WIDER if hint == narrow), hint)
        self.is_open = hint is Any or hint is object or isinstance(hint, TypeVar)
        self.is_typed = not _is_loose(hint)
        self.remark = remark
        self.advice = advice or f"pass just what the annotation {self.shown} says, or plain data"
        if not (self.is_typed or remark):
            self.remark = f"the annotation {self.shown} leaves the type open"
            self.advice = "annotate it with the whole type"
        self.is_native = True
        self.is_readable = True
        try:
            self.decode = decoder_of(self.hint)
            self.is_readable = is_readable(self.hint)
        except Exception:
            if not any(map(is_pydantic, _types_in(hint))):
                raise
            # Pydantic knows unions of models, which msgspec does not.
            self.is_native = False
            self.decode = pydantic_decoder_of(self.hint)

    def find_change(self, value: Any, copy: Any) -> str | None:
        """Say how what `decode` has read is not the value that was written, if it is not."""
        if self.is_typed:
            same = type(copy) is type(value) and copy == value
            return None if same else find_change(value, copy, "none")
        with contextlib.suppress(ValueError):  # not for marshal
            if is_same_plain(copy, value):
                return None
        # An OrderedDict may go where a dict is asked for, but not where nothing is said.
        may_differ = isinstance(value, type(copy)) and not self.is_open
        return find_change(value, copy, "none" if may_differ else "all", same_within="all")


_Reading: TypeAlias = tuple[inspect.Signature, dict[str, Parameter]]


class Parameters:
    """All parameters of a function; never raises, whatever the function and its annotations.

    Attributes:
        result: What it returns.
    """

    def __init__(self, func: Callable[..., Any]) -> None:
        if isinstance(func, staticmethod):
            func = func.__func__  # pyright: ignore[reportUnknownMemberType]
        scope = _scope_of(func)
        self.result = _UNKNOWN
        self._outer = self._reading_of(_signature_of(func, follow_wrapped=False), scope)
        self._inner: _Reading | None = None
        if self._outer is not None and _takes_anything(self._outer[0]):
            # Most such functions are decorators', and pass on what they get.
            self._inner = self._reading_of(_signature_of(func, follow_wrapped=True), scope)

    def _reading_of(
        self, signature: inspect.Signature | None, scope: dict[str, Any]
    ) -> _Reading | None:
        if signature is None:
            return None
        self.result = _parameter_of(signature.return_annotation, ..., scope)
        return signature, {
            name: _parameter_of(each.annotation, each.default, scope)
            for name, each in signature.parameters.items()
        }

    def of_call(self, count: int, names: tuple[str, ...]) -> list[tuple[str, Parameter]]:
        """Return which parameters ``count`` positional arguments and those keywords go to.

        Returns:
            For each argument what to call it in messages, and its parameter.

        Raises:
            TypeError: The function cannot be called so.
        """
        order: list[int | str] = [*range(count), *names]
        found = {
            key: (f"argument {key + 1}" if isinstance(key, int) else f"argument {key!r}", _UNKNOWN)
            for key in order
        }
        if self._outer is not None:
            signature = self._outer[0]
            try:
                found.update(_bound(*self._outer, order))
            except TypeError as exc:
                raise TypeError(f"{exc}; it takes ({_names_in(signature)})") from None
        if self._inner is not None:
            with contextlib.suppress(TypeError):
                inner = dict(_bound(*self._inner, order))
                # Else the decorator gives the function other arguments than it gets.
                if all(parameter.is_readable for _, parameter in inner.values()):
                    found.update(inner)
        return [found[key] for key in order]


def _parameter_of(annotation: Any, default: Any, scope: dict[str, Any]) -> Parameter:
    if annotation is inspect.Signature.empty:
        return _UNKNOWN
    try:
        hint = _resolve(annotation, scope)
    except Exception as exc:
        shown = annotation if isinstance(annotation, str) else describe_type(annotation)
        return _unresolved(repr(shown), exc)
    try:
        if default is None and not (hint is Any or hint is object):
            hint = Optional[hint]  # noqa: UP045 - `|` is not for all that typing takes
        if getattr(hint, "_is_protocol", False) and isinstance(hint, type):
            hint = object
        return Parameter(hint)
    except NameError as exc:
        return _unresolved(describe_type(hint), exc)  # an annotation within a class
    except Exception as exc:
        return Parameter(
            Any,
            f"the annotation {describe_type(hint)} cannot be read ({describe_error(exc)})",
            "give it an annotation that can be: one type, or msgspec.Struct classes with tags",
        )


def _unresolved(shown: str, exc: Exception) -> Parameter:
    return Parameter(
        Any,
        f"the annotation {shown} cannot be resolved at run time ({describe_error(exc)})",
        "import what it names at run time too, not only `if TYPE_CHECKING`",
    )


def _resolve(annotation: Any, scope: dict[str, Any]) -> Any:
    def holder() -> None: ...

    # One by one: a name that does not exist spoils no other parameter.
    holder.__annotations__ = {"it": annotation}
    return typing.get_type_hints(holder, scope, include_extras=True)["it"]


def _signature_of(func: Callable[..., Any], *, follow_wrapped: bool) -> inspect.Signature | None:
    try:
        return _signature(func, follow_wrapped=follow_wrapped)
    except Exception:
        return None


def _takes_anything(signature: inspect.Signature) -> bool:
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    return kinds == [inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD]


def _names_in(signature: inspect.Signature) -> str:
    # Without defaults, which might fail to show themselves.
    empty = inspect.Parameter.empty
    return ", ".join(
        str(each.replace(annotation=empty, default=empty)) for each in signature.parameters.values()
    )


def _bound(
    signature: inspect.Signature, known: dict[str, Parameter], order: list[int | str]
) -> Iterator[tuple[int | str, tuple[str, Parameter]]]:
    """Yield for each argument of a call what to call it, and its parameter."""
    positions = [key for key in order if isinstance(key, int)]
    bound = signature.bind(*positions, **{key: key for key in order if isinstance(key, str)})
    for name, value in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            for key in value:
                yield key, (f"argument {key + 1} (of *{name})", known[name])
        elif kind is inspect.Parameter.VAR_KEYWORD:
            for key in value:
                yield key, (f"argument {key!r} (of **{name})", known[name])
        else:
            yield value, (f"argument {name!r}", known[name])


def _scope_of(func: Any) -> dict[str, Any]:
    """Return the names that a callable's annotations are written with."""
    while isinstance(func, (functools.partial, MethodType)):
        func = func.func if isinstance(func, functools.partial) else func.__func__
    kind = type_of(func)
    if isinstance(func, type):
        func = cast("Any", func).__init__
    elif kind is not FunctionType:
        func = kind.__call__
    with contextlib.suppress(ValueError):  # a circle
        func = inspect.unwrap(func)
    own = {each.__name__: each for each in getattr(func, "__type_params__", ())}
    return {**getattr(func, "__globals__", {}), **own}


def _is_loose(hint: Any) -> bool:
    """Whether a type leaves open, somewhere, what a value is."""
    if hint is Any or hint is object or isinstance(hint, TypeVar):
        return True
    if isinstance(hint, _ALIAS_TYPES):
        return _is_loose(_alias_of(hint))
    origin = typing.get_origin(hint)
    if origin is Literal:
        return False
    args = typing.get_args(hint)
    if origin is Annotated:
        return _is_loose(args[0])
    if not args:
        return (origin or hint) in _CONTAINERS
    return any(map(_is_loose, args))


def _types_in(hint: Any) -> Iterator[Any]:
    """Yield a type, and those that it is made of."""
    yield hint
    if isinstance(hint, _ALIAS_TYPES):
        yield from _types_in(_alias_of(hint))
    for arg in typing.get_args(hint):
        yield from _types_in(arg)


def _alias_of(hint: Any) -> Any:
    return getattr(hint, "__supertype__", None) or hint.__value__


# Last, as it is made with the functions above.
_UNKNOWN = Parameter(Any, "the parameter has no annotation", "annotate it with its type")
