"""Where a build's files come from and where its result goes."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from agent.runtime.wire import address
from tests.kernel.build.test_build import write
from tests.kernel.container.conftest import Engine, Shell
from tests.kernel.image.conftest import tool

pytestmark = pytest.mark.kernel
LIST = "FROM busybox AS look\nCOPY . /ctx\nRUN cd /ctx && ls -AR > /list\nFROM scratch\nCOPY --from=look /list /\n"


async def listed(shell: Shell, tmp_path: Path, *args: str, **how) -> list[str]:
    """The files of a context as a build saw them."""
    out = tmp_path / f"out-{hashlib.sha256(repr(args).encode()).hexdigest()[:8]}"
    built = await shell("build", "-o", str(out), *args, **how)
    assert built.code == 0, built.err
    text = (out / "list").read_text()
    found, here = [], ""
    for line in text.splitlines():
        here = line[:-1] if line.endswith(":") else here
        found += [os.path.normpath(f"{here}/{line}")] if line and not line.endswith(":") else []
    return sorted(found)


async def test_an_ignore_file_hides_files_and_the_dockerfiles_own_counts_first(shell: Shell, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "app",
        Dockerfile=LIST,
        special=LIST,
        a__keep="",
        a__drop="",
        node_modules__x__y="",
        secret="",
    )
    (folder / ".dockerignore").write_text("node_modules\na/*\n!a/keep\nDockerfile\n")
    assert await listed(shell, tmp_path, str(folder)) == [".dockerignore", "a", "a/keep", "secret", "special"]
    (folder / "special.dockerignore").write_text("*\n!secret\n")
    assert await listed(shell, tmp_path, "-f", str(folder / "special"), str(folder)) == ["secret"]


async def test_contexts_come_from_stdin_from_archives_and_from_git(shell: Shell, tmp_path: Path) -> None:
    assert await listed(shell, tmp_path, "-", input=LIST.encode()) == []
    folder = write(tmp_path / "work.git", Dockerfile=LIST, one="1", sub__Dockerfile=LIST, sub__two="2")
    assert await listed(shell, tmp_path, "-f", "-", str(folder), input=LIST.encode()) == [
        "Dockerfile", "one", "sub", "sub/Dockerfile", "sub/two",
    ]  # fmt: skip
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(folder, ".")
    found = await listed(shell, tmp_path, "-f", "sub/Dockerfile", "-", input=packed.getvalue())
    assert found == ["Dockerfile", "one", "sub", "sub/Dockerfile", "sub/two"]
    with tarfile.open(fileobj=(hostile := io.BytesIO()), mode="w") as tar:
        tar.add(folder / "one", "../one")
    refused = await shell("build", "-", input=hostile.getvalue())
    assert refused.code
    assert "'../one', which leads out of it" in refused.err
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    for argv in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"], ["tag", "v1"]):
        subprocess.run([*git, *argv], check=True, capture_output=True)
    serving = subprocess.Popen(
        ["git", "daemon", "--verbose", "--listen=127.0.0.1", "--port=9419", "--export-all", f"--base-path={tmp_path}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert serving.stderr is not None
        assert any("Ready to rumble" in line for line in serving.stderr)
        found = await listed(shell, tmp_path, "git://127.0.0.1:9419/work.git#v1:sub")
        assert found == ["Dockerfile", "two"]
    finally:
        serving.terminate()
        serving.wait(10)


async def test_a_context_is_sent_once(engine: Engine, shell: Shell, tmp_path: Path) -> None:
    folder = write(tmp_path / "app", Dockerfile="FROM scratch\nCOPY . /\n", big="x" * 3_000_000, small="1")
    first = await shell("build", "-q", str(folder))
    assert first.code == 0, first.err
    files = engine.builder.contexts.files
    before = {path: path.stat().st_mtime_ns for path in files.rglob("*") if path.is_file()}
    assert len(before) == 3
    write(folder, small="2")
    second = await shell("build", "-q", str(folder))
    after = {path: path.stat().st_mtime_ns for path in files.rglob("*") if path.is_file()}
    assert len(after) == 3  # what the context has no more is gone
    assert len(before.items() & after.items()) == 2
    assert first.text != second.text


async def test_the_result_goes_where_it_is_wanted(shell: Shell, tmp_path: Path) -> None:
    folder = write(tmp_path / "app", Dockerfile="FROM scratch\nCOPY one /deep/one\n", one="one")
    written = ("--rm", "--force-rm", "--iidfile", "id", "--metadata-file", "about")
    done = await shell("build", *written, "-t", "app:1", "-t", "app:2", str(folder), cwd=tmp_path)
    assert done.code == 0, done.err
    image_id = (tmp_path / "id").read_text()
    assert json.loads((tmp_path / "about").read_bytes()) == {
        "containerimage.config.digest": image_id,
        "image.name": "docker.io/library/app:1,docker.io/library/app:2",
    }
    shown = await shell("images", "--no-trunc", "-q", "app")
    assert shown.text.split() == [image_id]
    assert "naming to docker.io/library/app:2\n" in done.err
    tar = await shell("build", "-o", "-", str(folder))
    with tarfile.open(fileobj=io.BytesIO(tar.out)) as archive:
        assert archive.getnames() == ["deep", "deep/one"]
    await shell("build", "-o", "type=tar,dest=out.tar", str(folder), cwd=tmp_path)
    assert (tmp_path / "out.tar").read_bytes() == tar.out
    assert len((await shell("images", "-q")).text.split()) == 2  # files alone leave no image
    refused = await shell("build", "-o", "type=oddly,dest=x", str(folder))
    assert (refused.code, "invalid output type 'oddly'" in refused.err) == (1, True)
    pruned = await shell("builder", "prune", "-f")
    assert pruned.text.startswith("Deleted build cache objects:\nCOPY one /deep/one\n\nTotal reclaimed space: "), pruned
    assert (await shell("builder", "prune", "-f")).text == "Total reclaimed space: 0B\n"
    labelled = await shell("build", "-q", "--label", "a=b", str(folder))
    inspected = await shell("image", "inspect", "--format", "{{.Config.Labels.a}}", labelled.text.strip())
    assert inspected.text == "b\n"


async def test_builds_of_one_moment_are_the_same_everywhere(shell: Shell, tmp_path: Path) -> None:
    """The same bytes on another host: with nothing kept, and at another time."""
    texts = []
    for number in range(2):
        folder = write(
            tmp_path / str(number),
            Dockerfile="FROM busybox\nWORKDIR /w\nCOPY one .\nRUN mkdir -p d/e && echo x > d/e/f && rm /etc/group\n"
            'ENV A=b\nCMD ["sh"]\n',
            one="one",
        )
        os.utime(folder / "one", (2_000_000_000 + number, 2_000_000_000 + number))
        built = await shell("build", "-q", "--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1000000000", str(folder))
        assert built.code == 0, built.err
        texts.append(built.text)
    assert texts[0] == texts[1]
    shown = await shell("image", "inspect", "--format", "{{.Created}}", texts[0].strip())
    assert shown.text.startswith("2001-09-09T01:46:40")


async def test_the_users_ssh_agent_is_lent_to_a_command(engine: Engine, shell: Shell, tmp_path: Path) -> None:
    """What goes through is nobody's business. The image has nothing that speaks to a socket: the test does, by the path
    that is mounted into the container."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"signed " + await reader.readline())
        writer.close()

    path = tmp_path / "agent.sock"
    server = await asyncio.start_unix_server(answer, path)
    folder = write(
        tmp_path / "app",
        Dockerfile="FROM busybox\nRUN --mount=type=ssh,id=other test -z $SSH_AUTH_SOCK\n"
        "RUN --mount=type=ssh,id=mine,mode=0640,gid=7 --mount=type=cache,target=/gate "
        "stat -c '%a %g %F' $SSH_AUTH_SOCK > /said && until test -e /gate/go; do sleep 0.1; done\n",
    )
    building = asyncio.ensure_future(shell("build", "--ssh", f"mine={path}", "-t", "app", str(folder)))
    async with asyncio.timeout(60):
        while not (found := sockets(engine.paths.run / "build")):
            assert not building.done(), building.result()
            await asyncio.sleep(0.02)
    for word in (b"a", b"b"):
        with address(found[0]) as name:
            reader, writer = await asyncio.open_unix_connection(name)
        writer.write(word + b"\n")
        assert await asyncio.wait_for(reader.read(), 60) == b"signed " + word + b"\n"
        writer.close()
    [gate] = (engine.paths.data / "build" / "mounts" / "kept").iterdir()
    (gate / "go").touch()
    built = await building
    server.close()
    assert built.code == 0, built.err
    ran = await shell("run", "--rm", "app", "sh", "-c", "cat /said; ls /run")
    assert ran.text.startswith("640 7 socket\n")
    assert "shoal" not in ran.text


def sockets(top: Path) -> list[Path]:
    """Those below, while folders come and go."""
    paths = [Path(folder, name) for folder, _, names in os.walk(top) for name in names]
    return [path for path in paths if path.is_socket()]


async def test_a_failed_command_leaves_a_shell_to_look_around_in(shell: Shell, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "app",
        Dockerfile="FROM busybox\nARG WORD=known\nWORKDIR /w\nRUN echo written > half && exit 3\n",
    )
    failed = await shell("build", "--debug-shell", str(folder), input=b"pwd; cat half; echo $WORD $IMAGE; exit 9\n")
    assert failed.code == 1
    assert failed.text == "/w\nwritten\nknown yes\n"
    assert "exit code: 3" in failed.err
    assert (await shell("ps", "-aq")).text == ""
    assert len((await shell("images", "-q")).text.split()) == 1


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (("nowhere",), 1, 'unable to prepare context: path "nowhere" not found'),
        (("-f", "nope", "."), 1, "failed to read dockerfile: open nope: no such file or directory"),
        (("--platform", "linux/s390x", "app"), 1, "cannot build for linux/s390x"),
        (("--target", "nope", "app"), 1, "target stage 'nope' could not be found"),
        (("--ssh", "k=/nope", "app"), 1, "there is no socket /nope"),
        (("--ssh", "k=app/Dockerfile", "app"), 1, "--ssh with a key (app/Dockerfile) is not supported"),
        (("--push", "app"), 1, "tag is needed when pushing to registry"),
        (("--network", "container:x", "app"), 1, "network container:x is not supported for a build"),
        (("-t", "UPPER", "app"), 1, "must be lowercase"),
        (("--secret", "src=x", "app"), 1, "has no id"),
        (("--progress", "fancy", "app"), 1, "invalid progress output 'fancy'"),
        ((), 1, "requires 1 argument"),
    ],
)
async def test_a_wrong_command_line_is_told(
    shell: Shell, tmp_path: Path, argv: tuple[str, ...], code: int, message: str
) -> None:
    write(tmp_path / "app", Dockerfile="FROM scratch\nCOPY . /\n")
    told = await shell("build", *argv, cwd=tmp_path)
    assert message in told.err
    assert told.code == code


async def test_an_image_goes_into_an_archive_and_nowhere_else(shell: Shell, tmp_path: Path) -> None:
    folder = write(tmp_path / "app", Dockerfile="FROM busybox\nCOPY x /x\nLABEL a=b\n", x="x")
    there, archive, iid = tmp_path / "there", tmp_path / "image.tar", tmp_path / "iid"
    to_file = f"type=oci,dest={archive}"
    built = await shell("build", "-q", "-t", "app:1", "-o", to_file, "--iidfile", str(iid), str(folder))
    assert built.code == 0, built.err
    assert (await shell("images", "-q", "app")).text == ""
    tool("skopeo", "copy", f"docker-archive:{archive}:app:1", f"dir:{there}")
    loaded = await shell("load", "-i", str(archive))
    assert loaded.text == "Loaded image: app:1\n"
    assert (await shell("images", "-q", "--no-trunc", "app")).text.strip() == iid.read_text()
    assert (await shell("run", "--rm", "app:1", "cat", "/x")).text == "x"
    nothing = await shell("build", "-o", "type=cacheonly", "-t", "none:1", str(folder))
    assert (nothing.code, (await shell("images", "-q", "none")).text) == (0, "")


async def test_a_cache_goes_to_a_host_that_knows_nothing(shell: Shell, tmp_path: Path) -> None:
    """Steps are found by their keys, and their layers fetched; what is damaged or gone is done again."""
    folder = write(
        tmp_path / "app",
        Dockerfile="FROM busybox AS made\nRUN echo made > /made\nFROM busybox\n"
        "COPY --from=made /made /\nRUN cat /made > /again\n",
    )
    kept = tmp_path / "cache"
    first = await shell("build", "--cache-to", f"type=local,dest={kept},mode=max", "-t", "app:1", str(folder))
    assert first.code == 0, first.err
    image_id = (await shell("images", "-q", "--no-trunc", "app")).text

    async def again(*args: str) -> str:
        """Where nothing is left of the build before."""
        assert (await shell("rmi", "app:1")).code == 0
        assert (await shell("builder", "prune", "-f")).code == 0
        built = await shell("build", *args, "-t", "app:1", str(folder))
        assert built.code == 0, built.err
        return built.err

    assert (await again("--cache-from", f"type=local,src={kept}")).count("CACHED") == 3 + 1  # the base too
    assert (await shell("images", "-q", "--no-trunc", "app")).text == image_id
    assert (await again("--cache-from", f"type=local,src={tmp_path}/none")).count("CACHED") == 1
    blobs = sorted((kept / "blobs/sha256").iterdir())
    blobs[0].write_bytes(blobs[0].read_bytes().replace(b"made", b"evil"))
    for each in blobs[1:]:
        each.unlink()
    told = await again("--cache-from", f"type=local,src={kept}", "--cache-to", f"type=local,dest={kept}")
    assert told.count("CACHED") == 1
    least = tmp_path / "least"
    await again("--cache-to", f"type=local,dest={least}")
    assert len(list((least / "blobs/sha256").iterdir())) == 2
    assert (await shell("run", "--rm", "app:1", "cat", "/again")).text == "made\n"
