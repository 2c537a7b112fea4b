"""Finding containers by what people type."""

import pytest

from agent.container.held import Held
from agent.container.record import Record, State
from agent.container.register import Register
from shoal.errors import Conflict, NotFound
from shoal.model.base import Meta
from shoal.model.container import Container, Mount, MountType


def held(container_id, name, **fields):
    return Held(Record(container=Container(meta=Meta(id=container_id), name=name, **fields)), State())


@pytest.fixture
def register():
    made = Register()
    for each in (
        held("abc1", "web", mounts=(Mount(source="data", target="/d"),), image_id="i1"),
        held("abd2", "abc"),
        held("xyz3", "abd2-not", mounts=(Mount(type=MountType.BIND, source="data", target="/d"),)),
    ):
        made.reserve(each.name, each.id)
        made.add(each)
    return made


@pytest.mark.parametrize(
    ("typed", "found"), [("abc1", "abc1"), ("web", "abc1"), ("/web", "abc1"), ("abc", "abd2"), ("x", "xyz3")]
)
def test_id_then_name_then_prefix(register, typed, found):
    assert register.find(typed).id == found


@pytest.mark.parametrize("typed", ["nope", "", "/"])
def test_nobody(register, typed):
    with pytest.raises(NotFound, match=f"^No such container: {typed}$"):
        register.find(typed)


def test_a_prefix_of_several(register):
    with pytest.raises(Conflict, match="ambiguous"):
        register.find("ab")


def test_a_taken_name_is_refused_in_dockers_words(register):
    with pytest.raises(Conflict) as refused:
        register.reserve("web", "new")
    assert refused.value.message == (
        'Conflict. The container name "/web" is already in use by container "abc1".'
        " You have to remove (or rename) that container to be able to reuse that name."
    )


def test_a_removed_one_frees_its_name(register):
    register.drop(register.find("web"))
    register.reserve("web", "new")
    assert register.named("web") is None


def test_users_of_volumes_and_images(register):
    assert register.volume_users("data") == ["abc1"]
    assert register.volume_users("data", but="abc1") == []
    assert register.image_users("i1") == [("abc1", "web", False)]
