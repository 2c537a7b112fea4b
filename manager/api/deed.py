"""Deed: a call as the audit record tells of it: who, from where, what, on what. Pure.

Only names are told, never what a record or a request holds: nothing secret can get into the record.
"""

from __future__ import annotations

from google.protobuf import message_factory
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import DecodeError, Message

from manager.api.rule import RULES
from manager.store.base import Txn
from manager.store.records import Noun, decode_value, kind_of, split
from manager.store.view import View
from shoal.access import Call, address_of
from shoal.model.audit import AuditEntry
from shoal.model.network import Network
from shoal.model.node import Node
from shoal.model.service import Service
from shoal.model.token import Token
from shoal.model.user import User
from shoal.names import printable
from shoal.tls import Peer, UserPeer

ALLOWED, DENIED = "allowed", "denied"
# What goes with another change, and is nobody's object.
_BESIDE = frozenset({"revocation", "login"})
# How requests to engines name what they are about; the first that is there counts.
_NAMING = ("container", "image", "reference", "network", "volume", "name", "source")
_MAX_OBJECT = 200
# Calls that are no user's.
_VERBS = {
    "IssueCertificate": "swarm join",
    "RestoreCertificate": "node restore",
    "RenewCertificate": "node renew",
    "Session": "node session",
}


def line_of(
    call: Call | None, view: View, own_id: str, *, object: str = "", decision: str = ALLOWED, outcome: str = "done"
) -> AuditEntry:
    """The line of a call that this manager, the node `own_id`, serves. None: the manager's own doing."""
    if call is None:
        return AuditEntry(actor="manager", object=object, decision=decision, outcome=outcome)
    rule = RULES.get(call.method)
    return AuditEntry(
        actor=_actor(call, view, own_id),
        source=address_of(call.source),
        verb=rule.verb if rule is not None else _VERBS.get(call.name, call.name),
        object=printable(object)[:_MAX_OBJECT],
        decision=decision,
        outcome=outcome,
    )


def object_of(txn: Txn, view: View) -> str:
    """What a transaction is about: kinds, ids and names of the records that it writes or removes."""
    found = [
        _named(decode_value(put.key, put.value, 0))
        for put in txn.puts
        if (at := split(put.key)) is not None and at[0] not in _BESIDE
    ]
    gone = (view.get(*at) for key in txn.deletes if (at := split(key)) is not None and at[0] not in _BESIDE)
    found += [_named(old) for old in gone if old is not None]
    return ", ".join(found)


def object_in(method: str, request: bytes) -> str:
    """What a request to an engine is about, as far as its sender named it."""
    service, _, name = method.lstrip("/").partition("/")
    try:
        kind = message_factory.GetMessageClass(Default().FindServiceByName(service).methods_by_name[name].input_type)
        return printable(_name_in(kind.FromString(request)))[:_MAX_OBJECT]
    except (KeyError, DecodeError):
        return ""


def _name_in(message: Message) -> str:
    fields = message.DESCRIPTOR.fields_by_name
    if "open" in fields and message.HasField("open"):
        return _name_in(message.open)  # type: ignore[attr-defined]
    for name in _NAMING:
        if name in fields and isinstance(value := getattr(message, name), str) and value:
            return value
    spec = getattr(message, "spec", None)  # a container's or a network's
    return str(getattr(spec, "image", "") or getattr(spec, "name", ""))


def _actor(call: Call, view: View, own_id: str) -> str:
    match call.peer:
        case UserPeer(name=name):
            return f"user {name}"
        case Peer(node_id=node_id):
            return f"node {_host(view, node_id)}"
        case None if address_of(call.source):
            return "stranger"  # on the join port, where nobody shows a certificate
        case None:
            return f"root of {_host(view, own_id)}"


def _host(view: View, node_id: str) -> str:
    node = view.nodes.get(node_id)
    return f"{node.description.hostname} ({node_id})" if node is not None else node_id


def _named(value: Noun) -> str:
    kind, id = kind_of(value), value.meta.id
    match value:
        case Node(spec=spec, description=description):
            return f"node {id} {description.hostname} ({spec.role.name.lower()}, {spec.availability.name.lower()})"
        case Service(spec=service):
            return f"service {id} {service.name}"
        case Network(spec=network):
            return f"network {id} {network.name}"
        case User(role=role):
            return f"user {id} ({role.name.lower()})"
        case Token(role=as_what, description=text):
            return f"token {id} ({as_what.name.lower()}) {text}".rstrip()
        case _:
            return f"{kind} {id}"
