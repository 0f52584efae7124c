"""Files that say they are larger than they are, or unpack to much more: `python -m tests.unit.bombs` reads them with little memory.

Prints JSON, name -> [what became of it, MB of memory, seconds]. Holds no test.
"""

import io
import json
import resource
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from medbench.datasets import ingest
from medbench.datasets.layouts import embed
from tests.unit.test_dicom import dicom
from tests.unit.test_display import encoded

ROOM = 400 * 2**20  # bytes beyond what the libraries take
SOUND = {
    256: (4, 1, 64),
    257: (4, 1, 64),
    258: (4, 1, 8),
    262: (4, 1, 1),
    273: (4, 1, 200),
    277: (4, 1, 1),
    278: (4, 1, 64),
    279: (4, 1, 4096),
}


def tiff(tags: dict[int, tuple[int, int, int]], body: bytes = bytes(5000)) -> bytes:
    """A TIFF of 64 x 64 with some tags replaced: type, count, value."""
    entries = b"".join(struct.pack("<HHII", tag, *value) for tag, value in sorted({**SOUND, **tags}.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(entries) // 12) + entries + bytes(4) + body


def pages(number: int) -> bytes:
    """A TIFF whose pages lead back to the first."""
    entries = b"".join(
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in ((256, 1), (257, 1), (258, 8), (262, 1), (273, 8), (279, 1))
    )
    size = len(entries) + 6
    page = [struct.pack("<H", 6) + entries + struct.pack("<I", 8 + size * ((place + 1) % number)) for place in range(number)]
    return b"II*\0" + struct.pack("<I", 8) + b"".join(page)


def framed(frame: bytes, syntax: UID) -> bytes:
    """A DICOM file of 64 x 64 with a compressed frame."""
    file = pydicom.dcmread(io.BytesIO(dicom(np.zeros((64, 64), np.uint8))))
    file.file_meta.TransferSyntaxUID, file.PixelData = syntax, encapsulate([frame])
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, file)
    return stream.getvalue()


def bombs() -> dict[str, bytes]:
    """All of them."""
    grey, large = np.zeros((4, 4), np.uint16), 2**32 - 1
    lossless = b"\xff\xd8\xff\xc3\0\x0b\x08" + struct.pack(">HH", 60_000, 60_000) + b"\1\1\x11\0" + bytes(50)
    small = encoded(Image.new("L", (8, 8)), "GIF")
    return {
        "TIFF: offset": tiff({273: (4, 1, large)}),
        "TIFF: strips": tiff({273: (4, 2**30, 8)}),
        "TIFF: samples": tiff({277: (4, 1, 65_535)}),
        "TIFF: size": tiff({256: (4, 1, 2**31), 257: (4, 1, 2**31)}),
        "TIFF: one row": tiff({256: (4, 1, 2**26), 257: (4, 1, 1)}),
        "TIFF: Deflate": tiff({259: (4, 1, 8), 279: (4, 1, 90_000)}, bytes(78) + zlib.compress(bytes(10**8))),
        "TIFF: LZW": tiff({259: (4, 1, 5), 278: (4, 1, large)}),
        "TIFF: pages": pages(5000),
        "GIF: size": small.replace(struct.pack("<HH", 8, 8), struct.pack("<HH", 65_535, 65_535)),
        "DICOM: size": dicom(grey, Rows=65_535, Columns=65_535),
        "DICOM: frames": dicom(grey, NumberOfFrames=2**31 - 1),
        "DICOM: size beyond its pixels": dicom(grey, Rows=8000, Columns=8000),
        "DICOM: bits": dicom(grey, BitsAllocated=65_528),
        "DICOM: JPEG lossless": framed(lossless, JPEGLosslessSV1),
        "DICOM: JPEG-LS without a size": framed(b"\xff\xd8" + bytes(60), JPEGLSLossless),
        "DICOM: runs": framed(struct.pack("<II", 1, 64) + bytes(56) + b"\x81\0" * (20 * 2**20), RLELossless),
        "DICOM: many segments": framed(struct.pack("<I", large) + bytes(500), RLELossless),
    }


def main() -> None:
    """Read them all."""
    for syntax in (JPEGLSLossless, JPEGLosslessSV1):  # as if a plug-in was installed: it must not be reached
        get_decoder(syntax)._available = {"plug-in": lambda source, runner: bytearray(2**31)}
    found: dict[str, Any] = {}
    every = bombs()
    pages_now = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages_now * resource.getpagesize() + ROOM,) * 2)
    for name, data in every.items():
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        image = ingest.check(embed(data))
        taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        found[name] = (image.detail if isinstance(image, ingest.Fault) else "read", taken, time.monotonic() - start)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
