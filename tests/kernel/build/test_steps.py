"""What each instruction does to files, and when it is done again."""

from __future__ import annotations

import functools
import http.server
import io
import json
import os
import re
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.build.test_build import write
from tests.kernel.container.conftest import Engine, Shell

pytestmark = pytest.mark.kernel


def outcomes(err: str) -> list[str]:
    """CACHED or DONE of each step that has a number, in the order in which they ended."""
    return [line.split()[1] for line in err.splitlines() if line.endswith("CACHED") or " DONE " in line]


def written(err: str) -> list[str]:
    """What commands wrote, line by line."""
    return re.findall(r"^#\d+ \d+\.\d{3} (.*)$", err, re.MULTILINE)


async def files(shell: Shell, image: str, *paths: str) -> list[str]:
    ran = await shell("run", "--rm", image, "stat", "-c", "%n %a %u:%g %s", *paths)
    assert ran.code == 0, ran.err
    return ran.text.splitlines()


async def test_a_touched_file_misses_nothing_and_a_changed_one_all_that_follows(shell: Shell, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "app",
        Dockerfile="FROM busybox\nCOPY a /a\nCOPY b /b\nRUN cat /a /b > /c\n",
        a="a\n",
        b="b\n",
    )
    assert outcomes((await shell("build", str(folder))).err)[:4] == ["CACHED", "DONE", "DONE", "DONE"]
    os.utime(folder / "a", (1, 1))
    assert outcomes((await shell("build", str(folder))).err)[:4] == ["CACHED"] * 4
    (folder / "b").chmod(0o600)
    assert outcomes((await shell("build", str(folder))).err)[:4] == ["CACHED", "CACHED", "DONE", "DONE"]
    assert outcomes((await shell("build", "--no-cache", str(folder))).err)[1:4] == ["DONE"] * 3
    (folder / "Dockerfile").write_text("FROM busybox\nCOPY a /a\nCOPY b /b\nLABEL x=y\nRUN cat /a /b > /c\n")
    assert outcomes((await shell("build", str(folder))).err)[:4] == ["CACHED"] * 4


async def test_stages_that_are_named_are_built_anew_and_no_others(shell: Shell, tmp_path: Path) -> None:
    lines = "FROM busybox AS one\nRUN echo 1 >/1\nFROM busybox AS Two\nRUN echo 2 >/2\nFROM one\nCOPY --from=two /2 /\n"
    folder = write(tmp_path / "app", Dockerfile=lines)
    assert (await shell("build", str(folder))).code == 0
    built = await shell("build", "--no-cache-filter", "nosuch,TWO", str(folder))
    title = dict(re.findall(r"(?m)^#(\d+) \[(.*?) *\d/", built.err))
    done = [title[number] for number in re.findall(r"(?m)^#(\d+) DONE", built.err) if number in title]
    assert (set(title.values()), done) == ({"one", "two", "stage-2"}, ["two"])


async def test_what_another_stage_made_again_the_same_way_is_not_copied_again(shell: Shell, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "app",
        Dockerfile="FROM busybox AS made\nCOPY src /src\nRUN echo fixed > /out\n"
        "FROM busybox\nCOPY --from=made /out /out\nRUN date +%s%N > /when\n",
        src="1",
    )
    first = await shell("build", "-q", str(folder))
    write(folder, src="2")
    second = await shell("build", "-q", str(folder))
    assert first.code == 0, first.err
    assert first.text == second.text


async def test_copy_keeps_docker_s_rules_of_destinations(shell: Shell, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "app",
        Dockerfile="""FROM busybox
WORKDIR /work
COPY d new/deep
COPY one here
COPY one d/two there/
COPY --chown=web:wheel --chmod=640 one owned/
COPY --chown=7 d numbered
COPY --parents d/./e/three d/two parents/
COPY --exclude=**/three d excluded
COPY --from=busybox --exclude=*box --exclude=pass* /bin /etc /etc/pass* /chosen/
COPY l*k d/e/link linked/
COPY ["one", "with blank"]
COPY one /srv/data
COPY --link one /var/link/one
RUN ln -s /tmp /alias
COPY one /alias/through
""",
        one="1",
        d__two="22",
        d__e__three="333",
    )
    (folder / "link").symlink_to("d/two")
    (folder / "d/e/link").symlink_to("three")
    (folder / "d/two").chmod(0o751)
    built = await shell("build", "-t", "app", str(folder))
    assert built.code == 0, built.err
    found = await files(
        shell, "app", "new/deep/two", "new/deep/e/three", "here", "there/one", "there/two", "owned/one", "owned",
        "numbered/e", "numbered", "parents/e/three", "parents/d/two", "excluded/two", "linked/link", "with blank",
        "/srv/data/one", "/var/link/one", "/tmp/through",
    )  # fmt: skip
    assert found == [
        "new/deep/two 751 0:0 2",
        "new/deep/e/three 644 0:0 3",
        "here 644 0:0 1",
        "there/one 644 0:0 1",
        "there/two 751 0:0 2",
        "owned/one 640 1000:10 1",
        "owned 755 1000:10 " + found[6].split()[-1],
        "numbered/e 755 7:7 " + found[7].split()[-1],
        "numbered 755 7:7 " + found[8].split()[-1],
        "parents/e/three 644 0:0 3",
        "parents/d/two 751 0:0 2",
        "excluded/two 751 0:0 2",
        "linked/link 644 0:0 3",
        "with blank 644 0:0 1",
        "/srv/data/one 644 0:0 1",
        "/var/link/one 644 0:0 1",
        "/tmp/through 644 0:0 1",
    ]
    looked = await shell("run", "--rm", "app", "sh", "-c", "ls excluded/e; readlink new/deep/e/link; ls -ld /var/link")
    assert looked.text.splitlines()[:2] == ["link", "three"]
    assert looked.text.splitlines()[2].startswith("drwxr-xr-x")  # --link does not follow what lies below
    chosen = (await shell("run", "--rm", "app", "ls", "/chosen")).text.split()
    assert "sh" in chosen and "group" in chosen and not {"busybox", "passwd"} & {*chosen}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("COPY missing /x", '"/missing": not found in the build context'),
        ("COPY ../x /x", '"/x": not found in the build context'),
        ("ADD http://127.0.0.1:1/x /x", "cannot reach 127.0.0.1:1: connect"),
        ("STOPSIGNAL NOPE", "Invalid signal: NOPE"),
        ("COPY a b /x", "the destination must be a directory and end with a /"),
        ("COPY * /x", "the destination must be a directory and end with a /"),
        ("COPY a /bin", None),
        ("COPY d /etc/passwd", "cannot copy to non-directory"),
        ("COPY --from=busybox /nope /x", '"/nope": not found'),
        ("COPY --from=none/such:1 /nope /x", "none/such"),
        ("COPY --chmod=u+x a /x", "--chmod=u+x is not supported"),
        ("COPY --chown=nobody a /x", "unable to find user nobody"),
        ("RUN --security=insecure true", "RUN --security=insecure is not supported"),
        ("RUN --mount=type=ssh,required true", "SSH agent default: not found"),
        ("RUN --mount=type=secret,id=s,required true", "secret s: not found"),
        ("RUN nosuch", "exit code: 127"),
        ('RUN ["nosuch"]', "nosuch"),
        ("USER nobody\nRUN id", "unable to find user nobody"),
        ("EXPOSE 0", "invalid port"),
        ("HEALTHCHECK nonsense", "a healthcheck is CMD and a command"),
    ],
)
async def test_what_goes_wrong_is_told_with_its_line(
    shell: Shell, tmp_path: Path, line: str, message: str | None
) -> None:
    folder = write(tmp_path / "app", Dockerfile=f"FROM busybox\n{line}\n", a="a", b="b", d__x="x")
    built = await shell("build", str(folder))
    if message is None:
        assert built.code == 0, built.err
        return
    assert built.code == 1
    assert message in built.err, built.err
    last = line.splitlines()[-1]
    assert f" | >>> {last}" in built.err, built.err


async def test_what_is_mounted_for_a_command_leaves_nothing_behind(shell: Shell, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "app",
        Dockerfile="""FROM busybox AS other
RUN mkdir -p /data/in && echo other > /data/in/file
FROM busybox
RUN --mount=type=bind,target=/ctx --mount=type=bind,from=other,source=/data,target=/other,rw \\
    --mount=type=tmpfs,target=/fast --mount=type=bind,source=one,target=/lone \\
    cat /ctx/one /other/in/file /lone && touch /fast/x /other/new && ! touch /ctx/no 2>/dev/null
RUN --mount=type=cache,target=/root/.cache/deep,id=c echo kept >> /root/.cache/deep/log
RUN --mount=type=secret,id=token,env=TOKEN --mount=type=secret,id=token,mode=0440,gid=10 \\
    --mount=type=secret,id=absent \\
    test "$TOKEN" = s3"cret" && stat -c "%a %g" /run/secrets/token && cat /run/secrets/token | wc -c
RUN --mount=type=cache,target=/log,id=c,sharing=locked wc -l < /log/log > /lines
""",
        one="one\n",
    )
    (tmp_path / "token").write_text("s3cret")
    wanted = ("build", "--secret", f"id=token,src={tmp_path}/token", "-t", "app", str(folder))
    built = await shell(*wanted)
    assert built.code == 0, built.err
    said = written(built.err)
    assert "s3cret" not in built.err
    assert [each for each in said if each in ("one", "other", "440 10", "6")] == ["one", "other", "one", "440 10", "6"]
    looked = await shell(
        "run", "--rm", "app", "sh", "-c", "cat /lines; ls -d /ctx /other /fast /lone /root/.cache /run/secrets"
    )
    assert looked.text == "1\n", looked
    (tmp_path / "token").write_text("another")
    (folder / "one").write_text("changed\n")
    again = await shell(*wanted)
    assert outcomes(again.err).count("CACHED") == 6 - 1, again.err  # a secret is no part of a key, a bind is


async def test_heredocs_are_files_and_scripts(shell: Shell, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "app",
        Dockerfile="""FROM busybox
ARG WHO=world
COPY <<one <<"two" <<-three /etc/conf/
hello $WHO \\$x "q"
one
hello $WHO
two
\tchomped
three
RUN <<EOF
set -e
echo first > /ran
echo "$WHO" >> /ran
EOF
RUN <<EOF cat >> /ran
from stdin
EOF
RUN <<EOF
#!/bin/cat
a script
EOF
""",
    )
    built = await shell("build", "-t", "app", str(folder))
    assert built.code == 0, built.err
    assert "#!/bin/cat" in built.err
    ran = await shell(
        "run", "--rm", "app", "sh", "-c", "cat /etc/conf/one /etc/conf/two /etc/conf/three /ran; ls /dev/pipes"
    )
    assert ran.text == 'hello world $x "q"\nhello $WHO\nchomped\nfirst\nworld\nfrom stdin\n'


async def test_triggers_of_a_base_image_come_first(shell: Shell, tmp_path: Path) -> None:
    base = write(tmp_path / "base", Dockerfile="FROM busybox\nONBUILD COPY a /a\nONBUILD RUN cat /a > /b\n")
    assert (await shell("build", "-t", "base", str(base))).code == 0
    folder = write(tmp_path / "app", Dockerfile="FROM base\nRUN cat /b\n", a="triggered\n")
    built = await shell("build", "-t", "app", str(folder))
    assert built.code == 0, built.err
    assert built.err.count("triggered") == 1
    assert "[2/4] COPY a /a" in built.err and "[4/4] RUN cat /b" in built.err
    shown = await shell("image", "inspect", "--format", "{{json .Config.OnBuild}}", "base", "app")
    assert shown.text.splitlines() == ['["COPY a /a","RUN cat /a > /b"]', "null"]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which it is served, in the test's own network."""
    folder = tmp_path / "web"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def archive(path: Path, mode: str, **members: bytes) -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size, info.uid, info.gid, info.mode = len(data), 5, 6, 0o600
            tar.addfile(info, io.BytesIO(data))
    return path


async def test_add_unpacks_what_is_local_and_fetches_what_is_not(
    shell: Shell, tmp_path: Path, web: tuple[Path, str]
) -> None:
    served, address = web
    archive(served / "far.tar.gz", "w:gz", far=b"far")
    folder = write(
        tmp_path / "app",
        Dockerfile=f"""FROM busybox
ADD near.tar.xz plain.tar.txt /near/
ADD --chown=8:9 near.tar.xz /owned
ADD {address}/far.tar.gz /fetched/
ADD --chmod=755 {address}/far.tar.gz /named
ADD --unpack=true {address}/far.tar.gz /far/
ADD --unpack=false near.tar.xz /kept/
""",
    )
    (folder / "plain.tar.txt").write_text("no archive")
    archive(folder / "near.tar.xz", "w:xz", near=b"near", sub__deep=b"deep!")
    built = await shell("build", "-t", "app", str(folder))
    assert built.code == 0, built.err
    found = await files(
        shell, "app", "/near/near", "/near/sub/deep", "/near/plain.tar.txt", "/owned/near", "/fetched/far.tar.gz",
        "/named", "/far/far", "/kept/near.tar.xz",
    )  # fmt: skip
    assert [each.rpartition(" ")[0] for each in found] == [
        "/near/near 600 5:6",
        "/near/sub/deep 600 5:6",
        "/near/plain.tar.txt 644 0:0",
        "/owned/near 600 8:9",
        "/fetched/far.tar.gz 600 0:0",
        "/named 755 0:0",
        "/far/far 600 5:6",
        "/kept/near.tar.xz 644 0:0",
    ]
    wrong = write(
        tmp_path / "wrong", Dockerfile=f"FROM busybox\nADD --checksum=sha256:{'0' * 64} {address}/far.tar.gz /\n"
    )
    refused = await shell("build", str(wrong))
    assert refused.code != 0
    assert "digest mismatch sha256:" in refused.err
    missing = write(tmp_path / "missing", Dockerfile=f"FROM busybox\nADD {address}/nope /\n")
    assert "the server answers 404" in (await shell("build", str(missing))).err


async def test_add_takes_the_files_of_a_commit(shell: Shell, tmp_path: Path) -> None:
    repository = write(tmp_path / "work.git", file="in git\n", sub__below="below\n")
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b"]
    for argv in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"], ["tag", "v1"]):
        subprocess.run([*git, *argv], check=True, capture_output=True)
    serving = subprocess.Popen(
        ["git", "daemon", "--listen=127.0.0.1", "--port=9418", "--export-all", f"--base-path={tmp_path}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        folder = write(
            tmp_path / "app",
            Dockerfile="FROM busybox\nADD git://127.0.0.1/work.git#v1 /all\n"
            "ADD --keep-git-dir=true git://127.0.0.1/work.git#v1:sub /below/\n",
        )
        built = await shell("build", "-t", "app", str(folder))
        assert built.code == 0, built.err
        ran = await shell("run", "--rm", "app", "sh", "-c", "cat /all/file /all/sub/below /below/below; ls -A /all")
        assert ran.text == "in git\nbelow\nbelow\nfile\nsub\n", ran.err
        assert outcomes((await shell("build", str(folder))).err)[:3] == ["CACHED"] * 3
    finally:
        serving.terminate()
        serving.wait(10)


async def test_commands_run_as_the_image_and_the_user_say(shell: Shell, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "app",
        Dockerfile="""FROM busybox
ARG WORD=argument
ENV WORD2="$WORD of env" HOME=/home/web
USER web
WORKDIR /home/web/new
RUN id -u && id -g && pwd && echo $WORD-$WORD2-$HOSTNAME && touch mine
SHELL ["/bin/sh", "-ec"]
RUN false; echo not reached
""",
    )
    built = await shell("build", str(folder))
    said = written(built.err)
    assert said == ["1000", "1001", "/home/web/new", "argument-argument of env-shoalbuild"], built.err
    assert 'process "/bin/sh -ec false; echo not reached" did not complete successfully: exit code: 1' in built.err


async def test_commands_have_the_network_and_the_limits_that_were_asked_for(shell: Shell, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "app",
        Dockerfile="FROM busybox\nRUN ls /sys/class/net > /net && ulimit -n > /files && "
        "{ grep -c extra /etc/hosts || true; } > /extra && df -k /dev/shm > /shm\n"
        "RUN --network=none ls /sys/class/net > /none\n",
    )
    wanted = ("--add-host", "extra:10.1.2.3", "--ulimit", "nofile=77:88", "--shm-size", "3m")
    for network, devices in (("default", "eth0 lo"), ("none", "lo"), ("host", None)):
        built = await shell("build", "--network", network, *wanted, "-t", "app", str(folder))
        assert built.code == 0, built.err
        assert "CACHED" in built.err.split("#2")[0]
        ran = await shell("run", "--rm", "app", "sh", "-c", "cat /net; echo; cat /none /files /extra; tail -n 1 /shm")
        found, _, rest = ran.text.partition("\n\n")
        assert devices is None or " ".join(found.split()) == devices
        assert rest.splitlines()[:3] == ["lo", "77", "1"]
        assert rest.split()[4] == "3072"


async def test_a_limit_that_the_host_cannot_give_is_refused(shell: Shell, tmp_path: Path) -> None:
    folder = write(tmp_path / "app", Dockerfile="FROM busybox\nRUN true\n")
    built = await shell("build", "--ulimit", f"nofile=123:{1 << 40}", str(folder))
    assert built.code == 1
    assert "operation not permitted" in built.err.lower()


async def test_history_tells_each_instruction(engine: Engine, shell: Shell, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "app",
        Dockerfile='FROM busybox\nMAINTAINER Some Body\nARG A=b\nRUN true\nCOPY --chmod=600 a /a\nCMD ["x"]\n',
        a="a",
    )
    image_id = (await shell("build", "-q", str(folder))).text.strip()
    _, _, chunks = await engine.images.read_blob(image_id)
    document = json.loads(b"".join([chunk async for chunk in chunks]))
    own = document["history"][1:]
    assert [(each["created_by"], each.get("empty_layer", False)) for each in own] == [
        ("MAINTAINER Some Body", True),
        ("ARG A=b", True),
        ("RUN |1 A=b /bin/sh -c true # shoal", False),
        ("COPY --chmod=600 a /a # shoal", False),
        ('CMD ["x"]', True),
    ]
    assert document["author"] == "Some Body"
    assert document["created"] == own[-1]["created"] == own[-2]["created"]
    assert len(document["rootfs"]["diff_ids"]) == 3
