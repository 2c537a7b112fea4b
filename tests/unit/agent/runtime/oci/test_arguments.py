"""The OCI command line's grammar: as drivers write it, and what is refused."""

from __future__ import annotations

import pytest

from agent.runtime.failure import Failure
from agent.runtime.oci.arguments import parse


def test_a_line_as_conmon_writes_it() -> None:
    own = "--bundle /b --pid-file /p --no-pivot --console-socket /c id"
    line = parse(f"--log-format=json --log=/l --root /r create {own}".split())
    assert (line.command, line.words) == ("create", ("id",))
    assert line.options.text("--root") == "/r"
    assert line.options.text("--log-format") == "json"
    assert line.own.text("--bundle") == "/b"
    assert line.own.given("--no-pivot")
    assert not line.own.given("--no-new-keyring")


def test_options_may_follow_the_containers_name_but_for_exec() -> None:
    line = parse(["delete", "id", "--force"])
    assert (line.words, line.own.given("--force")) == (("id",), True)
    line = parse(["exec", "-e", "A=b", "--env=C=d", "id", "ls", "--all"])
    assert (line.words, line.own.many("--env")) == (("id", "ls", "--all"), ("A=b", "C=d"))


def test_letters_are_the_commands_own() -> None:
    assert parse(["delete", "-f", "id"]).own.given("--force")
    assert parse(["ps", "-f", "json", "id"]).own.text("--format") == "json"


def test_a_flag_may_be_denied() -> None:
    assert not parse(["--systemd-cgroup=false", "list"]).options.given("--systemd-cgroup")


@pytest.mark.parametrize(
    "words",
    [
        ["restore", "id"],
        ["--criu", "x", "list"],
        ["run", "--bundle"],
        ["run", "--detach=perhaps", "id"],
        ["start", "--force", "id"],
    ],
)
def test_what_is_unknown_is_refused_by_name(words: list[str]) -> None:
    with pytest.raises(Failure) as refused:
        parse(words)
    assert any(word.partition("=")[0] in refused.value.message for word in words)
