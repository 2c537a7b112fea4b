"""Lists: docker's tables, `--format`, `--json` and `-q`, from rows of named texts.

A row is a dict with docker's field names, all of them texts (and methods like `.Label "key"`). `HEADERS` has the
word above a column; it is the same wherever a field of that name is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cli.output.functions import Method, to_json
from cli.output.template import Template

Row = Mapping[str, Any]

# Docker's table writer: a column is at least this wide, and this much stands between two.
_LEAST = 10
_GAP = 3

HEADERS = {
    "ID": "ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "CreatedSince": "CREATED",
    "Status": "STATUS",
    "State": "STATE",
    "Ports": "PORTS",
    "Names": "NAMES",
    "Labels": "LABELS",
    "Label": "LABEL",
    "Mounts": "MOUNTS",
    "Networks": "NETWORKS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "Size": "SIZE",
    "Name": "NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "Internal": "INTERNAL",
    "IPv4": "IPV4",
    "IPv6": "IPV6",
    "Mountpoint": "MOUNTPOINT",
    "Hostname": "HOSTNAME",
    "Availability": "AVAILABILITY",
    "ManagerStatus": "MANAGER STATUS",
    "EngineVersion": "ENGINE VERSION",
    "Mode": "MODE",
    "Replicas": "REPLICAS",
    "Node": "NODE",
    "DesiredState": "DESIRED STATE",
    "CurrentState": "CURRENT STATE",
    "Error": "ERROR",
    "Self": "SELF",
    "Address": "ADDRESS",
    "Role": "ROLE",
    "Description": "DESCRIPTION",
    "Host": "HOST",
    "DockerEndpoint": "DOCKER ENDPOINT",
    "Current": "CURRENT",
    "Platform": "PLATFORM",
    "Container": "CONTAINER",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "PIDs": "PIDS",
}


def draw(
    rows: Sequence[Row],
    *,
    columns: Sequence[str],
    template: str = "",
    json: bool = False,
    quiet: bool = False,
    key: str = "ID",
    headers: Mapping[str, str] | None = None,
) -> str:
    """The text of a list, newline included; empty when there is nothing to say.

    `quiet` shows `key` alone; `json` and `--format json` one object a line; `table …` a template with headers.
    """
    headers = {**HEADERS, **(headers or {})}
    rows = [{name: row[name] for name in sorted(row)} for row in rows]
    if quiet and template in ("", "table"):
        return "".join(f"{row[key]}\n" for row in rows)
    if json or template == "json":
        return "".join(f"{to_json(row)}\n" for row in rows)
    if not template or template == "table":
        return layout([[headers[each] for each in columns], *([str(row[each]) for each in columns] for row in rows)])
    if template.startswith("table "):
        return _templated_table(rows, _escapes(template.removeprefix("table ")), headers)
    parsed = Template(_escapes(template))
    return "".join(f"{parsed.render(row)}\n" for row in rows)


def layout(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells, aligned; the last cell of a line is not padded."""
    widths: dict[int, int] = {}
    for cells in lines:
        for at, cell in enumerate(cells[:-1]):
            widths[at] = max(widths.get(at, _LEAST), len(cell) + _GAP)
    out = []
    for cells in lines:
        padded = "".join(cell.ljust(widths[at]) for at, cell in enumerate(cells[:-1]))
        out.append(f"{padded}{cells[-1]}\n")
    return "".join(out)


def _templated_table(rows: Sequence[Row], template: str, headers: Mapping[str, str]) -> str:
    parsed = Template(template)
    words: dict[str, Any] = {name: headers.get(name, name.upper()) for name in rows[0]} if rows else dict(headers)
    words["Label"] = Method(_label_header)
    lines = [parsed.render(words), *(parsed.render(row) for row in rows)]
    return layout([line.split("\t") for line in lines])


def _label_header(key: str) -> str:
    """Docker heads a label by the last part of its name."""
    return key.rsplit(".", 1)[-1].replace("-", " ").replace("_", " ")


def _escapes(template: str) -> str:
    """What docker does to a format: `\\t` and `\\n`, typed in a shell, are a tab and a newline."""
    return template.replace("\\t", "\t").replace("\\n", "\n")


def labels_text(labels: Mapping[str, str]) -> str:
    """`a=b,c=d`, sorted."""
    return ",".join(f"{key}={labels[key]}" for key in sorted(labels))


def label_method(labels: Mapping[str, str]) -> Method:
    """`.Label "key"`: its value, or nothing."""
    held = dict(labels)
    return Method(lambda key: held.get(key, ""))
