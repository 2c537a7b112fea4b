"""How the kernel of this host is told to share devices and processors among containers."""

import contextlib
import subprocess
from pathlib import Path

import pytest

from shoal.errors import StartFailed
from shoal.model.container import DeviceWeight, Tuning

pytestmark = pytest.mark.kernel

GROUPS = Path("/sys/fs/cgroup")


def told(engine, container, file):
    """What a control file of v1 says of it."""
    return (GROUPS / file.partition(".")[0] / engine.cgroup / container.meta.id / file).read_text().split("\n")[:-1]


# devices


@pytest.fixture
def disk(tmp_path):
    """A block device that the BFQ scheduler serves, with its number."""
    file = tmp_path / "disk"
    file.write_bytes(bytes(1 << 20))
    if not (GROUPS / "blkio/blkio.bfq.io_serviced").exists():
        pytest.skip("no BFQ scheduler with groups of v1 here")
    made = subprocess.run(["losetup", "-f", "--show", file], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no loop device here: {made.stderr}")
    path = made.stdout.strip()
    about = Path("/sys/block", Path(path).name)
    before = about.joinpath("queue/scheduler").read_text().partition("[")[2].partition("]")[0]
    try:
        about.joinpath("queue/scheduler").write_text("bfq")
        yield path, about.joinpath("dev").read_text().strip()
    finally:
        with contextlib.suppress(OSError):
            about.joinpath("queue/scheduler").write_text(before)
        subprocess.run(["losetup", "-d", path], check=True)


async def test_a_device_has_a_weight_of_its_own(engine, shell, disk):
    path, number = disk
    weights = ("--blkio-weight", "300", "--blkio-weight-device", f"{path}:200")
    assert (await shell("run", "-d", "--name", "web", *weights, "busybox", "sleep", "100")).code == 0
    container = engine.containers.get("web")
    assert told(engine, container, "blkio.bfq.weight_device") == ["default 300", f"{number} 200"]
    await engine.containers.update("web", tuning=Tuning(io_weight=400))
    assert told(engine, container, "blkio.bfq.weight_device") == ["default 400", f"{number} 200"]
    seen = await shell("inspect", "-f", "{{json .HostConfig.BlkioWeightDevice}}", "web")
    assert seen.text == f'[{{"Path":"{path}","Weight":200}}]\n'


@pytest.mark.parametrize(("path", "words"), [("/dev/null", "not a block device"), ("/dev/nosuch", "no such file")])
async def test_only_a_device_of_blocks_has_a_weight(engine, path, words):
    with pytest.raises(StartFailed, match=words):
        await engine.run("true", tuning=Tuning(device_weights=(DeviceWeight(path, 200),)))
