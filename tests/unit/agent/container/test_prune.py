"""Which containers go when somebody tidies up."""

import pytest

from agent.container.prune import disk_bytes, prunable
from shoal.errors import InvalidArgument
from shoal.model.base import Meta
from shoal.model.container import Container, ContainerSpec

SECOND = 10**9


def container(name, *, at=1, task="", **labels):
    spec = ContainerSpec(labels=labels)
    return Container(meta=Meta(id=name, created_at_ns=at * SECOND), name=name, spec=spec, task_id=task)


OLD, NEW, TASK = container("old", at=10, keep="no"), container("new", at=20, keep="yes"), container("task", task="t")


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ((), {"old", "new"}),
        ((("until", "20"),), {"old"}),
        ((("until", "20.000000001"),), {"old", "new"}),
        ((("label", "keep"),), {"old", "new"}),
        ((("label", "keep=no"),), {"old"}),
        ((("label!", "keep=no"),), {"new"}),
        ((("label", "keep"), ("label!", "keep=yes")), {"old"}),
        ((("label", "keep=no"), ("until", "5")), set()),
    ],
)
def test_all_filters_must_agree_and_tasks_are_left_to_their_service(filters, names):
    assert {each.name for each in prunable([OLD, NEW, TASK], filters)} == names


@pytest.mark.parametrize("filters", [(("odd", "1"),), (("until", "soon"),), (("until", "1.x"),)])
def test_a_filter_that_is_none(filters):
    with pytest.raises(InvalidArgument, match="filter"):
        prunable([OLD], filters)


def test_links_are_not_followed_when_sizes_are_added_up(tmp_path):
    (tmp_path / "big").write_bytes(b"x" * 100_000)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "big")
    (folder / "loop").symlink_to(folder)
    (folder / "below").mkdir()
    (folder / "below/file").write_bytes(b"x" * 8192)
    assert 8192 <= disk_bytes(folder) < 100_000
    assert disk_bytes(tmp_path / "gone") == 0
