"""Placeholders: docker's are replaced where docker replaces them, and a wrong one is told by name."""

from __future__ import annotations

import pytest

from shoal.errors import InvalidArgument
from shoal.model.container import ContainerSpec, Mount
from shoal.placeholder import Facts, check, fill, filled

FACTS = Facts({"Node.Hostname": "n1", "Task.Slot": "3"}, {"tier": "front", "a.b": "c"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("", ""),
        ("{{.Node.Hostname}}-{{ .Task.Slot }}", "n1-3"),
        ('{{index .Service.Labels "tier"}}/{{index .Service.Labels "a.b"}}', "front/c"),
        ('{{index .Service.Labels "none"}}', ""),
        ("{ {.Node.Hostname} }", "{ {.Node.Hostname} }"),
    ],
)
def test_fills(text: str, expected: str) -> None:
    assert fill(text, FACTS) == expected


@pytest.mark.parametrize("text", ["{{.Node.Nome}}", "{{Node.Hostname}}", "{{}}", "{{printf 1}}", '{{index .Env "a"}}'])
def test_refuses_what_it_does_not_know(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"unknown placeholder .*; known are \.Node\.Hostname, \.Task\.Slot"):
        fill(text, FACTS)


def test_an_open_brace_is_told() -> None:
    with pytest.raises(InvalidArgument, match="has no end; write it as"):
        fill("{{.Node.Hostname", FACTS)


def test_checks_without_a_task() -> None:
    check(ContainerSpec(hostname="{{.Node.Hostname}}-{{.Task.Slot}}", env=('A={{index .Service.Labels "a"}}',)))
    with pytest.raises(InvalidArgument, match="unknown placeholder"):
        check(ContainerSpec(env=("A={{.Foo.Bar}}",)))


def test_fills_hostname_environment_and_sources_only() -> None:
    spec = ContainerSpec(
        hostname="{{.Node.Hostname}}",
        env=("SLOT={{.Task.Slot}}",),
        args=("{{.Task.Slot}}",),
        mounts=(Mount(source="data-{{.Task.Slot}}", target="/{{.Task.Slot}}"),),
    )
    done = filled(spec, FACTS)
    assert (done.hostname, done.env, done.args) == ("n1", ("SLOT=3",), spec.args)
    assert (done.mounts[0].source, done.mounts[0].target) == ("data-3", "/{{.Task.Slot}}")
