"""Commands on users: who may use the cluster from outside. The key is made here and never leaves this host."""

import time
from typing import Annotated

from cli.certificate import Place
from cli.client import Client
from cli.command import Arguments, argument, command, flag, switch
from cli.container.lifecycle import each_in_turn
from cli.inspect import each_document
from cli.output import table, words
from cli.output.table import Row
from shoal.duration import duration
from shoal.errors import InvalidArgument, ShoalError
from shoal.v1 import control_pb2
from shoal.v1.types_pb2 import User, UserRole

_ROLES = {name.removeprefix("USER_ROLE_").lower(): number for name, number in UserRole.items() if number}
_COLUMNS = ("Name", "Role", "State", "Expires", "Description")
_HEADERS = {name: name.upper() for name in _COLUMNS}
_NINETY_DAYS_NS = 90 * 24 * 3600 * 10**9


@command(
    "[OPTIONS] USER",
    examples=[
        "shoal swarm user create --role deployer ann            ca.pem, cert.pem and key.pem in ./ann",
        "shoal swarm user create --role viewer --ttl 24h --context rack ben",
    ],
)
async def create(
    client: Client,
    user: Annotated[str, argument()],
    role: Annotated[str, flag("--role", help='"viewer", "deployer", "operator" or "admin"')] = "",
    ttl: Annotated[
        int | None,
        flag("--ttl", metavar="duration", parse=duration, help="How long it is good for (default 2160h0m0s)"),
    ] = None,
    description: Annotated[str, flag("--description", help="Who it is")] = "",
    output: Annotated[str, flag("-o", "--output", help="Folder for certificate, key and root (default ./USER)")] = "",
    context: Annotated[str, flag("--context", help="Make a context of this name for the user, here")] = "",
    manager: Annotated[str, flag("--manager", help="Manager of that context (default: one of the cluster's)")] = "",
) -> None:
    """Create a user, with the certificate that it shows"""
    number = _role(role)
    place = Place.choose(user, output, context)
    request = control_pb2.CreateUserRequest(
        name=user,
        role=number,
        description=description,
        life_ns=_NINETY_DAYS_NS if ttl is None else ttl,
        csr_pem=place.request(user),
    )
    try:
        answer = await client.control.CreateUser(request)
    except ShoalError:
        place.forget()
        raise
    place.save(answer.certificate_pem, answer.root_ca_pem)
    host = manager or ",".join(answer.managers) or "MANAGER:2377"
    print(f"User {user} is {role} until {words.local_time(answer.user.expires_at_ns)}.\n")
    print("To use the cluster as this user:\n")
    if context:
        place.make_context(host, f"{user}, {role}")
        print(f"    shoal context use {context}")
    else:
        ca, cert, key = place.tls
        print(f"    shoal context create NAME --docker host={host},ca={ca},cert={cert},key={key}")


@command("[OPTIONS]", examples=["shoal swarm user ls"])
async def ls(
    client: Client,
    format: Annotated[str, flag("--format", help="Format output using a template")] = "",
    json: Annotated[bool, switch("--json", help="One JSON object a line")] = False,
    quiet: Annotated[bool, switch("-q", "--quiet", help="Only display names")] = False,
) -> None:
    """List users"""
    answer = await client.control.ListUsers(control_pb2.ListUsersRequest())
    rows = [_row(each) for each in answer.users]
    drawn = table.draw(rows, columns=_COLUMNS, template=format, json=json, quiet=quiet, key="Name", headers=_HEADERS)
    print(drawn, end="")


@command("[OPTIONS] USER [USER...]", examples=["shoal swarm user inspect ann"])
async def inspect(
    client: Client,
    users: Arguments,
    format: Annotated[str, flag("-f", "--format", help="Format output using a custom template")] = "",
) -> int:
    """Display detailed information on one or more users"""

    async def one(name: str) -> dict[str, object]:
        return _document((await client.control.GetUser(control_pb2.GetUserRequest(name=name))).user)

    return await each_document(users, one, format)


@command("[OPTIONS] USER", examples=["shoal swarm user update --role operator ann"])
async def update(
    client: Client,
    user: Annotated[str, argument()],
    role: Annotated[str, flag("--role", help='"viewer", "deployer", "operator" or "admin"')] = "",
    description: Annotated[str | None, flag("--description", help="Who it is")] = None,
) -> None:
    """Change what a user may do; it holds at once"""
    found = (await client.control.GetUser(control_pb2.GetUserRequest(name=user))).user
    request = control_pb2.UpdateUserRequest(
        name=user,
        version=found.meta.version,
        role=_role(role) if role else found.role,
        description=found.description if description is None else description,
    )
    await client.control.UpdateUser(request)
    print(user)


@command("USER [USER...]", examples=["shoal swarm user revoke ann"])
async def revoke(client: Client, users: Arguments) -> int:
    """Take every right from one or more users, also in what they do at this moment"""

    async def one(user: str) -> None:
        await client.control.RevokeUser(control_pb2.RevokeUserRequest(name=user))

    return await each_in_turn(users, one)


@command("USER [USER...]", examples=["shoal swarm user rm ann"])
async def remove(client: Client, users: Arguments) -> int:
    """Remove one or more users"""

    async def one(user: str) -> None:
        await client.control.RemoveUser(control_pb2.RemoveUserRequest(name=user))

    return await each_in_turn(users, one)


@command("", examples=["shoal -c rack swarm user renew"])
async def renew(client: Client) -> None:
    """Exchange your own key and certificate for new ones, in the same files"""
    assert client.endpoint is not None
    if not all(client.endpoint.tls):
        raise InvalidArgument(
            "only a user can renew itself", hint="choose its context, or give --tlscacert, --tlscert and --tlskey"
        )
    place = Place(client.endpoint.tls)
    request = control_pb2.RenewUserRequest(csr_pem=place.request("user"))
    try:
        answer = await client.control.RenewUser(request)
    except ShoalError:
        place.forget()
        raise
    place.save(answer.certificate_pem, answer.root_ca_pem)
    print(f"Renewed {place.tls.cert}")


def _role(role: str) -> UserRole.ValueType:
    if role not in _ROLES:
        raise InvalidArgument(f'unknown role "{role}"', hint=f"give --role {', '.join(_ROLES)}")
    return UserRole.ValueType(_ROLES[role])


def _state(user: User) -> str:
    if user.revoked_at_ns:
        return "revoked"
    return "valid" if user.expires_at_ns > time.time_ns() else "expired"


def _row(user: User) -> Row:
    return {
        "Name": user.meta.id,
        "Role": UserRole.Name(user.role).removeprefix("USER_ROLE_").lower(),
        "State": _state(user),
        "Expires": words.local_time(user.expires_at_ns),
        "CreatedAt": words.local_time(user.meta.created_at_ns),
        "Description": user.description,
    }


def _document(user: User) -> dict[str, object]:
    return {
        "Name": user.meta.id,
        "Version": {"Index": user.meta.version},
        "CreatedAt": words.rfc3339(user.meta.created_at_ns),
        "UpdatedAt": words.rfc3339(user.meta.updated_at_ns),
        "Role": UserRole.Name(user.role).removeprefix("USER_ROLE_").lower(),
        "State": _state(user),
        "ExpiresAt": words.rfc3339(user.expires_at_ns),
        "RevokedAt": words.rfc3339(user.revoked_at_ns),
        "Description": user.description,
        "KeyHash": user.key,
    }
