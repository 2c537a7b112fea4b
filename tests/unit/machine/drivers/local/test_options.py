"""What --driver-opt may say of a host inside this machine."""

from __future__ import annotations

import pytest

from machine.drivers.local.options import Options, parse
from shoal.errors import InvalidArgument


def test_every_option_is_read() -> None:
    assert parse({}) == Options("", (), 1 << 30, 1.0)
    assert parse({"memory": "512m", "cpus": "1.5", "tree": "/srv/tree"}) == Options("/srv/tree", (), 512 << 20, 1.5)
    assert parse({"packages": "etcd-server,g++"}).packages == ("etcd-server", "g++")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"colour": "blue"}, "has no option colour"),
        ({"memory": "512"}, "is no size"),
        ({"memory": "1m"}, "is too little"),
        ({"cpus": "0"}, "is no number of processors"),
        ({"cpus": "nan"}, "is no number of processors"),
        ({"cpus": "-1"}, "is no number of processors"),
        ({"packages": ""}, "names none"),
        ({"packages": "curl,--hook=x"}, "names none"),
        ({"packages": "curl", "tree": "/srv/tree"}, "has the packages that it has"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        parse(options)
