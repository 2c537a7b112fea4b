"""The address by which others reach a host, on one that has networks of ours already."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.kernel

# A bridge network, an overlay and the host's own card, as `ip` makes them.
SETUP = """
set -e
for link in shoal0 shl0123456789ab shb4097; do
    ip link add $link type bridge
    ip addr add 172.30.$((number = number + 1)).1/24 dev $link
done
ip link add eth0 type veth peer name other
ip addr add 192.0.2.7/24 dev eth0
exec "$0" -c 'from agent.address import advertised; print(advertised(""))'
"""


def test_networks_of_ours_are_no_way_to_the_host() -> None:
    argv = ["unshare", "--net", "bash", "-c", SETUP, sys.executable]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("192.0.2.7\n", "")
