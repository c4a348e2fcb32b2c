"""Arguments and results of tasks as JSON text, and back as they were (J7, J8)."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable
from types import GenericAlias, MethodType
from typing import Any, Final, TypedDict, cast

import msgspec

from asgi_bg._task import Task
from asgi_bg.exceptions import AsgiBgError, NotSerializable
from asgi_bg.journal._annotations import Parameter, Parameters
from asgi_bg.journal._values import (
    NONFINITE,
    NotKept,
    decoder_of,
    describe_reason,
    has_nonfinite,
    is_same_plain,
    kind_of,
    parts_of,
    write_foreign,
    write_foreign_in_full,
)

__all__ = ["CallCodec", "UndecodableCall", "codec_of"]

SHAPES_LIMIT: Final = 256
"""Of how many shapes of calls (so many arguments, such keywords) a task's decoders are kept."""

_NO_NONFINITE = f"{NONFINITE}; pass None or a string instead"
_INSTEAD = "pass plain data, such as an id to load it by, or declare the task with durable=False"

_encode = msgspec.json.Encoder(enc_hook=write_foreign).encode
_encode_in_full = msgspec.json.Encoder(enc_hook=write_foreign_in_full).encode
# The values within are left as they are written, for whoever knows their types.
_split_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_split_dict = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_read_plain = msgspec.json.Decoder().decode
_typed_dict: Any = TypedDict  # whose fields type checkers want to see in the source


class UndecodableCall(AsgiBgError, ValueError):
    """The arguments of a kept job cannot be read, or no longer fit its task (J8)."""


class CallCodec:
    """Turns the calls of one function into JSON text and back.

    What is read back is what was passed: `encode` reads what it writes, and refuses what
    differs, so that a job runs with the same arguments whether or not its process crashes
    in between. Annotations say what JSON does not; a parameter without one takes what JSON
    itself knows. Nothing is ever pickled. Threads may share a codec.

    Args:
        func: The function. Its annotations are read when the codec is first used.
        name: The task's name, for messages.
    """

    def __init__(self, func: Callable[..., Any], name: str) -> None:
        self._name = name
        self._func: Callable[..., Any] | None = func
        self._read: Parameters | None = None
        self._shapes: dict[object, _Shape] = {}

    def encode(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        """Write a call as JSON.

        Returns:
            The text, and the arguments as they come back from it: equal to those passed,
            but copies, so that changing those later changes nothing.

        Raises:
            NotSerializable: An argument would not come back as it is; the message names it.
        """
        if kwargs:
            call: tuple[Any, ...] = (args, kwargs)
            shape = self._shapes.get((len(args), *kwargs))
        elif args:
            call = (args,)
            shape = self._shapes.get(len(args))
        else:
            return "[[]]", (), {}
        if shape is not None and shape.decode is not None:
            try:
                text = _encode(call)
                copy = shape.decode(text)
                if copy == call if shape.is_typed else is_same_plain(copy, call):
                    return text.decode(), copy[0], copy[1] if kwargs else {}
            except KeyboardInterrupt:
                raise
            except BaseException:  # noqa: S110 - taken one by one, the arguments tell why
                pass
        return self._encode_each(args, kwargs)

    def decode(self, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Read a call that `encode` has written, by the function as it is now.

        Raises:
            UndecodableCall: It cannot be read, or does not fit the function any more; the
                message says which argument does not, and why. Nothing else is raised,
                whatever the text is.
        """
        try:
            parts = _split_list(text)
            if len(parts) not in (1, 2):
                raise NotKept(f"it has {len(parts)} parts")
            values = _split_list(parts[0])
            keywords = _split_dict(parts[1]) if len(parts) == 2 else {}
        except Exception as exc:
            raise UndecodableCall(
                f"the arguments kept for task {self._name} are no call: {describe_reason(exc)}"
            ) from exc
        try:
            shape = self._shape_of(len(values), tuple(keywords))
        except TypeError as exc:
            raise UndecodableCall(
                f"task {self._name} cannot be called with the arguments kept for it: {exc}"
            ) from None
        found = [
            self._decode_one(label, parameter, raw)
            for (label, parameter), raw in zip(
                shape.slots, [*values, *keywords.values()], strict=True
            )
        ]
        count = len(values)
        return tuple(found[:count]), dict(zip(keywords, found[count:], strict=True))

    def encode_result(self, value: Any) -> str:
        """Write what the function returned as JSON.

        Raises:
            NotSerializable: It cannot be written; the message says what stands in the way.
        """
        if value is None:
            return "null"  # most return nothing
        try:
            text = _encode_in_full(value)
            if b"null" in text and has_nonfinite(value):
                raise NotKept(NONFINITE)
            return text.decode()
        except KeyboardInterrupt:
            raise
        except BaseException as exc:
            raise NotSerializable(
                f"the result of task {self._name} cannot be kept, a {kind_of(value)}: "
                f"{_why_unwritable(_encode_in_full, value, exc)}; return plain data"
            ) from exc

    def decode_result(self, text: str) -> Any:
        """Read a result that `encode_result` has written.

        Returns:
            It as the return annotation says, or as plain JSON where it does not fit that.

        Raises:
            UndecodableCall: It is no JSON.
        """
        try:
            return self._parameters().result.decode(text)
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: S110 - it is still to be seen
            pass
        try:
            return _read_plain(text)
        except Exception as exc:
            raise UndecodableCall(
                f"the result kept for task {self._name} is no JSON: {describe_reason(exc)}"
            ) from exc

    def _parameters(self) -> Parameters:
        func = self._func
        if func is not None:
            self._read = Parameters(func)
            # Let go of, or it would live as long as what is cached for it.
            self._func = None
        return cast("Parameters", self._read)

    def _shape_of(self, count: int, names: tuple[str, ...]) -> _Shape:
        """Return the shape of such a call; raise `TypeError` if the function takes none."""
        key = (count, *names) if names else count
        shape = self._shapes.get(key)
        if shape is None:
            shape = _Shape(self._parameters().of_call(count, names), count, names)
            if len(self._shapes) >= SHAPES_LIMIT:
                self._shapes.clear()
            self._shapes[key] = shape
        return shape

    def _encode_each(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        """Do what `encode` does argument by argument, to name the one that cannot be kept."""
        count = len(args)
        try:
            shape = self._shape_of(count, tuple(kwargs))
        except TypeError as exc:
            raise NotSerializable(
                f"task {self._name} cannot be called with these arguments: {exc}"
            ) from None
        values = [*args, *kwargs.values()]
        kept = [
            self._encode_one(label, parameter, value)
            for (label, parameter), value in zip(shape.slots, values, strict=True)
        ]
        texts = [text for text, _ in kept]
        copies = [copy for _, copy in kept]
        written = ",".join(texts[:count])
        if not kwargs:
            return f"[[{written}]]", tuple(copies), {}
        names = [self._encode_one("a keyword", _A_NAME, name)[0] for name in kwargs]
        pairs = ",".join(map(":".join, zip(names, texts[count:], strict=True)))
        keywords = dict(zip(kwargs, copies[count:], strict=True))
        return f"[[{written}],{{{pairs}}}]", tuple(copies[:count]), keywords

    def _encode_one(self, label: str, parameter: Parameter, value: Any) -> tuple[str, Any]:
        failure = BaseException()
        for encode in (_encode, _encode_in_full):
            try:
                return _round_trip(encode, parameter, value)
            except KeyboardInterrupt:
                raise
            except BaseException as exc:
                failure = exc
        reason = describe_reason(failure)
        raise NotSerializable(
            f"task {self._name} cannot keep {label} of type {kind_of(value)}: {reason}"
        ) from failure

    def _decode_one(self, label: str, parameter: Parameter, text: msgspec.Raw) -> Any:
        try:
            return parameter.decode(text)
        except KeyboardInterrupt:
            raise
        except BaseException as exc:
            raise UndecodableCall(
                f"task {self._name} cannot take {label} as it was kept: {describe_reason(exc)}"
            ) from exc


class _Shape:
    """Calls with so many positional arguments, and such keywords.

    Attributes:
        slots: For each argument what to call it, and its parameter.
        is_typed: Whether arguments that come back equal are the same.
        decode: Reads all of them at once, where that can be done.
    """

    __slots__ = ("decode", "is_typed", "slots")

    def __init__(
        self, slots: list[tuple[str, Parameter]], count: int, names: tuple[str, ...]
    ) -> None:
        parameters = [parameter for _, parameter in slots]
        self.slots = slots
        self.is_typed = all(parameter.is_typed for parameter in parameters)
        self.decode: Callable[[bytes], Any] | None = None
        if all(parameter.is_native for parameter in parameters):
            hints = [parameter.hint for parameter in parameters]
            parts: list[Any] = [GenericAlias(tuple, tuple(hints[:count]))]
            if names:
                parts.append(_typed_dict("Keywords", dict(zip(names, hints[count:], strict=True))))
            # Some hints can be read, but not as a field.
            with contextlib.suppress(Exception):
                self.decode = decoder_of(GenericAlias(tuple, tuple(parts)))


_A_NAME = Parameter(str)
_codecs: dict[tuple[object, ...], CallCodec] = {}


def codec_of(task: Task[..., Any]) -> CallCodec:
    """Return the codec of a task's function, always the same while the function lives."""
    # By identity: looking up a weak reference takes several times as long.
    codec = _codecs.get((id(task.func), task.name))
    return _add_codec(task.func, task.name) if codec is None else codec


def _add_codec(func: Callable[..., Any], name: str) -> CallCodec:
    anchor: object = func
    key: tuple[object, ...] = (id(func), name)
    if isinstance(func, MethodType):
        # Made anew each time it is looked up, unlike its function.
        anchor = func.__func__
        key = (id(anchor), name, "bound")
        if key in _codecs:
            return _codecs[key]
    codec = CallCodec(func, name)
    try:
        weakref.finalize(anchor, _codecs.pop, key, None).atexit = False
    except TypeError:
        return codec  # nobody would tell when the function is gone
    return _codecs.setdefault(key, codec)


def _round_trip(
    encode: Callable[[Any], bytes], parameter: Parameter, value: Any
) -> tuple[str, Any]:
    """Return a value's JSON, and what is read from it; raise `NotKept` if that differs."""
    try:
        text = encode(value)
    except Exception as exc:
        raise NotKept(f"{_why_unwritable(encode, value, exc)}; {_INSTEAD}") from exc
    try:
        copy = parameter.decode(text)
    except Exception as exc:
        if has_nonfinite(value):
            raise NotKept(_NO_NONFINITE) from exc
        raise NotKept(
            f"it does not fit its annotation: {describe_reason(exc)}; {parameter.advice}"
        ) from exc
    change = parameter.find_change(value, copy)
    if change is None:
        return text.decode(), copy
    if has_nonfinite(value):
        raise NotKept(_NO_NONFINITE)
    why = f", as {parameter.remark}" if parameter.remark else ""
    raise NotKept(f"{change}{why}; {parameter.advice}")


def _why_unwritable(encode: Callable[[Any], bytes], value: Any, exc: BaseException) -> str:
    """Say why a value cannot be written as JSON, and which part of it stands in the way."""
    path = ""
    part: Any = value
    parts = iter(parts_of(value) or ())
    while not isinstance(exc, RecursionError) and (found := next(parts, None)) is not None:
        step, inner = found
        try:
            encode(inner)
        except Exception as cause:
            path, part, exc = path + step, inner, cause
            parts = iter(parts_of(inner) or ())
    place = f"its part {path}, of type {kind_of(part)}: " if path else ""
    return place + describe_reason(exc)
