"""Containers on disk: what a crash or a power cut leaves is a container or nothing."""

import os
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from agent.container.record import Record, Records, State
from shoal import codec
from shoal.model.base import Meta
from shoal.model.container import Container, ContainerState, ContainerStatus
from tests.unit.agent.disk import assert_spread

ID = "a" * 64


@pytest.fixture
def records(tmp_path):
    made = Records(tmp_path / "containers")
    made.open()
    return made


def record(container_id=ID, **fields):
    return Record(container=Container(meta=Meta(id=container_id), name="web", **fields))


def save(records, made=None, *, durable=True):
    made = made or record()
    records.make(made.container.meta.id)
    records.save(made, durable=durable)
    return made


@pytest.mark.parametrize("durable", [True, False])
def test_what_is_saved_is_loaded(records, durable):
    made = save(records, durable=durable)
    assert records.load() == [(made, State())]
    state = State(status=ContainerStatus(state=ContainerState.EXITED, exit_code=3), stopped=True, boot_id="b")
    records.save_state(ID, state, durable=False)
    assert records.load() == [(made, state)]


def test_a_folder_without_record_is_swept(records):
    records.make(ID)
    assert records.load() == []
    assert not records.folder(ID).exists()


def test_a_torn_record_of_a_passing_container_is_swept_and_a_durable_one_left(records):
    save(records, durable=False)
    (records.folder(ID) / "transient").write_bytes(b"")
    save(records, record("b" * 64))
    (records.folder("b" * 64) / "container").write_bytes(b"\x09 newer")
    assert records.load() == []
    assert not records.folder(ID).exists()
    assert records.folder("b" * 64).exists()


def test_a_durable_one_is_there_once_it_is_synced_and_one_that_never_was_is_swept(records):
    for container_id in (ID, "b" * 64):
        records.make(container_id)
        with records.begin(record(container_id)) as descriptors:
            for each in descriptors:
                os.fsync(each)
    (records.folder(ID) / "container").write_bytes(b"")  # the power went before
    assert records.load() == [(record("b" * 64), State())]
    assert not records.folder(ID).exists()


def test_a_torn_state_reads_as_created(records):
    made = save(records)
    for torn in (b"", b"\x01\x93"):
        (records.folder(ID) / "state").write_bytes(torn)
        assert records.load() == [(made, State())]


def test_a_state_takes_the_place_of_one_of_any_length(records):
    made = save(records)
    path = records.folder(ID) / "state"
    path.write_bytes(codec.pack(State(boot_id="of a version that filled nothing up")))
    for length in (0, 10, 600, 10, 5000, 700, 5000, 0):
        state = State(status=ContainerStatus(state=ContainerState.CREATED, error="x" * length), boot_id="b")
        records.save_state(ID, state, durable=False)
        assert records.load() == [(made, state)]
        assert os.listdir(records.folder(ID)).count("state") == 1


def test_one_state_after_another_takes_no_new_file(records):
    made = save(records)
    path = records.folder(ID) / "state"
    records.save_state(ID, State(boot_id="b"), durable=False)
    before = path.stat()
    for state in (State(boot_id="longer"), State()):
        records.save_state(ID, state, durable=False)
        assert (path.stat().st_ino, path.stat().st_size) == (before.st_ino, before.st_size)
        assert records.load() == [(made, state)]


@pytest.mark.usefixtures("records")
def test_folders_of_containers_are_spread_where_the_disk_can(tmp_path):
    assert_spread(tmp_path / "containers")


def test_discarded_is_gone_at_once_and_its_space_later(records):
    save(records)
    (records.folder(ID) / "upper/big").write_text("x")
    records.discard(ID)
    assert records.load() == []
    records.discard(ID)
    records.empty_trash()
    assert os.listdir(records.folder(".trash")) == []


def test_the_trash_takes_what_a_container_wrote_and_follows_no_link(records, tmp_path):
    (tmp_path / "hosts").mkdir()
    (tmp_path / "hosts/kept").write_text("x")
    save(records)
    (records.folder(ID) / "upper/deep").mkdir()
    (records.folder(ID) / "upper/deep/link").symlink_to(tmp_path / "hosts")
    (records.folder(ID) / "work/work/incompat").mkdir(parents=True)
    records.discard(ID)
    records.empty_trash()
    assert os.listdir(records.folder(".trash")) == []
    assert (tmp_path / "hosts/kept").exists()


def test_two_may_empty_the_trash_at_once(records):
    numbers = [f"{number:064x}" for number in range(200)]
    for number in numbers:
        save(records, record(number), durable=False)
        records.discard(number)
    with ThreadPoolExecutor(4) as threads:
        for each in [threads.submit(records.empty_trash) for _ in range(4)]:
            each.result()
    assert os.listdir(records.folder(".trash")) == []


def test_opening_finishes_a_deletion(records, tmp_path):
    save(records)
    records.discard(ID)
    again = Records(tmp_path / "containers")
    again.open()
    assert os.listdir(records.folder(".trash")) == []


def test_pending_is_kept(records):
    made = msgspec.structs.replace(record(), pending=True)
    save(records, made)
    assert records.load()[0][0].pending
