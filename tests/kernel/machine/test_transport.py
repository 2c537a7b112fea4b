"""SSH against a real sshd: who is let in, as whom programs run, and what comes back from them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from machine.provision.step import Command, Secret
from machine.transport.connection import Connection, drain
from machine.transport.credential import Prompt
from machine.transport.hostkey import fingerprint
from machine.transport.shell import Shell
from shoal.errors import Conflict, DeadlineExceeded, PermissionDenied, ShoalError, Unavailable
from tests.kernel.machine.conftest import PASSWORD, Server, public

WHO = Command(("id", "-un"))


def whoami(connection: Connection) -> str:
    with Shell(connection) as shell:
        return shell.check(WHO).strip()


def test_commands_answer_with_code_and_both_streams(server: Server) -> None:
    connection = server.connect()
    with Shell(connection) as shell:
        answer = shell.run(Command(("sh", "-c", "echo out; printf err >&2; exit 3")))
        assert (answer.code, answer.stdout, answer.stderr) == (3, "out\n", "err")
        assert shell.check(Command(("cat",), stdin="a 'quoted'\n$text")) == "a 'quoted'\n$text"
        assert shell.check(Command(("printf", "%s", "no newline"))) == "no newline"
        assert shell.run(Command(("no-such-program",))).code == 127
        with pytest.raises(ShoalError, match=r"false: exit code 1"):
            shell.check(Command(("false",)))
    connection.close()


def test_much_on_both_streams_is_all_read(server: Server) -> None:
    connection = server.connect()
    script = "head -c 3000000 /dev/zero | tr '\\0' x; head -c 3000000 /dev/zero | tr '\\0' y >&2"
    with Shell(connection) as shell:
        answer = shell.run(Command(("sh", "-c", script)))
        assert (len(answer.stdout), set(answer.stdout)) == (3000000, {"x"})
        assert (len(answer.stderr), set(answer.stderr)) == (3000000, {"y"})
        assert shell.check(WHO) == "root\n"
    connection.close()


def test_a_secret_on_the_input_stands_in_no_process(server: Server) -> None:
    connection = server.connect()
    look = "read -r secret; for each in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $each; done 2>/dev/null | grep -c pearl"
    with Shell(connection) as shell:
        answer = shell.run(Command(("sh", "-c", look), stdin=Secret("pearl of the deep\n")))
    # grep sees itself and the shell that runs the script, which both have the pattern and not the secret.
    assert "deep" not in answer.stderr
    assert int(answer.stdout) <= 2
    connection.close()


def test_sudo_is_given_its_password_and_asked_once_for_all(server: Server, once: Callable[[str], Prompt]) -> None:
    hop = server.hop(user="ann")
    rules = server.rules(once(PASSWORD))
    with ThreadPoolExecutor() as pool:
        connections = list(pool.map(lambda _: server.connect(hop, rules), range(3)))
        assert list(pool.map(whoami, connections)) == ["root"] * 3
    for each in connections:
        each.close()


def test_what_needs_no_root_is_the_users(server: Server) -> None:
    connection = server.connect(server.hop(user="ann"))
    with connection.program("id -un", root=False) as channel:
        assert drain(channel, timeout_s=10).stdout == b"ann\n"
    connection.close()


@pytest.mark.parametrize(("password", "said"), [("wrong", "is wrong"), ("", "asks ann on 127.0.0.1 for a password")])
def test_a_wrong_or_missing_sudo_password_is_told(server: Server, password: str, said: str) -> None:
    connection = server.connect(server.hop(user="ann"), server.rules(sudo_password=password))
    with pytest.raises(PermissionDenied, match=said), Shell(connection):
        pass
    connection.close()


def test_a_login_password_is_a_last_resort(server: Server) -> None:
    hop = server.hop(user="ann", keys=("other",))
    server.connect(hop, server.rules(password=PASSWORD)).close()
    with pytest.raises(PermissionDenied, match="takes neither 1 keys nor the password"):
        server.connect(hop, server.rules(password="wrong"))
    with pytest.raises(PermissionDenied, match="takes none of 1 keys"):
        server.connect(hop)


def test_a_passphrase_is_asked_once_for_all_hosts(server: Server, once: Callable[[str], Prompt]) -> None:
    rules = server.rules(once("open sesame"))
    with ThreadPoolExecutor() as pool:
        for each in pool.map(lambda _: server.connect(server.hop(keys=("locked",)), rules), range(4)):
            each.close()


def test_a_sealed_key_that_nobody_opens_is_not_tried(server: Server) -> None:
    with pytest.raises(PermissionDenied, match="takes none of 0 keys"):
        server.connect(server.hop(keys=("locked",)))


def test_keys_of_the_agent_let_in(server: Server) -> None:
    socket = server.folder / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    try:
        while not socket.exists():
            assert agent.poll() is None
        environment = {**os.environ, "SSH_AUTH_SOCK": str(socket)}
        subprocess.run(["ssh-add", "-q", server.folder / "user"], env=environment, check=True, capture_output=True)
        server.connect(server.hop(keys=("none",), agent=str(socket))).close()
    finally:
        agent.terminate()
        agent.wait(10)


def test_a_users_certificate_lets_in(server: Server) -> None:
    server.connect(server.hop(keys=("bearer",))).close()


def test_an_authority_vouches_for_the_host(server: Server, tmp_path: Path) -> None:
    authority = (server.folder / "ca.pub").read_text()
    for text, good in ((authority, True), ((server.folder / "other.pub").read_text(), False)):
        known = tmp_path / "known"
        known.write_text(f"@cert-authority * {text}")
        hop = server.hop()
        hop = type(hop)(
            **{**{name: getattr(hop, name) for name in hop.__struct_fields__}, "known_hosts": (str(known),)}
        )
        if good:
            server.connect(hop).close()
        else:
            with pytest.raises(PermissionDenied, match="not of an authority"):
                server.connect(hop)


def test_a_changed_host_key_is_refused_before_anybody_logs_in(server: Server) -> None:
    rules = server.rules()
    stranger = (server.folder / "other.pub").read_text()
    (server.folder / "own").write_text(f"[127.0.0.1]:{server.port} {stranger}")
    hop = server.hop()
    with pytest.raises(PermissionDenied) as caught:
        server.connect(type(hop)(hop.address, hop.port, hop.user, hop.name, hop.identities), rules)
    (server.folder / "own").unlink()
    for path in ("host.pub", "other.pub"):
        assert fingerprint(public(server.folder / path)) in str(caught.value)


def test_a_lock_is_held_by_one_and_given_back_with_the_connection(server: Server) -> None:
    first, second = server.connect(), server.connect()
    shell = Shell(first).__enter__()
    shell.lock("ann@desk")
    with Shell(second) as other:
        with pytest.raises(Conflict, match=r"127\.0\.0\.1 is worked on by ann@desk"):
            other.lock("bob@lap", wait_s=0.2)
        first.close()
        other.lock("bob@lap", wait_s=20)
        other.check(
            Command(
                ("sh", "-c", "setsid sleep 60 < /dev/null > /dev/null 2>&1 & echo $! > " + f"{server.folder}/child")
            )
        )
    second.close()
    third = server.connect()
    with Shell(third) as last:  # what the second one started does not hold it
        last.lock("cat@box", wait_s=20)
        last.check(Command(("kill", (server.folder / "child").read_text().strip())))
    third.close()


def test_files_arrive_whole_while_commands_run(server: Server, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(5 << 20))
    connection = server.connect()
    with ThreadPoolExecutor(12) as pool, Shell(connection) as shell:
        uploads = [pool.submit(connection.upload, source, f"{tmp_path}/{number}") for number in range(12)]
        assert shell.check(WHO) == "root\n"
        for each in uploads:
            each.result(60)
    assert all((tmp_path / str(number)).read_bytes() == source.read_bytes() for number in range(12))
    with pytest.raises(ShoalError, match="cannot be written"):
        connection.upload(source, "/proc/version")
    connection.close()


def test_a_silent_command_and_a_broken_link_are_told_apart(server: Server) -> None:
    connection = server.connect()
    with Shell(connection) as shell, pytest.raises(DeadlineExceeded):
        shell.run(Command(("sleep", "30")), timeout_s=0.2)
    with Shell(connection) as shell, pytest.raises(Unavailable):
        shell.run(Command(("sh", "-c", "kill -9 $PPID")))
    connection.close()
    with pytest.raises(Unavailable), Shell(connection):
        pass


def test_what_a_command_says_too_late_is_nobody_elses_answer(server: Server) -> None:
    connection = server.connect()
    with Shell(connection) as shell:
        for _ in range(2):
            with pytest.raises(DeadlineExceeded):
                shell.run(Command(("sh", "-c", "sleep 0.5; echo late; echo late >&2; exit 3")), timeout_s=0.1)
        answer = shell.run(Command(("sh", "-c", "echo mine; echo mine >&2")))
        assert (answer.code, answer.stdout, answer.stderr) == (0, "mine\n", "mine\n")
        assert shell.check(WHO) == "root\n"
    connection.close()


def test_nobody_at_the_port_is_told_after_the_last_attempt(server: Server) -> None:
    hop = server.hop()
    with pytest.raises(Unavailable, match="cannot be reached"):
        server.connect(type(hop)(hop.address, 1, hop.user, hop.name))


def test_one_goes_through_another(server: Server) -> None:
    connection = Connection.open([server.hop(user="ann"), server.hop()], server.rules())
    assert whoami(connection) == "root"
    connection.close()
