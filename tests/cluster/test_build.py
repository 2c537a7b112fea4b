"""A build on another node: the context goes through the manager, and all nodes run what came out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.conftest import SERVE, Lab, eventually, web_image

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

DOCKERFILE = """FROM web:1
COPY page /www/page
RUN echo built > /www/built
"""
OTHER = """mkdir -p /tmp/app; cd /tmp/app; echo x > x
printf 'FROM web:1\\nCOPY x /www/x\\n' > Dockerfile"""


def test_what_one_node_builds_all_nodes_run(clean: Lab, tmp_path: Path) -> None:
    with web_image(tmp_path).open() as archive:
        clean.on_with("n1", archive, "shoal", "--node", "n3", "import", *SERVE, "-", "web:1")
    clean.on(
        "n1", "sh", "-c", f"mkdir -p /tmp/app && printf '{DOCKERFILE}' > /tmp/app/Dockerfile && echo 1 > /tmp/app/page"
    )
    image_id = clean.shoal("n1", "build", "--node", "n3", "-q", "-t", "site:1", "/tmp/app").strip()
    assert clean.shoal("n3", "images", "--no-trunc", "-q", "site").strip() == image_id
    assert clean.shoal("n1", "images", "-q", "site") == ""
    # n2 has nothing of the base, and there is no registry.
    clean.on("n2", "sh", "-c", OTHER)
    clean.shoal("n2", "build", "-q", "-t", "other:1", "/tmp/app")
    clean.on("n1", "sh", "-c", "echo 2 > /tmp/app/page")
    second = clean.shoal("n1", "build", "--node", "n3", "-q", "-t", "site:1", "/tmp/app").strip()
    assert second != image_id
    clean.shoal("n1", "service", "create", "-d", "--name", "site", "--mode", "global", "site:1", "sleep", "1000")
    eventually(lambda: len(clean.shoal("n1", "ps", "-A", "-q").split()) == 3, what="a task on each node")
    for host in ("n1", "n2", "n3"):
        [container] = clean.shoal(host, "ps", "-q").split()
        assert clean.shoal(host, "exec", container, "cat", "/www/page", "/www/built").split() == ["2", "built"]
