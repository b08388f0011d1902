"""The certificate and its key as one file that Envoy watches, so that it never holds one without the other."""

from __future__ import annotations

import hashlib
from pathlib import Path

import orjson

from modelyard.gateway.backends.envoy.bootstrap import SECRET


def secret_resource(certificate: Path, key: Path) -> bytes:
    """The discovery response (JSON) with the certificate chain and the key (both PEM files). The same files give the same bytes."""
    chain, private = certificate.read_text(), key.read_text()
    secret = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": SECRET,
        "tls_certificate": {
            "certificate_chain": {"inline_string": chain},
            "private_key": {"inline_string": private},
        },
    }
    version = hashlib.sha256((chain + private).encode()).hexdigest()[:16]
    return orjson.dumps({"version_info": version, "resources": [secret]})
