"""Contract: makes the classes of messages of what protoc has compiled, for the modules in `v1` and `etcd/v3`.

What protoc writes for Python by itself first imports all of protobuf that is for hosts without its C extension, which
no command can use and each would pay for: an eighth of a short one. Here the extension is asked directly; the classes,
and the pool that knows them, are the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from google._upb._message import MessageMeta, default_pool
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import Message

if TYPE_CHECKING:
    from google._upb._message import Descriptor, FileDescriptor


def define(compiled: bytes, module: dict[str, Any]) -> FileDescriptor:
    """Put into `module` what one .proto file has: messages by their names, enums, and the values of these. The modules
    of the files that it imports have been imported."""
    file = default_pool.AddSerializedFile(compiled)
    for name, enum in file.enum_types_by_name.items():
        module[name] = EnumTypeWrapper(enum)  # type: ignore[arg-type]  # of a pool in C
        module.update((value.name, value.number) for value in enum.values)
    module |= _classes(file.message_types_by_name, module["__name__"], "")
    return file


def _classes(described: Mapping[str, Descriptor], module: str, within: str) -> dict[str, MessageMeta]:
    """Those of messages inside a message are attributes of its class."""
    made = {}
    for name, message in described.items():
        inside = _classes(message.nested_types_by_name, module, f"{within}{name}.")
        about = {"DESCRIPTOR": message, "__module__": module, "__qualname__": f"{within}{name}"}
        made[name] = MessageMeta(name, (Message,), {**inside, **about})
    return made
