"""What an output says about itself: that it is synthetic, by which tool, with which profile.

Three carriers, because none is read everywhere: the `comment` tag, which players show; IPTC's digital source type, as
XMP in MP4 and QuickTime files and as a tag in Matroska and WebM; and, where a key is given, a signed C2PA manifest
(`signing_c2pa`).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from lipsync_core import __version__

TOOL: Final = "lipsync"

DIGITAL_SOURCE_TYPE: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""IPTC's term for a recording edited with a trained model (https://cv.iptc.org/newscodes/digitalsourcetype/)."""

_IPTC_EXTENSION: Final = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
"""The namespace in which IPTC's Video Metadata Hub puts `DigitalSourceType`."""

_XMP_BOX: Final = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
"""Name of the box that holds XMP at the top level of an MP4 file (XMP Specification Part 3, MPEG-4)."""


def note(profile: str) -> str:
    """Return the sentence an output carries; of a profile in a file its name alone, not whose folder it lies in."""
    profile = Path(profile).stem if profile.endswith(".toml") else profile
    return f"Synthetic: the speaker's mouth was changed to say other words ({TOOL} {__version__}, profile {profile})."


def tags(profile: str, suffix: str, comment: str = "") -> dict[str, str]:
    """Return the container's tags for an output that ends in `suffix`; `comment` is the source's own, kept after ours.

    An MP4 file has no tag for the source type: `append_xmp` puts it there.
    """
    said = note(profile)
    own = "\n".join(line for line in comment.splitlines() if line != said)
    made = {"comment": f"{said}\n{own}" if own else said}
    if suffix == ".mov":
        made["xmp"] = xmp(said)
    elif suffix in {".mkv", ".webm"}:
        made["DIGITAL_SOURCE_TYPE"] = DIGITAL_SOURCE_TYPE
    return made


def xmp(description: str) -> str:
    """Return an XMP packet with IPTC's digital source type and a description in words."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'  # the id every packet has (XMP Part 1, 7.3.2)
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:Iptc4xmpExt={quoteattr(_IPTC_EXTENSION)}'
        ' xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"'
        f" Iptc4xmpExt:DigitalSourceType={quoteattr(DIGITAL_SOURCE_TYPE)}"
        f" xmp:CreatorTool={quoteattr(f'{TOOL} {__version__}')}>"
        f'<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{escape(description)}</rdf:li></rdf:Alt>'
        '</dc:description></rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    )


def append_xmp(path: Path, packet: str) -> None:
    """Add an XMP packet to a whole MP4 file, as a box after the others, which players step over."""
    content = packet.encode()
    with path.open("ab") as file:
        file.write(struct.pack(">I4s", 8 + len(_XMP_BOX) + len(content), b"uuid") + _XMP_BOX + content)
