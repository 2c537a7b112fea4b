"""Several images under one name at a registry, as `shoal manifest` puts them together."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.api.image import ImageService
from agent.image import platform as platforms
from shoal import rpc
from shoal.v1.engine_pb2_grpc import add_ImageServiceServicer_to_server
from tests.kernel.container.conftest import Shell
from tests.kernel.image.conftest import Store, archive, member, pieces

pytestmark = pytest.mark.kernel


@pytest.fixture
async def shell(store: Store, tmp_path: Path) -> AsyncIterator[Shell]:
    """Command lines against the images of a store, on the host's own network, where the registry is."""
    server = rpc.new_server()
    add_ImageServiceServicer_to_server(ImageService(store.images, lambda _: []), server)
    server.add_insecure_port(f"unix:{tmp_path}/cli.sock")
    await server.start()
    yield Shell(tmp_path / "cli.sock")
    await server.stop(0)


async def test_a_list_of_images_is_made_annotated_pushed_and_pulled(
    shell: Shell, registry: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    name, one, two = f"{registry}/multi/app:all", f"{registry}/multi/app:one", f"{registry}/multi/other:two"
    for tag, change in ((one, "ENV A=one"), (two, "ENV A=two")):
        await store.images.import_image(pieces(archive([(member("a"), b"a")])), reference=tag, changes=[change])
        pushed = await shell("push", "-q", tag)
        assert pushed.code == 0, pushed.err
    made = await shell("manifest", "create", name, one, two)
    assert (made.code, made.text) == (0, f"Created manifest list {name}\n"), made.err
    again = await shell("manifest", "create", name, one)
    assert (again.code, "refusing to amend an existing manifest list" in again.err) == (1, True)
    changed = await shell("manifest", "annotate", "--arch", "arm64", "--variant", "v8", name, two)
    assert changed.code == 0, changed.err
    odd = await shell("manifest", "annotate", "--arch", "x86_64", name, two)
    assert (odd.code, "unsupported os/arch combination: linux/x86_64" in odd.err) == (1, True), odd.err
    pushed = await shell("manifest", "push", "--purge", name)
    assert pushed.code == 0, pushed.err
    assert (await shell("manifest", "rm", name)).code == 1
    shown = json.loads((await shell("manifest", "inspect", name)).text)
    assert [each["platform"]["architecture"] for each in shown["manifests"]][1] == "arm64"
    raw = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"]
    assert json.loads(subprocess.run(raw, capture_output=True, check=True).stdout) == shown
    await store.images.pull(name)
    assert "A=one" in (await store.images.get(name)).config.env
    told = json.loads((await shell("manifest", "inspect", "-v", one)).text)
    assert (told["Ref"], told["Descriptor"]["digest"]) == (one, shown["manifests"][0]["digest"])
    mine = f"{registry}/multi/app:mine"
    await store.images.tag(name, mine)
    alone = await shell("push", "--platform", str(platforms.host()), mine)
    assert f"mine: digest: {shown['manifests'][0]['digest']} size: " in alone.text, alone.err
    assert (await store.images.get(mine)).manifest_digest == (await store.images.get(name)).manifest_digest
    assert shown["manifests"][1]["digest"] in (await shell("push", "--platform", "linux/arm64", mine)).text
    elsewhere = await shell("push", "--platform", "linux/s390x", mine)
    assert (elsewhere.code, "no matching manifest for linux/s390x" in elsewhere.err) == (1, True)
    assert (await shell("push", "--platform", "linux/arm64", one)).err.startswith("Error: the image is for ")
    missing = await shell("manifest", "inspect", f"{registry}/multi/app:none")
    assert (missing.code, "not found" in missing.err) == (1, True)
