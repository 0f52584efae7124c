"""The peers' environment, below `.peers/`: a venv that sees the main one, so torch and transformers are the same on both sides.

Only the peers and what the parts of them that run here import beyond the main environment are installed, without their
other dependencies. What of a peer does not run on a CPU or with this model is patched, here and nowhere else.
"""

import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".peers" / "env"
PACKAGES = (
    "lmms-eval==0.7.3", "clip-benchmark==1.6.2", "av==15.1.0", "chardet==5.2.0", "DataProperty==1.1.0", "decord==0.6.0", "jsonlines==4.0.0",
    "loguru==0.7.3", "mbstrdecoder==1.1.4", "pathvalidate==3.3.1", "pytablewriter==1.2.1", "pytz==2026.6", "tabledata==1.3.4",
    "tcolorpy==0.1.7", "typepy==1.3.4", "webdataset==1.0.2",
)  # fmt: skip
HUGGINGFACE = "lmms_eval/models/chat/huggingface.py"


class Patch(NamedTuple):
    """A place in a peer's file, what stands there instead, and why."""

    file: str
    old: str
    new: str
    reason: str


LINEAR_PROBE = "clip_benchmark/metrics/linear_probe.py"
PATCHES = (
    Patch(
        "clip_benchmark/metrics/zeroshot_classification.py",
        ".sum(0, keepdim=True).cpu().numpy())",
        ".sum().item())",
        "numpy makes no number of an array of one any more",
    ),
    Patch(LINEAR_PROBE, "    assert device == 'cuda'", "    # assert device == 'cuda'", "a CPU"),
    Patch(LINEAR_PROBE, ".cuda()", "", "a CPU"),
    Patch(
        HUGGINGFACE,
        "config.model_type in AutoModelForImageTextToText",
        "type(config) in AutoModelForImageTextToText",
        "the mapping's keys are classes: every model would be one that cannot write",
    ),
    Patch(HUGGINGFACE, '"torch_dtype": "bfloat16"', '"torch_dtype": "float32"', "medbench computes in float32 on a CPU"),
    Patch(
        HUGGINGFACE,
        '{"images": images, "videos": videos, "audios": audios}',
        '{"images": images}',
        "LLaVA's processor takes neither videos nor audios, not even none",
    ),
    Patch(HUGGINGFACE, "padding=True, return", 'padding=True, padding_side="left", return', "answers begin behind the padding otherwise"),
)


def python() -> Path:
    """The environment's interpreter; makes the environment where there is none, or one of other packages or patches."""
    interpreter, ready = FOLDER / "bin" / "python", FOLDER / "ready"
    wanted = "\n".join((sys.version, *PACKAGES, *map(str, PATCHES)))
    if not ready.is_file() or ready.read_text(encoding="utf-8") != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", FOLDER], check=True)
        [packages] = FOLDER.glob("lib/python*/site-packages")
        (packages / "main.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
        subprocess.run([interpreter, "-m", "pip", "install", "--quiet", "--no-deps", *PACKAGES], check=True)
        for patch in PATCHES:
            _apply(packages / patch.file, patch)
        ready.write_text(wanted, encoding="utf-8")
    return interpreter


def _apply(file: Path, patch: Patch) -> None:
    text = file.read_text(encoding="utf-8")
    if patch.old not in text:
        raise SystemExit(f"{patch.file} holds no {patch.old!r}: another version than was patched")
    file.write_text(text.replace(patch.old, patch.new), encoding="utf-8")
