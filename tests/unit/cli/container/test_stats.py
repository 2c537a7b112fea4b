"""A container's use as a row."""

from cli.container.stats import row
from shoal.v1.engine_pb2 import Stats

SECOND = 10**9
ID = "a" * 64


def test_a_rate_is_the_difference_of_two_samples():
    before = Stats(id=ID, running=True, at_ns=SECOND, cpu_ns=SECOND)
    now = Stats(
        id=ID,
        name="web",
        running=True,
        at_ns=2 * SECOND,
        cpu_ns=SECOND + SECOND * 3 // 2,
        memory_bytes=5 << 20,
        memory_limit_bytes=1 << 30,
        received_bytes=1500,
        read_bytes=4_100_000,
        pids=3,
    )
    assert row(now, before, whole=False) == {
        "ID": ID[:12],
        "Container": ID[:12],
        "Name": "web",
        "CPUPerc": "150.00%",
        "MemUsage": "5MiB / 1GiB",
        "MemPerc": "0.49%",
        "NetIO": "1.5kB / 0B",
        "BlockIO": "4.1MB / 0B",
        "PIDs": "3",
    }


def test_what_has_no_earlier_sample_or_started_anew_has_no_rate():
    now = Stats(id=ID, running=True, at_ns=2 * SECOND, cpu_ns=SECOND)
    restarted = Stats(id=ID, running=True, at_ns=SECOND, cpu_ns=5 * SECOND)
    for before in (None, Stats(id=ID), restarted):
        assert row(now, before, whole=True)["CPUPerc"] == "0.00%"
    assert row(Stats(id=ID), now, whole=True)["MemPerc"] == "0.00%"
