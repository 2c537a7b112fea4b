"""What lies at rest: no secret of the cluster stands in clear in its database or in a dump of its store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization

from manager.ca.authority import Authority
from manager.ca.token import token_of
from shoal.model.node import Role
from shoal.model.user import UserRole
from shoal.v1 import control_pb2, types_pb2
from tests.unit.manager.api.test_permission import DAY_NS, user


def forms(authority: Authority) -> list[bytes]:
    """The key of a root as it might be written down: its number, and what PEM and DER make of it."""
    key: Any = serialization.load_pem_private_key(authority.key_pem, None)
    number: int = key.private_numbers().private_value
    body = b"".join(authority.key_pem.splitlines()[1:-1])
    return [number.to_bytes(32), f"{number:064x}".encode(), str(number).encode(), body[40:80]]


async def test_neither_database_nor_dump_holds_a_key_or_a_token(manager: Any, tmp_path: Path) -> None:
    new = Authority.create("c1", manager.clock.now_ns())
    secrets = [*forms(manager.authority), *forms(new)]

    def tokens() -> list[bytes]:
        return [token_of(manager.mirror.cluster, role, manager.seal).secret.encode() for role in Role]

    secrets += tokens()
    await manager.control.GetJoinToken(control_pb2.GetJoinTokenRequest(role=types_pb2.ROLE_WORKER, rotate=True), None)
    secrets += tokens()
    made = await manager.control.CreateJoinToken(
        control_pb2.CreateJoinTokenRequest(role=types_pb2.ROLE_WORKER, uses=1), None
    )
    secrets.append(made.text.rpartition("-")[2].encode())
    await user(manager, "ann", UserRole.ADMIN)
    await manager.control.RotateRoot(
        control_pb2.RotateRootRequest(root_ca_pem=new.root_ca_pem, ca_key_pem=new.key_pem.decode(), within_ns=DAY_NS),
        None,
    )
    backup = [
        part.data
        async for part in manager.control.BackupCluster(control_pb2.BackupClusterRequest(uncompressed=True), None)
    ]
    dump = b"".join(record.key.encode() + record.value for record in (await manager.store.read("/")).records)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert "store.db" in files
    for name, text in {**files, "dump": dump, "backup": b"".join(backup)}.items():
        assert b"ann" in text or name not in ("dump", "backup"), "the search finds what is there"
        assert not [secret for secret in secrets if secret in text], name
    assert any(b"ann" in text for text in files.values())
