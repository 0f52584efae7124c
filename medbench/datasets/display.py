"""How every model sees an image: upright, opaque, grey or RGB of 8 bits a channel.

What holds more than 8 bits gets one scale for the whole data set, so that two of its images stay comparable.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, PLANAR_CONFIGURATION, SAMPLEFORMAT

from medbench.jobs import imagefile

STRIP = 2**20  # pixels of a large image that are converted at a time
DEEP_COLOURS = ("RGB;16", "RGBA;16", "RGBX;16", "LA;16")  # Pillow keeps their high bytes
SCALED = ("JPEG2000", "PPM")  # Pillow stretches what these files call their range to 16 bits
SIGNED = 2  # sample format of TIFF


class Wanted(NamedTuple):
    """What the registry entry says."""

    max_side: int | None = None  # pixels
    background: str = "white"  # or black: behind what is transparent
    bits: int | None = None  # that integers of more than 8 bits have; None: as many as the data set's largest value needs


class Levels(NamedTuple):
    """Smallest and largest values of images of more than 8 bits."""

    integers: tuple[int, int] | None = None
    floats: tuple[float, float] | None = None
    bits: int = 8  # of the integers, as far as files say it (sBIT of PNG, packed samples of TIFF)
    needed: tuple[tuple[int, int], ...] = ()  # bits of an image's own largest integer, how many images


class Deep(NamedTuple):
    """An image of more than 8 bits a channel."""

    values: NDArray[Any]  # [height, width] or [height, width, 3]
    alpha: NDArray[np.uint8] | None  # [height, width]
    levels: Levels
    is_inverted: bool  # the smallest value is white
    is_scaled: bool  # from the range of its format to 16 bits: it needs no other image

    @property
    def is_clear(self) -> bool:
        """Whether anything of it is transparent."""
        return self.alpha is not None and bool(self.alpha.min() < 255)


def joined(first: Levels, second: Levels) -> Levels:
    """Of both together."""
    needed = Counter(dict(first.needed)) + Counter(dict(second.needed))
    integers, floats = _range(first.integers, second.integers), _range(first.floats, second.floats)
    return Levels(integers, floats, max(first.bits, second.bits), tuple(sorted(needed.items())))


def _range(*ranges: Any) -> Any:
    known = [one for one in ranges if one is not None]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else None


def bits(levels: Levels, wanted: Wanted) -> int:
    """Of integers that are not negative: their largest value in 8 bits is `value >> (bits - 8)`."""
    return wanted.bits or max(levels.bits, levels.integers[1].bit_length() if levels.integers else 8)


def scale(levels: Levels, wanted: Wanted) -> dict[str, Any]:
    """For the card: how the images of more than 8 bits of a data set became 8; empty where it has none."""
    integers, floats = levels.integers, levels.floats
    found: dict[str, Any] = {"floats": {"black": floats[0], "white": floats[1]}} if floats else {}
    if integers and integers[0] < 0:
        return {"integers": {"black": integers[0], "white": integers[1]}, **found}
    if not integers:
        return found
    needed = {str(depth): images for depth, images in levels.needed}
    return {"integers": {"bits": bits(levels, wanted), "largest": integers[1], "images_by_bits": needed}, **found}


def deep(image: Image.Image, data: bytes, layout: str, wanted: Wanted) -> Deep | None:
    """The values of an image of more than 8 bits a channel; None for all others. `data`: encoded; `layout`: of its pixels in there.

    Raises ValueError for values that are not finite or need more bits than wanted.
    """
    tags, is_scaled = getattr(image, "tag_v2", {}), image.format in SCALED and image.mode != "F"
    if tags.get(PLANAR_CONFIGURATION, 1) != 1 and max(tags.get(BITSPERSAMPLE, (1,))) > 8:  # Pillow takes their bytes for pixels
        raise ValueError("more than 8 bits a channel in separate planes: save it as PNG")
    if layout.startswith(DEEP_COLOURS):
        values, alpha = _colours(image, data, layout)
    elif image.mode.startswith(("I", "F")):
        values, alpha = np.asarray(image), None
        if tags and image.mode == "I" and SIGNED not in tags.get(SAMPLEFORMAT, ()):
            values = values.view(np.uint32)  # Pillow takes 32 bits for signed
        if (hidden := image.info.get("transparency")) is not None:
            alpha = np.where(values == hidden, 0, 255).astype(np.uint8)
    elif image.mode == "L" and SIGNED in tags.get(SAMPLEFORMAT, ()):
        values, alpha = np.asarray(image).view(np.int8), None
    else:
        return None
    low, high = values.min().item(), values.max().item()
    if values.dtype.kind == "f":
        if not np.isfinite([low, high]).all():
            raise ValueError("pixels are not finite")
        levels = Levels(floats=(low, high))
    else:
        if wanted.bits and not is_scaled and high >= 2**wanted.bits:
            raise ValueError(f"a value of {high}, and the data set's entry says bits: {wanted.bits}")
        packed = tags.get(BITSPERSAMPLE, (0,))[0]
        known = 16 if is_scaled else max(8, imagefile.significant_bits(data), packed if packed < 16 else 0)
        levels = Levels((low, high), bits=known, needed=((high.bit_length(), 1),))
    return Deep(values, alpha, levels, bool(tags) and tags.get(PHOTOMETRIC_INTERPRETATION, 0) == 0, is_scaled)


def _colours(image: Image.Image, data: bytes, layout: str) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """16-bit values of the colours, and alpha in 8 bits."""
    hidden = image.info.get("transparency")
    high, low = np.asarray(image), np.asarray(imagefile.low_bytes(data))
    alpha = high[..., 3] if high.shape[2] == 4 else None
    if layout.startswith("LA"):
        return high[..., 0].astype(np.uint16) << 8 | low[..., 1], alpha
    values = high[..., :3].astype(np.uint16) << 8 | low[..., :3]
    if hidden is not None:
        alpha = np.where((values == np.array(hidden)).all(2), 0, 255).astype(np.uint8)
    return values, alpha


def eight_bit(found: Deep, levels: Levels, wanted: Wanted) -> Image.Image:
    """L or RGB, on the background where it is transparent. Integers are shifted right, so that 12 bits lose 4.

    Floats, and integers where some are negative, are stretched from the smallest and largest of `levels` to 0..255.
    """
    integers = levels.integers if found.values.dtype.kind != "f" else None
    if integers and integers[0] >= 0:
        shift = (16 if found.is_scaled else bits(levels, wanted)) - 8
        shown = in_strips(found.values, lambda values: values >> shift)
    else:
        low, high = integers or levels.floats or (0, 0)
        shown = in_strips(found.values, lambda values: stretched(values.astype(np.float64), low, high))
    image = Image.fromarray(255 - shown if found.is_inverted else shown)
    if found.alpha is not None:
        image.putalpha(Image.fromarray(np.ascontiguousarray(found.alpha)))
    return opaque(image, "", wanted.background) or image


def stretched(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Values from `low` to `high` as 0..255."""
    return np.rint(np.clip((values - low) * 255 / max(high - low, 1e-30), 0, 255))


def in_strips(values: NDArray[Any], convert: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[np.uint8]:
    """An array [height, width, ...] converted to bytes, some rows at a time: what is computed between takes little memory."""
    shown = np.empty(values.shape, np.uint8)
    for rows in strips(len(values), values.shape[1]):
        shown[rows] = convert(values[rows])
    return shown


def strips(height: int, width: int, pixels: int = STRIP) -> list[slice]:
    """Slices over all rows, of about so many pixels each."""
    rows = max(pixels // width, 1)
    return [slice(top, top + rows) for top in range(0, height, rows)]


def opaque(image: Image.Image, layout: str, background: str) -> Image.Image | None:
    """An image of 8 bits on its background; None where nothing of it is transparent."""
    if not image.has_transparency_data:
        return None
    if image.mode == "L" and (scale := {"L;2": 85, "L;4": 17}.get(layout)):  # Pillow scales its pixels, and not this
        image.info["transparency"] *= scale
    clear = image.convert("LA" if image.mode in ("1", "L", "LA", "La") else "RGBA")
    alpha = clear.getchannel("A")
    if alpha.getextrema()[0] == 255:
        return None
    canvas = Image.new(clear.mode[:-1], clear.size, background)
    canvas.paste(clear.convert(canvas.mode), mask=alpha)
    return canvas


def plain(image: Image.Image) -> Image.Image:
    """L or RGB."""
    return image.convert("L") if image.mode in ("1", "L", "LA") else image if image.mode == "RGB" else image.convert("RGB")
