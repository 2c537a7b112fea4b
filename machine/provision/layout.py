"""Where Shoal lies on a host that `machine` provisioned, and what starts it there. Pure.

Each version has a folder of its own under /opt/shoal, named by version and content, and never changes; `current` is the
one that is started. Whatever runs goes on with the files that it was started from.
"""

from __future__ import annotations

ROOT = "/opt/shoal"
CURRENT = f"{ROOT}/current"
# Written last into a version's folder: without it the folder is rubbish of an installation that broke off.
COMPLETE = ".complete"
LOCK = "/run/shoal-machine.lock"
PIDS = "/run/shoal/supervisor.pids"
SHOAL = f"{CURRENT}/bin/shoal"
PYTHON = f"{CURRENT}/bin/python"
LINK = "/usr/local/bin/shoal"

UNIT_PATH = "/etc/systemd/system/shoal-agent.service"
# KillMode: the keeper, the manager and every container are the agent's children, and outlive it.
# RestartKillSignal: an agent that is restarted says so to its manager, which waits for the next one.
# TimeoutStartSec: systemd would end an agent that takes more than 90 s to start, as on a starved virtual machine, and
# the next one would take as long.
# Delegate: containers' cgroups are the agent's own (systemd.resource-control(5)).
UNIT = f"""\
[Unit]
Description=Shoal agent: containers of this host
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
NotifyAccess=main
TimeoutStartSec=infinity
ExecStart={CURRENT}/bin/shoal-agent
Restart=always
RestartSec=1
KillMode=process
RestartKillSignal=SIGUSR1
Delegate=yes
TasksMax=infinity
LimitNOFILE=1048576
OOMScoreAdjust=-500

[Install]
WantedBy=multi-user.target
"""

SCRIPT_PATH = "/etc/init.d/shoal-agent"
# For hosts without systemd. The loop is the supervisor; `stop` ends it first, then the agent alone; `restart` tells the
# agent, as the unit does.
SCRIPT = f"""\
#!/bin/sh
### BEGIN INIT INFO
# Provides:          shoal-agent
# Required-Start:    $network $local_fs
# Required-Stop:
# Default-Start:     2 3 4 5
# Default-Stop:
# Short-Description: Shoal agent: containers of this host
### END INIT INFO
# Keeps the agent running; containers, keeper and manager outlive it.
pids={PIDS}

lives() {{
    read -r loop agent < $pids 2>/dev/null && grep -q shoal-agent /proc/$loop/cmdline 2>/dev/null
}}

case "$1" in
loop)
    while :; do
        {CURRENT}/bin/shoal-agent >> /var/log/shoal-agent.log 2>&1 &
        echo $$ $! > $pids
        wait $!
        sleep 1
    done
    ;;
start)
    lives && exit 0
    mkdir -p ${{pids%/*}}
    setsid "$0" loop < /dev/null > /dev/null 2>&1 &
    ;;
stop)
    lives || exit 0
    kill $loop
    kill -s ${{2:-TERM}} $agent 2>/dev/null
    while kill -0 $agent 2>/dev/null; do sleep 0.1; done
    rm -f $pids
    ;;
restart)
    "$0" stop USR1
    exec "$0" start
    ;;
status)
    lives
    ;;
*)
    echo "usage: $0 start|stop|restart|status" >&2
    exit 2
    ;;
esac
"""
