"""What a group uses, by whoever counts it on this host."""

import os

import pytest

from agent.runtime.cgroups.usage import Usage, usage


@pytest.fixture
def group(tmp_path):
    def make(name, **files):
        folder = tmp_path / name
        folder.mkdir()
        for file, text in files.items():
            (folder / file.replace("__", ".")).write_text(text)
        return str(folder)

    return make


def test_a_v2_group_counts_everything_itself(group):
    v2 = group(
        "v2",
        cpu__stat="usage_usec 2500\nuser_usec 2000\n",
        memory__current="5000\n",
        memory__max="max\n",
        memory__stat="anon 1\ninactive_file 2000\n",
        io__stat="8:0 rbytes=10 wbytes=20 rios=1 wios=1\n8:16 rbytes=5 wbytes=0\n",
        pids__current="7\n",
    )
    assert usage(v2, {}, []) == Usage(2_500_000, 3000, 0, 15, 20, 7)


def test_v1_hierarchies_count_for_the_limits_that_joined_them(group):
    v2 = group("v2", cpu__stat="usage_usec 1\n")
    v1 = {
        "memory": group(
            "memory",
            memory__usage_in_bytes="5000\n",
            memory__limit_in_bytes="8000\n",
            memory__stat="total_inactive_file 6000\n",
        ),
        "blkio": group(
            "blkio", **{"blkio.throttle.io_service_bytes": "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\nTotal 30\n"}
        ),
        "pids": group("pids", pids__current="2\n"),
    }
    assert usage(v2, v1, []) == Usage(1000, 0, 8000, 10, 20, 2)


def test_where_nobody_counts_the_processes_are_added_up():
    found = usage("", {}, [os.getpid()])
    assert found.cpu_ns > 0
    assert found.memory_bytes > 1 << 20
    assert found.pids >= 1


def test_a_process_that_goes_meanwhile_is_nothing():
    assert usage("", {}, [(1 << 22) + 1]) == Usage(0, 0, 0, 0, 0, 0)
