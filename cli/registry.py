"""The table of all commands: path → where its function is, which section of the help it stands in, and its line.

It is data so that `shoal --help` and completion import nothing else. `NOT_YET` are docker's commands that are
refused by name, each with what to do instead; flags of docker's that are refused stand in `refused`.
"""

from __future__ import annotations

from typing import NamedTuple

COMMON, MANAGEMENT, CLUSTER, OTHER = "Common Commands", "Management Commands", "Swarm Commands", "Commands"


class Entry(NamedTuple):
    """`function` is "module:name"; empty for a group."""

    section: str
    text: str
    function: str = ""
    hidden: bool = False


GROUPS = {
    "builder": Entry(MANAGEMENT, "Manage builds"),
    "buildx": Entry(MANAGEMENT, "Manage builds, as docker's plugin spells them", hidden=True),
    "container": Entry(MANAGEMENT, "Manage containers"),
    "context": Entry(MANAGEMENT, "Manage contexts: which daemon the commands speak to"),
    "image": Entry(MANAGEMENT, "Manage images"),
    "machine": Entry(MANAGEMENT, "Manage machines: hosts that are reached over SSH"),
    "manifest": Entry(MANAGEMENT, "Manage image manifests and manifest lists"),
    "network": Entry(MANAGEMENT, "Manage networks"),
    "system": Entry(MANAGEMENT, "Manage the host's agent"),
    "volume": Entry(MANAGEMENT, "Manage volumes"),
    "node": Entry(CLUSTER, "Manage the nodes of the cluster"),
    "service": Entry(CLUSTER, "Manage services"),
    "swarm": Entry(CLUSTER, "Manage the cluster: init, join, leave"),
    "swarm user": Entry(OTHER, "Manage users: who may use the cluster from outside, and as what"),
    "swarm token": Entry(OTHER, "Manage join tokens that end by themselves"),
}

_CONTAINER = {
    "run": (COMMON, "Create and run a new container from an image", "foreground:run"),
    "exec": (COMMON, "Execute a command in a running container", "execution:execute"),
    "attach": (
        OTHER,
        "Attach local standard input, output, and error streams to a running container",
        "foreground:attach",
    ),
    "create": (OTHER, "Create a new container", "lifecycle:create"),
    "start": (OTHER, "Start one or more stopped containers", "foreground:start"),
    "stop": (OTHER, "Stop one or more running containers", "lifecycle:stop"),
    "restart": (OTHER, "Restart one or more containers", "lifecycle:restart"),
    "pause": (OTHER, "Pause all processes within one or more containers", "lifecycle:pause"),
    "unpause": (OTHER, "Unpause all processes within one or more containers", "lifecycle:unpause"),
    "rename": (OTHER, "Rename a container", "amendment:rename"),
    "update": (OTHER, "Update configuration of one or more containers", "amendment:update"),
    "top": (OTHER, "Display the running processes of a container", "processes:top"),
    "stats": (OTHER, "Display a live stream of container(s) resource usage statistics", "stats:stats"),
    "cp": (OTHER, "Copy files/folders between a container and the local filesystem", "copying:copy"),
    "diff": (OTHER, "Inspect changes to files or directories on a container's filesystem", "contents:diff"),
    "export": (OTHER, "Export a container's filesystem as a tar archive", "contents:export"),
    "commit": (OTHER, "Create a new image from a container's changes", "contents:commit"),
    "kill": (OTHER, "Kill one or more running containers", "lifecycle:kill"),
    "rm": (OTHER, "Remove one or more containers", "lifecycle:remove"),
    "wait": (OTHER, "Block until one or more containers stop, then print their exit codes", "lifecycle:wait"),
    "port": (OTHER, "List port mappings or a specific mapping for the container", "listing:port"),
    "logs": (COMMON, "Fetch the logs of a container", "logs:logs"),
}
_IMAGE = {
    "pull": (COMMON, "Download an image from a registry", "distribution:pull"),
    "push": (COMMON, "Upload an image to a registry", "distribution:push"),
    "history": (OTHER, "Show the history of an image", "history:history"),
    "save": (OTHER, "Save one or more images to a tar archive (streamed to STDOUT by default)", "image:save"),
    "import": (OTHER, "Import the contents from a tarball to create a filesystem image", "image:import_"),
    "load": (OTHER, "Load images from a tar archive or STDIN", "image:load"),
    "tag": (OTHER, "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE", "image:tag"),
}
_BUILD = ("Build an image from a Dockerfile", "cli.build.image:build")
_VERBS = {
    "builder": {"build": _BUILD, "prune": ("Remove build cache", "cli.build.prune:prune")},
    "buildx": {"build": _BUILD, "prune": ("Remove build cache", "cli.build.prune:prune")},
    "container": {
        "ls": ("List containers", "cli.container.listing:ls"),
        "inspect": ("Display detailed information on one or more containers", "cli.inspect:container"),
        "prune": ("Remove all stopped containers", "cli.prune:containers"),
    },
    "image": {
        "build": _BUILD,
        "ls": ("List images", "cli.image:ls"),
        "rm": ("Remove one or more images", "cli.image:remove"),
        "inspect": ("Display detailed information on one or more images", "cli.inspect:image"),
        "prune": ("Remove unused images", "cli.prune:images"),
    },
    "manifest": {
        "annotate": ("Add additional information to a local image manifest", "cli.manifest:annotate"),
        "create": ("Create a local manifest list for annotating and pushing to a registry", "cli.manifest:create"),
        "inspect": ("Display an image manifest, or manifest list", "cli.manifest:inspect"),
        "push": ("Push a manifest list to a repository", "cli.manifest:push"),
        "rm": ("Delete one or more manifest lists from local storage", "cli.manifest:remove"),
    },
    "machine": {
        "apply": ("Make hosts nodes of one cluster, as an inventory says", "cli.machine.apply:apply"),
        "plan": ("Show what 'apply' would do", "cli.machine.apply:plan"),
        "active": ("Print which machine SHOAL_HOST means", "cli.machine.listing:active"),
        "adopt": ("Take up a node that was made elsewhere", "cli.machine.create:adopt"),
        "config": ("Print the flags by which 'shoal' reaches a machine", "cli.machine.listing:config"),
        "create": ("Make a node of a host", "cli.machine.create:create"),
        "doctor": ("Tell what is wrong with machines, and what is still to do", "cli.machine.create:doctor"),
        "env": ("Print the commands that point 'shoal' at a machine", "cli.machine.listing:env"),
        "exec": ("Run a command as root on machines, side by side", "cli.machine.remote:execute"),
        "export": ("Write machines' records, for another computer", "cli.machine.carriage:export"),
        "import": ("Take up machines of another computer", "cli.machine.carriage:import_"),
        "inspect": ("Show what is recorded of one or more machines", "cli.machine.listing:inspect"),
        "kill": ("Cut machines' power", "cli.machine.power:kill"),
        "regenerate-certs": ("Have nodes exchange their certificates", "cli.machine.upkeep:regenerate_certs"),
        "restart": ("Restart machines' hosts", "cli.machine.power:restart"),
        "start": ("Turn machines on", "cli.machine.power:start"),
        "stop": ("Shut machines down in good order", "cli.machine.power:stop"),
        "sudoers": ("Print what sudo must allow for users but root", "cli.machine.upkeep:sudoers"),
        "ip": ("Print the address of one or more machines", "cli.machine.listing:ip"),
        "ls": ("List machines", "cli.machine.listing:ls"),
        "mount": ("Mount a folder of a machine here, with sshfs", "cli.machine.remote:mount"),
        "provision": ("Make machines what their records say, again", "cli.machine.create:provision"),
        "rm": ("Forget machines; with --purge, clean their hosts too", "cli.machine.create:remove"),
        "scp": ("Copy files between this computer and machines", "cli.machine.remote:scp"),
        "ssh": ("Log in to a machine, or run a command there, with ssh", "cli.machine.remote:ssh"),
        "status": ("Print whether a machine answers", "cli.machine.listing:status"),
        "version": ("Print the version of Shoal on a machine", "cli.machine.listing:version"),
        "rollback": ("Bring machines back to the version before", "cli.machine.upgrade:rollback"),
        "upgrade": ("Bring machines to the version of this computer", "cli.machine.upgrade:upgrade"),
        "url": ("Print the URL by which 'shoal -H' reaches a machine", "cli.machine.listing:url"),
    },
    "network": {
        "connect": ("Connect a container to a network", "cli.network:connect"),
        "create": ("Create a network", "cli.network:create"),
        "disconnect": ("Disconnect a container from a network", "cli.network:disconnect"),
        "inspect": ("Display detailed information on one or more networks", "cli.inspect:network"),
        "ls": ("List networks", "cli.network:ls"),
        "prune": ("Remove all unused networks", "cli.prune:networks"),
        "rm": ("Remove one or more networks", "cli.network:remove"),
    },
    "volume": {
        "prune": ("Remove unused local volumes", "cli.prune:volumes"),
        "create": ("Create a volume", "cli.volume:create"),
        "inspect": ("Display detailed information on one or more volumes", "cli.inspect:volume"),
        "ls": ("List volumes", "cli.volume:ls"),
        "rm": ("Remove one or more volumes", "cli.volume:remove"),
    },
    "node": {
        "inspect": ("Display detailed information on one or more nodes", "cli.node:inspect"),
        "ls": ("List nodes in the cluster", "cli.node:ls"),
        "ps": ("List tasks running on one or more nodes, defaults to current node", "cli.node:ps"),
        "rm": ("Remove one or more nodes from the cluster", "cli.node:remove"),
        "update": ("Update a node", "cli.node:update"),
        "promote": ("Promote one or more nodes to manager", "cli.node:promote"),
        "demote": ("Demote one or more nodes from manager", "cli.node:demote"),
    },
    "service": {
        "create": ("Create a new service", "cli.service.change:create"),
        "inspect": ("Display detailed information on one or more services", "cli.service.inspection:inspect"),
        "logs": ("Fetch the logs of a service or task", "cli.service.logs:logs"),
        "ls": ("List services", "cli.service.listing:ls"),
        "ps": ("List the tasks of one or more services", "cli.service.listing:ps"),
        "rm": ("Remove one or more services", "cli.service.change:remove"),
        "rollback": ("Revert changes to a service's configuration", "cli.service.change:rollback"),
        "scale": ("Scale one or multiple replicated services", "cli.service.change:scale"),
        "update": ("Update a service", "cli.service.change:update"),
    },
    "swarm": {
        "backup": ("Write all of the cluster's state to one file", "cli.backup:backup"),
        "backup inspect": ("Show what a backup holds", "cli.backup:inspect"),
        "backup verify": ("Read a backup and compare every checksum in it", "cli.backup:verify"),
        "audit": ("Show who did what in the cluster", "cli.audit:audit"),
        "audit verify": ("Check that nothing of the audit record was changed", "cli.audit:verify"),
        "ca": ("Display and rotate the root CA", "cli.root:ca"),
        "doctor": ("Look for what is wrong with the cluster, and say what to do", "cli.doctor:doctor"),
        "init": ("Initialize a cluster on this host", "cli.swarm:init"),
        "join": ("Join a cluster as a worker or manager", "cli.swarm:join"),
        "join-token": ("Print the command that joins a host, or rotate its token", "cli.swarm:join_token"),
        "leave": ("Leave the cluster", "cli.swarm:leave"),
        "migrate": ("Move the cluster's state into another store; containers go on", "cli.swarm:migrate"),
        "renew": ("Exchange this node's certificate for a new one, now", "cli.swarm:renew"),
        "restore": ("Make this host the only manager of the cluster in a backup", "cli.backup:restore"),
        "unlock": ("Unlock the manager of this host", "cli.lock:unlock"),
        "unlock-key": ("Print what unlocks a manager, or rotate it", "cli.lock:unlock_key"),
        "update": ("Update the cluster's settings", "cli.swarm:update"),
    },
    "swarm user": {
        "create": ("Create a user, with the certificate that it shows", "cli.user:create"),
        "inspect": ("Display detailed information on one or more users", "cli.user:inspect"),
        "ls": ("List users", "cli.user:ls"),
        "renew": ("Exchange your own key and certificate for new ones", "cli.user:renew"),
        "revoke": ("Take every right from one or more users", "cli.user:revoke"),
        "rm": ("Remove one or more users", "cli.user:remove"),
        "update": ("Change what a user may do; it holds at once", "cli.user:update"),
    },
    "swarm token": {
        "create": ("Create a join token that ends by itself", "cli.token:create"),
        "ls": ("List the join tokens that were created", "cli.token:ls"),
        "rm": ("Revoke one or more join tokens; nodes that joined with them stay", "cli.token:remove"),
    },
    "system": {
        "df": ("Show disk usage", "cli.disk:df"),
        "info": ("Display system-wide information", "cli.system:info"),
        "prune": ("Remove unused data", "cli.tidying:prune"),
        "events": ("Get real time events from the server", "cli.events:events"),
    },
    "context": {
        "create": ("Create a context", "cli.context.record:create"),
        "export": ("Export a context to a tar archive", "cli.context.carriage:export"),
        "import": ("Import a context from a tar archive", "cli.context.carriage:import_"),
        "inspect": ("Display detailed information on one or more contexts", "cli.context.listing:inspect"),
        "ls": ("List contexts", "cli.context.listing:ls"),
        "rm": ("Remove one or more contexts", "cli.context.record:remove"),
        "show": ("Print the name of the current context", "cli.context.listing:show"),
        "update": ("Update a context", "cli.context.record:update"),
        "use": ("Set the current context", "cli.context.listing:use"),
    },
}
# Other names of a verb: shown as an alias in its help, and nowhere else.
_ALIASES = {"ls": ("list",), "rm": ("remove",)}


def _table() -> dict[str, Entry]:
    table = {
        "build": Entry(COMMON, *_BUILD),
        "ps": Entry(COMMON, "List containers", "cli.container.listing:ls"),
        "images": Entry(COMMON, "List images", "cli.image:ls"),
        "version": Entry(COMMON, "Show the version of client, agent and manager", "cli.system:version"),
        "info": Entry(COMMON, "Display system-wide information", "cli.system:info"),
        "login": Entry(COMMON, "Authenticate to a registry", "cli.login:login"),
        "logout": Entry(COMMON, "Log out from a registry", "cli.login:logout"),
        "search": Entry(COMMON, "Search Docker Hub, or a registry, for images", "cli.distribution:search"),
        "events": Entry(OTHER, "Get real time events from the server", "cli.events:events"),
        "rmi": Entry(OTHER, "Remove one or more images", "cli.image:remove"),
        "inspect": Entry(OTHER, "Return low-level information on any kind of object", "cli.inspect:inspect"),
        "completion": Entry(OTHER, "Print the completion script for bash, zsh or fish", "cli.completion:completion"),
        "__complete": Entry(OTHER, "Complete a command line", "cli.completion:complete", hidden=True),
        "container ps": Entry(OTHER, "List containers", "cli.container.listing:ls", hidden=True),
    }
    for name, (section, text, function) in _CONTAINER.items():
        table[name] = Entry(section, text, f"cli.container.{function}")
        table[f"container {name}"] = Entry(OTHER, text, f"cli.container.{function}")
    for name, (section, text, function) in _IMAGE.items():
        table[name] = Entry(section, text, f"cli.{function}")
        table[f"image {name}"] = Entry(OTHER, text, f"cli.{function}")
    for noun, verbs in _VERBS.items():
        for verb, (text, function) in verbs.items():
            table[f"{noun} {verb}"] = Entry(OTHER, text, function)
            for alias in _ALIASES.get(verb, ()):
                table[f"{noun} {alias}"] = Entry(OTHER, text, function, hidden=True)
    return table


COMMANDS = _table()

EXAMPLES = {
    "": (
        "shoal run -d --name web -p 8080:80 web:1     one container on this host",
        "shoal swarm init                             make this host a cluster of one",
        "shoal service create --name web --replicas 6 -p 80:80 web:1",
        "shoal -H ssh://root@n2 ps                    the same on another host",
    ),
    "service": ("shoal service create --name web --replicas 3 -p 80:80 web:1", "shoal service scale web=6"),
    "swarm": ("shoal swarm init --advertise-addr 10.0.0.1", "shoal swarm join-token worker"),
    "machine": ("shoal machine plan -f machines.yaml", "shoal machine apply -f machines.yaml"),
    "context": ("shoal context create rack --host ssh://root@n1", "shoal context use rack"),
}

_LATER = "it comes with a later version"
NOT_YET = dict.fromkeys(
    (
        "compose", "config", "plugin", "secret", "stack", "volume update",
    ),
    _LATER,
)  # fmt: skip
