"""The files by which a user is known: certificate, key and the cluster's root, in a folder or behind a context.

The key is on the disk before anybody is asked to sign for it: what breaks off leaves a key without a certificate, and
no certificate without its key.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cli.context.record import check_free, files_in, own_folder
from cli.endpoint import Context, Contexts, Tls, parse
from shoal.errors import Conflict
from shoal.files import write_atomic
from shoal.tls import csr_for, new_key

_FRESH = ".new"


class Place(NamedTuple):
    """Where the files go. `context` is empty where no context is to be made."""

    tls: Tls
    context: str = ""

    @classmethod
    def choose(cls, user: str, folder: str, context: str) -> Place:
        """`folder`, or else the context's own, or ./USER. Raises Conflict where there is such a context or file."""
        if context:
            contexts = Contexts.load()
            check_free(context, contexts)
            folder = folder or str(own_folder(context, contexts))
        tls = files_in(Path(folder or user).absolute())
        for name in tls:
            if Path(name).exists():
                raise Conflict(f"{name} is there already", hint="give another folder with --output")
        return cls(tls, context)

    def request(self, user: str) -> str:
        """A signing request for a fresh key, which waits beside the one that counts."""
        key_pem = new_key()
        Path(self.tls.key).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(Path(self.tls.key + _FRESH), key_pem.encode())
        return csr_for(key_pem, user)

    def save(self, certificate_pem: str, root_ca_pem: str) -> None:
        """From now on the fresh key and its certificate count."""
        write_atomic(Path(self.tls.ca), root_ca_pem.encode())
        write_atomic(Path(self.tls.cert), certificate_pem.encode())
        Path(self.tls.key + _FRESH).replace(self.tls.key)

    def forget(self) -> None:
        """Nobody signed for the fresh key."""
        Path(self.tls.key + _FRESH).unlink(missing_ok=True)

    def make_context(self, host: str, description: str) -> None:
        parse(host)
        contexts = Contexts.load()
        made = Context(self.context, host, description, self.tls)
        contexts._replace(stored=(*contexts.stored, made)).save()
