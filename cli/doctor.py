"""`swarm doctor`: what is wrong with the cluster, what that means, and what to do."""

from typing import Annotated

from cli.client import Client
from cli.command import command, switch
from cli.output.functions import to_json
from cli.output.table import draw
from shoal.errors import ShoalError
from shoal.v1 import control_pb2, engine_pb2
from shoal.v1.control_pb2 import Finding, Verdict

_COLUMNS = ("Check", "Verdict", "Detail")
_HEADERS = {"Check": "CHECK", "Verdict": "VERDICT", "Detail": "DETAIL"}
_WRONG = (control_pb2.VERDICT_WARNING, control_pb2.VERDICT_FAILURE)


@command("[OPTIONS]", examples=["shoal swarm doctor", "shoal swarm doctor --json || page-me"])
async def doctor(
    client: Client,
    json: Annotated[bool, switch("--json", help="Print findings as JSON")] = False,
    quiet: Annotated[bool, switch("-q", "--quiet", help="Only show what is not well")] = False,
) -> int:
    """Look for what is wrong with the cluster, and say what to do

    The exit code is 0 when all is well, and 1 when something is not.
    """
    try:
        answer = await client.control.ExamineCluster(control_pb2.ExamineClusterRequest())
        findings = list(answer.findings)
    except ShoalError as error:
        findings = await _without_manager(client, error)
    shown = [each for each in findings if each.verdict != control_pb2.VERDICT_OK] if quiet else findings
    if json:
        print(to_json([_document(each) for each in shown]))
    elif shown:
        print(draw([_row(each) for each in shown], columns=_COLUMNS, headers=_HEADERS, key="Check"), end="")
        hints = dict.fromkeys((each.check, each.hint) for each in shown if each.hint)
        if hints:
            print("\nWhat to do:\n" + "\n".join(f"  {check}: {hint}" for check, hint in hints))
    return 1 if any(each.verdict in _WRONG for each in findings) else 0


async def _without_manager(client: Client, error: ShoalError) -> list[Finding]:
    """What this host alone can tell where no manager examines. Raises `error` where there is no agent either."""
    try:
        swarm = (await client.system.GetInfo(engine_pb2.GetInfoRequest())).swarm
    except ShoalError:
        raise error from None
    found = [Finding(check="managers", verdict=control_pb2.VERDICT_FAILURE, detail=error.message, hint=error.hint)]
    if swarm.state == "locked":
        return found
    detail = f"this host is {swarm.state}" + (f": {swarm.error}" if swarm.error else "")
    if swarm.state == "active":
        return [*found, Finding(check="membership", verdict=control_pb2.VERDICT_OK, detail=detail)]
    hint = f"managers that it knows: {', '.join(swarm.managers)}" if swarm.managers else ""
    verdict = control_pb2.VERDICT_NOTE if swarm.state == "inactive" else control_pb2.VERDICT_FAILURE
    return [*found, Finding(check="membership", verdict=verdict, detail=detail, hint=hint)]


def _row(finding: Finding) -> dict[str, str]:
    return {"Check": finding.check, "Verdict": _verdict(finding), "Detail": finding.detail}


def _document(finding: Finding) -> dict[str, str]:
    return {
        "Check": finding.check,
        "Verdict": _verdict(finding).lower(),
        "Detail": finding.detail,
        "Hint": finding.hint,
    }


def _verdict(finding: Finding) -> str:
    return Verdict.Name(finding.verdict).removeprefix("VERDICT_")
