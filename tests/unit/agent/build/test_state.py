"""What instructions say of an image, and which variables they know."""

from __future__ import annotations

import pytest

from agent.build import state as states
from agent.build.parser import parse
from agent.build.state import State
from shoal.errors import InvalidArgument
from shoal.model.image import ImageConfig


def after(text: str, state: State | None = None, *, given: dict[str, str] | None = None) -> State:
    found = state or State()
    for each in parse(text).instructions:
        if each.keyword == "ARG":
            found = states.argued(found, each, given=given or {}, known={"TARGETOS": "linux", "OLD": "global"})
        else:
            found = states.said(found, each)
    return found


def test_the_environment_counts_over_arguments() -> None:
    found = after("ARG A=arg\nENV B=$A\nENV A=env\nLABEL l=$A-$B")
    assert found.config.labels == {"l": "env-arg"}
    assert found.config.env == ("B=arg", "A=env")


def test_values_of_one_line_do_not_see_each_other() -> None:
    assert after("ENV a=1\nENV a=2 b=$a").config.env == ("a=2", "b=1")


def test_an_argument_is_the_users_the_default_or_the_global_one() -> None:
    found = after("ARG A=1\nARG B=2\nARG OLD\nARG TARGETOS\nARG NOTHING", given={"B": "user"})
    assert found.arguments == {"A": "1", "B": "user", "OLD": "global", "TARGETOS": "linux"}
    assert after("ARG OLD=own").arguments == {"OLD": "own"}


def test_an_entrypoint_drops_the_command_that_was_inherited() -> None:
    inherited = State(config=ImageConfig(cmd=("old",)))
    assert after('ENTRYPOINT ["e"]', inherited).config.cmd == ()
    assert after('CMD ["new"]\nENTRYPOINT ["e"]', inherited).config.cmd == ("new",)
    assert after("ENTRYPOINT run it").config.entrypoint == ("/bin/sh", "-c", "run it")


def test_a_shell_is_for_the_lines_after_it() -> None:
    found = after('CMD before\nSHELL ["/bin/ash", "-e"]\nENTRYPOINT after')
    assert found.config.cmd == ("/bin/sh", "-c", "before")
    assert found.config.entrypoint == ("/bin/ash", "-e", "after")
    with pytest.raises(InvalidArgument, match="JSON form"):
        after("SHELL sh")


def test_the_working_directory_is_relative_to_the_one_before() -> None:
    assert after("WORKDIR /a\nWORKDIR b/../c\nENV d=e\nWORKDIR $d").config.workdir == "/a/c/e"


def test_triggers_wait_for_the_next_build() -> None:
    found = after("ONBUILD RUN a\nONBUILD COPY --chown=1 <<EOF /x\nhi\nEOF\n")
    config, triggers = states.triggers(found.config)
    assert triggers == ("RUN a", "COPY --chown=1 <<EOF /x\nhi\nEOF")
    assert config.on_build == ()
    for wrong in ("ONBUILD FROM a", "ONBUILD ONBUILD RUN a", "ONBUILD MAINTAINER a"):
        with pytest.raises(InvalidArgument, match="isn't allowed as an ONBUILD trigger"):
            after(wrong)


def test_a_health_check_has_flags_of_its_own() -> None:
    check = after('HEALTHCHECK --interval=5s --retries=3 CMD ["a", "b"]').config.health
    assert (check.test, check.interval_ns, check.retries) == (("CMD", "a", "b"), 5 * 10**9, 3)
    assert after("HEALTHCHECK CMD a | b").config.health.test == ("CMD-SHELL", "a | b")
    assert after("HEALTHCHECK NONE").config.health.test == ("NONE",)


def test_proxies_are_known_to_commands_unasked() -> None:
    given = {"HTTP_PROXY": "http://p", "OTHER": "x"}
    assert states.run_environment(after("ARG A=1"), given) == {"HTTP_PROXY": "http://p", "A": "1"}
