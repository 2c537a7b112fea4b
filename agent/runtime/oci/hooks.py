"""Hooks: programs that the configuration wants to run at points of a container's life, with its state on stdin.

`createContainer` and `startContainer` run inside: their path is looked up in the host's tree before the pivot and in
the container's after it, which is whichever the container's mount namespace shows at the time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from agent.kernel import syscalls as sys
from agent.runtime.failure import Failure

if TYPE_CHECKING:
    from agent.runtime.spec.config import Hook, Spec


def wanted(config: Mapping[str, Any], name: str) -> bool:
    return bool((config.get("hooks") or {}).get(name))


def of(config: Mapping[str, Any], name: str, state: Callable[[], Mapping[str, Any]], *, pidfd: int = -1) -> None:
    """As `run`, of a configuration that `create` has read before; most have no hooks, and are not read again."""
    if wanted(config, name):
        from agent.runtime.spec import config as specs  # a third of what a short command imports

        run(specs.parse(config), name, state(), pidfd=pidfd)


def run(spec: Spec, name: str, state: Mapping[str, Any], *, pidfd: int = -1) -> None:
    """Run the hooks of `name` in order, in the namespaces of `pidfd` if given. Raises Failure at the first that fails
    or takes longer than it may."""
    for number, hook in enumerate(spec.hooks.get(name, ())):
        kinds = sum(spec.namespaces) if pidfd >= 0 else 0
        _run(f"hook {name}[{number}] {hook.path}", hook, state, _inside(pidfd, kinds) if kinds else None)


def _run(label: str, hook: Hook, state: Mapping[str, Any], enter: Callable[[], None] | None) -> None:
    import subprocess  # most containers have no hooks, and it is a tenth of a command's start

    try:
        process = subprocess.Popen(
            hook.args,
            executable=hook.path,
            env=dict(item.partition("=")[::2] for item in hook.env),
            cwd="/" if enter else state["bundle"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=enter,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Failure("StartFailed", f"{label}: {error}") from error
    try:
        said, _ = process.communicate(json.dumps(state).encode(), timeout=hook.timeout_s or None)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        raise Failure("StartFailed", f"{label}: took longer than {hook.timeout_s} s") from None
    if process.returncode:
        words = said.decode(errors="replace").strip()
        raise Failure("StartFailed", f"{label}: exit status {process.returncode}{f': {words}' if words else ''}")


def _inside(pidfd: int, kinds: int) -> Callable[[], None]:
    def enter() -> None:
        sys.setns(pidfd, kinds)
        os.chdir("/")
        child = os.fork()  # a pid namespace is entered by children only
        if child:
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # by one of them our parent hears that the hook was exec'ed
            _, status = os.waitpid(child, 0)
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)

    return enter
