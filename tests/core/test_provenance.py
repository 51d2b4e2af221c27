"""What an output says about itself."""

from __future__ import annotations

import struct
from importlib.metadata import EntryPoint
from pathlib import Path
from xml.etree import ElementTree

import av
import numpy as np
import pytest

from lipsync_core import __version__, api, provenance
from lipsync_core.errors import OutputError, SettingsError
from lipsync_core.registry import discover
from lipsync_core.settings import resolve

from . import fake_plugin as fake
from .clips import write_sound, write_video

XMP_NAME = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A job of five frames with the fake backends."""
    point = EntryPoint("fake", fake.__name__, "lipsync")
    monkeypatch.setattr(api, "discover", lambda: discover([point]))
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    kinds = ("audio", "aligner", "masker", "denoiser", "compositor")
    Path("fake.toml").write_text("".join(f'[{kind}]\nbackend = "fake"\n' for kind in kinds))
    write_video(Path("in.mp4"), np.full((5, 48, 48, 3), 200, np.uint8))
    write_sound(Path("say.wav"), seconds=0.2)


def boxes(path: Path) -> list[tuple[bytes, bytes]]:
    """Return name and content of an MP4 file's top-level boxes."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        found.append((name, data[at + 8 : at + size]))
        at += size
    return found


def tags_of(path: str) -> dict[str, str]:
    with av.open(path) as container:
        assert sum(1 for _ in container.decode(video=0)) == 5
        return {key.lower(): value for key, value in container.metadata.items()}


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_outputs_say_that_they_are_synthetic(suffix: str) -> None:
    output = f"out{suffix}"
    api.dub("in.mp4", "say.wav", output, profile="fake.toml")
    tags = tags_of(output)
    assert tags["comment"].startswith("Synthetic: ")
    assert tags["comment"].endswith(f"(lipsync {__version__}, profile fake).")
    if suffix in {".mkv", ".webm"}:
        assert tags["digital_source_type"] == provenance.DIGITAL_SOURCE_TYPE
    else:
        data = Path(output).read_bytes()
        start = data.index(b"<x:xmpmeta")
        packet = data[start : data.index(b"</x:xmpmeta>") + 12]
        (description,) = ElementTree.fromstring(packet).iter(f"{RDF}Description")
        assert description.get(f"{IPTC}DigitalSourceType") == provenance.DIGITAL_SOURCE_TYPE
    if suffix == ".mp4":
        assert boxes(Path(output))[-1][1].startswith(XMP_NAME)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_they_say_nothing_where_that_is_asked(suffix: str) -> None:
    output = f"out{suffix}"
    api.dub("in.mp4", "say.wav", output, profile="fake.toml", flags={"job.provenance": False})
    assert not tags_of(output).keys() & {"comment", "digital_source_type"}
    assert b"xmpmeta" not in Path(output).read_bytes()


def test_a_profile_in_a_file_does_not_tell_whose_folder_it_is_in() -> None:
    assert provenance.note("/home/someone/fast.toml") == provenance.note("fast")


def test_the_sources_own_comment_is_kept_once() -> None:
    first = provenance.tags("draft", ".mp4", "Recorded in May")["comment"]
    assert first.endswith("\nRecorded in May")
    assert provenance.tags("draft", ".mp4", first)["comment"] == first


def test_a_description_cannot_break_out_of_the_packet() -> None:
    packet = provenance.xmp('</rdf:li><evil a="1">&')
    text = ElementTree.fromstring(packet[packet.index("<x:") : packet.index("<?xpacket end")])
    assert [li.text for li in text.iter(f"{RDF}li")] == ['</rdf:li><evil a="1">&']


# Signing


def test_key_and_certificate_go_together() -> None:
    for given in ("c2pa_key", "c2pa_certificate"):
        with pytest.raises(SettingsError, match="go together"):
            resolve(discover([]), flags={f"job.{given}": "x.pem"})


@pytest.fixture
def credentials(tmp_path: Path) -> list[str]:
    """A chain for C2PA and its key, as overrides: a leaf that may sign documents under a root of this test's own."""
    pytest.importorskip("c2pa", reason="signing needs c2pa-python (extra c2pa)")
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(of: str) -> x509.Name:
        return x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, of), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tests")]
        )

    def usage(*, signs_certificates: bool) -> x509.KeyUsage:
        return x509.KeyUsage(
            not signs_certificates, False, False, False, False, signs_certificates, signs_certificates, False, False
        )

    now = datetime.datetime.now(datetime.UTC)
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())

    def begun(subject: str, public: ec.EllipticCurvePublicKey, *, root: bool) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder(name("Root"), name(subject), public, x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(root, None), critical=True)
            .add_extension(usage(signs_certificates=root), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(authority, critical=False)
        )

    root = begun("Root", root_key.public_key(), root=True).sign(root_key, hashes.SHA256())
    may = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
    leaf = begun("Signer", key.public_key(), root=False).add_extension(may, critical=False)
    pem = serialization.Encoding.PEM
    chain = [leaf.sign(root_key, hashes.SHA256()), root]
    (tmp_path / "chain.pem").write_bytes(b"".join(part.public_bytes(pem) for part in chain))
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return [f"job.c2pa_certificate={tmp_path / 'chain.pem'}", f"job.c2pa_key={tmp_path / 'key.pem'}"]


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_a_signed_output(credentials: list[str], suffix: str) -> None:
    import json

    import c2pa

    output = f"out{suffix}"
    api.dub("in.mp4", "say.wav", output, profile="fake.toml", overrides=credentials)
    assert tags_of(output)["comment"].startswith("Synthetic")
    with c2pa.Reader(output) as reader:
        told = json.loads(reader.json())
    manifest = told["manifests"][told["active_manifest"]]
    assert manifest["signature_info"]["issuer"] == "Tests"
    actions = [a["data"]["actions"] for a in manifest["assertions"] if a["label"].startswith("c2pa.actions")]
    assert actions[0][0]["digitalSourceType"] == provenance.DIGITAL_SOURCE_TYPE
    problems = [s["code"] for s in told.get("validation_status", [])]
    assert problems in ([], ["signingCredential.untrusted"])  # our root is on nobody's list
    data = bytearray(Path(output).read_bytes())
    data[data.index(b"mdat") + 100] ^= 255
    Path(output).write_bytes(data)
    with c2pa.Reader(output) as reader:
        assert "assertion.bmffHash.mismatch" in reader.json()


@pytest.mark.usefixtures("tiny")
def test_what_cannot_be_signed_is_refused_before_the_work(
    credentials: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "make_stages", None)  # not to be called

    def refused(error: type[Exception], message: str, output: str = "out.mp4") -> None:
        with pytest.raises(error, match=message):
            api.dub("in.mp4", "say.wav", output, profile="fake.toml", overrides=credentials)
        assert not list(Path().glob("*out*"))

    refused(OutputError, "cannot be put into a .mkv file", "out.mkv")
    key = Path("key.pem")
    key.write_text("no key")
    refused(SettingsError, "not a private key")
    key.unlink()
    refused(SettingsError, "There is no file")


@pytest.mark.usefixtures("tiny")
def test_a_certificate_that_is_refused_leaves_no_output(credentials: list[str]) -> None:
    Path("chain.pem").write_text(Path("chain.pem").read_text().split("-----END CERTIFICATE-----")[1])
    with pytest.raises(SettingsError, match="cannot be signed"):
        api.dub("in.mp4", "say.wav", "out.mp4", profile="fake.toml", overrides=credentials)
    assert not list(Path().glob("out*"))
    assert not list(Path().glob(".out*partial*"))
