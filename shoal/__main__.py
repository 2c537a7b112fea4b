"""The entry points: `shoal`, `shoal-agent`, `shoal-manager`, `shoal-runtime`.

Each imports only the room that it starts: a client that loaded a daemon's code would take three times as long
to start, and this is the only file below the rooms that may name them. `__future__` is a module, too: not here.
"""

import gc
import sys


def cli() -> None:
    """Run the command line; exits the process with docker's exit codes."""
    from cli.warm.client import COLLECT_AFTER, hand_over

    hand_over()
    gc.set_threshold(COLLECT_AFTER)
    from cli.app import main

    main()


def warm() -> None:
    """Wait for command lines, with everything imported."""
    from cli.warm.server import main

    main()


def agent() -> None:
    """Run the agent of this host in the foreground."""
    from agent.daemon import main

    main()


def runtime() -> None:
    """Be an OCI runtime for one command."""
    gc.disable()  # it ends before there is garbage worth looking for
    from agent.runtime.oci.sealed import ENTERING, seal

    if any(word in ENTERING for word in sys.argv[1:]):
        seal()
    from agent.runtime.oci.main import run

    run()


def manager() -> None:
    """Run a manager in the foreground; with a verb, what its agent has done to its data before."""
    from manager import daemon, recovery

    words = sys.argv[1:]
    if words[:1] and words[0] in recovery.VERBS:
        recovery.main(words)
    else:
        daemon.main(words)


if __name__ == "__main__":
    cli()
