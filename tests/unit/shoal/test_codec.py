"""The vocabulary and the wire must be the same words: this is where they are held against each other."""

from __future__ import annotations

import enum
import importlib
import inspect
import pkgutil
import typing

import msgspec
import pytest

import shoal.model
from shoal import codec
from shoal.errors import InvalidArgument
from shoal.model.base import Meta, Value
from shoal.model.container import ContainerSpec, Mount, MountType
from shoal.model.network import Port, PortProtocol, PublishMode
from shoal.model.service import Service, ServiceSpec, TaskSpec
from shoal.model.task import Task, TaskState
from shoal.v1 import dispatcher_pb2, engine_pb2, types_pb2

MODULES = [importlib.import_module(f"shoal.model.{m.name}") for m in pkgutil.iter_modules(shoal.model.__path__)]


def nouns() -> list[type[Value]]:
    found = {
        kind
        for module in MODULES
        for kind in vars(module).values()
        if inspect.isclass(kind) and issubclass(kind, Value) and kind is not Value
    }
    return sorted(found, key=lambda kind: kind.__name__)


def enums() -> list[type[enum.IntEnum]]:
    found = {
        kind
        for module in MODULES
        for kind in vars(module).values()
        if inspect.isclass(kind) and issubclass(kind, enum.IntEnum) and kind is not enum.IntEnum
    }
    return sorted(found, key=lambda kind: kind.__name__)


def message_of(kind: type[Value]) -> typing.Any:
    for wire in (types_pb2, engine_pb2, dispatcher_pb2):
        if hasattr(wire, kind.__name__):
            return getattr(wire, kind.__name__)
    raise AssertionError(f"{kind.__name__} has no message of its name in proto/")


def example(hint: typing.Any) -> typing.Any:
    """A value that differs from every default."""
    origin = typing.get_origin(hint)
    if origin is tuple:
        return (example(typing.get_args(hint)[0]),)
    if origin is dict:
        return {"key": "value"}
    if origin is not None:  # X | None
        return example(next(a for a in typing.get_args(hint) if a is not type(None)))
    if issubclass(hint, enum.IntEnum):
        return list(hint)[-1]
    if issubclass(hint, Value):
        hints = typing.get_type_hints(hint)
        return hint(**{f.name: example(hints[f.name]) for f in msgspec.structs.fields(hint)})
    return {str: "text", int: 7, bool: True, bytes: b"bytes"}[hint]


@pytest.mark.parametrize("kind", nouns(), ids=lambda kind: kind.__name__)
def test_model_and_proto_have_the_same_fields(kind: type[Value]) -> None:
    assert [f.name for f in msgspec.structs.fields(kind)] == [f.name for f in message_of(kind).DESCRIPTOR.fields]


@pytest.mark.parametrize("kind", enums(), ids=lambda kind: kind.__name__)
def test_model_and_proto_enums_have_the_same_members(kind: type[enum.IntEnum]) -> None:
    descriptor = getattr(types_pb2, kind.__name__).DESCRIPTOR
    prefix = descriptor.values_by_number[0].name.removesuffix("UNSPECIFIED")
    assert {v.name.removeprefix(prefix): v.number for v in descriptor.values if v.number} == {
        m.name: m.value for m in kind
    }


@pytest.mark.parametrize("kind", nouns(), ids=lambda kind: kind.__name__)
def test_every_noun_survives_wire_and_store(kind: type[Value]) -> None:
    value = example(kind)
    assert codec.from_wire(codec.to_wire(value, message_of(kind)), kind) == value
    assert codec.unpack(kind, codec.pack(value)) == value
    assert codec.from_wire(codec.to_wire(kind(), message_of(kind)), kind) == kind()


def test_unset_message_becomes_the_default() -> None:
    assert codec.from_wire(types_pb2.Service(), Service) == Service()
    assert codec.from_wire(types_pb2.Service(previous=types_pb2.ServiceSpec()), Service).previous == ServiceSpec()


def test_nested_values_travel() -> None:
    container = ContainerSpec(image="web:1", mounts=(Mount(type=MountType.BIND, source="/a", target="/b"),))
    port = Port(PortProtocol.UDP, 80, 8080, mode=PublishMode.HOST)
    service = Service(
        meta=Meta(id="x"), spec=ServiceSpec(name="web", task=TaskSpec(container=container), ports=(port,))
    )
    wire = types_pb2.Service.FromString(codec.to_wire(service, types_pb2.Service).SerializeToString())
    assert codec.from_wire(wire, Service) == service


def test_unknown_enum_number_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="desired = 5 is not a value"):
        codec.from_wire(types_pb2.Task(desired=typing.cast("types_pb2.TaskState.ValueType", 5)), Task)


def test_stored_value_takes_the_version_of_its_record() -> None:
    task = Task(meta=Meta(id="t"), status=Task().status, desired=TaskState.SHUTDOWN)
    assert codec.unpack(Task, codec.pack(task), version=42).meta == Meta(id="t", version=42)


@pytest.mark.parametrize("data", [b"", b"\x02\x90", b"\x01garbage", codec.pack(Meta(id="x"))[:-1]])
def test_bytes_of_another_schema_or_kind_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument):
        codec.unpack(Task, data)
