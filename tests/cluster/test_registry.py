"""A service whose image is in a registry that wants a password: one node goes there for all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.cluster.conftest import Lab, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
PASSWORD = "opensesame"
# bcrypt of it, which is all that docker-registry knows.
USERS = "tester:$2b$05$abcdefghijklmnopqrstuuQbLfdQZSxZ9gjhA5V9o8Tyc6aQRO0Qi\n"
CONFIG = """version: 0.1
log: {{level: info, accesslog: {{disabled: false}}}}
storage: {{filesystem: {{rootdirectory: /var/lib/shoal/registry/data}}}}
http: {{addr: '{host}', tls: {{certificate: /var/lib/shoal/registry/tls.pem, key: /var/lib/shoal/registry/tls.pem}}}}
auth: {{htpasswd: {{realm: users, path: /var/lib/shoal/registry/users}}}}
"""


@pytest.fixture
def registry(clean: Lab) -> Iterator[str]:
    """ "ADDR:PORT" of a registry on n1, whose CA every host has where its agent looks for it."""
    address = clean.addresses["n1"]
    host = f"{address}:5000"
    folder = Path("/var/lib/shoal-lab") / clean.name / "n1" / "shoal" / "registry"
    folder.mkdir(exist_ok=True)
    authority = trustme.CA()
    authority.issue_cert(address).private_key_and_cert_chain_pem.write_to_path(folder / "tls.pem")
    (folder / "users").write_text(USERS)
    (folder / "config.yml").write_text(CONFIG.format(host=host))
    certs = f"/etc/shoal/certs.d/{host}"
    for each in ("n1", "n2", "n3"):
        put = f"mkdir -p {certs} && cat > {certs}/ca.crt"
        assert clean.on(each, "sh", "-c", put, stdin=authority.cert_pem.bytes().decode()).returncode == 0
    serve = "docker-registry serve /var/lib/shoal/registry/config.yml > /var/lib/shoal/registry/log 2>&1 &"
    clean.on("n1", "sh", "-c", serve)
    try:
        ask = ("curl", "-s", "-o", "/dev/null", "--cacert", f"{certs}/ca.crt", f"https://{host}/v2/")
        eventually(lambda: clean.on("n1", *ask).returncode == 0, what="the registry answers")
        yield host
    finally:
        clean.kill_9("n1", "docker-registry")
        clean.on("n1", "rm", "-rf", "/var/lib/shoal/registry")


def test_one_node_goes_to_the_registry_for_all(clean: Lab, registry: str) -> None:
    log = Path("/var/lib/shoal-lab") / clean.name / "n1" / "shoal/registry/log"
    image = f"{registry}/team/app:1"
    done = clean.on("n1", "shoal", "login", "-u", "tester", "--password-stdin", registry, stdin=PASSWORD)
    assert (done.stdout, done.returncode) == ("Login Succeeded\n", 0), done.stderr
    made = 'tar -C / -c bin/busybox | shoal import -c \'CMD ["/bin/busybox", "sleep", "1000"]\' - ' + image
    assert clean.on("n1", "sh", "-c", made).returncode == 0
    digest = re.search(r"sha256:\w+", clean.shoal("n1", "push", image).splitlines()[-1])
    clean.shoal("n1", "rmi", image)
    before = log.read_text().count('"GET /v2/team/app/blobs/')

    refused = ("service", "create", "-d", "--name", "web", "--mode", "global", image)
    clean.shoal("n1", *refused)
    told = "no basic auth credentials"
    eventually(lambda: told in clean.shoal("n1", "service", "ps", "--no-trunc", "web"), what="a node is refused")
    clean.shoal("n1", "service", "update", "--with-registry-auth", "--force", "web")
    assert digest is not None and digest[0] in clean.shoal("n1", "service", "inspect", "web")
    eventually(lambda: len(clean.running("web")) == 3, what="three tasks")
    # Its layer and its configuration, each once for all three nodes.
    assert log.read_text().count('"GET /v2/team/app/blobs/') - before == 2
    for host in ("n1", "n2", "n3"):
        assert clean.on(host, "grep", "-rlsF", PASSWORD, "/var/lib/shoal", "/run/shoal").stdout == ""
