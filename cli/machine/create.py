"""Commands that make machines one by one, take hosts over, and let them go."""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec

from cli.command import Arguments, Flags, argument, command, flag, switch
from cli.container.lifecycle import complain
from cli.machine.apply import print_faults, print_outcomes, print_plan
from cli.machine.listing import Name, find_all
from cli.machine.progress import Board
from cli.machine.reach import ReachFlags, owner
from cli.parse import pair
from cli.parse.number import natural
from machine.model import Machine, Order, Role, Ssh
from machine.record import Record, Records
from shoal.clock import SystemClock
from shoal.errors import Conflict, InvalidArgument, ShoalError, Unsupported

# The second is docker-machine's word.
_EXISTING = ("ssh", "generic")


class HostFlags(Flags):
    """Which host is meant: docker-machine's flags of its driver for hosts that exist."""

    driver: Annotated[
        str,
        flag(
            "-d",
            "--driver",
            help='Who makes the host: "ssh" (or "generic") for one that exists, "local" or "qemu" for one inside this '
            "machine, or another driver",
        ),
    ] = "ssh"
    driver_opt: Annotated[
        list[str], flag("--driver-opt", metavar="list", help="Option of another driver (KEY=VALUE)")
    ] = []
    generic_ip_address: Annotated[str, flag("--generic-ip-address", help="IP address or name of the host")] = ""
    generic_ssh_user: Annotated[str, flag("--generic-ssh-user", help="User to log in as (default: ssh's own)")] = ""
    generic_ssh_key: Annotated[str, flag("--generic-ssh-key", help="File of the private key to use")] = ""
    generic_ssh_port: Annotated[
        int, flag("--generic-ssh-port", metavar="int", parse=natural, help="Port of its sshd (default: ssh's own)")
    ] = 0
    generic_engine_port: Annotated[str, flag("--generic-engine-port", help="Not used", hidden=True)] = ""
    jump: Annotated[str, flag("--jump", help="Hosts to go through, as ssh's ProxyJump has them")] = ""
    role: Annotated[str, flag("--role", help='What it is to be: "worker" or "manager"')] = ""
    label: Annotated[list[str], flag("--label", metavar="list", help="Label of its node")] = []
    advertise_addr: Annotated[str, flag("--advertise-addr", help="Address by which other nodes reach it")] = ""

    def machine(self, name: str) -> Machine:
        """The machine that these flags mean. Raises InvalidArgument for what an inventory would refuse, too."""
        from machine.inventory import check_address

        if self.makes:
            raise InvalidArgument(f"a host that driver {self.driver} makes is no host that exists")
        if self.generic_engine_port:
            raise Unsupported("--generic-engine-port is not supported", hint="agents listen on 2376")
        if self.driver_opt:
            raise InvalidArgument("--driver-opt is for other drivers", hint="hosts that exist have --generic-…")
        if not self.generic_ip_address:
            raise InvalidArgument("--generic-ip-address is missing", hint="it is the host's address")
        ssh = Ssh(
            user=self.generic_ssh_user,
            port=self.generic_ssh_port,
            identities=(self.generic_ssh_key,) if self.generic_ssh_key else (),
            jump=self.jump,
        )
        return msgspec.structs.replace(self._wanted(name), address=check_address(self.generic_ip_address), ssh=ssh)

    @property
    def makes(self) -> bool:
        """Whether the driver makes a host."""
        return self.driver not in _EXISTING

    def make(self, name: str, reach: ReachFlags) -> Machine:
        """Have the driver make the host, or find the one that it made; recorded before it is asked."""
        from machine.order import make

        if self.generic_ip_address:
            raise InvalidArgument(f"--generic-ip-address is not for driver {self.driver}")
        order = Order(self.driver, pair.labels(self.driver_opt))
        return make(self._wanted(name), order, records=reach.records(), dial=reach.fleet, clock=SystemClock())

    def _wanted(self, name: str) -> Machine:
        """All of it but where it is."""
        from machine.inventory import check_address, check_name

        if self.role not in ("", *(each.value for each in Role)):
            raise InvalidArgument(f'invalid role "{self.role}"', hint="a role is worker or manager")
        return Machine(
            name=check_name(name),
            address="",
            role=Role(self.role or "worker"),
            labels=pair.labels(self.label),
            advertise=self.advertise_addr and check_address(self.advertise_addr),
        )


@command(
    "[OPTIONS] NAME",
    examples=[
        "shoal machine create --generic-ip-address 10.0.0.1 --generic-ssh-user root n1",
        "shoal machine create --generic-ip-address 10.0.0.2 --join n1 n2",
        "shoal machine create -d local --driver-opt memory=1g n3",
    ],
)
def create(
    reach: ReachFlags,
    host: HostFlags,
    name: Name,
    join: Annotated[str, flag("--join", help="Manager's machine whose cluster it joins")] = "",
    dry_run: Annotated[bool, switch("--dry-run", help="Show what would be done")] = False,
) -> int:
    """Make a node of a host: of the cluster of other machines, or the first one of a new cluster"""
    records = reach.records()
    if not host.makes:
        machine = host.machine(name)
    if (known := records.find(name)) and not known.unfinished:
        raise Conflict(f"machine {name} exists already", hint=f"'shoal machine provision {name}' mends it")
    if host.makes:
        if dry_run:
            raise Unsupported(f"--dry-run looks at a host, and driver {host.driver} has not made it yet")
        machine = host.make(name, reach)
    return _carry_out(reach, records, machine, join, dry_run=dry_run)


@command("[OPTIONS] [NAME...]", examples=["shoal machine provision n2"])
def provision(
    reach: ReachFlags,
    names: Annotated[list[str], argument()] = [],  # noqa: B006
) -> int:
    """Make machines what their records say, again; what is right is not touched, and nothing restarts"""
    records = reach.records()
    code = 0
    for each in find_all(records, names):
        founder = _manager_beside(records, each)
        code |= _carry_out(reach, records, each.machine, founder, dry_run=False)
    return code


@command("[OPTIONS] NAME", examples=["shoal machine adopt --generic-ip-address 10.0.0.7 n7"])
def adopt(reach: ReachFlags, host: HostFlags, name: Name) -> None:
    """Take up a node that was made elsewhere: it is recorded, and nothing on it changes"""
    machine, records = host.machine(name), reach.records()
    if records.find(name):
        raise Conflict(f"machine {name} exists already")
    with reach.fleet(new=True) as fleet:
        for error in fleet.dial([machine]).values():
            raise error
        facts = fleet.host(name).facts(nodes=False)
    if facts.membership is None:
        raise Conflict(f"the host at {machine.address} is no node", hint="'shoal machine create' makes one of it")
    member = facts.membership
    role = Role.MANAGER if member.manager else Role.WORKER
    record = Record(
        msgspec.structs.replace(machine, role=role),
        created_at_ns=SystemClock().now_ns(),
        version=facts.current,
        node_id=member.node_id,
        cluster_id=member.cluster_id,
    )
    records.save(record)
    print(name)


@command("[OPTIONS] NAME [NAME...]", examples=["shoal machine rm -y n3", "shoal machine rm --purge n3"])
def remove(
    reach: ReachFlags,
    names: Arguments,
    force: Annotated[bool, switch("-f", "--force", help="Forget it even if purging fails; asks nothing")] = False,
    yes: Annotated[bool, switch("-y", "--yes", help="Do not ask")] = False,
    purge: Annotated[
        bool, switch("--purge", help="Also take the node out of its cluster, and Shoal with its data off the host")
    ] = False,
) -> int:
    """Forget machines; with --purge, what was installed on them goes too"""
    records = reach.records()
    found = [records.get(name) for name in names]
    what = (
        "and all containers, volumes and images on them are removed" if purge else "hosts that exist stay as they are"
    )
    if made := [each.machine.name for each in found if each.driver not in _EXISTING]:
        what += f", and those that were made for {', '.join(made)} go"
    print(f"About to remove {', '.join(names)}; {what}.")
    if not (yes or force) and not _confirmed():
        return 1
    code = 0
    for each in found:
        try:
            if purge:
                _purge(reach, records, each)
            if each.driver not in _EXISTING:
                _unmake(reach, records, each)
        except ShoalError as error:
            code = complain(error)
            if not force:
                continue
        records.remove(each.machine.name)
        print(f"Successfully removed {each.machine.name}")
    return code


@command("[OPTIONS] [NAME...]", examples=["shoal machine doctor"])
def doctor(
    reach: ReachFlags,
    names: Annotated[list[str], argument()] = [],  # noqa: B006
) -> int:
    """Look at machines as 'provision' would, and tell what is wrong with their hosts and what is still to do"""
    from machine.apply import look
    from machine.model import Inventory

    records = find_all(reach.records(), names)
    code = 0
    with reach.fleet() as fleet:
        for cluster in dict.fromkeys(each.cluster_id for each in records):
            machines = tuple(each.machine for each in records if each.cluster_id == cluster)
            found = (
                look(fleet, Inventory(machines, store="")) if any(m.role is Role.MANAGER for m in machines) else None
            )
            if found is None:
                print(f"{', '.join(each.name for each in machines)}: no manager of their cluster is among them")
                code = 1
                continue
            found = look(fleet, Inventory(machines))
            print_plan(found)
            print_faults(found)
            code = code or (0 if found.empty else 1)
    return code


def _carry_out(reach: ReachFlags, records: Records, machine: Machine, through: str, *, dry_run: bool) -> int:
    from machine.apply import apply, joining, look, only

    inventory = joining(machine, records, through)
    known = records.find(machine.name)
    with reach.fleet(new=known is None or not known.node_id) as fleet:
        found = only(look(fleet, inventory), {machine.name})
        print_faults(found)
        if dry_run:
            print_plan(found)
            return 1 if found.failed else 0
        board = Board([machine.name], sys.stdout)
        outcomes = apply(fleet, inventory, found, records=records, clock=SystemClock(), owner=owner(), tell=board.tell)
    return print_outcomes({name: each for name, each in outcomes.items() if name == machine.name or each.failed})


def _manager_beside(records: Records, record: Record) -> str:
    """Another manager's machine of the same cluster; empty where there is none."""
    for each in records.all():
        alike = each.cluster_id == record.cluster_id and each.machine.name != record.machine.name
        if alike and each.machine.role is Role.MANAGER:
            return each.machine.name
    return ""


def _purge(reach: ReachFlags, records: Records, record: Record) -> None:
    from machine.purge import purge

    me = owner()
    with records.held([record.machine.name], me), reach.fleet() as fleet:
        purge(
            fleet,
            record,
            manager=_manager_beside(records, record),
            records=records,
            owner=me,
            tell=lambda text: print(text, file=sys.stderr),
        )


def _unmake(reach: ReachFlags, records: Records, record: Record) -> None:
    """A host that a driver made goes with its machine; another one may come to its address."""
    from machine.drivers.choice import driver_of
    from machine.transport.config import Config
    from machine.transport.hostkey import forget

    with driver_of(record.driver, records, dial=reach.fleet, clock=SystemClock()) as driver:
        driver.remove(record.machine)
    if record.machine.address:
        forget(records.known_hosts, Config.load().way(record.machine)[-1].known_as)


def _confirmed() -> bool:
    print("Are you sure? (y/n): ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
