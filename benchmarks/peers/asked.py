"""One side of the rows on questions, a process of its own, in a clone: `python -m benchmarks.peers.asked SIDE BATCH FOLDER`.

SIDE is medbench, or a model class of lmms-eval. Each side is its own command line, with a clock around the phase *asking*: from the
loaded model and encoded images to answers. FOLDER gets `phases.json` and `answers.json`.
"""

import gc
import json
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers.clock import Clock

DATASET, MODEL, TASK = "peers-questions", "bench-llava", "peers_questions"


def medbench(batch_size: int, folder: Path) -> None:
    """`python -m medbench predict`; the batch size stands in the registry."""
    gc.set_threshold(100_000, 50, 50)  # as `medbench.__main__` does before the imports that stand here already
    from medbench.models import generative_base
    from medbench.predict import generative

    shutil.rmtree("results/predictions", ignore_errors=True)
    clock, load, predict = Clock(folder / "phases.json"), generative_base.load, generative.predict

    def loaded(*given: Any, **more: Any) -> Any:
        model = load(*given, **more)
        clock.start("asking")
        return model

    def predicted(*given: Any) -> Any:
        frame = predict(*given)
        clock.stop("asking")
        (folder / "answers.json").write_text(json.dumps(frame["answer"].to_list()), encoding="utf-8")
        return frame

    generative_base.load, generative.predict = loaded, predicted
    sys.argv = ["medbench", "predict", DATASET, MODEL, "ots", "--configfile", "config/bench.yaml"]
    runpy.run_module("medbench", run_name="__main__")


def lmms_eval(name: str, batch_size: int, folder: Path) -> None:
    """`python -m lmms_eval` with one of its model classes."""
    from lmms_eval.models.chat import huggingface, llava_hf

    clock, of_name = Clock(folder / "phases.json"), {"llava_hf": llava_hf.LlavaHf, "huggingface": huggingface.Huggingface}
    generate = of_name[name].generate_until

    def timed(model: Any, requests: Any) -> Any:
        clock.start("asking")
        done = generate(model, requests)
        clock.stop("asking")
        (folder / "answers.json").write_text(json.dumps([one.text.strip() for one in done]), encoding="utf-8")
        return done

    of_name[name].generate_until = timed
    checkpoint = json.loads(Path("checkpoint.json").read_text(encoding="utf-8"))
    place = "device_map=cpu" if name == "huggingface" else "device_map=cpu,dtype=float32"
    sys.argv = [
        "lmms_eval", "--model", name, "--model_args", f"pretrained={checkpoint},{place}", "--tasks", TASK, "--include_path", "task",
        "--batch_size", str(batch_size), "--device", "cpu", "--output_path", str(folder / "out"), "--log_samples",
    ]  # fmt: skip
    runpy.run_module("lmms_eval", run_name="__main__")


if __name__ == "__main__":
    side, size, out = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    medbench(size, out) if side == "medbench" else lmms_eval(side, size, out)
