"""Which stages there are, what they take from each other, and which of them a target needs."""

from __future__ import annotations

import pytest

from agent.build import graph as graphs
from agent.build.graph import Graph
from agent.build.parser import DockerfileError, parse
from shoal.errors import InvalidArgument

STAGES = """
ARG TAG=1
ARG BASE=img:${TAG}
FROM $BASE AS base
FROM base AS Left
RUN --mount=type=bind,from=right,target=/r true
FROM other AS right
COPY --from=outside/image /a /b
FROM unneeded AS lonely
FROM scratch
COPY --from=left /a /a
COPY --from=2 /b /b
"""


def graph(text: str, target: str = "", **given: str) -> Graph:
    return graphs.graph(parse(text), target=target, given=given, predefined={"TARGETARCH": "amd64"})


def test_a_target_needs_what_it_is_made_of_and_nothing_else() -> None:
    found = graph(STAGES.replace("from=right", "from=base"))
    assert [each.base for each in found.stages] == ["img:1", 0, "other", "unneeded", "scratch"]
    assert found.needed() == [0, 1, 2, 4]
    assert found.stages[4].origins == (1, 2)
    assert graph(STAGES.replace("from=right", "from=base"), "LEFT").needed() == [0, 1]
    assert graph(STAGES.replace("from=right", "from=base"), "3").needed() == [3]


def test_arguments_before_the_first_stage_are_for_from_lines() -> None:
    assert graph("ARG A=x\nFROM $A:${TARGETARCH}", A="y").stages[0].base == "y:amd64"
    assert graph("ARG A\nFROM ${A:-z}").stages[0].base == "z"
    assert graph("ARG A=1 B=${A}2\nFROM $B").arguments["B"] == "12"


def test_a_later_stage_of_the_same_name_is_meant_by_those_after_it() -> None:
    found = graph("FROM a AS x\nFROM b AS x\nFROM c\nCOPY --from=x . .")
    assert found.stages[2].origins == (1,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RUN a", "no build stage in current context"),
        ("ARG A", "has no build stage"),
        ("FROM a b", "either one or three arguments"),
        ("FROM a AS 1x", "invalid name for build stage"),
        ("FROM $NOTHING", "should not be blank"),
        ("FROM a AS x\nCOPY --from=x a b", "this stage or one that comes later"),
        ("FROM a\nCOPY --from=y a b\nFROM b AS y", "this stage or one that comes later"),
        ("FROM a\nCOPY --from=1 a b", "this stage or one that comes later"),
        ("FROM a\nCOPY --frm=1 a b", "unknown flag: --frm"),
        ("FROM a\nRUN --mount=type=bind true", "needs a target"),
        ("FROM a\nRUN --mount=type=foo,target=/x true", "unknown mount type 'foo'"),
        ("FROM a\nRUN --mount=target=/x,uid=1 true", "unexpected key 'uid' for mount type 'bind'"),
        ("FROM a\nENV x", "must have two arguments"),
    ],
)
def test_what_makes_no_graph_is_told_with_its_line(text: str, message: str) -> None:
    with pytest.raises(DockerfileError, match=message) as raised:
        graph(text)
    assert raised.value.first == len(text.split("\nFROM b AS")[0].splitlines())


def test_a_target_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="target stage 'nope' could not be found"):
        graph("FROM a", "nope")
