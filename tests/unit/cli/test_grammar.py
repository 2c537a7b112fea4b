"""Docker's grammar: how a line is read, and in which words one is refused."""

from __future__ import annotations

import asyncio
import signal
from typing import Annotated

import pytest

from cli.command import Argument, Arguments, Command, Flags, argument, command, flag, switch
from cli.endpoint import Selection
from cli.grammar import UsageError, beforehand
from cli.group import load
from cli.registry import COMMANDS
from shoal.errors import CommandNotFound, Conflict, InvalidArgument, ShoalError

HERE = Selection()


def number(text: str) -> int:
    if not text.isdigit():
        raise InvalidArgument("not a number", hint="write digits")
    return int(text)


class Shared(Flags):
    env: Annotated[list[str], flag("-e", "--env", help="")] = []
    memory: Annotated[int | None, flag("-m", "--memory", parse=number, help="")] = None
    remove: Annotated[bool, switch("--rm", help="")] = False
    proxy: Annotated[bool, switch("--proxy", negative="--no-proxy", help="")] = True


@command("[OPTIONS] IMAGE [COMMAND...]", interspersed=False)
def run(
    flags: Shared,
    image: Annotated[str, argument()],
    words: Annotated[list[str], argument()] = [],  # noqa: B006
    tty: Annotated[bool, switch("-t", "--tty", help="")] = False,
    hostname: Annotated[str, flag("-h", "--hostname", help="")] = "",
) -> dict[str, object]:
    """Run it"""
    return {**vars(flags), "image": image, "words": words, "tty": tty, "hostname": hostname}


@command("[OPTIONS] NAME [NAME...]")
def stop(names: Arguments, time: Annotated[int, flag("-t", "--time", parse=number, help="")] = 10) -> object:
    """Stop them"""
    return names, time


@command("")
async def wait() -> None:
    """End for a second reason while it is interrupted"""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    signal.raise_signal(signal.SIGINT)
    await asyncio.sleep(0)


def read(*words: str) -> dict[str, object]:
    found: dict[str, object] = Command("shoal run", run).run(words, HERE)
    return found


def test_what_is_not_given_has_its_default() -> None:
    plain = {"env": [], "memory": None, "remove": False, "proxy": True, "tty": False, "hostname": ""}
    assert read("web") == {**plain, "image": "web", "words": []}


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["-e", "A=b", "--env=C=d", "-eE", "-e=F=g", "x"], "env", ["A=b", "C=d", "E", "F=g"]),
        (["-m", "1", "--memory=2", "x"], "memory", 2),
        (["--rm", "x"], "remove", True),
        (["--rm=true", "--rm=0", "x"], "remove", False),
        (["--rm=F", "--rm", "x"], "remove", True),
        (["--no-proxy", "x"], "proxy", False),
        (["--no-proxy=false", "x"], "proxy", True),
        (["--proxy=false", "x"], "proxy", False),
        (["-th", "me", "x"], "hostname", "me"),
        (["-t=false", "x"], "tty", False),
        (["-h", "--help", "x"], "hostname", "--help"),
        (["x", "-m", "1"], "words", ["-m", "1"]),
        (["--", "-m", "1"], "image", "-m"),
        (["--env", "--", "x"], "env", ["--"]),
        (["", "y"], "image", ""),
    ],
)
def test_a_line_is_read_as_docker_does(words: list[str], name: str, value: object) -> None:
    assert read(*words)[name] == value


@pytest.mark.parametrize(
    ("words", "why", "code"),
    [
        (["--nope", "x"], "unknown flag: --nope", 125),
        (["-tx", "x"], "unknown shorthand flag: 'x' in -tx", 125),
        (["--memory"], "flag needs an argument: --memory", 125),
        (["-tm"], "flag needs an argument: 'm' in -tm", 125),
        (["-m", "x", "y"], 'invalid argument "x" for "-m, --memory" flag: not a number', 125),
        (["--rm=maybe", "x"], 'invalid argument "maybe" for "--rm" flag: strconv.ParseBool', 125),
        (["--rm"], "'shoal run' requires at least 1 argument", 1),
    ],
)
def test_what_is_no_line_is_refused_in_dockers_words(words: list[str], why: str, code: int) -> None:
    with pytest.raises(UsageError) as caught:
        read(*words)
    assert why in caught.value.message
    assert (caught.value.exit_code, caught.value.path) == (code, "shoal run")


class Late(Flags):
    level: Annotated[int, flag("-l", "--level", parse=number, late=True, help="")] = 0


@command("[OPTIONS] WHY", runs=True)
def runs(flags: Late, why: Annotated[str, argument()]) -> None:
    """Fail"""
    fail(why)


@command("[OPTIONS] WHY")
def does(flags: Late, why: Annotated[str, argument()]) -> None:
    """Fail"""
    fail(why)


def fail(why: str) -> None:
    if why == "early":
        with beforehand():
            raise Conflict(why)
    raise {"bad": InvalidArgument, "gone": CommandNotFound}[why](why)


@pytest.mark.parametrize(
    ("words", "does_", "runs_"),
    [
        (["bad"], 1, 125),
        (["gone"], 1, 127),
        (["early"], 1, 1),
        (["-l", "x", "bad"], 1, 125),
        (["-x", "bad"], 125, 125),
        (["bad", "bad"], 1, 1),
    ],
)
def test_a_failure_is_1_and_of_who_runs_a_container_125(words: list[str], does_: int, runs_: int) -> None:
    for function, code in ((does, does_), (runs, runs_)):
        with pytest.raises(ShoalError) as caught:
            Command("shoal it", function).run(words, HERE)
        assert (function, caught.value.exit_code) == (function, code)


def test_what_is_wrong_with_a_late_flag_names_it() -> None:
    with pytest.raises(InvalidArgument, match='invalid argument "x" for "-l, --level" flag: not a number'):
        Command("shoal it", does).run(["-l", "x", "bad"], HERE)


def test_an_interrupt_is_one_whatever_else_ends_the_command() -> None:
    with pytest.raises(KeyboardInterrupt):
        Command("shoal wait", wait).run([], HERE)


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_can_be_made_and_explains_itself(path: str) -> None:
    made = load(path)
    assert made.help().startswith(f"Usage:  shoal {path}")
    lists = [each for each in made.reader.parameters if isinstance(each.source, Argument) and each.many]
    assert len(lists) <= 1


def test_flags_may_stand_between_arguments_unless_a_command_follows() -> None:
    assert Command("shoal stop", stop).run(["a", "-t", "3", "b"], HERE) == (["a", "b"], 3)


def test_defaults_are_nobodys_to_change() -> None:
    words = read("web")["words"]
    assert isinstance(words, list)
    words.append("x")
    assert read("web")["words"] == []


def test_help_is_asked_for_by_the_letter_only_where_it_is_free(capsys: pytest.CaptureFixture[str]) -> None:
    assert Command("shoal stop", stop).run(["-h"], HERE) is None
    assert "-t, --time string    (default 10)" in capsys.readouterr().out
    assert Command("shoal run", run).run(["--help"], HERE) is None
    assert "  -h, --hostname string" in capsys.readouterr().out
