"""Benchmarks beside the peers that are installed: `python -m tests.bench [engine|images|machine|manager]`.

Each row is {name, ours, peer, ratio, unit}; `ratio` is ours/peer (lower is better, but for rates such as MB/s), null
where there is no peer.
Both sides of a ratio are measured in turns within one run, because this is the only comparison that holds on a
machine whose speed drifts. Rows of earlier runs that this one does not measure stay in build/bench.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from tests.bench import (
    bench_agents,
    bench_cluster,
    bench_containers,
    bench_failover,
    bench_herd,
    bench_images,
    bench_machine,
    bench_manager,
    bench_pull,
    bench_runtime,
    bench_scheduler,
    bench_store,
    bench_unpack,
)
from tests.bench.row import Row

GROUPS: dict[str, tuple[Callable[[], list[Row]], ...]] = {
    "engine": (bench_runtime.rows, bench_containers.rows, bench_herd.rows),
    "images": (bench_images.rows, bench_pull.rows, bench_unpack.rows),
    "machine": (bench_machine.rows,),
    "manager": (
        bench_scheduler.rows,
        bench_manager.rows,
        bench_store.rows,
        bench_agents.rows,
        bench_failover.rows,
        bench_cluster.rows,
    ),
}
RESULT = Path("build/bench.json")


def main(wanted: list[str]) -> int:
    if unknown := set(wanted) - set(GROUPS):
        print(f"no such group: {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}", file=sys.stderr)
        return 2
    rows = [row for group in wanted or GROUPS for measure in GROUPS[group] for row in measure()]
    print(f"{'NAME':28} {'OURS':>12} {'PEER':>12} {'RATIO':>8}  UNIT")
    for row in rows:
        peer, ratio = ("-" if value is None else f"{value:.3f}" for value in (row["peer"], row["ratio"]))
        print(f"{row['name']:28} {row['ours']:12.3f} {peer:>12} {ratio:>8}  {row['unit']}")
    old = json.loads(RESULT.read_text()) if RESULT.exists() else []
    fresh = {row["name"] for row in rows}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps([row for row in old if row["name"] not in fresh] + rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
