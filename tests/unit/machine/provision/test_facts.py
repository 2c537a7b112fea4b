"""Facts: the script on this very host, and how its answer is read."""

from __future__ import annotations

import platform
import subprocess
import time
from pathlib import Path

import pytest

from machine.provision import facts, layout
from machine.provision.facts import parse
from shoal.errors import ShoalError


def test_the_script_runs_on_this_host_and_changes_nothing() -> None:
    question = facts.question(nodes=False)
    done = subprocess.run(question.argv, input=question.stdin, capture_output=True, text=True, timeout=60)
    found = parse(done.stdout, asked_at_s=time.time())
    assert found.kernel == platform.release()
    assert found.architecture == platform.machine()
    assert found.hostname == platform.node()
    assert abs(found.offset_s) < 60
    assert found.free_kib.keys() == {"/opt", "/var/lib"}
    assert found.python_minor >= "3.11"


def test_the_link_to_the_current_version_is_no_version(tmp_path: Path) -> None:
    for version in ("0.1.0-a", "0.1.0-b"):
        (tmp_path / version).mkdir()
        (tmp_path / version / layout.COMPLETE).touch()
    (tmp_path / "0.1.0-c").mkdir()  # one that broke off
    (tmp_path / "current").symlink_to("0.1.0-a")
    script = facts.SCRIPT.replace(layout.ROOT, str(tmp_path))
    said = subprocess.run(["sh"], input=script, capture_output=True, text=True, check=True).stdout
    found = facts.parse(said, asked_at_s=0.0)
    assert (found.current, found.installed) == ("0.1.0-a", ("0.1.0-a", "0.1.0-b"))


def test_an_answer_that_broke_off_is_none() -> None:
    with pytest.raises(ShoalError, match="broke off"):
        parse("uid=0\nnow=1.5\n", asked_at_s=0)


def answer(*lines: str) -> facts.Facts:
    return parse("\n".join(["uid=0", "now=100.5", *lines, "end=yes"]), asked_at_s=100)


def test_ports_on_loopback_are_nobodys_business() -> None:
    found = answer("listen=tcp 0100007F:0016", "listen=tcp 00000000:0949", "listen=udp 0A00000A:12B5")
    assert found.listening == {"2377/tcp", "4789/udp"}


def test_an_agents_version_is_that_of_its_interpreter() -> None:
    ours = f"agent={layout.ROOT}/0.1.0-x/bin/python {layout.CURRENT}/bin/shoal-agent "
    assert answer(ours).agent == "0.1.0-x"
    assert answer("agent=/usr/bin/python3 /srv/bin/shoal-agent ").agent == facts.OTHER
    assert answer().agent == ""


def test_only_the_unit_of_the_hosts_own_init_counts() -> None:
    lines = (f"unit=aa {layout.UNIT_PATH}", f"unit=bb {layout.SCRIPT_PATH}")
    assert answer("init=systemd", *lines).unit_sha256 == "aa"
    assert answer("init=script", *lines).unit_sha256 == "bb"


def test_clocks_are_compared_with_ours() -> None:
    assert answer().offset_s == 0.5
