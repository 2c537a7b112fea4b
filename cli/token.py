"""Commands on join tokens that are made for an occasion."""

from typing import Annotated

from cli.client import Client
from cli.command import Arguments, Flags, command, flag, switch
from cli.container.lifecycle import each_in_turn
from cli.output import table, words
from cli.output.table import Row
from cli.parse.number import natural
from cli.swarm import how_to_join, parse_role
from shoal.duration import duration
from shoal.ids import short
from shoal.v1 import control_pb2
from shoal.v1.types_pb2 import ROLE_MANAGER

_COLUMNS = ("ID", "Role", "State", "Uses", "Expires", "Description")
_HEADERS = {name: name.upper() for name in _COLUMNS}
_FIFTEEN_MINUTES_NS = 15 * 60 * 10**9


@command(
    "[OPTIONS]",
    examples=["shoal swarm token create", 'shoal swarm token create --ttl 1h --uses 20 --description "rack 7"'],
)
async def create(
    client: Client,
    role: Annotated[str, flag("--role", help='What it lets a host become ("worker", "manager")')] = "worker",
    ttl: Annotated[
        int | None,
        flag("--ttl", metavar="duration", parse=duration, help="How long it is good for; 0: always (default 15m)"),
    ] = None,
    uses: Annotated[int, flag("--uses", metavar="int", parse=natural, help="How many hosts it lets in; 0: any")] = 1,
    description: Annotated[str, flag("--description", help="What it is for")] = "",
    quiet: Annotated[bool, switch("-q", "--quiet", help="Only display token")] = False,
) -> None:
    """Create a join token that ends by itself"""
    request = control_pb2.CreateJoinTokenRequest(
        role=parse_role(role), life_ns=_FIFTEEN_MINUTES_NS if ttl is None else ttl, uses=uses, description=description
    )
    answer = await client.control.CreateJoinToken(request)
    if quiet:
        print(answer.text)
        return
    print(how_to_join(role, answer.text, answer.managers[0] if answer.managers else "MANAGER:2377"))
    print(f"It is token {answer.token.token.meta.id}, and cannot be shown again.")


class TokenListFlags(Flags):
    """The shape of the list."""

    all: Annotated[bool, switch("-a", "--all", help="Show also those that have ended (kept for a week)")] = False
    format: Annotated[str, flag("--format", help="Format output using a template")] = ""
    json: Annotated[bool, switch("--json", help="One JSON object a line")] = False
    no_trunc: Annotated[bool, switch("--no-trunc", help="Don't truncate output")] = False
    quiet: Annotated[bool, switch("-q", "--quiet", help="Only display IDs")] = False


@command("[OPTIONS]", examples=["shoal swarm token ls", "shoal swarm token ls --all"])
async def ls(client: Client, flags: TokenListFlags) -> None:
    """List the join tokens that were created"""
    answer = await client.control.ListJoinTokens(control_pb2.ListJoinTokensRequest(all=flags.all))
    rows = [_row(each, whole=flags.no_trunc) for each in answer.tokens]
    drawn = table.draw(
        rows, columns=_COLUMNS, template=flags.format, json=flags.json, quiet=flags.quiet, key="ID", headers=_HEADERS
    )
    print(drawn, end="")


@command("TOKEN [TOKEN...]", examples=["shoal swarm token rm x5k2"])
async def remove(client: Client, tokens: Arguments) -> int:
    """Revoke one or more join tokens; nodes that joined with them stay"""

    async def one(token: str) -> None:
        await client.control.RevokeJoinToken(control_pb2.RevokeJoinTokenRequest(token=token))

    return await each_in_turn(tokens, one)


def _row(view: control_pb2.TokenView, *, whole: bool) -> Row:
    token = view.token
    return {
        "ID": token.meta.id if whole else short(token.meta.id),
        "Role": "manager" if token.role == ROLE_MANAGER else "worker",
        "State": view.state,
        "Uses": f"{token.used}/{token.uses or 'any'}",
        "Expires": words.local_time(token.expires_at_ns) if token.expires_at_ns else "never",
        "CreatedAt": words.local_time(token.meta.created_at_ns),
        "Description": token.description,
    }
