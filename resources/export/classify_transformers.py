"""Class scores of images, with transformers (and peft for an adapter): python example.py IMAGE ... [--base FOLDER]"""

import argparse
import json
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModelForZeroShotImageClassification

HERE = Path(__file__).resolve().parent
ABOUT = json.loads((HERE / "medbench.json").read_text(encoding="utf-8"))
parser = argparse.ArgumentParser()
parser.add_argument("images", nargs="+", type=Path)
parser.add_argument("--base", default=HERE if ABOUT["merged"] else ABOUT["source"]["checkpoint"], help="a hub id, or a folder")
args = parser.parse_args()

revision = None if ABOUT["merged"] else ABOUT["source"]["revision"]
model = AutoModelForZeroShotImageClassification.from_pretrained(args.base, revision=revision or "main", dtype=torch.float32).eval()
if (HERE / "adapter_config.json").exists():
    from peft import PeftModel

    PeftModel.from_pretrained(model, HERE)  # into the model itself
processor = AutoImageProcessor.from_pretrained(HERE, backend="pil")
pixels = processor(images=[Image.open(image).convert("RGB") for image in args.images], return_tensors="pt")["pixel_values"]
head = load_file(HERE / ("probe.safetensors" if (HERE / "probe.safetensors").exists() else "head.safetensors"))

with torch.inference_mode():
    if model.config.model_type == "blip-2":
        features = model.vision_model(pixel_values=pixels).last_hidden_state[:, 0]
    else:
        features = model.get_image_features(pixel_values=pixels).pooler_output
    if "texts" in head:  # class prompts in place of a head
        logits = [ABOUT["scale"] * torch.nn.functional.normalize(features, dim=-1) @ head["texts"].T + ABOUT["bias"]]
    elif "head.weight" in head:
        logits = [(features - head["head.mean"]) / head["head.deviation"] @ head["head.weight"].T + head["head.bias"]]
    else:  # a probe, or one of each draw of a few-shot cell
        draws = [name.removesuffix("coef") for name in head if name.endswith("coef")]
        logits = [
            (features.double() - head[f"{draw}mean"]) / head[f"{draw}scale"] @ head[f"{draw}coef"].T + head[f"{draw}intercept"]
            for draw in draws
        ]
    scores = torch.stack([one.softmax(dim=-1) for one in logits]).mean(dim=0)
for image, row in zip(args.images, scores.tolist(), strict=True):
    print(json.dumps({"image": str(image), **dict(zip(ABOUT["classes"], row, strict=True))}))
