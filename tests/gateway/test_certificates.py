"""Certificates as files: made, renewed, refused."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
from datetime import timedelta
from pathlib import Path

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from modelyard.gateway.certificates import (
    CertificateUnusable,
    OwnCertificate,
    check_certificate,
    ensure_certificates,
    issue_server_certificate,
    make_authority,
    server_names,
)
from modelyard.kit.clock import utc_now


def names_of(path: Path) -> set[str]:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = {str(address) for address in found.get_values_for_type(x509.IPAddress)}
    return set(found.get_values_for_type(x509.DNSName)) | addresses


def handshake(files_certificate: Path, files_key: Path, authority: Path, name: str) -> None:
    """A real TLS handshake in which the client checks the name."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files_certificate, files_key)
    client = ssl.create_default_context(cafile=str(authority))
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True) as secured:
                secured.recv(1)
        except (ssl.SSLError, OSError):
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=name) as secured:
            secured.send(b"x")
    finally:
        ours.close()
        thread.join()


def test_a_client_that_trusts_the_authority_accepts_every_name(tmp_path: Path) -> None:
    files = ensure_certificates(tmp_path, ["ml.example.com", "192.0.2.7"])
    assert files.authority is not None
    for name in ("localhost", "127.0.0.1", "::1", socket.gethostname(), "ml.example.com", "192.0.2.7"):
        handshake(files.certificate, files.key, files.authority, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(files.certificate, files.key, files.authority, "example.org")


def test_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    ensure_certificates(tmp_path / "tls")
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "tls").rglob("*")} == {
        "bundle.pem": "0o644",
        "public": "0o755",
        "ca.crt": "0o644",
        "ca.key": "0o600",
        "server.crt": "0o644",
        "server.key": "0o600",
    }


def test_lifetimes_are_what_clients_accept(tmp_path: Path) -> None:
    files = ensure_certificates(tmp_path)
    assert files.authority is not None
    server = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    authority = x509.load_pem_x509_certificate(files.authority.read_bytes())
    assert server.not_valid_after_utc - server.not_valid_before_utc <= timedelta(days=398)
    assert authority.not_valid_after_utc - utc_now() > timedelta(days=3640)
    assert files.expires_at == server.not_valid_after_utc


def test_nothing_changes_while_nothing_needs_to(tmp_path: Path) -> None:
    ensure_certificates(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.rglob("*.*")}
    ensure_certificates(tmp_path, now=utc_now() + timedelta(days=300))
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_the_bundle_trusts_the_authority_beside_all_others(tmp_path: Path) -> None:
    files = ensure_certificates(tmp_path)
    assert files.bundle is not None
    assert files.authority is not None
    trusted = files.bundle.read_text()
    assert files.authority.read_text().strip() in trusted
    usual = Path(certifi.where()).read_text()
    assert trusted.count("BEGIN CERTIFICATE") > usual.count("BEGIN CERTIFICATE")
    ssl.create_default_context(cafile=str(files.bundle))


def test_it_is_renewed_a_month_before_its_end_by_the_same_authority(tmp_path: Path) -> None:
    first = ensure_certificates(tmp_path)
    authority = (tmp_path / "ca.crt").read_bytes()
    later = utc_now() + timedelta(days=370)
    second = ensure_certificates(tmp_path, now=later)
    assert second.expires_at > first.expires_at
    assert (tmp_path / "ca.crt").read_bytes() == authority


def test_it_is_renewed_when_names_change(tmp_path: Path) -> None:
    files = ensure_certificates(tmp_path)
    assert "ml.example.com" not in names_of(files.certificate)
    files = ensure_certificates(tmp_path, ["ml.example.com"])
    assert "ml.example.com" in names_of(files.certificate)
    assert {"localhost", "*.localhost", "127.0.0.1", "::1", socket.gethostname().lower()} <= names_of(files.certificate)


@pytest.mark.parametrize("broken", ["ca.crt", "ca.key", "server.crt", "server.key"])
def test_a_broken_file_is_replaced(tmp_path: Path, broken: str) -> None:
    ensure_certificates(tmp_path)
    (tmp_path / broken).write_text("half a fi")
    files = ensure_certificates(tmp_path)
    assert files.authority is not None
    handshake(files.certificate, files.key, files.authority, "localhost")


def test_an_authority_near_its_end_is_replaced(tmp_path: Path) -> None:
    ensure_certificates(tmp_path)
    authority = (tmp_path / "ca.crt").read_bytes()
    later = utc_now() + timedelta(days=3650 - 200)
    files = ensure_certificates(tmp_path, now=later)
    assert (tmp_path / "ca.crt").read_bytes() != authority
    assert files.expires_at > later + timedelta(days=390)


def test_a_clock_set_back_brings_no_new_authority(tmp_path: Path) -> None:
    ensure_certificates(tmp_path)
    authority = (tmp_path / "ca.crt").read_bytes()
    ensure_certificates(tmp_path, now=utc_now() - timedelta(days=40))
    assert (tmp_path / "ca.crt").read_bytes() == authority


def own_files(directory: Path, *, days_ago: int = 0) -> OwnCertificate:
    made_at = utc_now() - timedelta(days=days_ago)
    issued = issue_server_certificate(make_authority(now=made_at), ["ml.example.com"], now=made_at)
    (directory / "own.crt").write_bytes(issued.certificate)
    (directory / "own.key").write_bytes(issued.key)
    return OwnCertificate(directory / "own.crt", directory / "own.key")


def test_the_users_own_certificate_is_taken_as_it_is(tmp_path: Path) -> None:
    own = own_files(tmp_path)
    files = ensure_certificates(tmp_path / "tls", own=own)
    assert (files.certificate, files.key, files.authority) == (own.certificate, own.key, None)
    assert not (tmp_path / "tls").exists()


def test_an_expired_own_certificate_is_refused(tmp_path: Path) -> None:
    own = own_files(tmp_path, days_ago=500)
    with pytest.raises(CertificateUnusable, match=r"own\.crt expired on \d{4}-\d\d-\d\d"):
        ensure_certificates(tmp_path, own=own)


def test_a_certificate_of_the_future_is_refused(tmp_path: Path) -> None:
    own = own_files(tmp_path, days_ago=-10)
    with pytest.raises(CertificateUnusable, match="is not valid before"):
        ensure_certificates(tmp_path, own=own)


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    own = own_files(tmp_path)
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    own.key.write_bytes(other.private_bytes(*pem, serialization.NoEncryption()))
    with pytest.raises(CertificateUnusable, match=r"own\.key does not belong to the certificate"):
        ensure_certificates(tmp_path, own=own)
    own.key.write_bytes(other.private_bytes(*pem, serialization.BestAvailableEncryption(b"secret")))
    with pytest.raises(CertificateUnusable, match="is encrypted"):
        ensure_certificates(tmp_path, own=own)


@pytest.mark.parametrize("missing", ["own.crt", "own.key"])
def test_missing_and_foreign_files_are_named(tmp_path: Path, missing: str) -> None:
    own = own_files(tmp_path)
    (tmp_path / missing).write_text("not PEM")
    with pytest.raises(CertificateUnusable, match=missing):
        check_certificate(own.certificate, own.key, now=utc_now())
    (tmp_path / missing).unlink()
    with pytest.raises(CertificateUnusable, match=rf"{missing} can't be read: No such file"):
        check_certificate(own.certificate, own.key, now=utc_now())


def test_names_are_cleaned_and_unique() -> None:
    names = server_names(["ML.Example.com.", " ml.example.com ", "", "10.0.0.1"])
    assert names.count("ml.example.com") == 1
    assert "10.0.0.1" in names
    assert all(name == name.lower() for name in names)
    assert ipaddress.ip_address("::1") in {ipaddress.ip_address(name) for name in names if ":" in name}


def test_international_names_are_encoded(tmp_path: Path) -> None:
    files = ensure_certificates(tmp_path, ["bücher.example"])
    assert "xn--bcher-kva.example" in names_of(files.certificate)


def test_a_name_that_no_certificate_can_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CertificateUnusable, match="neither a host name nor an address"):
        ensure_certificates(tmp_path, ["ü" * 200])
