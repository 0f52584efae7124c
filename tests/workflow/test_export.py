"""What is carried away of a cell gives the cell's own answers and scores, and says what it is; what is no adapted cell is refused."""

import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import polars as pl
import pytest
import yaml
from huggingface_hub import ModelCard

from medbench.models.asking import Asking
from tests.conftest import Clone, until
from tests.unit import tiny, tiny_generative

ASKED, SHOWN = 96, 4
HARD = {"learning_rate": 0.001, "head_learning_rate": 0.003, "dropout": 0.0, "epochs": 6}
"""So that random weights learn something."""
EXPORTED = """
import contextlib, io, json, runpy, sys
from medbench import cli
found = []
for cell, out, options, calls in json.loads(sys.argv[1]):
    assert cli.main(["export-model", cell, out, *options]) == 0, cell
    for given in calls:
        sys.argv = ["example.py", *given]
        with contextlib.redirect_stdout(io.StringIO()) as said:
            runpy.run_path(f"{out}/example.py", run_name="__main__")
        found.append([cell, out, said.getvalue()])
print(json.dumps(found))
"""
"""Many cells in one process, which imports torch once: export, then run the example that came with it."""


def python(clone: Clone, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In the clone, by its own code, without network."""
    environment = {**os.environ, "PYTHONPATH": str(clone.folder), "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, *arguments], cwd=clone.folder, env=environment, capture_output=True, text=True, check=False)


def export(clone: Clone, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python(clone, "-m", "medbench", "export-model", *arguments)


def exported(clone: Clone, jobs: list[tuple[str, str, list[str], list[list[str]]]]) -> list[tuple[str, str, str]]:
    """(cell, folder, options, arguments of the example) -> (cell, folder, what the example printed)."""
    done = python(clone, "-c", EXPORTED, json.dumps(jobs))
    assert done.returncode == 0, done.stderr[-3000:]
    return [(cell, out, said) for cell, out, said in json.loads(done.stdout.splitlines()[-1])]


def shown(clone: Clone, dataset: str, n: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Test samples, spread over the split, and the files of their images."""
    data = clone.folder / "results/data" / dataset
    test = pl.read_parquet(data / "test.parquet")
    rows = test.gather_every(max(1, test.height // n)).to_dicts()[:n]
    images = dict(pl.read_parquet(data / "images.parquet", columns=["image_id", "image"]).iter_rows())
    places = []
    for row in rows:
        place = clone.folder / f"shown-{row['image_id'][:16]}.png"
        place.write_bytes(images[row["image_id"]])
        places.append(str(place))
    return rows, places


def predicted(clone: Clone, cell: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    table = {row["sample_id"]: row for row in pl.read_parquet(clone.folder / f"results/predictions/{cell}.parquet").to_dicts()}
    return [table[row["sample_id"]] for row in rows]


def check_scores(clone: Clone, cell: str, rows: list[dict[str, Any]], said: str) -> None:
    """What an example printed against the cell's own scores."""
    for line, row in zip(said.splitlines(), predicted(clone, cell, rows), strict=True):
        assert list(json.loads(line).values())[1:] == pytest.approx(row["scores"], abs=1e-4), cell


@contextmanager
def served(folder: Path) -> Iterator[openai.OpenAI]:
    """`transformers serve` of a folder, as its card says; a client of it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = str(Path(sys.executable).with_name("transformers"))
    command = [serve, "serve", str(folder), "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1", "OMP_NUM_THREADS": "1"}
    with (folder.parent / "serve.log").open("w") as log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process:
        try:
            client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=3)

            def answers() -> bool:
                assert process.poll() is None, (folder.parent / "serve.log").read_text()[-2000:]
                with socket.socket() as one:
                    return one.connect_ex(("127.0.0.1", port)) == 0

            until(answers)
            yield client
        finally:
            process.terminate()


def test_a_served_model_gives_the_cells_own_answers(clone: Clone) -> None:
    cell = "nano-vqa-radiology/nano-llava/lora"
    done = export(clone, f"results/predictions/{cell}.parquet", "carried", "--merged")
    assert done.returncode == 0, done.stderr
    rows, images = shown(clone, "nano-vqa-radiology", ASKED)
    words = yaml.safe_load((clone.folder / "config/templates.yaml").read_text())
    put = Asking(**{name: words[name] for name in Asking._fields})
    expected = predicted(clone, cell, rows)
    assert len({row["answer"] for row in expected}) > 2, "it does not answer everything alike"
    with served(clone.folder / "carried") as client:
        for row, image, own in zip(rows, images, expected, strict=True):
            url = f"data:image/png;base64,{base64.b64encode(Path(image).read_bytes()).decode()}"
            content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": put.text(row["question"])}]
            answer = client.chat.completions.create(
                model=str(clone.folder / "carried"),
                messages=[{"role": "user", "content": content}],  # type: ignore[list-item,misc]
                temperature=0,
                max_completion_tokens=put.max_new_tokens,
            )
            assert (answer.choices[0].message.content or "").strip() == own["answer"], row["question"]
            assert answer.choices[0].finish_reason == own["finish_reason"]


def test_examples_and_cards_of_the_nano_run(clone: Clone) -> None:
    rows, images = shown(clone, "nano-radiology", SHOWN)
    asked, pictures = shown(clone, "nano-vqa-radiology", SHOWN)
    calls = [[picture, row["question"]] for row, picture in zip(asked, pictures, strict=True)]
    clip, llava = "nano-radiology/nano-clip", "nano-vqa-radiology/nano-llava/lora"
    jobs = [
        (f"{clip}/{mode}", f"out/{mode}{'-'.join(more)}", more, [images])
        for mode, more in (("lp", []), ("lora", []), ("lora", ["--merged"]))
    ]
    jobs += [(llava, f"out/llava{'-'.join(more)}", more, calls) for more in ([], ["--merged"])]
    found = exported(clone, jobs)
    for cell, _, said in found[:3]:
        check_scores(clone, cell, rows, said)
    for (_, _, said), row in zip(found[3:], [*predicted(clone, llava, asked)] * 2, strict=True):
        assert said.strip() == row["answer"]
    for cell, out, options, _ in jobs:
        card = ModelCard.load(clone.folder / out / "README.md")
        assert card.data.eval_results and card.data.license == "other" and card.data.license_name == "generated"
        main = "closed_accuracy" if cell == llava else "auroc"
        intervals = pl.read_parquet(clone.folder / f"results/intervals/{cell}.parquet")
        subset = "closed" if cell == llava else "all"
        [row] = intervals.filter(
            pl.col("metric") == main, pl.col("subset") == subset, pl.col("method") == "percentile", ~pl.col("scoring").is_in(["published"])
        ).to_dicts()
        assert card.data.eval_results[0].metric_value == row["estimate"]
        assert f"| {main} | {subset} | {row['estimate']:.3f} | [{row['low']:.3f}, {row['high']:.3f}] |" in card.text
        for said in ("not a medical device", "## Limits", "Fewer than 30 effective groups" if cell != llava else "cannot be read", "seed"):
            assert said in card.text, said
        certificate = json.loads((clone.folder / f"results/adapters/{cell}/certificate.json").read_bytes())
        n_train, n_val = certificate["n_train"], certificate["n_val"]
        learned = f"{n_train + n_val} samples: train and validation |\n| chosen on | 5 folds" if "/lp" in cell else f"{n_train} samples |"
        assert f"| trained on | {learned}" in card.text
        files = {file.name for file in (clone.folder / out).iterdir()}
        assert "certificate.json" in files and ("adapter_config.json" in files) == (not options and "/lp" not in cell)
        assert {one.name for one in (clone.folder / "out").iterdir()} == {Path(job[1]).name for job in jobs}, "nothing unfinished is left"


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        ("nano-radiology/nano-clip/ots", "is off the shelf: its weights are those of"),
        ("nano-radiology/raw-pixels/lp", "is a baseline's"),
        ("nano-vqa-radiology/question-only/ots", "is a baseline's"),
        ("nano-radiology/nano-clip/lorra", "mode 'lorra' is in no registry; did you mean lora?"),
        ("nano-radiology/nano-clip", "is no DATASET/MODEL/MODE"),
        ("nano-radiology/nano-clip/lp-16", "does not exist: cell nano-radiology/nano-clip/lp-16 is not finished; run `snakemake"),
        ("nano-radiology/nano-llava/lora", "cannot run 'lora' on a diagnosis data set"),
    ],
)
def test_what_is_no_adapted_cell_is_one_line(cell: str, found: str, finished: Clone) -> None:
    done = export(finished, cell, "carried")
    assert (done.returncode, done.stdout) == (2, "") and found in done.stderr and done.stderr.count("\n") == 1
    assert not (finished.folder / "carried").exists()


def test_what_is_not_what_its_jobs_wrote_is_not_carried_away(clone: Clone) -> None:
    cell = "nano-radiology/nano-clip/lora"
    results = clone.folder / "results"
    adapter = results / "adapters" / cell
    head, certificate, scores = adapter / "weights/head.safetensors", adapter / "certificate.json", results / f"predictions/{cell}.parquet"
    for place, change, said in (
        (head, lambda data: data[:-1] + bytes([data[-1] ^ 1]), "is not the file that its job wrote; delete results/adapters/"),
        (head, None, "is gone, but its run record names it; delete results/adapters/"),
        (certificate, lambda data: data.replace(b'"failures": []', b'"failures": ["x"]'), "is not the file that its job wrote"),
        (certificate, None, "does not exist: cell nano-radiology/nano-clip/lora is not finished; run `snakemake"),
        (adapter / "certificate.run.json", None, "how it was made is not known; delete results/adapters/"),
        (scores, lambda data: data + b"x", "is not the file that its job wrote; delete results/predictions/"),
        (results / f"intervals/{cell}.parquet", None, "is not finished"),
    ):
        before = place.read_bytes()
        place.unlink() if change is None else place.write_bytes(change(before))
        done = export(clone, cell, "carried")
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1, (place, done.stderr)
        assert not (clone.folder / "carried").exists()
        place.write_bytes(before)
    clone.edit("config/modes.yaml", "lora:\n  kind: lora\n", "lora:\n  kind: lora\n  contrastive: {epochs: 3}\n")
    entry = (clone.folder / "config/models.yaml").read_text()
    (clone.folder / "config/models.yaml").write_text(entry.replace("dropout: 0.0, epochs: 6}", "dropout: 0.0}"))
    done = export(clone, cell, "carried")
    assert "was made otherwise (recipe.epochs: 6 -> 3); run `snakemake --cores all results/intervals/" in done.stderr
    (clone.folder / "config/models.yaml").write_text(entry)
    (clone.folder / "carried").mkdir()
    assert "carried: exists already; give a new folder" in export(clone, cell, "carried").stderr
    models = results / "models/nano-clip/model.safetensors"
    models.unlink()
    done = export(clone, cell, "other")
    assert done.returncode == 2 and done.stderr.count("ERROR") == 1 and not list(clone.folder.glob("*other*")), (
        "nothing half written is left"
    )


def test_every_generative_family_is_carried_away(clone: Clone) -> None:
    """By the registry's own entries, on tiny checkpoints of the published layouts."""
    names = [tiny_generative.PUBLISHED[family] for family in tiny_generative.ALL]
    path = clone.folder / "config/models.yaml"
    entries = yaml.safe_load(path.read_text())
    for family, name in zip(tiny_generative.ALL, names, strict=True):
        tiny_generative.checkpoint(family, clone.folder / "checkpoints" / name)
        entries[name]["checkpoint"] = f"./checkpoints/{name}"
        for pin in ("revision", "checksums", "companions"):
            entries[name].pop(pin, None)
        entries[name]["max_new_tokens"] = 6
    path.write_text(yaml.safe_dump(entries, sort_keys=False))
    cells = [f"nano-vqa-radiology/{name}/lora" for name in names]
    clone.compute(*(f"results/intervals/{cell}.parquet" for cell in cells))
    rows, images = shown(clone, "nano-vqa-radiology", 2)
    calls = [[image, row["question"]] for row, image in zip(rows, images, strict=True)]
    own = ("llava-med", "vila-1.5")
    jobs = [(cell, f"out/{cell}", [], calls) for cell in cells]
    jobs += [(cell, f"merged/{cell}", ["--merged"], calls) for cell in cells if cell.split("/")[1] not in own]
    found = exported(clone, jobs)
    assert len(found) == len(rows) * (len(cells) * 2 - len(own))
    for (cell, out, said), row in zip(found, rows * (len(found) // len(rows)), strict=True):
        [expected] = predicted(clone, cell, [row])
        assert said.strip() == expected["answer"] or expected["finish_reason"] == "repetition", (out, said, expected)
    for name in own:
        done = export(clone, f"nano-vqa-radiology/{name}/lora", "no", "--merged")
        assert "has a layout of its own" in done.stderr and entries[name]["about"]["label"] in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.full
def test_every_contrastive_family_is_carried_away(clone: Clone) -> None:
    """By the registry's own entries, on tiny checkpoints of the published layouts: probes, few-shot probes, adapted towers, merged ones."""
    path = clone.folder / "config/models.yaml"
    entries = yaml.safe_load(path.read_text())
    for family, name in tiny.PUBLISHED.items():
        tiny.checkpoint(family, clone.folder / "checkpoints" / name)
        entries[name] |= {"checkpoint": f"./checkpoints/{name}", "overrides": {"lora": HARD, "lora-text": HARD}}
        for pin in ("revision", "checksums", "companions"):
            entries[name].pop(pin, None)
    path.write_text(yaml.safe_dump(entries, sort_keys=False))
    cells = [f"nano-radiology/{name}/{mode}" for name in tiny.PUBLISHED.values() for mode in ("lp", "lp-16", "lora", "lora-text")]
    cells = [cell for cell in cells if "/medclip/lora" not in cell]  # a Swin of random weights sees no difference to learn
    clone.compute(*(f"results/intervals/{cell}.parquet" for cell in cells))
    rows, images = shown(clone, "nano-radiology", SHOWN)
    jobs = [(cell, f"out/{cell}", [], [images]) for cell in cells]
    merged = [cell for cell in cells if "/lora" in cell and cell.split("/")[1] in ("clip", "blip-2")]
    jobs += [(cell, f"merged/{cell}", ["--merged"], [images]) for cell in merged if cell != "nano-radiology/blip-2/lora-text"]
    for cell, _, said in exported(clone, jobs):
        check_scores(clone, cell, rows, said)
    assert "has a layout of its own" in export(clone, "nano-radiology/biomedclip/lora", "no", "--merged").stderr
