"""Images to a registry: what arrives, what is not sent twice, and what happens when the way there breaks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from agent.image import images as module
from agent.image.source import Progress, silent
from agent.registry import media
from agent.registry.repository import Repository
from agent.registry.rules import Rules
from agent.registry.upload import CHUNK_BYTES
from shoal import digest as digests
from shoal.errors import InvalidArgument, NotFound, Unsupported
from shoal.reference import parse
from tests.kernel.image.conftest import Store, archive, member, pieces, tool
from tests.registry import Registry, break_off, once, proxy, serving

pytestmark = pytest.mark.kernel
ROOMS = Path(module.__file__).parents[2]
# Three chunks of an upload, which no compression makes smaller.
BIG = random.Random(5).randbytes(2 * CHUNK_BYTES + 100_000)


async def push(store: Store, reference: str, *, compression: str = "", said: list[Progress] | None = None) -> str:
    """Send a tag; its digest."""
    report = said.append if said is not None else silent
    pushed = await store.images.remote.push(parse(reference), credentials=None, compression=compression, report=report)
    return pushed.digest


@contextlib.asynccontextmanager
async def another(folder: Path) -> AsyncIterator[Store]:
    made = Store(folder)
    await made.open()
    try:
        yield made
    finally:
        made.images.close()


def words(said: list[Progress]) -> list[str]:
    """Each word once, in the order of what was said."""
    return list(dict.fromkeys(each.status for each in said))


async def test_what_is_pushed_comes_back_the_same(store: Store, registry: str, tmp_path: Path) -> None:
    data = archive([(member("etc", tarfile.DIRTYPE, mode=0o750), b""), (member("etc/app", mode=0o4711), b"x" * 70_000)])
    name = f"{registry}/made/app:1"
    image_id = await store.images.import_image(pieces(data), reference=name, changes=['CMD ["/etc/app"]'])
    said: list[Progress] = []
    digest = await push(store, name, said=said)
    assert words(said) == ["Preparing", "Compressing", "Pushing", "Pushed"]
    async with another(tmp_path / "other") as other:
        pulled = await other.images.pull(name)
        assert (pulled.image_id, pulled.digest) == (image_id, digest)
        assert (other.layer(image_id) / "etc/app").stat().st_mode == (store.layer(image_id) / "etc/app").stat().st_mode
    done = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"], capture_output=True, check=True
    )
    (layer,) = json.loads(done.stdout)["layers"]
    assert layer["mediaType"].endswith("+gzip")
    # From now on it is known here by the digest that the registry knows it by, so that other nodes get it from here.
    assert (name, digest) in store.images.held()
    assert await store.images.read_blob(layer["digest"])
    again: list[Progress] = []
    assert await push(store, name, said=again) == digest
    assert words(again) == ["Preparing", "Layer already exists"]


async def test_the_same_layer_is_compressed_once_and_always_to_the_same(
    store: Store, registry: str, tmp_path: Path
) -> None:
    data = archive([(member("a"), b"abc" * 50_000)])
    for name in (f"{registry}/same/one:1", f"{registry}/same/two:1"):
        await store.images.import_image(pieces(data), reference=name)
    said: list[Progress] = []
    await push(store, f"{registry}/same/one:1")
    await push(store, f"{registry}/same/two:1", said=said)
    assert "Compressing" not in words(said)
    assert "Mounted from same/one" in words(said)
    gzipped = await push(store, f"{registry}/same/two:1", compression="gzip")
    assert await push(store, f"{registry}/same/two:1", compression="zstd") != gzipped
    assert await push(store, f"{registry}/same/two:1", compression="gzip") == gzipped
    await push(store, f"{registry}/same/two:1", compression="zstd")
    async with another(tmp_path / "other") as other:
        await other.images.pull(f"{registry}/same/two:1")
        (name,) = await other.images.list()
        assert (other.layer(name.meta.id) / "a").read_bytes() == b"abc" * 50_000
        await other.images.import_image(pieces(data), reference=f"{registry}/same/one:2")
        again: list[Progress] = []
        await push(other, f"{registry}/same/one:2", said=again)
        assert words(again)[-1] == "Layer already exists"


@pytest.mark.parametrize("kind", ["oci", "v2s2"])
async def test_what_was_pulled_goes_on_as_it_came(store: Store, registry: str, layout: Path, kind: str) -> None:
    source, target = f"{registry}/came/{kind}:1", f"{registry}/went/{kind}:1"
    tool("skopeo", "copy", "--dest-tls-verify=false", "-f", kind, f"oci:{layout}:1", f"docker://{source}")
    pulled = await store.images.pull(source)
    await store.images.tag(source, target)
    async with proxy(registry) as between:
        through = target.replace(registry, between.host)
        await store.images.tag(source, through)
        assert await push(store, through) == pulled.digest
    said: list[Progress] = []
    assert await push(store, target, said=said) == pulled.digest
    assert {each.status for each in said} <= {"Preparing", "Layer already exists"}
    # But where somebody says how it is to be compressed.
    assert await push(store, target, compression="zstd") != pulled.digest
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{target}"], capture_output=True, check=True
    ).stdout
    assert {each["mediaType"] for each in json.loads(raw)["layers"]} == {"application/vnd.oci.image.layer.v1.tar+zstd"}


async def test_an_index_goes_as_a_whole_where_all_of_it_is_here(store: Store, registry: str, tmp_path: Path) -> None:
    name = f"{registry}/index/app:1"
    tool("skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false",
         f"docker://{registry}/team/app:1", f"docker://{registry}/index/app:inner")  # fmt: skip
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{registry}/index/app:inner"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    kind = media.OCI_INDEX
    index = json.dumps({
        "schemaVersion": 2, "mediaType": kind,
        "manifests": [{"mediaType": media.OCI_MANIFEST, "digest": digests.of(raw), "size": len(raw),
                       "platform": {"os": "linux", "architecture": "amd64"}}],
    }).encode()  # fmt: skip
    async with Repository(parse(name), rules=Rules(), push=True) as repository:
        await repository.put_manifest("1", index, kind)
    pulled = await store.images.pull(name)
    await store.images.tag(name, f"{registry}/index/copy:1")
    assert await push(store, f"{registry}/index/copy:1") == pulled.digest == digests.of(index)
    with pytest.raises(Unsupported, match="several platforms is not supported; choose one: --platform"):
        await push(store, f"{registry}/index/copy:1", compression="zstd")


async def test_a_registry_that_says_where_a_blob_lies_has_it(store: Store, registry: str) -> None:
    async def elsewhere(request: web.Request) -> web.StreamResponse | None:
        if request.method != "HEAD" or "/blobs/" not in request.path:
            return None
        return web.Response(status=307, headers={"Location": f"http://{storage}{request.path}"})

    async def for_get_alone(request: web.Request) -> web.StreamResponse:
        return web.Response(status=403)

    async with serving(for_get_alone) as storage, proxy(registry) as between:
        name = f"{between.host}/team/app:1"
        await store.images.pull(name)
        between.faults = [elsewhere]
        said: list[Progress] = []
        await push(store, name, said=said)
        assert words(said)[-1] == "Layer already exists"


@pytest.mark.parametrize("forgiving", [True, False])
async def test_an_upload_goes_on_where_it_was_cut(store: Store, registry: str, forgiving: bool) -> None:
    """Where the registry knows how far it came; else from the beginning."""
    async with proxy(registry) as between:
        between.forgiving = forgiving
        name = f"{between.host}/cut{forgiving:d}/app:1"
        await store.images.import_image(pieces(archive([(member("big"), BIG)])), reference=name)
        sent = [0]

        async def half(request: web.Request) -> web.StreamResponse | None:
            """The registry gets half of the second chunk, and then nobody hears of the other half."""
            if request.method != "PATCH":
                return None
            sent[0] += int(request.headers["Content-Length"])
            if request.headers["Content-Range"].startswith(f"{CHUNK_BYTES}-") and not between.count("GET", "/uploads/"):
                body = b"".join([piece async for piece in request.content.iter_any()])
                await between.send(request, body[: len(body) // 2])
                break_off(request)
                return web.Response()
            return None

        between.faults = [half]
        await push(store, name)
        again = CHUNK_BYTES // 2 if forgiving else 2 * CHUNK_BYTES
        assert len(BIG) + again <= sent[0] < len(BIG) + again + 10_000


async def test_a_registry_that_was_killed_gets_the_rest_when_it_is_back(
    store: Store, registry: str, tmp_path: Path
) -> None:
    mine = Registry(tmp_path / "registry").start()
    try:
        async with proxy(mine.host) as between:
            name = f"{between.host}/killed/app:1"
            await store.images.import_image(pieces(archive([(member("big"), BIG)])), reference=name)

            async def kill(request: web.Request) -> web.StreamResponse:
                mine.kill()
                between.faults.append(once("GET", "/uploads/", revive))
                break_off(request)
                return web.Response()

            async def revive(request: web.Request) -> web.StreamResponse:
                await asyncio.to_thread(mine.start)
                return await between.forward(request, None)

            # The second chunk finds nobody.
            between.faults = [once("PATCH", "/uploads/", lambda request: after(between, request, kill))]
            digest = await push(store, name)
        async with another(tmp_path / "other") as other:
            pulled = await other.images.pull(f"{mine.host}/killed/app:1")
            assert pulled.digest == digest
    finally:
        mine.kill()


PUSH = """
import asyncio, sys
from pathlib import Path
from agent.image.images import Images
from shoal.reference import parse

async def main(folder, reference):
    images = await Images.open(Path(folder))
    await images.remote.push(parse(reference), credentials=None, compression="", report=lambda _: None)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_an_agent_that_was_killed_has_the_image_still_and_pushes_it(store: Store, registry: str) -> None:
    async with proxy(registry) as between:
        name = f"{between.host}/agent/app:1"
        image_id = await store.images.import_image(pieces(archive([(member("big"), BIG)])), reference=name)
        store.images.close()
        reached, released = asyncio.Event(), asyncio.Event()

        async def hold(request: web.Request) -> web.StreamResponse:
            reached.set()
            await released.wait()
            return web.Response(status=503)

        between.faults = [once("PATCH", "/uploads/", lambda request: after(between, request, hold))]
        argv = [sys.executable, "-c", PUSH, str(store.folder), name]
        process = subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(ROOMS)})
        async with asyncio.timeout(60):
            await reached.wait()
        process.kill()
        process.wait()
        released.set()
        between.faults = []
        await store.open()
        assert [each.meta.id for each in await store.images.list()] == [image_id]
        digest = await push(store, name)
        assert (name, digest) in store.images.held()


async def after(between, request: web.Request, act) -> web.StreamResponse:
    """Let this one through, and do that to the next of its kind."""
    between.faults.append(once("PATCH", "/uploads/", act))
    return await between.forward(request, request.content.iter_any())


@pytest.mark.parametrize(
    ("reference", "kind", "words"),
    [
        ("{}/none/app:1", NotFound, "An image does not exist locally with the tag: .*/none/app"),
        ("{}/none/app@sha256:" + "0" * 64, InvalidArgument, "cannot push a digest reference"),
    ],
)
async def test_what_cannot_be_pushed_says_why(
    store: Store, registry: str, reference: str, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        (wanted,) = store.images.remote.wanted(reference.format(registry), every_tag=False)
        await push(store, wanted.canonical)
