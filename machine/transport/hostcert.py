"""Host certificates: a host whose key an authority vouches for, which known_hosts marks with @cert-authority.

paramiko negotiates them and proves that the host holds the key; who signed for it, for which names and until when, is
checked here (PROTOCOL.certkeys of OpenSSH).
"""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, ssh

from shoal.errors import PermissionDenied


def check_certificate(name: str, certificate: bytes, authorities: Sequence[bytes], now_s: float | None = None) -> None:
    """Raises PermissionDenied for a certificate that does not vouch for `name` now. `authorities` are public keys."""
    host = name[1:].partition("]")[0] if name.startswith("[") else name
    now_s = time.time() if now_s is None else now_s
    try:
        kind = _kind_of(certificate)
        parsed = ssh.load_ssh_public_identity(kind + b" " + base64.b64encode(certificate))
        assert isinstance(parsed, ssh.SSHCertificate)
        signer = parsed.signature_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        if base64.b64decode(signer.split(b" ")[1]) not in authorities:
            raise PermissionDenied(f"the certificate of {name} is not of an authority that known_hosts names")
        parsed.verify_cert_signature()
    except (ValueError, InvalidSignature) as error:
        raise PermissionDenied(f"the certificate of {name} cannot be verified: {error}") from error
    if parsed.type is not ssh.SSHCertificateType.HOST:
        raise PermissionDenied(f"{name} shows a certificate that is none of a host")
    if parsed.critical_options:
        raise PermissionDenied(f"the certificate of {name} asks for what is not known: {parsed.critical_options}")
    if not parsed.valid_after <= now_s < parsed.valid_before:
        raise PermissionDenied(f"the certificate of {name} does not hold now", hint="is this computer's clock right?")
    names = [each.decode(errors="replace") for each in parsed.valid_principals]
    if names and host not in names:
        raise PermissionDenied(f"the certificate of {name} is for {', '.join(names)}")


def _kind_of(blob: bytes) -> bytes:
    return blob[4 : 4 + int.from_bytes(blob[:4], "big")]
