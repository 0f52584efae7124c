"""Images as models see them: one scale for all that have more than 8 bits, no transparency, one picture, whatever else a file holds."""

import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from medbench import paths
from medbench.datasets import ingest, layouts
from medbench.datasets.images import decode, read_images
from medbench.errors import MedbenchError
from medbench.stages import prepare
from tests.unit.test_data_helpers import card, entry, labelled, picture, samples

ROOT = Path(__file__).parents[2]


def encoded(image: Image.Image, kind: str = "PNG", **save: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=kind, **save)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(values: Any, colour: int, depth: int, *chunks: bytes) -> bytes:
    """A PNG of samples [height, width(, channels)]; Pillow writes few of the kinds."""
    values = np.asarray(values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, colour, 0, 0, 0))
    rows = values.reshape(len(values), -1)
    if depth == 16:
        lines = [row.astype(">u2").tobytes() for row in rows]
    elif depth == 8:
        lines = [row.astype("u1").tobytes() for row in rows]
    else:
        bits = (rows[:, :, None] >> np.arange(depth)[::-1]) & 1
        lines = [np.packbits(row.ravel().astype("u1")).tobytes() for row in bits]
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + line for line in lines)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def tiff(
    values: Any,
    bits: int,
    photometric: int = 1,
    sample_format: int = 1,
    order: str = "<",
    planar: int = 1,
    packed: bytes = b"",
    compression: int = 1,
) -> bytes:
    """A TIFF of one strip (planar: one a channel)."""
    values = np.asarray(values)
    channels = values.shape[2] if values.ndim == 3 else 1
    kind = f"{order}{'?uif'[sample_format]}{max(bits // 8, 1)}"
    body = packed or (np.moveaxis(values, 2, 0) if planar == 2 else values).astype(kind).tobytes()
    count = channels if planar == 2 else 1
    tags = {
        256: [values.shape[1]],
        257: [values.shape[0]],
        258: [bits] * channels,
        259: [compression],
        262: [photometric],
        273: [],
        277: [channels],
    }
    tags |= {278: [values.shape[0]], 279: [len(body) // count] * count, 284: [planar], 339: [sample_format] * channels}
    begin = 8 + 2 + 12 * len(tags) + 4
    extra, place = b"", begin + 256
    tags[273] = [place + number * (len(body) // count) for number in range(count)]
    entries = b""
    for tag, numbers in tags.items():
        if len(numbers) == 1:
            entries += struct.pack(f"{order}HHII", tag, 4, 1, numbers[0])
        else:
            entries += struct.pack(f"{order}HHII", tag, 4, len(numbers), begin + len(extra))
            extra += struct.pack(f"{order}{len(numbers)}I", *numbers)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(f"{order}IH", 8, len(tags)) + entries + bytes(4) + extra.ljust(256, b"\0") + body


def prepared(raw: Path, files: Mapping[Any, bytes], **changes: Any) -> list[Any]:
    """Pixels of images of a whole data set, in the order of their names; the other images stay as they are."""
    labelled(raw)
    for number, data in enumerate(files.values()):
        (raw / f"images/{number}.png").write_bytes(data)
    prepare.run(entry(raw, **changes), "toy")
    ids = {name: image for split in paths.SPLITS for name, image in zip(*samples(split)[["sample_id", "image_id"]], strict=True)}
    stored = {row.image_id: row.image for batch in read_images(paths.images("toy")) for row in batch}
    return [np.asarray(decode(stored[ids[f"images/{number}.png"]])) for number in range(len(files))]


def shown(data: bytes, **wanted: Any) -> Any:
    """Pixels of an image alone, [height, width, 3]."""
    found = ingest.check(layouts.embed(data), **wanted)
    assert isinstance(found, ingest.Checked), found
    return np.asarray(decode(found.image))


def fault(data: bytes, **wanted: Any) -> str:
    found = ingest.check(layouts.embed(data), **wanted)
    assert isinstance(found, ingest.Fault), found
    return found.detail


# --- one scale for a data set ---------------------------------------------------------------------------------------


def deep(kind: str, values: list[int]) -> bytes:
    array = np.array([values])
    if kind == "PNG":
        return png(array, 0, 16)
    if kind == "sBIT":
        return png(array, 0, 16, chunk(b"sBIT", b"\x0c"))
    if kind == "grey and alpha":
        return png(np.stack([array, np.full_like(array, 65535)], 2), 4, 16)
    if kind == "colour PNG":
        return png(np.stack([array] * 3, 2), 2, 16)
    if kind == "colour and alpha":
        return png(np.stack([array] * 3 + [np.full_like(array, 65535)], 2), 6, 16)
    if kind == "colour TIFF":
        return tiff(np.stack([array] * 3, 2), 16, 2)
    if kind == "colour TIFF, big-endian":
        return tiff(np.stack([array] * 3, 2), 16, 2, order=">")
    if kind == "deflated colour TIFF":
        colours = np.stack([array] * 3, 2)
        return tiff(colours, 16, 2, packed=zlib.compress(colours.astype("<u2").tobytes()), compression=8)
    if kind == "packed TIFF":
        bits = (array.ravel()[:, None] >> np.arange(12)[::-1]) & 1
        return tiff(array, 12, packed=np.packbits(bits.astype("u1").ravel()).tobytes())
    order, bits, sign = {
        "TIFF": ("<", 16, 1),
        "TIFF, big-endian": (">", 16, 1),
        "TIFF of 32 bits": ("<", 32, 1),
        "signed TIFF": ("<", 16, 2),
    }[kind]
    return tiff(array, bits, 1, sign, order)


KINDS = ["PNG", "grey and alpha", "colour PNG", "colour and alpha", "TIFF", "TIFF, big-endian", "TIFF of 32 bits", "signed TIFF"]
KINDS += ["colour TIFF", "colour TIFF, big-endian", "deflated colour TIFF"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_data_set_has_one_depth(raw: Path, kind: str) -> None:
    dark, bright, full = prepared(raw, {name: deep(kind, values) for name, values in
                                        {"dark": [0, 255], "bright": [16, 256], "full": [1000, 4095]}.items()})  # fmt: skip
    assert [image[0, :, 0].tolist() for image in (dark, bright, full)] == [[0, 15], [1, 16], [62, 255]]
    assert card()["images"]["scale"] == {"integers": {"bits": 12, "largest": 4095, "images_by_bits": {"8": 1, "9": 1, "12": 1}}}
    (why,) = [why for why in card()["images"]["converted"] if "bits" in why or "mode" in why]
    assert card()["images"]["converted"][why]["images"] == 3
    assert all(row["pixel_digest"] and row["perceptual_hash"] is not None for row in _digests())


def _digests() -> list[dict[str, Any]]:
    import polars as pl

    return pl.read_parquet(paths.images("toy")).drop("image").to_dicts()


def test_a_png_says_how_many_bits_it_has(raw: Path) -> None:
    (dark,) = prepared(raw, {"dark": deep("sBIT", [0, 255, 1000])})
    assert dark[0, :, 0].tolist() == [0, 15, 62]  # 12 bits, whatever the largest value
    assert card()["images"]["scale"] == {"integers": {"bits": 12, "largest": 1000, "images_by_bits": {"10": 1}}}
    assert shown(deep("sBIT", [0, 4096, 65535]))[0, :, 0].tolist() == [0, 16, 255]  # 12 bits, scaled to 16 as the standard wants


def test_a_tiff_of_packed_samples_says_how_many_bits_it_has() -> None:
    assert shown(deep("packed TIFF", [0, 255, 1000, 16]))[0, :, 0].tolist() == [0, 15, 62, 1]


def test_an_entry_may_say_how_many_bits_there_are(raw: Path) -> None:
    (dark,) = prepared(raw, {"dark": deep("PNG", [0, 255, 1000])}, bits=12)
    assert dark[0, :, 0].tolist() == [0, 15, 62]
    (raw / "images/1.png").write_bytes(deep("TIFF", [0, 4096]))
    with pytest.raises(MedbenchError, match=r"row 3: .*a value of 4096, and the data set's entry says bits: 12"):
        prepare.run(entry(raw, bits=12), "toy")


@pytest.mark.parametrize(("bits", "sample_format"), [(32, 3), (16, 2), (32, 2), (8, 2)], ids=["floats", "16 bits", "32 bits", "8 bits"])
def test_negative_values_and_floats_share_one_range(raw: Path, bits: int, sample_format: int) -> None:
    low, high = prepared(raw, {"low": tiff([[-100, 0]], bits, 1, sample_format), "high": tiff([[27, 100]], bits, 1, sample_format)})
    assert (low[0, :, 0].tolist(), high[0, :, 0].tolist()) == ([0, 128], [162, 255])
    black, white = card()["images"]["scale"]["floats" if sample_format == 3 else "integers"].values()
    assert (black, white) == (-100, 100)


def test_scales_that_tiff_can_hold() -> None:
    assert shown(tiff([[0, 2**31, 2**32 - 1]], 32))[0, :, 0].tolist() == [0, 128, 255]  # Pillow takes these for negative
    assert shown(tiff([[0, 32768, 65535]], 16, photometric=0))[0, :, 0].tolist() == [255, 127, 0]  # Pillow forgets that 0 is white
    assert shown(tiff([[0.0, 1.0]], 32, 0, 3))[0, :, 0].tolist() == [255, 0]
    assert "not finite" in fault(tiff([[0.0, np.nan]], 32, 1, 3))
    assert "separate planes" in fault(tiff(np.zeros((2, 2, 3)), 16, 2, planar=2))
    assert fault(tiff([[0.0, 1.0]], 64, 1, 3)) == "the file is a TIFF with pixels of a kind that is not read: save it as PNG"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("bits", "sample_format"), [(16, 1), (16, 2), (32, 2), (32, 3)])
def test_compressed_tiff_of_either_byte_order(order: str, bits: int, sample_format: int) -> None:
    values = np.array([[0, 100, 200, 255]])
    kind = f"{order}{'?uif'[sample_format]}{bits // 8}"
    data = tiff(values, bits, 1, sample_format, order, packed=zlib.compress(values.astype(kind).tobytes()), compression=8)
    assert shown(data)[0, :, 0].tolist() == [0, 100, 200, 255]  # Pillow swaps bytes of signed integers and floats once too often


def test_interlaced_colours_of_16_bits() -> None:
    values = np.arange(7 * 5 * 3).reshape(5, 7, 3) * 40
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 7, 5, 16, 2, 0, 0, 1))
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]  # x, y, steps
    rows = [row for x, y, right, down in passes for row in values[y::down, x::right] if row.size]
    pixels = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    assert (shown(data) == values >> 5).all()


def test_a_colour_map_of_8_bits_is_taken_for_one() -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette([255, 0, 255, 10, 20, 30, *[0] * 762])
    data = encoded(image.convert("P"), "TIFF")
    colours = Image.open(io.BytesIO(data)).tag_v2[TiffImagePlugin.COLORMAP]  # type: ignore[attr-defined]
    narrow = data.replace(struct.pack("<768H", *colours), struct.pack("<768H", *(colour >> 8 for colour in colours)))
    assert narrow != data and shown(narrow).tolist() == shown(data).tolist() == [[[255, 0, 255], [10, 20, 30]]]


def test_formats_that_name_their_range_are_scaled_by_it(raw: Path) -> None:
    half = np.array([[0, 2048, 2048, 100] * 8] * 32, ">u2")
    graymap = b"P5 32 32 4095\n" + half.tobytes()
    jpeg2000 = encoded(
        Image.fromarray((half[::-1, ::-1] << 4)[:, ::-1].astype("<u2") + (np.arange(32) == 31) * np.uint16(1024)), "JPEG2000"
    )  # of 16 bits, as Pillow writes it
    for image in prepared(raw, {"PGM": graymap, "JPEG 2000": jpeg2000, "full": deep("PNG", [0, 1, 511])}):
        assert image[0, 1, 0] in (128, 0)  # the PNG's 9 bits decide nothing about the others
    floats = [b"Pf 2 1 -1.0\n" + np.array(values, "<f4").tobytes() for values in ([0, 1], [0, 4])]
    assert [image[0, :, 0].tolist() for image in prepared(raw, dict(enumerate(floats)))] == [[0, 64], [0, 255]]  # these name none
    assert shown(graymap, bits=9)[0, :4, 0].tolist() == [0, 128, 128, 6]


def test_eight_bits_in_sixteen_stay() -> None:
    assert shown(deep("PNG", [0, 7, 255]))[0, :, 0].tolist() == [0, 7, 255]


# --- transparency ----------------------------------------------------------------------------------------------------

MAGENTA = (255, 0, 255)
WHITE, BLACK = [255] * 3, [0] * 3
COLOUR_MAP = chunk(b"PLTE", bytes([255, 0, 255, 10, 20, 30]))


def _rgba(kind: str, **save: Any) -> bytes:
    image = Image.new("RGBA", (32, 32), (*MAGENTA, 0))
    image.paste((10, 20, 30, 255), (16, 0, 32, 32))
    return encoded(image, kind, **save)


CLEAR = {  # the first pixel is clear, the last is of (10, 20, 30) or grey 20
    "RGBA": png([[(*MAGENTA, 0), (10, 20, 30, 255)]], 6, 8),
    "RGBA of 16 bits": png([[(65535, 0, 65535, 0), (2560, 5120, 7680, 65535)]], 6, 16, ),
    "LA": png([[(90, 0), (20, 255)]], 4, 8),
    "LA of 16 bits": png([[(65535, 0), (5120, 65535)]], 4, 16),
    "palette, one colour": png([[0, 1]], 3, 8, COLOUR_MAP, chunk(b"tRNS", b"\0")),
    "palette, many": png([[0, 1]], 3, 1, COLOUR_MAP, chunk(b"tRNS", b"\0\xff")),
    "colour": png([[MAGENTA, (10, 20, 30)]], 2, 8, chunk(b"tRNS", struct.pack(">HHH", *MAGENTA))),
    "colour of 16 bits": png([[(65535, 1, 2), (2560, 5120, 7680)]], 2, 16, chunk(b"tRNS", struct.pack(">HHH", 65535, 1, 2))),
    "grey": png([[90, 20]], 0, 8, chunk(b"tRNS", struct.pack(">H", 90))),
    "grey of 16 bits": png([[60000, 5120]], 0, 16, chunk(b"tRNS", struct.pack(">H", 60000))),
    "WebP": _rgba("WEBP", lossless=True, exact=True),
    "TIFF": _rgba("TIFF"),
    "JPEG 2000": _rgba("JPEG2000"),
    "GIF": _rgba("GIF"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CLEAR)
def test_what_is_transparent_shows_the_background(raw: Path, kind: str) -> None:
    for background, found in (("white", WHITE), ("black", BLACK)):
        (image,) = prepared(raw, {kind: CLEAR[kind]}, background=background)
        assert image[0, 0].tolist() == found
        assert image[0, -1].tolist() in ([10, 20, 30], [20] * 3)
        (why,) = card()["images"]["converted"]
        assert f"transparency on {background}" in why


@pytest.mark.parametrize(("depth", "values"), [(1, [1, 0]), (2, [1, 2]), (4, [3, 9])])
def test_a_grey_that_is_transparent(depth: int, values: list[int]) -> None:
    image = shown(png([values], 0, depth, chunk(b"tRNS", struct.pack(">H", values[0]))))
    assert image[0, :, 0].tolist() == [255, values[1] * 255 // (2**depth - 1)]


def test_half_transparent_is_mixed() -> None:
    assert shown(png([[(255, 0, 0, 128)]], 6, 8)).tolist() == [[[255, 127, 127]]]


@pytest.mark.parametrize("data", [picture(0, "RGBA"), picture(0, "LA"), png([[1, 1]], 3, 8, COLOUR_MAP, chunk(b"tRNS", b"\0"))])
def test_what_could_be_transparent_but_is_not_is_kept(data: bytes) -> None:
    found = ingest.check(layouts.embed(data))
    assert isinstance(found, ingest.Checked) and (found.change, found.image) == (None, data)


# --- pages and frames ------------------------------------------------------------------------------------------------


def _several(kind: str, **save: Any) -> bytes:
    first, second = (Image.new("RGB", (32, 32), colour) for colour in ("red", "blue"))
    return encoded(first, kind, save_all=True, append_images=[second], **save)


def _with_thumbnail() -> bytes:
    stream = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(stream, True) as writer:
        Image.new("L", (64, 64), 40).save(writer, "TIFF")
        writer.newFrame()
        Image.new("L", (8, 8), 40).save(writer, "TIFF", tiffinfo={254: 1})
    return stream.getvalue()


@pytest.mark.parametrize(("kind", "found"), [("TIFF", "2 pages"), ("GIF", "several frames"), ("WEBP", "2 frames"), ("PNG", "2 frames")])
def test_a_file_of_several_pictures_is_refused(raw: Path, kind: str, found: str) -> None:
    labelled(raw)
    (raw / "images/3.png").write_bytes(_several(kind))
    with pytest.raises(MedbenchError) as caught:
        prepare.run(entry(raw), "toy")
    assert f"labels.csv row 5: the image does not decode (ValueError: {found}: export the one that is meant)" in str(caught.value)


def test_what_a_camera_or_scanner_adds_is_no_second_picture() -> None:
    assert shown(_several("MPO", quality=95))[0, 0].tolist() == [254, 0, 0]
    assert shown(_with_thumbnail()).shape == (64, 64, 3)
    assert shown(encoded(Image.new("RGB", (8, 8), "red"), "GIF"))[0, 0].tolist() == [255, 0, 0]


# --- metadata --------------------------------------------------------------------------------------------------------

NOISE = np.random.default_rng(0).integers(0, 256, 1_500_000, np.uint8).tobytes()
COMMENTS = {
    "profile": chunk(b"iCCP", b"profile\0\0" + zlib.compress(NOISE)),
    "broken profile": chunk(b"iCCP", b"profile\0\5" + NOISE[:99]),
    "zTXt": chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(1_500_000))),
    "iTXt": chunk(b"iTXt", b"comment\0\1\0\0\0" + zlib.compress(bytes(1_500_000))),
    "many tEXt": b"".join(chunk(b"tEXt", b"k%d\0" % number + bytes(10**6)) for number in range(70)),
    "checksum": chunk(b"tEXt", b"k\0v")[:-1] + b"?",
    "EXIF": chunk(b"eXIf", b"II*\0\xff\xff\xff\xff" + NOISE[:40]),
    "own": chunk(b"vpAg", NOISE[:9]),
}


@pytest.mark.parametrize("kind", COMMENTS)
def test_metadata_harms_no_pixel(kind: str) -> None:
    values = [[10, 20], [30, 40]]
    found = ingest.check(layouts.embed(png(values, 0, 8, COMMENTS[kind])))
    assert isinstance(found, ingest.Checked) and found.change in (None, "comments left out")
    assert np.asarray(decode(found.image))[:, :, 0].tolist() == values
    assert len(found.image) < 2000 or kind == "own"


def test_what_claims_or_unpacks_to_much_costs_a_line_and_no_memory() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.unit.bombs"], cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert len(found) == 17
    for name, (said, megabytes, _) in found.items():
        assert (said == "read") == (name == "TIFF: Deflate") and "\n" not in said and "MemoryError" not in said, (name, said)
        assert megabytes < 100, (name, megabytes)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF"])
def test_profiles_and_exif_of_other_formats_harm_no_pixel(kind: str) -> None:
    image = Image.new("RGB", (32, 32), (200, 200, 200))
    assert abs(int(shown(encoded(image, kind, icc_profile=NOISE))[0, 0, 0]) - 200) < 2
    if kind != "TIFF":
        assert abs(int(shown(encoded(image, kind, exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + NOISE[:40]))[0, 0, 0]) - 200) < 2


def test_an_orientation_in_a_comment_still_counts() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:tiff="http://ns.adobe.com/tiff/1.0/"><rdf:Description tiff:Orientation="6"/>'
    data = png([[10, 20]], 0, 8, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp + b"</rdf:RDF></x:xmpmeta>"))
    assert shown(data)[:, :, 0].tolist() == [[10], [20]]


@pytest.mark.parametrize("kind", ["colour PNG", "PNG"])
def test_deep_images_are_turned_too(kind: str) -> None:
    exif = Image.Exif()
    exif[ingest.ORIENTATION] = 6
    data = deep(kind, [0, 65535])
    place = data.index(b"IDAT") - 4
    assert shown(data[:place] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + data[place:])[:, :, 0].tolist() == [[0], [255]]
