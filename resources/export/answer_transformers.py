"""Ask this model about an image, with transformers (and peft for an adapter): python example.py IMAGE "Is there a nodule?" [BASE]"""

import json
import re
import sys
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

HERE = Path(__file__).resolve().parent
ABOUT = json.loads((HERE / "medbench.json").read_text(encoding="utf-8"))
asking, base = ABOUT["asking"], ABOUT["source"]
device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)

if ABOUT["merged"]:
    model = AutoModelForImageTextToText.from_pretrained(HERE, dtype=dtype)
else:
    from peft import PeftModel

    where = sys.argv[3] if sys.argv[3:] else base["checkpoint"]  # the base: a hub id, or a folder
    model = AutoModelForImageTextToText.from_pretrained(where, revision=base["revision"] or "main", dtype=dtype)
    model.load_state_dict(load_file(HERE / "projector.safetensors"), strict=False)
    model.generation_config = GenerationConfig.from_pretrained(HERE)  # the base's own may say that it samples
    model = PeftModel.from_pretrained(model, HERE)
model.to(device).eval()
processor = AutoProcessor.from_pretrained(HERE)


def answer(image: Image.Image, question: str) -> str:
    """In the words in which the model was trained and tested."""
    is_yes_no = re.match(asking["opens"], question.replace("\u2019", "'"), re.I) and not re.search(asking["alternatives"], question, re.I)
    text = asking["yes_no" if is_yes_no else "question"].replace("{question}", question.strip())
    turn = [{"role": "user", "content": [{"type": "image", "image": image.convert("RGB")}, {"type": "text", "text": text}]}]
    inputs = processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt")
    written = model.generate(**inputs.to(device, dtype))
    return processor.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


if __name__ == "__main__":
    print(answer(Image.open(sys.argv[1]), sys.argv[2]))
