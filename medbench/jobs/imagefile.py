"""The only place that opens encoded images: in the formats that medical sets come in, and up to a size that fits in memory."""

import io
import warnings
from typing import Literal

from PIL import Image, ImagePalette, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import COLORMAP, TILELENGTH, TILEWIDTH

from medbench.jobs import limits

FORMATS = {"PNG": "PNG", "JPEG": "JPEG", "TIFF": "TIFF", "BMP": "BMP", "GIF": "GIF", "WEBP": "WebP", "JPEG2000": "JPEG 2000", "PPM": "PPM"}
"""Pillow's name -> what people say. Pillow has 43 formats: some hand the file to another program (EPS: Ghostscript), few are in use."""
_OTHERS = {b"%PDF": "PDF", b"<svg": "SVG", b"<?xml": "XML", b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip"}  # what Pillow does not know
_PNG = b"\x89PNG\r\n\x1a\n"
_SHOWN = (b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT")  # chunks beside the pixels that decide what is seen,
_TURNS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")  # and texts that may hold an orientation
_SCAN, _END = 0xDA, b"\xff\xd9"  # of a JPEG: the marker before compressed pixels, and the one behind all
_BIG_TIFF = 43  # a version, with offsets of 8 bytes
_REDUCED = {254: 1 | 4, 255: 2}  # tags of a TIFF's page -> bits of a thumbnail or mask
_NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}  # layouts of big-endian files -> those of this machine
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B"}  # of bytes; N is the machine's own, which is L on all that run medbench

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `opened` refuses what Pillow warns of


def opened(data: bytes) -> ImageFile:
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


def corrected(data: bytes) -> ImageFile:
    """`opened`, with what Pillow takes wrongly in some TIFFs put right.

    It swaps bytes of compressed pixels that libtiff has swapped already, and takes 8 bits in a colour map, as some write them, for 16.
    """
    image = opened(data)
    if layout(image) in _NATIVE and image.tile[0].codec_name == "libtiff":
        image.tile = [tile._replace(args=(_NATIVE[layout(image)], *(tile.args or ())[1:])) for tile in image.tile]
    if (colours := getattr(image, "tag_v2", {}).get(COLORMAP)) and image.mode in ("P", "PA") and max(colours) < 256:
        image.palette = ImagePalette.raw("RGB;L", bytes(colours))
    return image


def several(image: ImageFile, data: bytes) -> str | None:
    """What an image holds where that is more than one picture, `2 pages`; `data`: the same, encoded.

    Thumbnails and masks of a TIFF are no pictures of their own, and of a camera's MPO the first is meant.
    """
    if image.format == "MPO" or not getattr(image, "is_animated", False):
        return None
    if image.format != "TIFF":
        return "several frames" if image.format == "GIF" else f"{getattr(image, 'n_frames', 'several')} frames"  # a GIF counts for long
    pages, found = opened(data), 1
    try:
        for page in range(1, limits.PAGES):
            pages.seek(page)
            found += not any(pages.tag_v2.get(tag, 0) & bits for tag, bits in _REDUCED.items())  # type: ignore[attr-defined]
    except EOFError:
        return f"{found} pages" if found > 1 else None
    return f"{max(found, 2)} pages or more"


def has_end(data: bytes) -> bool:
    """Whether a JPEG has its marker of the end behind its pixels: libjpeg takes zeros, as an interrupted download leaves them, for pixels.

    What a segment before the pixels holds, a thumbnail with an end of its own, does not count. Whatever follows the end does no harm.
    """
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != _SCAN:
        place += 1 if data[place + 1] == 0xFF else 2 + int.from_bytes(data[place + 2 : place + 4])
    return data.rfind(_END, place) > 0


def is_cut_tiff(data: bytes) -> bool:
    """Whether the first directory of a TIFF, which mostly lies behind the pixels, is not in the file or empty."""
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
    wide = int.from_bytes(data[2:4], order) == _BIG_TIFF
    begin, n_bytes, entry = (8, 8, 20) if wide else (4, 2, 12)
    place = int.from_bytes(data[begin : 2 * begin], order)
    count = int.from_bytes(data[place : place + n_bytes], order)
    return count == 0 or place + n_bytes + count * entry > len(data)


def layout(image: Image.Image) -> str:
    """How a decoder takes pixels from the file, in Pillow's words: `RGB;16B` are colours of 16 bits, the high byte first."""
    args = tile[0].args if (tile := getattr(image, "tile", None)) else ""
    return str(args[0] if isinstance(args, tuple) else args)


def low_bytes(data: bytes) -> Image.Image:
    """An image of 16 bits a channel with the low byte of each, where Pillow itself keeps the high one.

    Of grey and alpha, which Pillow makes RGBA, the four bytes as they are: high and low of each.
    """
    image = opened(data)
    name = layout(image)
    name = "RGBA" if name.startswith("LA") else name[:-1] + _OTHER_ORDER[name[-1]]
    image.tile = [tile._replace(args=(name, *tile.args[1:]) if isinstance(tile.args, tuple) else name) for tile in image.tile]
    return image


def significant_bits(data: bytes) -> int:
    """Of a PNG, what its chunk sBIT says; 0 where it has none."""
    place = data.find(b"sBIT", len(_PNG), data.find(b"IDAT")) if data.startswith(_PNG) else -1
    return max(data[place + 4 : place + 4 + min(int.from_bytes(data[place - 4 : place]), 3)], default=0) if place > 0 else 0


def without_comments(data: bytes) -> bytes:
    """A PNG without the chunks that change no pixel: Pillow refuses a file for a large or broken one of them. All others as they are."""
    if not data.startswith(_PNG):
        return data
    kept, begin, place, view = [], 0, len(_PNG), memoryview(data)
    while place + 12 <= len(data):
        kind, end = data[place + 4 : place + 8], place + 12 + int.from_bytes(data[place : place + 4])
        ancillary = kind[0] & 0x20 and kind not in _SHOWN
        if ancillary and not data.startswith(_TURNS, place + 8):
            kept.append(view[begin:place])
            begin = end
        place = end
    return b"".join([*kept, view[begin:]]) if kept else data


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
