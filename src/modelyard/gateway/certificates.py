"""The certificate of the front door, and the platform's own certificate authority that vouches for it.

A fresh platform must speak HTTPS before anybody has bought a certificate, so it makes an authority of its own (10 years) and a server
certificate (397 days) that is renewed by itself; whoever trusts the authority's file once never has to look again. A user who has a
certificate names its two files instead; they are checked here, so that a wrong key is a sentence at start and not a failed handshake.

Both keys are ECDSA on P-256: every TLS 1.2 client takes it (OpenSSL 1.0, Java 7, Python 2.7 and later) and a handshake costs a
tenth of RSA's. Nothing here knows the gateway: the result is files. Sources: RFC 5280 (profile), CA/Browser Forum baseline (398 days).
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import certifi
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes, PrivateKeyTypes, PublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from modelyard.kit.clock import utc_now

AUTHORITY_LIFETIME = timedelta(days=3650)
SERVER_LIFETIME = timedelta(days=397)
RENEW_BEFORE = timedelta(days=30)
_BACKDATED = timedelta(hours=1)  # clients whose clock is a little behind take a new certificate too
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_COMMON_NAME_LIMIT = 64  # RFC 5280, ub-common-name


class CertificateUnusable(Exception):
    """A certificate or key that can't serve; the message names the file and says what to do."""


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """The user's certificate: a PEM file with the server's certificate first and its chain after it, and the key's PEM file."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """What serves.

    Attributes:
        certificate: PEM, the server's certificate and whatever belongs to its chain.
        key: PEM, not encrypted.
        authority: PEM of the platform's own authority, for clients to trust; None with the user's own certificate.
        bundle: PEM of that authority and of all that is trusted anyway, for programs whose list of authorities can only be replaced;
            readable for everybody, in a directory of its own. None with the user's own certificate.
        expires_at: when the server's certificate ends.
    """

    certificate: Path
    key: Path
    authority: Path | None
    expires_at: datetime
    bundle: Path | None = None


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with its key, both PEM."""

    certificate: bytes
    key: bytes


def ensure_certificates(
    directory: Path, names: Sequence[str] = (), own: OwnCertificate | None = None, *, now: datetime | None = None
) -> CertificateFiles:
    """The files to serve with: the user's own, checked, or the platform's, made or renewed where needed.

    Args:
        directory: where the platform keeps `ca.crt`, `ca.key`, `server.crt` and `server.key` (made with mode 0700; keys 0600).
        names: host names and addresses to serve beside the usual ones (`server_names`).
        own: the user's certificate instead; nothing is written then.
        now: the current time, for tests.

    Renewed are: a server certificate with less than 30 days left, with other names, or not signed by the authority; an authority that
    would end before a new server certificate does. Raises `CertificateUnusable`; `OSError` where the directory can't be written.
    """
    moment = now or utc_now()
    if own is not None:
        expires_at = check_certificate(own.certificate, own.key, now=moment)
        return CertificateFiles(own.certificate, own.key, None, expires_at)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = _ensure_authority(directory, moment)
    wanted = server_names(names)
    certificate, key = directory / "server.crt", directory / "server.key"
    if not _still_serves(certificate, key, authority, wanted, moment):
        issued = issue_server_certificate(authority, wanted, now=moment)
        # The key first: whoever finds the new certificate also finds its key.
        _write(key, issued.key, mode=0o600)
        _write(certificate, issued.certificate, mode=0o644)
    expires_at = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    return CertificateFiles(certificate, key, directory / "ca.crt", expires_at, _write_bundle(directory, authority))


def server_names(extra: Sequence[str] = ()) -> tuple[str, ...]:
    """The names that the platform's certificate speaks for: this machine's own, then the extra ones, each once.

    Clients on OpenSSL do not accept `*.localhost` (a pattern must leave two labels fixed); a name below localhost that such a client uses
    must be among the extra ones.
    """
    machine = socket.gethostname().rstrip(".").lower()
    usual = ("localhost", "*.localhost", "127.0.0.1", "::1", machine)
    return tuple(dict.fromkeys(name.strip().rstrip(".").lower() for name in (*usual, *extra) if name.strip()))


def make_authority(*, now: datetime) -> Issued:
    """A new authority that may sign server certificates and no further authorities."""
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    # The name carries the key's identifier, so that the authorities of several platforms can be told apart in a trust store.
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Modelyard"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Modelyard local authority {identifier.digest.hex()[:8]}"),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return _issued(certificate, key)


def issue_server_certificate(authority: Issued, names: Sequence[str], *, now: datetime) -> Issued:
    """A server certificate for the names (host names, `*.` patterns, addresses), signed by the authority, with a new key."""
    authority_certificate = x509.load_pem_x509_certificate(authority.certificate)
    authority_key = serialization.load_pem_private_key(authority.key, password=None)
    if not isinstance(authority_key, ec.EllipticCurvePrivateKey):
        raise CertificateUnusable(
            "the authority's key is not an elliptic-curve key; remove ca.crt and ca.key to have new ones made"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    common_name = next((name for name in names if len(name) <= _COMMON_NAME_LIMIT), "localhost")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .issuer_name(authority_certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(min(now + SERVER_LIFETIME, authority_certificate.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    return _issued(certificate, key)


def check_certificate(certificate: Path, key: Path, *, now: datetime) -> datetime:
    """When the certificate ends. Raises `CertificateUnusable` unless both files are readable, belong together and are valid now."""
    loaded = _load_pair(certificate, key)
    if loaded.not_valid_after_utc <= now:
        ended = loaded.not_valid_after_utc.date().isoformat()
        raise CertificateUnusable(f"the certificate in {certificate} expired on {ended}; put a renewed one there")
    if loaded.not_valid_before_utc > now:
        begins = loaded.not_valid_before_utc.isoformat()
        raise CertificateUnusable(
            f"the certificate in {certificate} is not valid before {begins}; check this machine's clock"
        )
    return loaded.not_valid_after_utc


def _write_bundle(directory: Path, authority: Issued) -> Path:
    """Written anew at each start: what the machine trusts may have changed."""
    place = directory / "public"
    place.mkdir(exist_ok=True, mode=0o755)
    sources = [Path(certifi.where())]
    system = Path(ssl.get_default_verify_paths().openssl_cafile)
    if system.is_file():
        sources.append(system)
    found = [block for source in sources for block in _PEM.findall(source.read_bytes())]
    content = b"\n".join(dict.fromkeys([*_PEM.findall(authority.certificate), *found])) + b"\n"
    bundle = place / "bundle.pem"
    if not bundle.exists() or bundle.read_bytes() != content:
        _write(bundle, content, mode=0o644)
    return bundle


def _ensure_authority(directory: Path, now: datetime) -> Issued:
    certificate, key = directory / "ca.crt", directory / "ca.key"
    try:
        expires_at = _load_pair(certificate, key).not_valid_after_utc
    except CertificateUnusable:
        expires_at = now  # missing or half-written: nothing can be signed with it, so a new one takes its place
    # A clock that was set back is no reason for a new authority: every client would have to trust it anew.
    if expires_at - now > SERVER_LIFETIME:
        key.chmod(0o600)
        return Issued(certificate.read_bytes(), key.read_bytes())
    made = make_authority(now=now)
    _write(key, made.key, mode=0o600)
    _write(certificate, made.certificate, mode=0o644)
    return made


def _still_serves(certificate: Path, key: Path, authority: Issued, names: Sequence[str], now: datetime) -> bool:
    try:
        expires_at = check_certificate(certificate, key, now=now)
    except CertificateUnusable:
        return False
    if expires_at - now < RENEW_BEFORE:
        return False
    loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    served = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if set(served) != {_general_name(name) for name in names}:
        return False
    try:
        loaded.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate))
    except (InvalidSignature, ValueError, TypeError):
        return False
    key.chmod(0o600)
    return True


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name.encode("idna").decode("ascii") if not name.isascii() else name)
    except (UnicodeError, ValueError) as cause:
        raise CertificateUnusable(
            f"'{name}' can't stand in a certificate: it is neither a host name nor an address"
        ) from cause


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _issued(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Issued:
    return Issued(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def _load_pair(certificate: Path, key: Path) -> x509.Certificate:
    loaded, loaded_key = _load_certificate(certificate), _load_private_key(key)
    if _public_bytes(loaded.public_key()) != _public_bytes(loaded_key.public_key()):
        raise CertificateUnusable(
            f"the key in {key} does not belong to the certificate in {certificate}; name the key that it was made with"
        )
    return loaded


def _load_certificate(path: Path) -> x509.Certificate:
    content = _read(path, "certificate")
    try:
        return x509.load_pem_x509_certificates(content)[0]
    except ValueError as cause:
        raise CertificateUnusable(f"{path} holds no certificate in PEM form ('-----BEGIN CERTIFICATE-----')") from cause


def _load_private_key(path: Path) -> PrivateKeyTypes:
    content = _read(path, "key")
    try:
        return serialization.load_pem_private_key(content, password=None)
    except TypeError as cause:
        raise CertificateUnusable(
            f"the key in {path} is encrypted; store it without a passphrase, readable by the platform alone"
        ) from cause
    except ValueError as cause:
        raise CertificateUnusable(f"{path} holds no private key in PEM form ('-----BEGIN PRIVATE KEY-----')") from cause


def _public_bytes(key: CertificatePublicKeyTypes | PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _read(path: Path, role: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as cause:
        raise CertificateUnusable(f"the {role} file {path} can't be read: {cause.strerror}") from cause


def _write(path: Path, content: bytes, *, mode: int) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)
        file.flush()
        os.fsync(file.fileno())
    Path(name).replace(path)
