"""One generic translation between the vocabulary and its two outer forms.

`to_wire`/`from_wire`: protobuf messages, matched field by field by name; enums by the name behind the prefix
(`TASK_STATE_RUNNING` is `TaskState.RUNNING`). An unset message field becomes the model's default.
`pack`/`unpack`: what the store and the agents' databases keep, a schema-version byte and msgpack.
"""

from __future__ import annotations

import enum
import functools
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from google.protobuf.message import Message

from shoal.errors import InvalidArgument
from shoal.model.base import Meta, Value

V = TypeVar("V", bound=Value)
M = TypeVar("M", bound=Message)
_SCHEMA = b"\x01"
_encoder = msgspec.msgpack.Encoder()


def pack(value: Value) -> bytes:
    """The stored form of a value."""
    return _SCHEMA + _encoder.encode(value)


def unpack(kind: type[V], data: bytes, *, version: int = 0) -> V:
    """The value that `pack` made; with `version`, its `meta.version` is set to it.

    Raises InvalidArgument for bytes of a newer schema or of another kind.
    """
    if data[:1] != _SCHEMA:
        raise InvalidArgument(
            f"stored {kind.__name__} has schema {data[:1].hex() or 'none'}, this program knows {_SCHEMA.hex()}",
            hint="start the version of shoal that wrote it",
        )
    try:
        value = _decoder(kind).decode(data[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"stored {kind.__name__} cannot be read: {error}") from error
    if version:
        meta: Meta = value.meta
        value = msgspec.structs.replace(value, meta=msgspec.structs.replace(meta, version=version))
    return typing.cast("V", value)


@functools.cache
def _decoder(kind: type[Value]) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind)


def to_wire(value: Value, message: type[M]) -> M:
    """A new `message` with the fields of `value`."""
    out = message()
    _fill(out, value)
    return out


def from_wire(message: Message, kind: type[V]) -> V:
    """A new `kind` with the fields of `message`.

    Raises InvalidArgument for an enum number that this program does not know.
    """
    readers, always = _readers(kind, _class(message))
    names = {field.name for field, _ in message.ListFields()} | always
    wanted = {}
    for name in names & readers.keys():
        found = readers[name](message)
        if found is not _UNSET:
            wanted[name] = found
    return kind(**wanted)


_UNSET: Any = object()


def _fill(message: Message, value: Value) -> None:
    for name, put in _writers(type(value), _class(message)):
        put(message, getattr(value, name))


@functools.cache
def _writers(kind: type[Value], message: Any) -> list[tuple[str, Callable[[Message, Any], None]]]:
    fields = message.DESCRIPTOR.fields_by_name
    return [(field.name, _writer(fields[field.name])) for field in msgspec.structs.fields(kind)]


def _writer(field: Any) -> Callable[[Message, Any], None]:
    name = field.name

    def put_map(message: Message, value: dict[str, str]) -> None:
        getattr(message, name).update(value)

    def put_messages(message: Message, value: tuple[Value, ...]) -> None:
        target = getattr(message, name)
        for each in value:
            _fill(target.add(), each)

    def put_scalars(message: Message, value: tuple[Any, ...]) -> None:
        getattr(message, name).extend(value)

    def put_message(message: Message, value: Value | None) -> None:
        if value is not None:
            target = getattr(message, name)
            target.SetInParent()
            _fill(target, value)

    def put_enum(message: Message, value: enum.IntEnum) -> None:
        setattr(message, name, _wire_numbers(field, type(value))[value])

    def put_scalar(message: Message, value: Any) -> None:
        if value is not None:
            setattr(message, name, value)

    if _is_map(field):
        return put_map
    if field.is_repeated:
        return put_messages if field.message_type else put_scalars
    if field.message_type:
        return put_message
    return put_enum if field.enum_type else put_scalar


@functools.cache
def _readers(kind: type[Value], message: Any) -> tuple[dict[str, Callable[[Message], Any]], frozenset[str]]:
    """How each field is read, and which of them must be read though nothing is in the message: those whose default is
    another than what the wire leaves out."""
    fields = message.DESCRIPTOR.fields_by_name
    hints = typing.get_type_hints(kind)
    readers = {field.name: _reader(fields[field.name], hints[field.name]) for field in msgspec.structs.fields(kind)}
    empty, default = message(), kind()
    always = {
        name
        for name, read in readers.items()
        if (unset := read(empty)) is not _UNSET and unset != getattr(default, name)
    }
    return readers, frozenset(always)


def _reader(field: Any, hint: Any) -> Callable[[Message], Any]:
    name = field.name
    inner = _inner(hint)

    def read_map(message: Message) -> Any:
        return dict(getattr(message, name))

    def read_messages(message: Message) -> Any:
        return tuple(from_wire(each, inner) for each in getattr(message, name))

    def read_scalars(message: Message) -> Any:
        return tuple(getattr(message, name))

    def read_message(message: Message) -> Any:
        return from_wire(getattr(message, name), inner) if message.HasField(name) else _UNSET

    def read_enum(message: Message) -> Any:
        number = getattr(message, name)
        if number == 0:
            return _UNSET
        try:
            return _model_members(field, inner)[number]
        except KeyError as error:
            raise InvalidArgument(f"{field.full_name} = {number} is not a value that this program knows") from error

    def read_scalar(message: Message) -> Any:
        return _UNSET if field.has_presence and not message.HasField(name) else getattr(message, name)

    if _is_map(field):
        return read_map
    if field.is_repeated:
        return read_messages if field.message_type else read_scalars
    if field.message_type:
        return read_message
    return read_enum if field.enum_type else read_scalar


def _class(message: Message) -> Any:
    """The message's class, hashable by identity, which its stub does not say."""
    return type(message)


def _is_map(field: Any) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


def _inner(hint: Any) -> Any:
    """The type inside `tuple[X, ...]` or `X | None`; any other as it is."""
    origin = typing.get_origin(hint)
    if origin is tuple:
        return typing.get_args(hint)[0]
    if origin in (types.UnionType, typing.Union):
        return next(each for each in typing.get_args(hint) if each is not type(None))
    return hint


@functools.cache
def _wire_numbers(field: Any, members: type[enum.IntEnum]) -> dict[enum.IntEnum, int]:
    """Model member → number on the wire, by name."""
    prefix = _prefix(field)
    numbers = field.enum_type.values_by_name
    return {member: numbers[prefix + member.name].number for member in members}


@functools.cache
def _model_members(field: Any, members: type[enum.IntEnum]) -> dict[int, enum.IntEnum]:
    return {number: member for member, number in _wire_numbers(field, members).items()}


def _prefix(field: Any) -> str:
    """`TASK_STATE_` of `TASK_STATE_UNSPECIFIED`: what buf's lint makes every member begin with."""
    zero: str = field.enum_type.values_by_number[0].name
    return zero.removesuffix("UNSPECIFIED")
