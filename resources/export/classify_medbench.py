"""Class scores of images, with medbench, which reads the layout of its base: python example.py IMAGE ... [--base FOLDER]"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from medbench.adapt import linear
from medbench.adapt.classifier import read
from medbench.datasets.images import decode
from medbench.jobs.microbatching import Microbatching
from medbench.models import loading
from medbench.models.checkpoint import Source
from medbench.models.similarity import log_softmax

HERE = Path(__file__).resolve().parent
ABOUT = json.loads((HERE / "medbench.json").read_text(encoding="utf-8"))
parser = argparse.ArgumentParser()
parser.add_argument("images", nargs="+", type=Path)
parser.add_argument("--base", default=ABOUT["source"]["checkpoint"], help="a hub id, or a folder")
args = parser.parse_args()

model = loading.load(Source(**{**ABOUT["source"], "checkpoint": args.base}), dtype=torch.float32)
pixels = np.stack([model.pixels(decode(image.read_bytes())) for image in args.images])
if (HERE / linear.FILE).exists():
    with torch.inference_mode():
        features = model.encode_images(model.to_device(pixels)).features.cpu().numpy()
    is_few_shot = ABOUT["few_shot"]
    logits = [probe.logits(features) for probe in (linear.read_all(HERE) if is_few_shot else [linear.read(HERE)])]
else:
    logits = [read(HERE, model).logits([pixels], Microbatching())]
scores = np.mean([np.exp(log_softmax(one)) for one in logits], axis=0)
for image, row in zip(args.images, scores.tolist(), strict=True):
    print(json.dumps({"image": str(image), **dict(zip(ABOUT["classes"], row, strict=True))}))
