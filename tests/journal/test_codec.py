"""Arguments and results as JSON text: back as they were, or refused (J7, J8)."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import gc
import ipaddress
import json
import math
import numbers
import sys
import uuid
from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    Optional,
    Protocol,
    TypedDict,
    TypeVar,
)
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from asgi_bg import Task
from asgi_bg.exceptions import AsgiBgError, NotSerializable
from asgi_bg.journal import _values
from asgi_bg.journal import codec as codec_module
from asgi_bg.journal.codec import SHAPES_LIMIT, CallCodec, UndecodableCall, codec_of
from tests.helpers import need

if TYPE_CHECKING:
    from nowhere import Order

T = TypeVar("T")
nothing = object()


class Colour(enum.Enum):
    red = "r"
    blue = "b"


class Shade(str, enum.Enum):
    dark = "d"


class Mode(enum.Flag):
    read = 1
    write = 2


@dataclasses.dataclass
class Point:
    x: int
    y: float = 1.0


@dataclasses.dataclass
class Point3(Point):
    z: int = 3


@dataclasses.dataclass
class Line:
    start: Point
    ends: list[Point]
    tags: frozenset[str] = frozenset()
    more: Any = None


@dataclasses.dataclass(eq=False)
class Entity:
    id: int
    names: list[str]


class Pair(NamedTuple):
    left: int
    right: str = "r"


class Row(TypedDict):
    id: int


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    born: date


class Box(msgspec.Struct, Generic[T]):
    content: T


class Word(str):
    """A string of its own kind, as frameworks have them."""


class Stamp(datetime):
    """A datetime of its own kind, as libraries that fake the time have them."""


@dataclasses.dataclass
class Parcel:
    order: Order


class Custom:
    """Nothing that JSON knows."""


class Sized(Protocol):
    def size(self) -> int: ...


Id = NewType("Id", int)


def taking(annotation: Any = nothing) -> CallCodec:
    """Return the codec of a function of one value."""

    def func(value): ...

    if annotation is not nothing:
        func.__annotations__ = {"value": annotation}
    return CallCodec(func, "app:func")


def returning(annotation: Any = nothing) -> CallCodec:
    """Return the codec of a function that returns a value."""

    def func(): ...

    if annotation is not nothing:
        func.__annotations__ = {"return": annotation}
    return CallCodec(func, "app:func")


def through(codec: CallCodec, value: Any) -> Any:
    """Return the copy of a value, which is the same at once, again, and when read later."""
    text, (copy,), kwargs = codec.encode((value,), {})
    again, (copied,), _ = codec.encode((value,), {})
    (read,), _ = codec.decode(text)
    assert kwargs == {}
    assert isinstance(text, str)
    assert json.loads(again) == json.loads(text)
    assert repr(read) == repr(copied) == repr(copy)
    return copy


def refusal(codec: CallCodec, *args: Any, **kwargs: Any) -> str:
    """Return why a call is refused, each time."""
    reasons: set[str] = set()
    for _ in range(2):
        with pytest.raises(NotSerializable) as caught:
            codec.encode(args, kwargs)
        reasons.add(str(caught.value))
    (reason,) = reasons
    return reason


TYPED: list[tuple[Any, Any]] = [
    (str, "a\x00é\U0001f600"),
    (int, -(2**100)),
    (int, True),
    (Optional[int], True),  # noqa: UP045 - older code has it
    (float, 0.1),
    (bool, True),
    (None, None),
    (str | None, None),
    (int | str | None, "1"),
    (bytes, b"\x00\xff"),
    (datetime, datetime(2024, 2, 29, 1, 2, 3, 4)),
    (datetime, datetime(2024, 2, 29, tzinfo=timezone(timedelta(hours=5, minutes=30)))),
    (date, date(1, 1, 1)),
    (time, time(23, 59, 59, 999999)),
    (timedelta, timedelta(days=-3, microseconds=1)),
    (uuid.UUID, uuid.UUID(int=5)),
    (Decimal, Decimal("1.10")),
    (Colour, Colour.red),
    (Shade, Shade.dark),
    (Mode, Mode.read | Mode.write),
    (Literal["a", 1], "a"),
    (list[int], [1, 2]),
    (set[str], {"a", "b"}),
    (frozenset[date], frozenset({date(2024, 1, 1)})),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (tuple[()], ()),
    (tuple, (1, "a")),
    (dict[int, str], {1: "a"}),
    (dict[uuid.UUID, list[Point]], {uuid.UUID(int=5): [Point(1)]}),
    (Mapping[str, date], {"a": date(2024, 1, 1)}),
    (Sequence[int], [1, 2]),
    (Point, Point(1, 2.5)),
    (Line, Line(Point(1), [Point(2)], frozenset({"a"}), {"b": [1]})),
    (Line | None, Line(Point(1), [])),
    (Pair, Pair(1)),
    (Row, {"id": 1}),
    (Cat, Cat(9)),
    (Cat | Dog, Dog(date(2020, 1, 1))),
    (list[Cat | Dog], [Cat(1), Dog(date(2020, 1, 1))]),
    (Box[date], Box(date(2024, 1, 1))),
    (Id, Id(3)),
    (Annotated[str, msgspec.Meta(max_length=3)], "abc"),
    (Annotated[str, {"without": "hash"}], "abc"),
    (Path, Path("/a/b")),
    (Path | None, Path("a")),
    (dict[str, list[Path]], {"a": [Path("b")]}),
    (ipaddress.IPv4Address, ipaddress.ip_address("127.0.0.1")),
    (ipaddress.IPv6Network, ipaddress.ip_network("fe80::/64")),
    (complex, 1 - 2j),
    (numbers.Real, 3),
    (Hashable, 3),
    (Sized, 3),
    (object, [1]),
    (T, [1]),
    (Any, {"a": [None, 1.5]}),
    (dict, {"a": [1]}),
    (dict[str, Any], {"a": [1, {"b": None}]}),
    (date | str, "no date: msgspec cannot tell them apart"),
]


@pytest.mark.parametrize(("annotation", "value"), TYPED)
def test_what_its_annotation_describes_comes_back_as_it_was(annotation: Any, value: Any) -> None:
    """J7: the same value, of the same types within."""
    copy = through(taking(annotation), value)
    assert copy == value
    assert type(copy) is type(value)
    if isinstance(value, (set, frozenset)):  # whose order is another one each time
        copy, value = sorted(copy), sorted(value)
    assert repr(copy) == repr(value)


def test_attrs_classes_come_back() -> None:
    """Where attrs is installed; it need not be."""
    attrs = need("attrs")

    @attrs.define
    class Crate:
        made: date

    assert through(taking(Crate), Crate(date(2024, 1, 1))) == Crate(date(2024, 1, 1))
    assert "its part .made, of type str, would come back as date" in refusal(
        taking(Crate), Crate("2024-01-01")
    )


@pytest.mark.parametrize(
    ("annotation", "value", "copy"),
    [
        (float, 1, 1.0),
        (str, Shade.dark, "d"),
        (str, Word("a"), "a"),
        (bytes, bytearray(b"a"), b"a"),
        (list[int], (1, 2), [1, 2]),
        (tuple[int, ...], [1, 2], (1, 2)),
        (tuple[int, ...], [], ()),
        (set[int], [1, 1, 2], {1, 2}),
        (list[int], {1}, [1]),
        (Sequence[int], (1, 2), [1, 2]),
        (dict[str, int], collections.OrderedDict(a=1), {"a": 1}),
        (dict, collections.OrderedDict(a=1), {"a": 1}),
        (
            datetime,
            Stamp(2024, 1, 1, tzinfo=timezone.utc),
            datetime(2024, 1, 1, tzinfo=timezone.utc),
        ),
        (Decimal, type("Price", (Decimal,), {})("1.0"), Decimal("1.0")),
        (date, type("Day", (date,), {})(2024, 1, 1), date(2024, 1, 1)),
        (timedelta, type("Span", (timedelta,), {})(1, 2, 3), timedelta(1, 2, 3)),
        (bytes, type("Blob", (bytes,), {})(b"a"), b"a"),
        (float, type("Length", (float,), {})(1.5), 1.5),
        (int, type("Count", (int,), {})(3), 3),
    ],
)
def test_annotation_that_asks_for_another_type_of_the_same_gets_it(
    annotation: Any, value: Any, copy: Any
) -> None:
    """A list where a tuple is asked for becomes one, as does a subclass its base."""
    found = through(taking(annotation), value)
    assert found == copy
    assert type(found) is type(copy)


def test_hour_that_clocks_go_through_twice_keeps_its_instant() -> None:
    """Two time zones never compare equal there, and the instant is the same nevertheless."""
    for fold in (0, 1):
        value = datetime(2020, 10, 25, 2, 30, fold=fold, tzinfo=ZoneInfo("Europe/Berlin"))
        copy = through(taking(datetime), value)
        assert copy.astimezone(timezone.utc) == value.astimezone(timezone.utc)


def test_objects_without_equality_come_back_with_equal_fields() -> None:
    """Identity is all that they compare by."""
    copy = through(taking(Entity), Entity(1, ["a"]))
    assert (copy.id, copy.names) == (1, ["a"])
    assert "its part .names, of type tuple, would come back as list" in refusal(
        taking(Entity), Entity(1, ("a",))
    )


def test_decimal_nan_comes_back() -> None:
    """JSON has strings for it, unlike for a float."""
    assert str(through(taking(Decimal), Decimal("NaN"))) == "NaN"


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # msgspec reads 1e308 and the like, but no integers of more digits than Python prints.
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(plain)
def test_json_comes_back_without_annotations(value: Any) -> None:
    """Whatever JSON itself knows needs no type."""
    for annotation in (nothing, Any):
        assert repr(through(taking(annotation), value)) == repr(value)


@given(plain | st.tuples(plain) | st.binary() | st.dates() | st.dictionaries(st.integers(), plain))
@example({1: 2})
@example([(1,)])
@example(Shade.dark)
@example([Word("a")])
@example(collections.OrderedDict(a=1))
@example({Shade.dark: 1})
@example({1: "a", "1": "b"})
def test_without_annotations_nothing_is_changed_silently(value: Any) -> None:
    """It is the same to the last type, or refused."""
    codec = taking()
    for _ in range(2):
        try:
            _, (copy,), _ = codec.encode((value,), {})
        except NotSerializable:
            continue
        assert repr(copy) == repr(value)


@pytest.mark.parametrize(
    "annotation",
    [
        Point,
        Line,
        Pair,
        Row,
        Colour,
        Cat | Dog,
        dict[uuid.UUID, tuple[date, timedelta | None]],
        dict[int, set[uuid.UUID]],
        list[int | str | None],
        tuple[datetime, time, bytes],
        frozenset[tuple[int, str]],
    ],
)
@given(data=st.data())
def test_any_value_of_a_type_comes_back(annotation: Any, data: st.DataObject) -> None:
    """Except a nan, an infinity, and what differs from itself."""
    value = data.draw(
        st.from_type(annotation) if annotation is not Line else st.builds(Line, more=plain)
    )
    assume("nan" not in repr(value).lower() and "inf" not in repr(value).lower())
    assert through(taking(annotation), value) == value


@given(st.decimals(allow_nan=False))
def test_decimals_come_back_to_the_last_digit(value: Decimal) -> None:
    """JSON has them as strings."""
    assert str(through(taking(Decimal), value)) == str(value)


@given(
    st.sampled_from([int, float, str, bytes, date, Path, Point, Colour, Row, list[int], set[int]]),
    plain | st.dates() | st.binary() | st.sets(st.integers()) | st.builds(Point),
)
def test_nothing_becomes_what_it_does_not_equal(annotation: Any, value: Any) -> None:
    """Whatever it is passed for."""
    try:
        _, (copy,), _ = taking(annotation).encode((value,), {})
    except NotSerializable:
        return
    if isinstance(copy, set) or isinstance(value, set):
        copy, value = set(copy), set(value)
    assert copy == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinities_are_refused_wherever_they_are(value: float) -> None:
    """Msgspec writes null for them, which would come back as None."""
    for annotation, argument in [
        (nothing, value),
        (float, value),
        (float | None, value),
        (nothing, [{"a": value}]),
        (list[Any], [value]),
        (list[float | None], [value]),
        (Point, Point(1, value)),
        (float, type("Length", (float,), {})(value)),
    ]:
        reason = refusal(taking(annotation), argument)
        assert "argument 'value'" in reason
        assert "JSON has no nan and no infinity; pass None or a string" in reason
    if math.isnan(value):
        assert "JSON has no nan" in refusal(taking(dict[float, int]), {value: 1})


def test_refusal_says_task_argument_type_reason_and_remedy() -> None:
    """All that is needed to mend it."""
    assert refusal(taking(), (1,)) == (
        "task app:func cannot keep argument 'value' of type tuple: it would come back as list, "
        "as the parameter has no annotation; annotate it with its type"
    )
    assert refusal(taking(), [{"a": Custom()}]) == (
        "task app:func cannot keep argument 'value' of type list: its part [0][...], of type "
        "Custom: JSON has nothing for a Custom; pass plain data, such as an id to load it by, "
        "or declare the task with durable=False"
    )
    assert refusal(taking(int), "1") == (
        "task app:func cannot keep argument 'value' of type str: it does not fit its "
        "annotation: Expected `bool | int`, got `str`; "
        "pass just what the annotation int says, or plain data"
    )


UNRESOLVED = "the annotation 'Order' cannot be resolved at run time (NameError: name 'Order'"


@pytest.mark.parametrize(
    ("annotation", "value", "reason"),
    [
        (nothing, datetime(2024, 1, 1), "would come back as str, as the parameter has no ann"),
        (nothing, Point(1), "would come back as dict"),
        (nothing, Shade.dark, "would come back as str"),
        (nothing, {1: 2}, "its part [...], of type int, would come back as str"),
        (nothing, {1: 2, "1": 2}, "would come back"),
        (nothing, collections.OrderedDict(a=1), "would come back as dict"),
        (nothing, b"a", "would come back as str"),
        (nothing, Path("a"), "would come back as str"),
        (nothing, "\ud800", "surrogates not allowed"),
        (nothing, [10**5000], "limit"),
        (nothing, iter([1]), "JSON has nothing for a list_iterator"),
        (nothing, msgspec.Raw(b"{"), "truncated"),
        (list, (1,), "would come back as list, as the annotation list leaves the type open"),
        (dict[str, Any], {"a": (1,)}, "part [...], of type tuple, would come back as list"),
        (Id, "a", "Expected `int`, got `str`"),
        (NewType("Bag", dict), {1: 2}, "leaves the type open; annotate it with the whole type"),
        (Point, Point3(1), "it would come back as Point; pass just what the annotation Point"),
        (list[Point], [Point3(1)], "its part [0], of type Point3, would come back as Point"),
        (Point, {"x": 1, "y": 1.0}, "it would come back as Point"),
        (Line, Line(Point(1), [], more=(1,)), "its part .more, of type tuple, would come back as"),
        (Row, {"id": 1, "more": 2}, "it would come back with parts missing"),
        (date, "2024-01-01", "it would come back as date"),
        (bytes, "YQ==", "it would come back as bytes"),
        (Path, "a", "it would come back as"),
        (float, 2**53 + 1, "it would come back as float"),
        (Literal["a"], "secret", "Invalid enum value; pass"),
        (datetime, datetime(2020, 1, 1, tzinfo=timezone(timedelta(seconds=30))), "different"),
        (Custom, Custom(), "JSON has nothing for a Custom"),
        (Custom, 3, "JSON has nothing for a Custom"),
        (Point | Line, Point(1), "Line cannot be read (TypeError: Type unions may not"),
        (date | str, date(2024, 1, 1), "cannot be read (TypeError: Type unions may not"),
        (Box, Box([Custom()]), "its part .content[0], of type Custom: JSON has nothing for"),
        ("Order", (1,), UNRESOLVED),
        (list[Parcel], [Parcel(1)], "(NameError: name 'Order' is not defined); import"),
        ("not a type", (1,), "cannot be resolved at run time (SyntaxError"),
        (5, (1,), "the annotation 5 cannot be read"),
    ],
)
def test_what_would_come_back_changed_is_refused(annotation: Any, value: Any, reason: str) -> None:
    """In add_task, not years later."""
    assert reason in refusal(taking(annotation), value)


def test_what_contains_itself_or_is_too_deep_is_refused() -> None:
    """Neither ends the process, nor costs it much time."""
    circle: list[Any] = []
    circle.append(circle)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (circle, deep):
        assert "it is nested too deeply, or contains itself" in refusal(taking(), value)


class Hostile(msgspec.Struct, eq=False):
    """Fails when it is compared."""

    x: int

    def __eq__(self, other: object) -> bool:
        raise error

    __hash__ = None


error: BaseException = SystemExit("mine")


@pytest.mark.parametrize("what", [SystemExit("mine"), ValueError("mine"), GeneratorExit("mine")])
def test_objects_that_raise_anything_are_refused(
    what: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Add_task raises nothing else, whatever their methods do."""
    monkeypatch.setattr(sys.modules[__name__], "error", what)
    reason = refusal(taking(Hostile), Hostile(1))
    assert reason.endswith(f": {type(what).__name__}: mine")


@dataclasses.dataclass
class Picky:
    """Fails when it is made anew."""

    x: int

    def __post_init__(self) -> None:
        if self.x:
            raise error


def test_types_that_raise_anything_when_read_raise_nothing_else() -> None:
    """Neither for arguments nor for results."""
    with pytest.raises(UndecodableCall, match="argument 'value' as it was kept: SystemExit: mine"):
        taking(Picky).decode('[[{"x":1}]]')
    assert returning(Picky).decode_result('{"x":1}') == {"x": 1}


def test_keyboard_interrupt_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever presses Ctrl-C is heard, at whatever moment."""
    codec = taking(Hostile)
    for times in range(2):
        monkeypatch.setattr(sys.modules[__name__], "error", KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            codec.encode((Hostile(times),), {})

    def written(value: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(codec_module, "_encode_in_full", written)
    with pytest.raises(KeyboardInterrupt):
        returning().encode_result([])
    with pytest.raises(KeyboardInterrupt):
        taking(Picky).decode('[[{"x":1}]]')
    with pytest.raises(KeyboardInterrupt):
        returning(Picky).decode_result('{"x":1}')


async def send(to: str, n: int = 1, *ids: uuid.UUID, urgent: bool = False, **at: date) -> Decimal:
    """Take arguments in every way."""
    return Decimal(n)


ID = uuid.UUID(int=7)
DAY = date(2024, 1, 1)


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        (("a",), {}, '[["a"]]'),
        (("a", 3), {}, '[["a",3]]'),
        ((), {"to": "a"}, '[[],{"to":"a"}]'),
        (("a", 3, ID, ID), {}, f'[["a",3,"{ID}","{ID}"]]'),
        (("a",), {"urgent": True, "first": DAY}, '[["a"],{"urgent":true,"first":"2024-01-01"}]'),
        (("a",), {"odd name": DAY}, '[["a"],{"odd name":"2024-01-01"}]'),
    ],
)
def test_calls_of_every_shape_come_back(
    args: tuple[Any, ...], kwargs: dict[str, Any], text: str
) -> None:
    """By position, by name, and beyond the named ones, the first time and later ones."""
    codec = CallCodec(send, "app:send")
    for _ in range(2):
        assert codec.encode(args, kwargs) == (text, args, kwargs)
    assert codec.decode(text) == (args, kwargs)


def test_call_without_arguments_is_the_shortest() -> None:
    """Whatever the function, which check_call has looked at already."""
    codec = CallCodec(send, "app:send")
    text, args, kwargs = codec.encode((), {})
    assert (text, args, kwargs) == ("[[]]", (), {})
    kwargs["mine"] = 1
    assert codec.encode((), {})[2] == {}


@pytest.mark.parametrize(
    ("args", "kwargs", "label"),
    [
        ((1,), {}, "argument 'to' of type int"),
        (("a", "b"), {}, "argument 'n' of type str"),
        (("a", 1, ID, 5), {}, "argument 4 (of *ids) of type int"),
        (("a",), {"urgent": "x"}, "argument 'urgent' of type str"),
        (("a",), {"first": 1}, "argument 'first' (of **at) of type int"),
        (("a",), {"\ud800": DAY}, "a keyword of type str"),
    ],
)
def test_refusal_names_the_argument(
    args: tuple[Any, ...], kwargs: dict[str, Any], label: str
) -> None:
    """By its parameter, or by its place where it has none of its own."""
    reason = refusal(CallCodec(send, "app:send"), *args, **kwargs)
    assert reason.startswith(f"task app:send cannot keep {label}: ")


def test_call_that_the_function_does_not_take_is_refused() -> None:
    """Where check_call has not found it before."""
    assert refusal(CallCodec(send, "app:send"), n=3) == (
        "task app:send cannot be called with these arguments: missing a required argument: "
        "'to'; it takes (to, n, *ids, urgent, **at)"
    )


def test_what_changes_later_changes_nothing() -> None:
    """The job has copies, whether or not it runs in the process that added it."""
    data: dict[str, Any] = {"a": [1]}
    point = Point(1)

    def func(data: dict[str, Any], point: Point) -> None: ...

    codec = CallCodec(func, "app:func")
    for _ in range(2):
        _, args, _ = codec.encode((data, point), {})
        data["a"].append(2)
        point.x += 1
        assert args != (data, point)
        assert args[0] is not data


@pytest.mark.parametrize("value", ["x" * 2**20, b"\xff" * 2**20, ["é" * 10] * 100_000])
def test_large_arguments_come_back(value: Any) -> None:
    """A megabyte and more."""
    assert through(taking(type(value)), value) == value


def logged(func: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return func(*args, **kwargs)

    return wrapper


def injected(func: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return func(Custom(), *args, **kwargs)

    return wrapper


class Mailer:
    __slots__ = ()

    def __call__(self, day: date) -> None: ...

    def method(self, day: date) -> None: ...

    @classmethod
    def of_class(cls, day: date) -> None: ...

    @staticmethod
    def static(day: date) -> None: ...


def daily(day: date, n: int = 1) -> date:
    return day


@pytest.mark.parametrize(
    "func",
    [
        daily,
        logged(daily),
        logged(logged(daily)),
        functools.partial(daily, n=3),
        functools.partial(logged(daily), n=3),
        Mailer(),
        Mailer().method,
        Mailer.of_class,
        Mailer.static,
        Mailer.__dict__["static"],
        Dog,
    ],
)
def test_annotations_of_callables_of_every_kind_are_read(func: Callable[..., Any]) -> None:
    """And seen through decorators."""
    assert through(CallCodec(func, "app:func"), DAY) == DAY


def store(db: Custom, day: date) -> date:
    return day


def archive(db: Custom, day: date, more: Any = None, *, a: int = 0) -> date:
    return day


def with_partial() -> Callable[..., Any]:
    return functools.partial(daily, DAY)


def test_partial_leaves_the_remaining_parameters() -> None:
    """The first argument of its call is the second of the function."""
    assert "argument 'n' of type str" in refusal(CallCodec(with_partial(), "app:func"), "x")


@pytest.mark.parametrize(
    "func",
    [
        print,
        max,
        dict.update,
        injected(store),
        injected(archive),
        type("Odd", (), {"__call__": print})(),
    ],
)
def test_callables_that_tell_nothing_take_plain_json(func: Callable[..., Any]) -> None:
    """Builtins, and decorators that give the function other arguments."""
    codec = CallCodec(func, "app:func")
    assert codec.encode(([1], {"a": 2}), {}) == ('[[[1],{"a":2}]]', ([1], {"a": 2}), {})
    assert "argument 1" in refusal(codec, DAY, 1)


def test_decorator_with_parameters_of_its_own_is_taken_as_it_is() -> None:
    """What the call meets is what counts."""

    @functools.wraps(daily)
    def wrapper(day: Any, first: Any, *rest: Any) -> None: ...

    codec = CallCodec(wrapper, "app:func")
    assert codec.encode((DAY, 2, 3), {})[1] == (DAY, 2, 3)
    assert "argument 'first'" in refusal(codec, DAY, DAY)


def test_function_that_wraps_itself_does_no_harm() -> None:
    """There is no end to find."""

    def func(*args: Any, **kwargs: Any) -> None: ...

    func.__wrapped__ = func  # type: ignore[attr-defined]
    assert CallCodec(func, "app:func").encode((1,), {})[0] == "[[1]]"


def test_names_that_exist_for_type_checkers_only_spoil_no_other_parameter() -> None:
    """Such a parameter counts as one without an annotation, and the error says why."""

    def ship(order: Order, day: date, more: list[Order]) -> Order: ...

    codec = CallCodec(ship, "app:ship")
    assert codec.encode(({"id": 1}, DAY, []), {})[1] == ({"id": 1}, DAY, [])
    reason = refusal(codec, Point(1), DAY, [])
    assert "would come back as dict" in reason
    assert UNRESOLVED in reason
    assert "import what it names at run time too, not only `if TYPE_CHECKING`" in reason
    assert codec.decode_result('{"a":1}') == {"a": 1}


def test_none_fits_where_it_is_the_default() -> None:
    """As older code has it."""

    def func(day: date = None, data: Any = None) -> None: ...  # noqa: RUF013

    codec = CallCodec(func, "app:func")
    assert codec.encode((None, None), {})[1] == (None, None)
    assert codec.encode((DAY,), {})[1] == (DAY,)
    assert "the parameter" not in refusal(codec, DAY, DAY)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a syntax of Python 3.12")
def test_new_syntax_for_type_parameters_and_aliases_is_understood() -> None:
    """Also where annotations are strings."""
    names: dict[str, Any] = {}
    exec(
        "from datetime import date\n"
        "type Days = list[date]\n"
        "type Tree = dict[str, Tree] | list[Tree] | int\n"
        "def generic[T](one: T, more: 'list[T]'): ...\n"
        "def alias(days: Days): ...\n"
        "def tree(it: Tree): ...\n",
        names,
    )
    assert CallCodec(names["generic"], "f").encode((1, [2]), {})[1] == (1, [2])
    assert through(CallCodec(names["alias"], "f"), [DAY]) == [DAY]
    assert through(CallCodec(names["tree"], "f"), {"a": [1]}) == {"a": [1]}


def test_decoders_are_kept_for_so_many_shapes_of_calls() -> None:
    """Calls with ever other keywords do not fill the memory."""
    codec = CallCodec(send, "app:send")
    for number in range(2 * SHAPES_LIMIT):
        codec.encode(("a",), {f"at{number}": DAY})
    assert len(codec._shapes) <= SHAPES_LIMIT


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the arguments kept for task app:send are no call: Input data was truncated"),
        ("[[1]", "are no call"),
        ("nonsense", "are no call: JSON is malformed"),
        ("{}", "are no call: Expected `array`, got `object`"),
        ("[]", "are no call: it has 0 parts"),
        ('[["a"],{},1]', "are no call: it has 3 parts"),
        ('["a"]', "are no call: Expected `array`, got `str`"),
        ('[["a"],[]]', "are no call: Expected `object`, got `array`"),
        ("\ud800", "are no call"),
        ("[[]]", "cannot be called with the arguments kept for it: missing a required argument"),
        ('[["a"],{"to":"b"}]', "multiple values for argument 'to'"),
        ("[[1]]", "task app:send cannot take argument 'to' as it was kept: Expected `str`, got"),
        ('[["a",1,"x"]]', "argument 3 (of *ids) as it was kept: Invalid UUID"),
        ('[["a"],{"x":"2024"}]', "argument 'x' (of **at) as it was kept: Invalid RFC3339"),
        (f'[["a",{"9" * 5000}]]', "argument 'n' as it was kept: Integer value out of range"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_call_that_no_longer_fits_says_why(text: str, reason: str) -> None:
    """J8: shown as failed with the reason."""
    with pytest.raises(UndecodableCall) as caught:
        CallCodec(send, "app:send").decode(text)
    assert reason in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, AsgiBgError)


def test_signature_that_has_changed_names_the_argument() -> None:
    """J8: fewer, more, or others than there were."""

    def before(day: date, n: int) -> None: ...

    def fewer(day: date) -> None: ...

    def more(day: date, n: int, *, to: str) -> None: ...

    def others(day: date, n: uuid.UUID) -> None: ...

    by_place = CallCodec(before, "app:func").encode((DAY, 1), {})[0]
    by_name = CallCodec(before, "app:func").encode((), {"day": DAY, "n": 1})[0]
    for func, text, reason in [
        (fewer, by_place, "too many positional arguments; it takes (day)"),
        (fewer, by_name, "got an unexpected keyword argument 'n'; it takes (day)"),
        (more, by_place, "missing a required"),
        (others, by_place, "argument 'n' as it was kept: Expected `uuid`, got `int`"),
        (others, by_name, "argument 'n' as it was kept: Expected `uuid`, got `int`"),
    ]:
        with pytest.raises(UndecodableCall, match=".") as caught:
            CallCodec(func, "app:func").decode(text)
        assert reason in str(caught.value)


def test_reasons_do_not_tell_the_values() -> None:
    """J10: they may be what `redact` is to keep out of logs."""

    def func(mode: Literal["a"], colour: Colour, animal: Cat | Dog) -> None: ...

    codec = CallCodec(func, "app:func")
    good: list[Any] = ["a", "r", {"type": "Cat", "lives": 1}]
    for place, secret in enumerate(["secret", "secret - at `$`", {"type": "secret"}]):
        call = [*good]
        call[place] = secret
        with pytest.raises(UndecodableCall) as caught:
            codec.decode(json.dumps([call]))
        assert "Invalid" in str(caught.value)
        assert "secret" not in str(caught.value)


json_like = st.text(alphabet='[]{}",:0129.eE+-ntfalsu\\ \ud800é', max_size=40)


@given(
    json_like
    | st.text()
    | plain.map(json.dumps)
    | st.lists(plain, max_size=3).map(lambda args: json.dumps([args]))
    | st.tuples(st.lists(plain, max_size=3), st.dictionaries(st.text(), plain)).map(json.dumps)
)
def test_reading_any_text_gives_a_call_or_its_own_error(text: str) -> None:
    """A journal is a file, and files are damaged."""
    for func in (send, print, daily, Mailer(), Line, Hostile):
        codec = CallCodec(func, "app:func")
        try:
            args, kwargs = codec.decode(text)
        except UndecodableCall:
            continue
        assert isinstance(args, tuple)
        assert isinstance(kwargs, dict)


@pytest.mark.parametrize(("annotation", "value"), TYPED)
def test_results_come_back_as_their_annotation_says(annotation: Any, value: Any) -> None:
    """J7 holds for results too."""
    codec = returning(annotation)
    assert codec.decode_result(codec.encode_result(value)) == value


def test_results_without_annotation_are_plain_json() -> None:
    """What came of them is still to be seen."""
    codec = returning()
    assert codec.decode_result(codec.encode_result((1, DAY))) == [1, "2024-01-01"]
    assert codec.encode_result(None) == "null"


def test_results_that_do_not_fit_their_annotation_are_plain_json() -> None:
    """It may have changed, or never been true."""
    for annotation in (date, Point, "Order", Custom):
        codec = returning(annotation)
        assert codec.decode_result(codec.encode_result({"a": None})) == {"a": None}


def test_result_that_is_no_json_is_told() -> None:
    """Which can only be damage."""
    for text in ("", "[[", "\ud800"):
        with pytest.raises(UndecodableCall, match="the result kept for task app:func is no JSON"):
            returning().decode_result(text)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Custom(), "a Custom: JSON has nothing for a Custom; return plain data"),
        ([1, Custom()], "a list: its part [1], of type Custom: JSON has nothing for a Custom"),
        ([None, math.nan], "a list: JSON has no nan and no infinity"),
        (Point(1, math.inf), "a Point: JSON has no nan and no infinity"),
        ("\ud800", "surrogates not allowed"),
    ],
)
def test_results_that_cannot_be_kept_are_refused(value: Any, reason: str) -> None:
    """With what stands in the way."""
    with pytest.raises(NotSerializable) as caught:
        returning(float).encode_result(value)
    assert str(caught.value).startswith("the result of task app:func cannot be kept, a ")
    assert reason in str(caught.value)


def test_codec_is_the_same_for_all_tasks_of_a_function() -> None:
    """Options change nothing about its arguments; names do about messages."""
    declared = Task(send)
    codec = codec_of(declared)
    assert codec_of(declared) is codec
    assert codec_of(declared.using(retries=3)) is codec
    assert "task mine cannot" in refusal(codec_of(declared.using(name="mine")), 1)
    assert "send cannot" in refusal(codec, 1)


def test_codec_of_methods_is_the_same_for_all_objects() -> None:
    """Methods are made anew at each look-up."""

    class Plain:
        def method(self, day: date) -> None: ...

    codec = codec_of(Task(Plain().method))
    assert codec_of(Task(Plain().method)) is codec
    assert through(codec, DAY) == DAY
    assert codec_of(Task(Plain.method)) is not codec
    assert through(codec_of(Task(Mailer())), DAY) == DAY


def test_codec_goes_with_its_function() -> None:
    """Closures come and go."""

    def declare() -> CallCodec:
        def closure(day: date) -> None: ...

        codec = codec_of(Task(closure))
        codec.encode((DAY,), {})
        return codec

    codec = declare()
    gc.collect()
    assert codec not in codec_module._codecs.values()
    assert through(codec, DAY) == DAY


# Pydantic need not be installed.


@pytest.fixture
def pydantic() -> Any:
    return need("pydantic")


def test_pydantic_models_come_back(pydantic: Any) -> None:
    """Strict ones and those with aliases too, and within whatever contains them."""

    def camel(name: str) -> str:
        first, *rest = name.split("_")
        return first + "".join(map(str.title, rest))

    class Inner(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(alias_generator=camel, extra="forbid")
        some_name: int
        at: datetime

    class Outer(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(strict=True, alias_generator=camel)
        the_inner: Inner
        ident: uuid.UUID
        colour: Colour
        raw: bytes = b"x"
        price: Decimal = Decimal("1.10")
        pair: tuple[int, str] = (1, "a")
        tags: set[str] = set()  # noqa: RUF012

        @pydantic.field_validator("tags")
        @classmethod
        def check(cls, tags: set[str]) -> set[str]:
            assert "bad" not in tags
            return tags

    holder = dataclasses.make_dataclass("Holder", [("outer", Outer), ("inner", Inner | None)])

    inner = Inner(someName=1, at=datetime(2024, 1, 1, tzinfo=timezone.utc))
    outer = Outer(theInner=inner, ident=ID, colour=Colour.red, tags={"a", "b"})
    for annotation, value in [
        (Inner, inner),
        (Outer, outer),
        (Outer | None, outer),
        (list[Outer], [outer]),
        (dict[str, list[Inner]], {"a": [inner]}),
        (holder, holder(outer, None)),
        (Outer | Inner, inner),
        (list[Inner | Outer | str], [outer, inner, "a"]),
    ]:
        assert through(taking(annotation), value) == value
        codec = returning(annotation)
        assert codec.decode_result(codec.encode_result(value)) == value
    assert "would come back as dict, as the parameter has no ann" in refusal(taking(), outer)
    assert "it does not fit its annotation" in refusal(taking(Inner), {"some_name": 1})


def test_pydantic_aliases_that_differ_for_reading_and_writing_do_not_matter(
    pydantic: Any,
) -> None:
    """Names of fields do not differ."""

    class Model(pydantic.BaseModel):
        x: int = pydantic.Field(
            validation_alias=pydantic.AliasChoices("a", "b"), serialization_alias="c"
        )

    if not _values._reads_names():
        assert "it does not fit its annotation" in refusal(taking(Model), Model(a=1))
    else:
        assert through(taking(Model), Model(a=1)) == Model(b=1)


def test_pydantic_models_know_which_fields_were_set(pydantic: Any) -> None:
    """A PATCH of nothing but the name must not become one of all fields."""

    class Patch(pydantic.BaseModel):
        name: str | None = None
        age: int | None = None
        tags: list[str] = []  # noqa: RUF012

    patch = through(taking(Patch), Patch(name="a"))
    assert patch.model_dump(exclude_unset=True) == {"name": "a"}
    changed = Patch()
    changed.tags.append("a")
    assert through(taking(Patch), changed) == changed


def test_pydantic_defaults_that_vary_are_kept(pydantic: Any) -> None:
    """Also those that are still the same when they are read at once."""

    class Model(pydantic.BaseModel):
        day: date = pydantic.Field(default_factory=lambda: DAY)
        id: uuid.UUID = pydantic.Field(default_factory=uuid.uuid4)

    class Holder(pydantic.BaseModel):
        models: list[Model]

    for annotation, value in [(Model, Model(id=ID)), (Holder, Holder(models=[Model()]))]:
        assert "2024-01-01" in taking(annotation).encode((value,), {})[0]
        assert through(taking(annotation), value) == value


def test_pydantic_models_that_do_not_survive_are_refused(pydantic: Any) -> None:
    """Secrets are masked, private attributes dropped, validators may change what they check."""

    class Base(pydantic.BaseModel):
        x: Any = 1

    class Derived(Base):
        y: int = 2

    class Secret(pydantic.BaseModel):
        word: pydantic.SecretStr

    class Private(pydantic.BaseModel):
        _hidden: int = pydantic.PrivateAttr(0)

    class Shouting(pydantic.BaseModel):
        word: str

        @pydantic.field_validator("word")
        @classmethod
        def shout(cls, word: str) -> str:
            return word + "!"

    class Extra(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="allow")

    class Cautious(pydantic.BaseModel):
        number: int

        @pydantic.field_serializer("number")
        def write(self, number: int) -> int:
            raise SystemExit("no")

    private = Private()
    assert through(taking(Private), private) == private
    private._hidden = 3
    assert through(taking(Extra), Extra(more=[1])) == Extra(more=[1])
    for annotation, value, reason in [
        (Base, Derived(), "it would come back as Base"),
        (pydantic.BaseModel, Base(), "argument 'value' of type"),
        (Base, Base(x=math.nan), "JSON has no nan"),
        (Base, Base(x=(1,)), "its part .x, of type tuple, would come back as list"),
        (Secret, Secret(word="a"), "its part .word, of type SecretStr, would come back different"),
        (Private, private, "its part ._hidden, of type int, would come back different"),
        (Shouting, Shouting(word="a"), "its part .word, of type str, would come back different"),
        (Extra, Extra(more=(1,)), "its part .more, of type tuple, would come back as list"),
        (Shouting, Shouting.model_construct(word=1), "word: Input should be a valid string"),
        (Cautious, Cautious(number=1), "argument 'value' of type Cautious"),
    ]:
        assert reason in refusal(taking(annotation), value)


def test_other_pydantic_types_come_back(pydantic: Any) -> None:
    """Root models, generic ones, dataclasses, addresses."""

    class Root(pydantic.RootModel[list[date]]): ...  # type: ignore[misc,name-defined]

    class Page(pydantic.BaseModel, Generic[T]):  # type: ignore[misc,name-defined]
        items: list[T]

    fields = [("at", datetime), ("page", Page[date])]
    data = pydantic.dataclasses.dataclass(dataclasses.make_dataclass("Data", fields))
    page = Page[date](items=[DAY])
    for annotation, value in [
        (Root, Root([DAY])),
        (Page[date], page),
        (data, data(at=datetime(2024, 1, 1), page=page)),
    ]:
        assert through(taking(annotation), value) == value
    if isinstance(pydantic.HttpUrl, type):
        address = pydantic.HttpUrl("http://example.com/a")
        assert through(taking(pydantic.HttpUrl), address) == address


def test_pydantic_errors_do_not_tell_the_values(pydantic: Any) -> None:
    """J10 again; pydantic itself shows them."""

    class Model(pydantic.BaseModel):
        card: int

    for annotation in (Model, list[Model], Model | str | int):
        with pytest.raises(UndecodableCall) as caught:
            taking(annotation).decode('[[[{"card":"secret"}]]]')
        assert "secret" not in str(caught.value)


def test_results_of_pydantic_models_are_written_in_full(pydantic: Any) -> None:
    """Whoever reads the JSON does not know the defaults."""

    class Model(pydantic.BaseModel):
        x: int = 1

    assert returning(Model).encode_result(Model()) == '{"x":1}'


def test_pydantic_is_not_missed_where_it_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class may speak of it, and be used without it."""
    kind = type("Odd", (), {"__get_pydantic_core_schema__": None})
    monkeypatch.delitem(sys.modules, "pydantic", raising=False)
    assert "JSON has nothing for a Odd" in refusal(taking(kind), kind())
