"""What builds came to, in a registry: a host that knows nothing takes it from there."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.build.published import KIND
from agent.registry.auth import Credentials
from shoal import digest as digests
from shoal.reference import parse
from tests.kernel.build.test_build import write
from tests.kernel.container.conftest import Engine, Shell
from tests.registry import PASSWORD, USER, Registry

pytestmark = pytest.mark.kernel
# Of another stage, the image has a file alone.
STEPS = (
    "AS made\nRUN echo made > /made; echo other > /other\n"
    "FROM {base}\nCOPY --from=made /made /\nENV A=b\nRUN cat /made > /again\n"
)


class Host:
    """The engine's, with the registry `at`, where its base image is as well."""

    def __init__(self, engine: Engine, shell: Shell, at: str, folder: Path) -> None:
        self._engine, self._shell, self.at, self.folder = engine, shell, at, folder

    async def build(self, *args: str, code: int = 0) -> str:
        """What a build said."""
        built = await self._shell("build", *args, str(self.folder))
        assert built.code == code, built.err
        return built.err

    async def image(self) -> str:
        return (await self._shell("images", "-q", "--no-trunc", f"{self.at}/app")).text

    async def forget(self) -> None:
        """All that there is; other than the host that built, this one knows nothing then."""
        for line in (("image", "prune", "-a", "-f"), ("builder", "prune", "-f")):
            assert (await self._shell(*line)).code == 0
        assert list((self._engine.paths.images / "blobs/sha256").iterdir()) == []


@pytest.fixture
async def host(engine: Engine, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    """The registry lets only its users in."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    made = await asyncio.to_thread(Registry(tmp_path / "registry", users=True).start)
    try:
        base = f"{made.host}/base"
        assert (await shell("login", "-u", USER, "--password-stdin", made.host, input=PASSWORD.encode())).code == 0
        assert (await shell("tag", "busybox", base)).code == 0
        assert (await shell("push", "-q", base)).code == 0
        folder = write(tmp_path / "app", Dockerfile=f"FROM {base} {STEPS.format(base=base)}")
        yield Host(engine, shell, made.host, folder)
    finally:
        made.kill()


async def test_a_cache_in_a_registry_spares_a_host_that_knows_nothing_every_step(host: Host, shell: Shell) -> None:
    cache, tag = f"{host.at}/app:cache", f"{host.at}/app:1"
    told = await host.build("--cache-from", cache, "--cache-to", f"type=registry,ref={cache},mode=max", "-t", tag)
    assert f"manifest for {cache} not found" in told, told  # there was none yet, which is told and no more
    image_id = await host.image()
    await host.forget()
    told = await host.build("--cache-from", f"type=registry,ref={cache}", "-t", tag)
    assert told.count("CACHED") == 3, told
    assert await host.image() == image_id
    assert (await shell("run", "--rm", tag, "cat", "/again")).text == "made\n"
    await host.forget()
    told = await host.build("--no-cache", "--cache-from", cache, "-t", tag)
    assert "CACHED" not in told and ": Pull complete\n" in told, told
    # Of the image's own steps alone: what only another stage did is done again, and comes out the same.
    await host.build("--cache-to", f"type=registry,ref={cache},compression=zstd", "-t", tag)
    await host.forget()
    told = await host.build("--cache-from", cache, "-t", tag)
    assert told.count("CACHED") == 2, told


async def test_a_cache_in_the_image_itself_spares_its_steps(host: Host, shell: Shell) -> None:
    tag = f"{host.at}/app:1"
    await host.build("--cache-to", "type=inline", "--push", "-t", tag)
    image_id = await host.image()
    await host.forget()
    told = await host.build("--cache-from", tag, "--cache-to", "type=inline", "-t", tag)
    assert told.count("CACHED") == 2, told
    assert await host.image() == image_id
    assert (await shell("run", "--rm", tag, "cat", "/again")).text == "made\n"
    plain = f"{host.at}/base"
    assert f"the image {plain}:latest has no cache in it" in await host.build("--cache-from", plain, "-t", tag)


async def test_what_is_no_cache_of_ours_is_refused_by_name_and_the_build_goes_on(host: Host, engine: Engine) -> None:
    """BuildKit's, as buildx writes it in either form; a registry that takes nothing ends the build."""
    cache, tag = f"{host.at}/app:cache", f"{host.at}/app:1"
    config = b'{"layers":[],"records":[]}'
    kind = "application/vnd.buildkit.cacheconfig.v0"
    described = {"mediaType": kind, "digest": digests.of(config), "size": len(config)}
    put(f"http://{host.at}/v2/app/blobs/uploads/", config)
    for name, document in (
        ("manifest", {"config": described, "layers": []}),
        ("index", {"manifests": [described]}),
    ):
        media_type = f"application/vnd.oci.image.{name}.v1+json"
        text = json.dumps({"schemaVersion": 2, "mediaType": media_type, **document})
        curl("-X", "PUT", "-H", f"Content-Type: {media_type}", "-d", text, f"http://{host.at}/v2/app/manifests/cache")
        told = await host.build("--cache-from", cache, "-t", tag)
        assert f"{cache} is a cache of BuildKit, whose steps go by other keys" in told, told
    nowhere = "type=registry,ref=127.0.0.1:1/app:cache"
    assert "127.0.0.1:1" in await host.build("--cache-to", nowhere, "-t", tag, code=1)
    assert "127.0.0.1:1" in await host.build("--cache-to", f"{nowhere},ignore-error=true", "-t", tag)
    assert "127.0.0.1:1" in await host.build("--cache-from", nowhere, "-t", tag)
    # One of ours replaces it.
    await host.build("--cache-to", f"type=registry,ref={cache}", "-t", tag)
    async with engine.images.deposits.open(parse(cache), Credentials(USER, PASSWORD)) as found:
        assert (found.kind, len(found.layers)) == (KIND, 2)


def put(where: str, data: bytes) -> None:
    headers = curl("-D", "-", "-o", "/dev/null", "-X", "POST", where)
    location = next(line.split(" ", 1)[1] for line in headers.splitlines() if line.lower().startswith("location:"))
    place = location if location.startswith("http") else f"{where.partition('/v2/')[0]}{location}"
    curl("-X", "PUT", "-H", "Content-Type: application/octet-stream", "--data-binary", data.decode(),
         f"{place}&digest={digests.of(data)}")  # fmt: skip


def curl(*args: str) -> str:
    done = subprocess.run(
        ["curl", "-sSf", "-u", f"{USER}:{PASSWORD}", *args], check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout
