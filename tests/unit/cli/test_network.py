"""What `network create` makes of docker's options."""

from __future__ import annotations

import pytest

from cli.network import mtu
from shoal.errors import InvalidArgument, ShoalError, Unsupported

MTU = "com.docker.network.driver.mtu"


def test_the_mtu_of_a_bridge() -> None:
    assert mtu([], "bridge") == mtu([], "overlay") == 0
    assert mtu([f"{MTU}=1400"], "bridge") == 1400


@pytest.mark.parametrize(
    ("option", "driver", "error", "said"),
    [
        (f"{MTU}=1400", "overlay", Unsupported, "driver overlay is not supported"),
        ("com.docker.network.bridge.name=br0", "bridge", Unsupported, "bridge.name of a network"),
        (f"{MTU}=large", "bridge", InvalidArgument, "invalid syntax"),
        (MTU, "bridge", InvalidArgument, "invalid option"),
    ],
)
def test_all_others_are_refused(option: str, driver: str, error: type[ShoalError], said: str) -> None:
    with pytest.raises(error, match=said):
        mtu([option], driver)
