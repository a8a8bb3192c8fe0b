"""Certificates for tests: an authority, and what it signs, as PEM files."""

import datetime
import ipaddress
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_DAY = datetime.timedelta(days=1)


def _uses(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


class Pair(NamedTuple):
    """A certificate and its private key."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates; its own is in ``ca``."""

    def __init__(self, directory: Path, name: str = "test authority") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self.ca = directory / "ca.pem"
        self._identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        self.ca.write_bytes(_pem(self._sealed(_builder(self._name, self._name, self._key, ca=True))))

    def sign(self, file: str, *names: str, days: int = 1) -> Pair:
        """A new certificate for some names (127.0.0.1 without any) that ends in ``days`` days; below 0: that has ended."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(file), self._name, key, ca=False, end=datetime.datetime.now(datetime.UTC) + days * _DAY)
        alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names or ("127.0.0.1",)])
        signed = self._sealed(builder.add_extension(alternatives, critical=False))
        pair = Pair(self._directory / f"{file}.pem", self._directory / f"{file}.key")
        _replace(pair.certificate, _pem(signed))
        form = serialization.PrivateFormat.PKCS8
        _replace(pair.key, key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        return pair

    def _sealed(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        # Newer Pythons want to be told by which key it is signed.
        by = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._identifier)
        return builder.add_extension(by, critical=False).sign(self._key, hashes.SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool, end: datetime.datetime | None = None
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 10 * _DAY)
        .not_valid_after(end or now + _DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_uses(ca=ca), critical=True)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _alternative(name: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _replace(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}")
    draft.write_bytes(data)
    draft.replace(path)
