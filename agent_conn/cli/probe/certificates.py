"""Read what a certificate says."""

from __future__ import annotations

from cryptography import x509

from agent_conn.cli.probe.findings import Certificate


def read_certificate(der: bytes) -> Certificate | None:
    """What the certificate `der` says, or None where it cannot be parsed."""
    try:
        parsed = x509.load_der_x509_certificate(der)
        return Certificate(
            subject=parsed.subject.rfc4514_string(),
            issuer=parsed.issuer.rfc4514_string(),
            names=_names(parsed),
            not_before=parsed.not_valid_before_utc,
            not_after=parsed.not_valid_after_utc,
            self_signed=parsed.subject == parsed.issuer,
        )
    except ValueError:
        return None


def _names(parsed: x509.Certificate) -> tuple[str, ...]:
    try:
        extension = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    names = extension.value.get_values_for_type(x509.DNSName)
    addresses = extension.value.get_values_for_type(x509.IPAddress)
    return (*names, *(str(address) for address in addresses))
