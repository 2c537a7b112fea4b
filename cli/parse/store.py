"""Where a cluster keeps its state, from the flags of those commands that choose it."""

from typing import Annotated

from cli.command import Flags, flag
from shoal.errors import InvalidArgument
from shoal.v1.types_pb2 import StoreAccess


class EtcdFlags(Flags):
    """An etcd that exists where there are endpoints, else one that the managers run."""

    etcd_endpoints: Annotated[
        str, flag("--etcd-endpoints", metavar="list", help="Use this etcd (HOST:PORT,...), instead of running one")
    ] = ""
    etcd_ca: Annotated[str, flag("--etcd-ca", metavar="file", help="Trust an etcd with this root certificate")] = ""
    etcd_cert: Annotated[str, flag("--etcd-cert", metavar="file", help="Certificate to show etcd")] = ""
    etcd_key: Annotated[str, flag("--etcd-key", metavar="file", help="Key of the certificate")] = ""
    etcd_user: Annotated[str, flag("--etcd-user", help="User of etcd")] = ""
    etcd_password_file: Annotated[str, flag("--etcd-password-file", metavar="file", help="The user's password")] = ""
    etcd_prefix: Annotated[str, flag("--etcd-prefix", help="All keys stand below it in etcd (default /shoal)")] = ""

    def access_of(self, store: str, *, asked: str = "--store") -> StoreAccess | None:
        """How `store` ("sqlite" or "etcd", as the flag `asked` says) is reached; None for SQLite. Raises
        InvalidArgument for what does not go together, and for files that cannot be read."""
        given = [name for name in EtcdFlags.__annotations__ if getattr(self, name)]
        if store not in ("", "sqlite", "etcd"):
            raise InvalidArgument(f'unknown store "{store}"', hint="use sqlite or etcd")
        if store != "etcd":
            if given:
                raise InvalidArgument(f"--{given[0].replace('_', '-')} goes with {asked} etcd")
            return None
        if not self.etcd_endpoints and given:
            raise InvalidArgument(f"--{given[0].replace('_', '-')} goes with --etcd-endpoints")
        if "https://" in self.etcd_endpoints and not self.etcd_ca:
            raise InvalidArgument("https:// needs --etcd-ca")
        if bool(self.etcd_cert) != bool(self.etcd_key):
            raise InvalidArgument("--etcd-cert and --etcd-key go together")
        if bool(self.etcd_user) != bool(self.etcd_password_file):
            raise InvalidArgument("--etcd-user and --etcd-password-file go together")
        return StoreAccess(
            endpoints=[_endpoint(each) for each in self.etcd_endpoints.split(",")] if self.etcd_endpoints else [],
            managed=not self.etcd_endpoints,
            prefix=self.etcd_prefix,
            ca_pem=_text("--etcd-ca", self.etcd_ca),
            certificate_pem=_text("--etcd-cert", self.etcd_cert),
            key_pem=_text("--etcd-key", self.etcd_key),
            user=self.etcd_user,
            password=_text("--etcd-password-file", self.etcd_password_file).strip(),
        )


class StoreFlags(EtcdFlags):
    """SQLite unless etcd is asked for."""

    store: Annotated[
        str,
        flag("--store", help='Where the state is kept: "sqlite" (one manager) or "etcd" (several) (default sqlite)'),
    ] = ""

    def access(self) -> StoreAccess | None:
        return self.access_of(self.store)


def _endpoint(text: str) -> str:
    """ "HOST:PORT", also where it was written as a URL."""
    place = text.strip().removeprefix("https://").removeprefix("http://").rstrip("/")
    host, colon, port = place.rpartition(":")
    if not host or not colon or not port.isdigit():
        raise InvalidArgument(f'invalid etcd endpoint "{text}"', hint="write HOST:PORT")
    return place


def _text(name: str, path: str) -> str:
    if not path:
        return ""
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123  # pathlib is 10 ms of a start
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{name} {path} cannot be read: {error}") from error
