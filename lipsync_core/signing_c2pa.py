"""Signing an output with C2PA content credentials, where the user gives a key and a certificate.

c2pa-python (the Content Authenticity Initiative's own library) writes the manifest; it signs MP4 and QuickTime files,
not Matroska. Nothing is sent anywhere: no time stamp authority is asked.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lipsync_core import __version__
from lipsync_core.errors import OutputError, SettingsError
from lipsync_core.provenance import DIGITAL_SOURCE_TYPE, TOOL

_FORMATS: Final = {".mp4": "video/mp4", ".mov": "video/quicktime"}
_CURVES: Final = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
"""C2PA's algorithm for each elliptic curve (C2PA specification, Digital signatures)."""


@dataclass(frozen=True, slots=True)
class Signing:
    """A certificate chain (PEM, the signer's own first) and its private key (PEM, without a password)."""

    certificate: Path
    key: Path

    def check(self, output: Path) -> None:
        """Raise `SettingsError` or `OutputError` for what would fail after all the work."""
        if output.suffix.lower() not in _FORMATS:
            raise OutputError(
                f"C2PA credentials cannot be put into a {output.suffix} file.",
                "Write .mp4 or .mov, or leave out the key.",
            )
        if importlib.util.find_spec("c2pa") is None:
            raise SettingsError(
                "Signing needs the library c2pa-python, which is not installed.",
                'Run pip install "lipsync-core[c2pa]".',
            )
        for path in (self.certificate, self.key):
            if not path.is_file():
                raise SettingsError(
                    f"There is no file {str(path)!r} to sign with.", "Check job.c2pa_* in the settings."
                )
        self._algorithm()

    def sign(self, path: Path, suffix: str) -> None:
        """Sign a whole file in place; raises `SettingsError` where key and certificate are refused."""
        import c2pa  # noqa: PLC0415 - optional, and slow to import

        signed = path.with_name(f"{path.name}.signed")
        info = c2pa.C2paSignerInfo(
            alg=self._algorithm(),
            sign_cert=self.certificate.read_bytes(),
            private_key=self.key.read_bytes(),
            ta_url=None,
        )
        try:
            with (
                c2pa.Signer.from_info(info) as signer,
                c2pa.Builder(json.dumps(_manifest(suffix))) as builder,
                path.open("rb") as source,
                signed.open("w+b") as into,
            ):
                builder.sign(signer, _FORMATS[suffix], source, into)
            signed.replace(path)
        except c2pa.C2paError as error:
            raise SettingsError(
                f"The output cannot be signed with {str(self.certificate)!r}: {error}.",
                "Give a certificate chain for C2PA and its own key, or leave them out.",
            ) from error
        finally:
            signed.unlink(missing_ok=True)

    def _algorithm(self) -> str:
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - comes with c2pa-python
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

        try:
            key = load_pem_private_key(self.key.read_bytes(), None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise SettingsError(
                f"{str(self.key)!r} is not a private key that can be read.", "Give a PEM file without a password."
            ) from error
        if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
            return _CURVES[key.curve.name]
        if isinstance(key, rsa.RSAPrivateKey):
            return "ps256"
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return "ed25519"
        raise SettingsError(f"C2PA has no signature for the key in {str(self.key)!r}.", "Use an ECDSA key on P-256.")


def _manifest(suffix: str) -> dict[str, object]:
    made = {"action": "c2pa.created", "digitalSourceType": DIGITAL_SOURCE_TYPE, "softwareAgent": {"name": TOOL}}
    return {
        "claim_generator_info": [{"name": TOOL, "version": __version__}],
        "format": _FORMATS[suffix],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [made]}}],
    }
