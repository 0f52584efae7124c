"""The only place that opens encoded images: in the formats that medical sets come in, and up to a size that fits in memory."""

import io
import warnings

from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH

from medbench.jobs import limits

FORMATS = {"PNG": "PNG", "JPEG": "JPEG", "TIFF": "TIFF", "BMP": "BMP", "GIF": "GIF", "WEBP": "WebP", "JPEG2000": "JPEG 2000", "PPM": "PPM"}
"""Pillow's name -> what people say. Pillow has 43 formats: some hand the file to another program (EPS: Ghostscript), few are in use."""
_OTHERS = {b"%PDF": "PDF", b"<svg": "SVG", b"<?xml": "XML", b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip"}  # what Pillow does not know

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `opened` refuses what Pillow warns of


def opened(data: bytes) -> Image.Image:
    """An image of which only the header is read; DICOM has its own reader.

    Raises UnidentifiedImageError, naming what was found, for what is in none of `FORMATS`, DecompressionBombError for more than
    `limits.MAX_PIXELS` pixels, and whatever a decoder raises.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=tuple(FORMATS))
    except UnidentifiedImageError:
        *names, last = FORMATS.values()
        found = f"{found}, not {', '.join(names)}, {last} or DICOM" if (found := _found(data)) else f"no image ({len(data)} bytes)"
        raise UnidentifiedImageError(f"the file is {found}") from None
    tags = getattr(image, "tag_v2", {})  # a small TIFF may lie in one huge tile
    for width, height in (image.size, (tags.get(TILEWIDTH, 0), tags.get(TILELENGTH, 0))):
        if width * height > limits.MAX_PIXELS:
            raise too_large(width, height)
    return image


def too_large(width: int, height: int) -> Image.DecompressionBombError:
    """The error of an image of so many pixels."""
    return Image.DecompressionBombError(f"{width} x {height} = {width * height} pixels, at most {limits.MAX_PIXELS} are read")


def _found(data: bytes) -> str | None:
    """The format of a file by its first bytes, whoever could read it."""
    if data[4:8] == b"ftyp":  # HEIC, AVIF, videos
        return data[8:12].decode("ascii", "replace").strip().upper()
    Image.init()
    accepts = {name: accept for name, (_, accept) in Image.OPEN.items() if accept and name not in FORMATS}
    for name, accept in accepts.items():
        try:
            if accept(data[:16]) is True:
                return name
        except Exception:  # too short for it
            continue
    return next((name for begin, name in _OTHERS.items() if data.startswith(begin)), None)
