"""Contact sheets: a small labelled table of images."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont


def contact_sheet(rows: list[tuple[str, list[NDArray[np.uint8]]]], scale: int = 2, gap: int = 6, label_width: int = 190) -> Image.Image:
    """One row per `(label, images)`, each image uint8 [h, w, 3] enlarged `scale` times; all images of one size.

    Raises ValueError without a single image.
    """
    images = [image for _, row in rows for image in row]
    if not images:
        raise ValueError("a contact sheet needs at least one image")
    height, width = (side * scale for side in images[0].shape[:2])
    columns = max(len(row) for _, row in rows)
    sheet = Image.new("RGB", (label_width + columns * (width + gap) + gap, len(rows) * (height + gap) + gap), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for number, (label, row) in enumerate(rows):
        top = gap + number * (height + gap)
        pen.text((gap, top + height // 2), label, fill="black", font=font, anchor="lm")
        for column, image in enumerate(row):
            tile = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)
            sheet.paste(tile, (label_width + gap + column * (width + gap), top))
    return sheet
