"""Hosts inside this machine: namespaces around a PID 1 of their own, on a root of their own, at the end of a cable.

`rack` has the hosts and their power; it stands on `boot` (what is behind the switch), `root`, `underlay` and `cgroup`,
and those on `kernel`. `driver` makes machines of them, with the systemd of a `tree`; `deploy/lab` makes whole racks, of
thin hosts too. All but the driver is the standard library, `shoal.errors` and `shoal.files`: the lab runs before
anything is installed.
"""
