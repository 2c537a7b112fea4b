"""What stands between this host and an image: proofs, certificates, mirrors, redirects, limits, and breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from aiohttp import web
from yarl import URL

from agent.registry import login, rules
from agent.registry.auth import TOKEN_USER, Credentials
from agent.registry.rules import Rules
from shoal.errors import Exhausted, InvalidArgument, NotFound, PermissionDenied, Unavailable, Unsupported
from tests.kernel.image.conftest import BIG, Store, archive, largest_blob, member, pieces, through, tool
from tests.registry import PASSWORD, USER, Proxy, Registry, Tokens, break_off, once, proxy, serving, token_service

pytestmark = pytest.mark.kernel
ME = Credentials(USER, PASSWORD)
SOMEBODY = Credentials(USER, "wrong")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, layout: Path) -> Iterator[str]:
    """A registry with users and team/app:1."""
    made = Registry(tmp_path_factory.mktemp("guarded"), users=True).start()
    try:
        tool("skopeo", "copy", "--dest-tls-verify=false", f"--dest-creds={USER}:{PASSWORD}",
             f"oci:{layout}:1", f"docker://{made.host}/team/app:1")  # fmt: skip
        yield made.host
    finally:
        made.kill()


# ---- proofs -----------------------------------------------------------------------------------------


async def test_a_registry_with_users_wants_their_password(store: Store, guarded: str) -> None:
    name = f"{guarded}/team/app:1"
    with pytest.raises(PermissionDenied, match=r"no basic auth credentials; run `shoal login"):
        await store.images.pull(name)
    with pytest.raises(PermissionDenied, match=r"pull access denied for .*team/app"):
        await store.images.pull(name, credentials=SOMEBODY)
    assert store.files() == []
    assert (await store.images.pull(name, credentials=ME)).image_id


async def test_a_login_says_whether_the_registry_takes_the_password(guarded: str, registry: str) -> None:
    assert await login.check(guarded, ME, Rules()) == ""
    assert await login.check(registry, SOMEBODY, Rules()) == ""  # it asks nobody who they are
    words = rf"login attempt to http://{guarded}/v2/ failed with status: 401 Unauthorized"
    with pytest.raises(PermissionDenied, match=words):
        await login.check(guarded, SOMEBODY, Rules())
    with pytest.raises(Unavailable, match=r"cannot reach registry 127\.0\.0\.1:1: connection refused"):
        await login.check("127.0.0.1:1", ME, Rules())


async def test_a_proof_that_nobody_knows_is_no_login() -> None:
    async def strange(request: web.Request) -> web.StreamResponse:
        return web.Response(status=401, headers={"WWW-Authenticate": "Negotiate"})

    async with serving(strange) as host:
        with pytest.raises(PermissionDenied, match="401 Unauthorized"):
            await login.check(host, ME, Rules())


@pytest.mark.parametrize("target", ["http://192.0.2.1/v2/", "ftp://192.0.2.1/"])
async def test_nothing_leads_to_where_there_is_no_tls(store: Store, between: Proxy, target: str) -> None:
    async def away(request: web.Request) -> web.StreamResponse | None:
        return web.Response(status=302, headers={"Location": target})

    between.faults = [away]
    with pytest.raises(Unavailable, match=r"without TLS; this is refused"):
        await store.images.pull(through(between))


async def test_tokens_are_got_for_what_is_done_and_got_again(store: Store, tmp_path: Path) -> None:
    async with token_service() as tokens:
        mine = Registry(tmp_path / "registry", tokens=tokens).start()
        try:
            await _with_tokens(store, mine, tokens)
        finally:
            mine.kill()


async def _with_tokens(store: Store, mine: Registry, tokens: Tokens) -> None:
    async with proxy(mine.host) as between:
        name = f"{between.host}/public/app:1"
        await store.images.import_image(pieces(archive([(member("a"), b"a")])), reference=name)
        (wanted,) = store.images.remote.wanted(name, every_tag=False)
        said = {"compression": "", "report": lambda _: None}
        with pytest.raises(PermissionDenied, match=r"denied: requested access to .*public/app is denied"):
            await store.images.remote.push(wanted, credentials=None, **said)
        with pytest.raises(PermissionDenied, match=r"refused \(401\): incorrect username or password"):
            await store.images.remote.push(wanted, credentials=SOMEBODY, **said)
        tokens.asked.clear()
        await store.images.remote.push(wanted, credentials=ME, **said)
        assert tokens.asked == [["repository:public/app:pull,push"]]
        # Who may pull what is public needs no password; who has an identity token, none any more.
        await store.images.pull(name)
        identity = await login.check(between.host, ME, Rules())
        assert identity == tokens.refresh
        await store.images.tag(name, f"{between.host}/private/app:1")
        (other,) = store.images.remote.wanted(f"{between.host}/private/app:1", every_tag=False)
        await store.images.remote.push(other, credentials=Credentials(TOKEN_USER, identity), **said)
        # One that has ended in the middle is got again.
        before = len(tokens.asked)
        between.faults = [once("PUT", "/manifests/", lambda request: expired(between, request))]
        await store.images.remote.push(other, credentials=ME, **said)
        assert len(tokens.asked) == before + 2


async def expired(between: Proxy, request: web.Request) -> web.StreamResponse:
    """What the registry says to a request without any token."""
    bare = request.clone(headers={k: v for k, v in request.headers.items() if k != "Authorization"})
    return await between.forward(bare, None)


async def test_credentials_go_to_nobody_else(store: Store, guarded: str, between: Proxy, registry: str) -> None:
    """A blob lies elsewhere, as many registries have it; that place hears nothing of the password."""
    async with proxy(guarded) as front:

        async def elsewhere(request: web.Request) -> web.StreamResponse | None:
            if request.method == "GET" and "/blobs/" in request.path and request.headers.get("Authorization"):
                return web.Response(status=307, headers={"Location": f"http://{between.host}{request.path}"})
            return None

        front.faults = [elsewhere]
        await store.images.pull(f"{front.host}/team/app:1", credentials=ME)
    assert between.count("GET", "/blobs/") == 4
    assert set(between.proofs) == {""}


# ---- certificates -----------------------------------------------------------------------------------


async def test_tls_with_its_own_authority_and_a_certificate_for_the_client(
    store: Store, tmp_path: Path, layout: Path
) -> None:
    authority = trustme.CA()
    server, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("client")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    tls = f", tls: {{certificate: {tmp_path}/server.pem, key: {tmp_path}/server.pem, clientcas: [{tmp_path}/ca.pem]}}"
    mine = Registry(tmp_path / "registry", tls=tls).start()
    folder = tmp_path / "certs" / mine.host
    folder.mkdir(parents=True)
    try:
        # On loopback any certificate would do; so the rules here are those of a registry elsewhere.
        strict = Strict(certificates=tmp_path / "certs")
        with pytest.raises(PermissionDenied, match=rf"cannot be trusted: .*put its CA into {folder}/ca.crt"):
            await login.check(mine.host, ME, strict)
        authority.cert_pem.write_to_path(folder / "ca.crt")
        with pytest.raises(Unavailable, match=r"certificate required|broke"):
            await login.check(mine.host, ME, strict)
        client.cert_chain_pems[0].write_to_path(folder / "client.cert")
        with pytest.raises(InvalidArgument, match=r"missing key .*client.key"):
            await login.check(mine.host, ME, strict)
        client.private_key_pem.write_to_path(folder / "client.key")
        await login.check(mine.host, ME, strict)
    finally:
        mine.kill()


class Strict(Rules, frozen=True):
    def may_be_plain(self, authority: str) -> bool:
        return False


async def test_without_tls_only_where_it_is_allowed(registry: str, store: Store) -> None:
    with pytest.raises(Unavailable, match=rf"registry {registry} does not speak TLS .*--insecure-registry {registry}"):
        await login.check(registry, ME, Strict())


async def test_a_place_that_a_registry_leads_to_is_named_when_it_cannot_be_reached(store: Store, registry: str) -> None:
    async with proxy(registry) as front:

        async def elsewhere(request: web.Request) -> web.StreamResponse | None:
            if "/blobs/" in request.path:
                return web.Response(status=307, headers={"Location": f"http://127.0.0.1:1{request.path}"})
            return None

        front.faults = [elsewhere]
        with pytest.raises(Unavailable, match=rf"cannot reach 127\.0\.0\.1:1, where registry {front.host} leads: "):
            await store.images.pull(f"{front.host}/team/app:1", credentials=ME)


# ---- mirrors ----------------------------------------------------------------------------------------


async def test_mirrors_are_asked_first_and_get_no_credentials(tmp_path: Path, guarded: str, between: Proxy) -> None:
    async with proxy(guarded) as front:
        mirrors = {front.host: (URL("http://127.0.0.1:1"), URL(f"http://{between.host}"))}
        store = Store(tmp_path / "mirrored", Rules(mirrors=mirrors))
        await store.open()
        await store.images.pull(f"{front.host}/team/app:1", credentials=ME)
        assert (between.count("GET", "/blobs/"), front.asked) == (4, [])
        assert set(between.proofs) == {""}
        store.images.close()


async def test_a_mirror_that_lies_or_lacks_a_layer_is_passed_over(
    tmp_path: Path, registry: str, between: Proxy, big: str
) -> None:
    async def lie(request: web.Request) -> web.StreamResponse | None:
        if "/blobs/" not in request.path:
            return None
        return web.Response(body=bytes(len(BIG))) if len(between.asked) % 2 else web.Response(status=404)

    between.faults = [lie]
    store = Store(tmp_path / "mirrored", Rules(mirrors={registry: (URL(f"http://{between.host}"),)}))
    await store.open()
    pulled = await store.images.pull(big)
    assert (store.layer(pulled.image_id) / "big").read_bytes() == BIG
    assert between.count("GET", "/blobs/") >= 2
    store.images.close()


# ---- limits -----------------------------------------------------------------------------------------


async def test_a_registry_that_asks_to_wait_is_waited_for(store: Store, between: Proxy, big: str) -> None:
    async def wait(request: web.Request) -> web.StreamResponse:
        return web.Response(status=429, headers={"Retry-After": "0"})

    between.faults = [once("GET", "/manifests/", wait), once("GET", "/blobs/", wait)]
    await store.images.pull(through(between))
    assert between.count("GET", "/manifests/") == 2


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "21600"}])
async def test_a_limit_is_told_in_the_registrys_own_words(
    store: Store, between: Proxy, headers: dict[str, str]
) -> None:
    said = '{"errors": [{"code": "TOOMANYREQUESTS", "message": "You have reached your pull rate limit."}]}'

    async def refuse(request: web.Request) -> web.StreamResponse | None:
        return web.Response(status=429, text=said, headers=headers) if "/manifests/" in request.path else None

    between.faults = [refuse]
    with pytest.raises(Exhausted, match=r"toomanyrequests: You have reached your pull rate limit; try"):
        await store.images.pull(through(between))
    assert between.count("GET", "/manifests/") == 1


# ---- breaks -----------------------------------------------------------------------------------------


async def test_a_download_goes_on_where_it_was_cut(store: Store, between: Proxy, big: str) -> None:
    ranges: list[str] = []

    async def note(request: web.Request) -> web.StreamResponse | None:
        ranges.append(request.headers.get("Range", ""))
        return None

    async def cut(request: web.Request) -> web.StreamResponse:
        return await between.forward(request, None, cut_after=2 << 20)

    digest = await largest_blob(store, between, big)
    between.faults = [note, once("GET", digest, cut)]
    pulled = await store.images.pull(through(between))
    assert (store.layer(pulled.image_id) / "big").read_bytes() == BIG
    assert [each for each in ranges if each] and all(int(each[6:-1]) >= 1 << 20 for each in ranges if each)


async def test_one_that_stalls_is_left_and_asked_again(tmp_path: Path, between: Proxy, big: str) -> None:
    store = Store(tmp_path / "hasty", Rules(idle_s=0.5))
    await store.open()
    released = asyncio.Event()

    async def stall(request: web.Request) -> web.StreamResponse:
        await released.wait()
        return web.Response(status=404)

    between.faults = [once("GET", "/blobs/", stall)]
    await store.images.pull(through(between))
    released.set()
    store.images.close()


async def test_one_that_was_killed_is_waited_for(store: Store, tmp_path: Path, big: str, debian: Registry) -> None:
    mine = Registry(tmp_path / "registry").start()
    tool("skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false",
         f"docker://{big}", f"docker://{mine.host}/team/big:1")  # fmt: skip
    try:
        async with proxy(mine.host) as between:

            async def kill(request: web.Request) -> web.StreamResponse:
                mine.kill()
                between.faults.append(once("GET", "/blobs/", revive))
                break_off(request)
                return web.Response()

            async def revive(request: web.Request) -> web.StreamResponse:
                await asyncio.to_thread(mine.start)
                return await between.forward(request, None)

            between.faults = [once("GET", "/blobs/", kill)]
            pulled = await store.images.pull(through(between))
            assert (store.layer(pulled.image_id) / "big").read_bytes() == BIG
    finally:
        mine.kill()


async def test_a_full_disk_leaves_nothing_and_the_next_pull_works(small_disk: Path, big: str) -> None:
    store = Store(small_disk / "images")
    await store.open()
    with pytest.raises(Exhausted, match=r"no space"):
        await store.images.pull(big)
    assert store.files() == []
    tool("mount", "-o", "remount,size=32m", str(small_disk))
    pulled = await store.images.pull(big)
    assert (store.layer(pulled.image_id) / "big").read_bytes() == BIG
    store.images.close()


# ---- the rest ---------------------------------------------------------------------------------------


async def test_search_looks_where_the_registry_has_something_to_look_in(
    store: Store, registry: str, between: Proxy, big: str
) -> None:
    found = await store.images.remote.search(f"{registry}/BIG", limit=25, credentials=None)
    assert [each.name for each in found] == [f"{registry}/team/big"]

    async def hub(request: web.Request) -> web.StreamResponse | None:
        if not request.path.startswith("/v1/search"):
            return None
        assert (request.query["q"], request.query["n"]) == ("app", "2")
        hit = {"name": "library/app", "description": "An app", "star_count": 7, "is_official": True}
        return web.json_response({"num_results": 1, "results": [hit]})

    between.faults = [hub]
    (hit,) = await store.images.remote.search(f"{between.host}/app", limit=2, credentials=None)
    assert (hit.name, hit.stars, hit.official) == ("library/app", 7, True)

    async def nothing(request: web.Request) -> web.StreamResponse | None:
        return web.Response(status=404) if "catalog" in request.path or "search" in request.path else None

    between.faults = [nothing]
    with pytest.raises(Unsupported, match=r"cannot be searched: it answered 404"):
        await store.images.remote.search(f"{between.host}/app", limit=2, credentials=None)


async def test_a_tag_is_resolved_without_its_image(store: Store, registry: str, big: str) -> None:
    digest = await store.images.remote.resolve(big, None)
    assert store.files() == []
    assert (await store.images.pull(big)).digest == digest
    with pytest.raises(NotFound, match="manifest unknown"):
        await store.images.remote.resolve(f"{registry}/team/big:none", None)
    assert await store.images.remote.tags(f"{registry}/team/big", None) == ["1"]


def test_what_the_operator_says_of_registries() -> None:
    said = rules.read(["reg.example:5000", "10.0.0.0/8"], ["http://m1:5000", "reg.example=https://m2/"], Path("/none"))
    assert said.may_be_plain("reg.example:5000") and not said.may_be_plain("reg.example:5001")
    assert said.may_be_plain("10.1.2.3:5000") and not said.may_be_plain("11.1.2.3")
    assert all(map(said.may_be_plain, ("localhost", "localhost:1", "127.0.0.5:5000", "[::1]:5000", "m1:5000")))
    assert said.mirrors == {"docker.io": (URL("http://m1:5000"),), "reg.example": (URL("https://m2"),)}
    for insecure, mirrors in ((["10.0.0.0/99"], []), ([], ["m1:5000"]), ([], ["ftp://m1"])):
        with pytest.raises(InvalidArgument):
            rules.read(insecure, mirrors, Path("/none"))
