"""The program: the root of all commands, its global flags, and how errors become sentences and exit codes.

`run` is the whole command line as a function, for tests; `main` ends the process with its result.
"""

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

from cli.command import Flags, flag, switch
from cli.endpoint import Selection, Tls
from cli.grammar import UnknownFlag, UsageError
from cli.group import PROGRAM, Group
from cli.warm.client import wanted
from shoal import __version__
from shoal.errors import ShoalError

INTERRUPTED = 130
BROKEN_PIPE = 141


def main() -> NoReturn:
    """Run the command line of this process and end it."""
    code = run(sys.argv[1:])
    if wanted() and "cli.calls" in sys.modules:  # it spoke to a daemon: others will follow
        from cli.warm.successor import leave_behind

        leave_behind()
    code = flushed(code)
    # Taking the interpreter and gRPC down in order costs 20 ms and frees what the kernel frees anyway.
    os._exit(code)


class GlobalFlags(Flags):
    """What stands before the command."""

    host: Annotated[
        str,
        flag(
            "-H",
            "--host",
            help="Daemon to connect to: unix:///path, ssh://user@host or host:2377[,host:2377…] [$SHOAL_HOST]",
        ),
    ] = ""
    context: Annotated[
        str, flag("-c", "--context", help="Context to use instead of the current one [$SHOAL_CONTEXT]")
    ] = ""
    node: Annotated[str, flag("--node", help="Node of the cluster to speak to, through the manager")] = ""
    tlscacert: Annotated[str, flag("--tlscacert", help="Trust the cluster whose root certificate is in this file")] = ""
    tlscert: Annotated[str, flag("--tlscert", help="File of the client's certificate")] = ""
    tlskey: Annotated[str, flag("--tlskey", help="File of the client's key")] = ""
    debug: Annotated[bool, switch("-D", "--debug", help="Show where an error came from [$SHOAL_DEBUG]")] = False
    version: Annotated[bool, switch("-v", "--version", help="Print version information and quit")] = False


def run(argv: Sequence[str]) -> int:
    """Run one command line; prints to stdout and stderr and returns the exit code."""
    try:
        result = _run(argv)
    except UsageError as error:
        return _refuse(error)
    except ShoalError as error:
        with contextlib.suppress(OSError):  # told at the end; where both streams are one, the order is kept
            sys.stdout.flush()
        print(f"Error: {error}", file=sys.stderr)
        if _debugging(argv):
            _explain()
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except UnicodeEncodeError as error:  # bytes of the command line or of a variable that no message can hold
        print(f"Error: {error.object!r} is not UTF-8, and goes to another host only as that", file=sys.stderr)
        return UsageError.exit_code
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  (so that the flush at exit has where to go)
        return BROKEN_PIPE
    except Exception as error:  # the boundary: a person sees a sentence, not a traceback
        print(f"Error: {type(error).__name__}: {error}; this is a fault in shoal itself", file=sys.stderr)
        if _debugging(argv):
            _explain()
        else:
            print("Run it again with SHOAL_DEBUG=1 for the details.", file=sys.stderr)
        return 1
    return result if isinstance(result, int) else 0


def flushed(code: int) -> int:
    """Write out what was said; the exit code, which is another where that cannot be, or nobody reads any more."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        return BROKEN_PIPE
    except OSError as error:
        if not code:  # else it has been told
            with contextlib.suppress(OSError):
                print(f"Error: write stdout: {(error.strerror or str(error)).lower()}", file=sys.stderr)
        return code or ShoalError.exit_code
    return code


def _run(argv: Sequence[str]) -> object:
    root = Group("", "Containers on one host or many, from one tool", GlobalFlags)
    line = root.line(argv)
    flags = root.reader.values(line)
    if flags["version"]:
        print(f"Shoal version {__version__}")
        return 0
    tls = Tls(flags["tlscacert"], flags["tlscert"], flags["tlskey"])
    return root.run(line, Selection(flags["host"], flags["context"], flags["node"], tls, flags["debug"]))


def _refuse(error: UsageError) -> int:
    """Say what is wrong with the command line, and where the right one is explained."""
    message = str(error)
    if isinstance(error, UnknownFlag):
        from cli.refused import refusal  # a long table that only this needs

        message = refusal(error.path.removeprefix(PROGRAM).strip(), error.flag) or message
    prefix = "" if error.exit_code == UsageError.exit_code else f"{PROGRAM}: "
    lines = [f"{prefix}{message}"]
    if error.usage:
        lines += ["", f"Usage:  {error.path} {error.usage}"]
    print("\n".join([*lines, "", f"Run '{error.path} --help' for more information"]), file=sys.stderr)
    return error.exit_code


def _debugging(argv: Sequence[str]) -> bool:
    return bool(os.environ.get("SHOAL_DEBUG")) or not {"-D", "--debug"}.isdisjoint(argv[:1])


def _explain() -> None:
    import traceback  # 10 ms that hardly any command owes

    traceback.print_exc()
