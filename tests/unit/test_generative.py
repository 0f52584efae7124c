"""Generative models: prompts, batches, answers, and what is said when a checkpoint or a question does not fit."""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from medbench import cli, stages, tables
from medbench import config as configuration
from medbench.datasets import stored
from medbench.datasets.images import ImageRow, decode
from medbench.demo import questions
from medbench.errors import MedbenchError
from medbench.jobs.partial import Work
from medbench.jobs.prefetch import prefetch
from medbench.models import asking, generative_base, hub_answerer, loading, shared_prefix
from medbench.models.answering import Questions, by_length, windows
from medbench.models.checkpoint import Source
from medbench.models.generative_base import IGNORED, Answer, Generative, Query
from medbench.predict import generative, question_baseline
from medbench.stages import gaps
from medbench.stages import predict as stage
from medbench.stages.predict import Params
from medbench.tasks import vqa
from medbench.tasks.vqa import PredictionsVqa
from tests.unit import asked, tiny_generative
from tests.unit.test_near import dicom

REAL = os.environ.get("MEDBENCH_REAL_DATA")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Generative:
    """Untrained, so that its answers are as different from each other as they can be."""
    loaded: Generative = loading.load(Source(asked.MODULE, str(asked.checkpoint(tmp_path_factory.mktemp("llava") / "tiny"))))
    return loaded


def queries(n: int = 24) -> list[Query]:
    """Questions of different length about different images."""
    found = [Query(f"sample {i}", Image.fromarray(s.image), s.question) for i, s in enumerate(questions.cohort("dermatology", n // 8, 0))]
    return [query._replace(text=query.text + " please" * (place % 5)) for place, query in enumerate(found)]


def test_llava_sees_the_whole_image_where_its_entry_says_so(tmp_path: Path) -> None:
    """Padded to a square with CLIP's mean colour, then as CLIP does it; without the exception what the checkpoint's own one makes."""
    from transformers import CLIPImageProcessor

    folder = asked.checkpoint(tmp_path / "tiny")
    source = Source(asked.MODULE, str(folder), None, 4)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    query = Query("s", Image.fromarray(pixels), "Is it?")
    own, padded = (
        generative_base.load(some).encode([query])["pixel_values"] for some in (source, source._replace(processor={"do_pad": True}))
    )
    clip = CLIPImageProcessor.from_pretrained(folder)
    square = Image.new("RGB", (128, 128), tuple(int(value * 255) for value in clip.image_mean))
    square.paste(query.image, (0, 32))
    assert torch.equal(own, clip(query.image, return_tensors="pt")["pixel_values"])
    assert torch.allclose(padded, clip(square, return_tensors="pt")["pixel_values"], atol=1e-6)
    root = Path(__file__).parents[2]
    registry = configuration.from_files([root / "config/config.yaml"], root).models
    assert registry["llava-1.5"].processor == {"do_pad": True} and not registry["mini-llava"].processor


def test_the_prompt_is_llavas(model: Generative) -> None:
    assert model.prompt("Is it red?") == "USER: <image>\nIs it red? ASSISTANT:"
    inputs = model.inputs(queries(8)[:1], 6)
    assert int((inputs["input_ids"] == model.image_token_id).sum()) == 16
    assert inputs["input_ids"][0, 0] == model.tokenizer.bos_token_id
    assert (inputs["input_ids"] == model.tokenizer.bos_token_id).sum() == 1


def test_a_batch_answers_as_one_at_a_time(model: Generative) -> None:
    asking = queries()
    together = model.generate(model.inputs(asking, 12), 12)
    alone = [model.generate(model.inputs([query], 12), 12)[0] for query in asking]
    assert together == alone
    assert len({answer.text for answer in together}) > 3, "the model answers differently to different questions"


def test_prompts_whose_image_comes_last_are_read_whole(model: Generative, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a template with the image behind the question: what two prompts share holds no image."""
    monkeypatch.setattr(model, "_turns", {1: ("USER: ", "\n<image> ASSISTANT:")})
    first, other = queries(8)[:2]
    asking = [first, first._replace(text="Is it red?"), other]
    put = shared_prefix.prompts(model, asking, 6)
    assert isinstance(put, dict)
    assert shared_prefix.answers(model, put, 6) == [model.generate(model.inputs([query], 6), 6)[0] for query in asking]


def test_padding_stands_on_the_left(model: Generative) -> None:
    inputs = model.inputs(queries(), 6)
    mask = inputs["attention_mask"]
    assert bool((mask == 0).any()) and bool((mask[:, -1] == 1).all())


def test_finish_reason_says_who_ended_the_answer(model: Generative, monkeypatch: pytest.MonkeyPatch) -> None:
    end, word = model.tokenizer.eos_token_id, model.tokenizer.convert_tokens_to_ids("▁yes")
    prompt = model.inputs(queries(8)[:2], 3)
    written = torch.tensor([[word, end, model.tokenizer.pad_token_id], [word, word, word]])
    monkeypatch.setattr(model.model, "generate", lambda **given: torch.cat([given["input_ids"], written], dim=1))
    assert model.generate(prompt, 3) == [("yes", "stop", 1), ("yes yes yes", "length", 3)]


def test_labels_cover_exactly_the_answer_and_its_end(model: Generative) -> None:
    asking = queries(8)
    batch = model.train_batch(asking, ["left", "a long answer of unusual words", *["no"] * 6])
    labelled = batch["labels"] != IGNORED
    for row, answer in enumerate(["left", "a long answer of unusual words", "no"]):
        assert model.tokenizer.decode(batch["labels"][row][labelled[row]]) == f"{answer}</s>"  # whose first word has its space in it
    assert not bool((labelled & (batch["attention_mask"] == 0)).any())
    assert not bool((labelled & (batch["input_ids"] == model.image_token_id)).any())
    assert set(batch) == {*model.encode(asking), "labels"}


def test_a_prompt_that_is_no_prefix_is_an_error(model: Generative, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = model.prompt
    monkeypatch.setattr(model, "prompt", lambda text, n_images=1: plain(text, n_images) + " ")  # the space of MODELS.md, section 5
    monkeypatch.setattr(model, "completion", lambda answer: f"{answer}</s>")
    with pytest.raises(MedbenchError, match="sample 0: its prompt is no token prefix"):
        model.train_batch(queries(8)[:2], ["yes", "no"])


def test_a_question_longer_than_the_context_is_named(model: Generative) -> None:
    asking = queries(8)[:3]
    asking[1] = asking[1]._replace(text="why " * 600)
    with pytest.raises(
        MedbenchError, match=r"sample 1: the question takes \d+ tokens with its image and 6 for the answer, the model reads 512"
    ):
        model.inputs(asking, 6)
    with pytest.raises(MedbenchError, match="sample 1: the question takes"):
        model.train_batch(asking, ["yes"] * 3)


def test_a_processor_without_chat_template_is_named(tmp_path: Path) -> None:
    folder = asked.checkpoint(tmp_path / "tiny")
    for file in folder.glob("chat_template.*"):
        file.unlink()
    with pytest.raises(MedbenchError, match=r"tiny: its processor has no chat template"):
        loading.load(Source(asked.MODULE, str(folder)))


def test_another_architecture_is_named(tmp_path: Path) -> None:
    folder = asked.checkpoint(tmp_path / "tiny")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "llava_next"}))
    with pytest.raises(MedbenchError, match="'llava_next', not of 'llava'"):
        loading.load(Source(asked.MODULE, str(folder)))


def test_lora_targets_hit_the_decoder_alone(model: Generative) -> None:
    import re

    hit = [name for name, _ in model.model.named_modules() if re.fullmatch(model.lora_targets, name)]
    assert len(hit) == 2 * 7, "seven linear layers in each of two decoder layers"
    assert not [name for name in hit if "vision" in name]


def params(folder: Path, size: int) -> Params:
    source = {"module": asked.MODULE, "checkpoint": str(folder), "revision": None, "batch_size": size}
    return Params("medbench.predict.generative", "vqa", source, (), asking=asked.ASKING._asdict())


def answers(folder: Path, size: int, work: Path) -> pl.DataFrame:
    """Of the test split, from the beginning."""
    work.mkdir()
    return generative.predict(params(folder, size), "d", "tiny", "ots", Work(work))


def test_predictions_are_equal_for_every_batch_size_and_keep_what_scoring_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked.dataset("d", patients=(2, 1, 5))
    folder = asked.checkpoint(tmp_path / "tiny")
    frames = [answers(folder, size, tmp_path / f"by-{size}") for size in (1, 7)]
    assert frames[0].equals(frames[1])
    monkeypatch.setattr(hub_answerer, "WINDOW", 3)
    assert answers(folder, 7, tmp_path / "windows").equals(frames[0])
    table = tmp_path / "p.parquet"
    tables.write(PredictionsVqa, frames[0], table)
    test = vqa.asked("d", "test")
    assert frames[0]["question"].to_list() == test.questions and frames[0]["reference"].to_list() == test.answers
    assert frames[0]["n_tokens"].max() <= asked.ASKING.max_new_tokens  # type: ignore[operator]


def test_the_instruction_goes_to_yes_no_questions_alone() -> None:
    assert asked.ASKING.text("Is it so? ") == "Is it so? Answer yes or no."
    assert asked.ASKING.text("Is it left or right?") == "Is it left or right?"
    assert asked.ASKING.text("What is {this}?") == "What is {this}?"


@pytest.mark.skipif(not REAL, reason="MEDBENCH_REAL_DATA names no folder of real data")
def test_the_yes_no_rule_on_real_questions() -> None:
    """VQA-RAD's test split; the verb alone finds one more closed question, and hits 20 more open ones, most of which offer a choice."""
    frame = pl.read_parquet(Path(str(REAL)) / "vqa-rad/data/test-00000-of-00001.parquet", columns=["question", "answer"])
    closed = frame["answer"].str.strip_chars().str.to_lowercase().is_in(["yes", "no"])
    by_verb = pl.Series([asking._OPENS.match(question) is not None for question in frame["question"]])
    by_rule = pl.Series([asking.asks_yes_no(question) for question in frame["question"]])
    assert (closed.sum(), (~closed).sum()) == (251, 200)
    assert ((by_verb & closed).sum(), (by_verb & ~closed).sum()) == (249, 21)
    assert ((by_rule & closed).sum(), (by_rule & ~closed).sum()) == (248, 1)


def test_batches_hold_questions_that_take_about_as_many_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model of native resolution: the image's size counts more than the question's words. Only headers are read for it."""
    folder = tiny_generative.checkpoint("qwen2-vl", tmp_path / "m")
    loaded: Generative = loading.load(Source(loading.module_name("generative", "qwen2-vl"), str(folder)))
    sizes = [(28, 28), (56, 56), (28, 56), (28, 28), (56, 56), (28, 56)]
    images = {}
    for place, size in enumerate(sizes):
        stream = io.BytesIO()
        Image.new("RGB", size).save(stream, "PNG")
        images[f"i{place}"] = stream.getvalue()
    rows = [ImageRow(name, data, False) for name, data in images.items()]
    data = Questions([f"s{place}" for place in range(6)], ["Is it?"] * 6, list(images), lambda names, size: [rows], decode, 6)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("an image was decoded"))
    loaded.weights = {}
    found = list(hub_answerer.HubAnswerer(loaded, 2).batches(data, 2))
    assert [batch.places for batch in found] == [[1, 4], [2, 5], [0, 3]]


def test_an_image_that_the_processor_refuses_is_named_by_predict_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked.dataset("d", patients=(1, 1, 1))
    stream = io.BytesIO()
    Image.new("RGB", (3000, 10)).save(stream, "PNG")
    place = Path("results/data/d/images.parquet")
    tables.write(tables.Images, tables.read(tables.Images, place).with_columns(pl.lit(stream.getvalue()).alias("image")), place)
    folder = tiny_generative.checkpoint("qwen2-vl", tmp_path / "m")
    source = {"module": loading.module_name("generative", "qwen2-vl"), "checkpoint": str(folder), "revision": None, "batch_size": 4}
    (tmp_path / "w").mkdir()
    with pytest.raises(MedbenchError, match=r"sample d-\d+: Qwen2VLProcessor refuses it with its image of 3000x10"):
        generative.predict(params(folder, 4)._replace(source=source), "d", "tiny", "ots", Work(tmp_path / "w"))


def test_a_resume_asks_what_is_left_however_batches_are_cut_now() -> None:
    every = [hub_answerer.Batch([3, 1], {}), hub_answerer.Batch([0, 2], {}), hub_answerer.Batch([4], {})]
    assert [batch.places for batch in hub_answerer.rest(iter(every), {3, 1})] == [[0, 2], [4]]
    assert [batch.places for batch in hub_answerer.rest(iter(every), {3, 0, 4})] == [[1], [2]]


def test_in_half_precision_some_questions_are_asked_alone_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked.dataset("d", patients=(1, 1, 5))
    folder = asked.checkpoint(tmp_path / "tiny")
    whole = Work(tmp_path / "whole")
    whole.folder.mkdir()
    generative.predict(params(folder, 4), "d", "tiny", "ots", whole)
    assert whole.facts().keys() == {"weights"}, "in float32 a batch answers as single questions do"
    plain = generative_base.load
    monkeypatch.setattr(generative_base, "load", lambda source: plain(source, dtype=torch.bfloat16))
    half = Work(tmp_path / "half")
    half.folder.mkdir()
    frame = generative.predict(params(folder, 16), "d", "tiny", "ots", half)
    facts = half.facts()
    assert facts["asked_alone"] == min(32, frame.height) and 0 <= facts["changed_alone"] <= facts["asked_alone"]
    other = Generative.generate

    def batch_dependent(self: Generative, inputs: dict[str, torch.Tensor], *more: Any) -> list[Answer]:
        return [answer._replace(text=f"{len(inputs['input_ids'])}") for answer in other(self, inputs, *more)]

    monkeypatch.setattr(Generative, "generate", batch_dependent)
    again = Work(tmp_path / "again")
    again.folder.mkdir()
    generative.predict(params(folder, 2), "d", "tiny", "ots", again)
    assert again.facts()["changed_alone"] == again.facts()["asked_alone"]


def test_the_stage_says_how_answers_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked.dataset("d", patients=(1, 1, 2))
    facts = stage.STAGE.execute(params(asked.checkpoint(tmp_path / "tiny"), 4), "d", "tiny", "ots")
    assert set(facts["finish_reasons"]) <= {"stop", "length", "repetition"}
    assert sum(facts["finish_reasons"].values()) == len(vqa.asked("d", "test").questions)


def test_a_broken_image_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked.dataset("d", patients=(1, 1, 1))
    frame = tables.read(tables.Images, Path("results/data/d/images.parquet"))
    tables.write(tables.Images, frame.with_columns(pl.lit(b"no image").alias("image")), Path("results/data/d/images.parquet"))
    with pytest.raises(MedbenchError, match=r"image [0-9a-f]{64}: cannot be decoded"):
        answers(asked.checkpoint(tmp_path / "tiny"), 4, tmp_path / "work")


def test_baselines_need_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked.dataset("d", patients=(6, 1, 3))
    for name in ("constant_answer", "question_only"):
        source = {"module": f"medbench.models.baseline.{name}", "checkpoint": None, "revision": None, "batch_size": 1}
        frame = question_baseline.predict(Params("m", "vqa", source, ()), "d", name, "ots", Work(tmp_path))
        tables.write(PredictionsVqa, frame, tmp_path / "p.parquet")
        assert frame.filter("is_yes_no")["answer"].is_in(["yes", "no"]).all()


def test_windows_hold_every_question_once() -> None:
    rows = [[ImageRow("i1", b"1", True), ImageRow("i2", b"2", True)], [ImageRow("i3", b"3", True)]]
    wanted = [["i1"], ["i2"], ["i1"], ["i3"]]
    assert [window.places for window in windows(wanted, rows, 2)] == [[0, 1, 2], [3]]
    wanted = [["i3", "i1"], [], ["i2"], [], [], ["i1", "i1"]]
    found = list(windows(wanted, rows, 2))
    assert [window.places for window in found] == [[1, 3], [4], [2, 5], [0]], (
        "those without an image first, others once all images are there"
    )
    assert [sorted(window.images) for window in found] == [[], [], ["i1", "i2"], ["i1", "i3"]]
    assert list(by_length([0, 1, 2, 3], [5, 9, 5, 7].__getitem__, 3)) == [[1, 3, 0], [2]]
    assert list(by_length([0, 1, 2, 3], [5, 9, 5, 7].__getitem__, 3, "abab".__getitem__)) == [[1, 3, 0], [2]]
    assert list(by_length([0, 1, 2, 3], [5, 9, 7, 5].__getitem__, 3, "abab".__getitem__)) == [[1, 3, 2], [0]]


def test_ahead_keeps_the_order_and_raises_here() -> None:
    assert list(prefetch(lambda item: item * 2, range(5))) == [(item, item * 2) for item in range(5)]
    with pytest.raises(ZeroDivisionError):
        list(prefetch(lambda item: 1 // item, [1, 0]))


def test_the_mini_models_are_trained_on_what_their_processor_makes() -> None:
    """The pretraining's own normalisation equals the saved image processor's."""
    from medbench.demo import llavaformat

    image = next(questions.cohort("radiology", 1, 0)).image
    ours = llavaformat.normalised(torch.from_numpy(image).permute(2, 0, 1)[None])
    theirs = llavaformat.image_processor()(Image.fromarray(image), return_tensors="pt")["pixel_values"]
    assert torch.allclose(ours, theirs, atol=1e-5)
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    assert np.array_equal(np.asarray(Image.open(stream)), image)


def test_threads_do_not_disturb_each_others_padding(model: Generative) -> None:
    asking = queries()
    expected = model.encode(asking)["input_ids"]
    for _, encoded in prefetch(lambda _: model.encode(asking)["input_ids"], range(60)):
        for _ in range(20):
            model.tokens("Is it red?")
        assert torch.equal(encoded, expected)


# --- controls and one question


def test_controls_hide_the_image_or_show_another_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked.dataset("d", patients=(2, 1, 5))
    folder = asked.checkpoint(tmp_path / "tiny")
    test, groups = vqa.asked("d", "test"), stored.groups("d", "test")
    other = generative.shuffled("d", test, 0)
    owner = dict(zip(test.image_ids, groups, strict=True))
    assert all(owner[image] != group for image, group in zip(other, groups, strict=True))
    assert other == generative.shuffled("d", test, 0) != generative.shuffled("d", test, 1)
    found = {}
    for image in ("own", "blank", "shuffled"):
        (tmp_path / image).mkdir()
        chosen = params(folder, 4)._replace(image=image, seed=0)
        found[image] = generative.predict(chosen, "d", "tiny", image, Work(tmp_path / image))
    assert found["own"].drop("answer", "finish_reason", "n_tokens").equals(found["blank"].drop("answer", "finish_reason", "n_tokens"))
    assert len({tuple(frame["answer"]) for frame in found.values()}) == 3
    same = found["blank"].group_by("question").agg(pl.col("answer").n_unique())
    assert same["answer"].max() == 1, "without an image equal questions have equal answers"


def test_one_group_has_no_other_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked.dataset("d", patients=(1, 1, 1))
    with pytest.raises(MedbenchError, match="holds one group only"):
        generative.shuffled("d", vqa.asked("d", "test"), 0)


def test_controls_are_of_generative_models_and_adapt_nothing() -> None:
    root = Path(__file__).parents[2]
    loaded = configuration.from_files([root / "config/nano.yaml"], root)
    run = loaded.run.model_copy(update={"modes": ("ots-blank", "ots", "ots-shuffled", "lp", "lora")})
    loaded = loaded._replace(run=run)
    assert configuration.can_run(loaded.models["nano-llava"], "ots-blank", loaded.modes["ots-blank"])
    assert not configuration.can_run(loaded.models["nano-clip"], "ots-blank", loaded.modes["ots-blank"])
    assert not configuration.can_run(loaded.models["question-only"], "ots-blank", loaded.modes["ots-blank"])
    found = gaps.params(loaded, "nano")
    assert (found.off_the_shelf, found.adapted) == ("ots", ("lp", "lora"))
    assert stage.params(loaded, "nano-vqa-radiology", "nano-llava", "ots").seed is None
    assert stage.params(loaded, "nano-vqa-radiology", "nano-llava", "ots-shuffled").seed == 0


def test_exceptions_of_a_model_stand_in_its_entry(tmp_path: Path) -> None:
    """A token budget and a processor's fields are parameters of its cells; the number of GPUs is a resource and reruns nothing."""
    root = Path(__file__).parents[2]
    loaded = configuration.from_files([root / "config/nano.yaml"], root)
    cell = ("nano-vqa-radiology", "nano-llava", "lora")
    entry = loaded.models["nano-llava"]
    wide = loaded._replace(models={**loaded.models, "nano-llava": entry.model_copy(update={"gpus": 4})})
    for name in ("adapt", "predict"):
        assert [stages.get(name).needs(one, *cell).gpus for one in (loaded, wide)] == [1, 4]
        assert stages.look(loaded, name, cell).rerun_key == stages.look(wide, name, cell).rerun_key
    assert stages.get("score").needs(wide, *cell).gpus == stages.get("prepare").needs(wide, *cell[:1]).gpus == 0
    long = entry.model_copy(update={"max_new_tokens": 256, "processor": {"do_center_crop": False}, "bits": 4})
    other = loaded._replace(models={**loaded.models, "nano-llava": long})
    for name in ("adapt", "predict"):
        was, now = (stages.get(name).params(one, *cell) for one in (loaded, other))
        assert (was.asking["max_new_tokens"], now.asking["max_new_tokens"]) == (32, 256)
        assert (now.source["processor"], now.source["bits"]) == ({"do_center_crop": False}, 4)
    for field, value in (("gpus", 2), ("bits", 4), ("max_new_tokens", 9), ("processor", {"size": 3}), ("thoughts", (("[T]", "[/T]"),))):
        fields = {"family": "clip", "role": "generalist", "architecture": "clip", "checkpoint": "a/b", field: value}
        with pytest.raises(ValueError, match=f"`{field}` is for generative"):
            configuration.Model.model_validate(fields)


def test_ask_answers_as_predict_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    asked.dataset("d", patients=(1, 1, 2))
    folder = asked.checkpoint(tmp_path / "tiny")
    (tmp_path / "w").mkdir()
    put = {"question": "{question}", "yes_no": "{question} Answer yes or no.", "max_new_tokens": 32}
    frame = generative.predict(params(folder, 4)._replace(asking=put), "d", "tiny", "ots", Work(tmp_path / "w"))
    test = vqa.asked("d", "test")
    images = dict(tables.read(tables.Images, Path("results/data/d/images.parquet"), ["image_id", "image"]).iter_rows())
    Path("one.png").write_bytes(images[test.image_ids[0]])
    assert cli.main(["ask", str(folder), "one.png", test.questions[0], "--architecture", "llava"]) == 0
    assert capsys.readouterr().out.strip() == frame["answer"][0]
    Path("one.dcm").write_bytes(dicom(np.asarray(Image.open("one.png").convert("RGB"))))  # read as `prepare` reads it
    assert cli.main(["ask", str(folder), "one.dcm", test.questions[0], "--architecture", "llava"]) == 0
    assert capsys.readouterr().out.strip() == frame["answer"][0]
    for wrong, expected in (
        (["ask", str(folder), "none.png", "Is it?", "--architecture", "llava"], "none.png: the file does not exist"),
        (["ask", "clip", "one.png", "Is it?"], "is contrastive: it answers no questions"),
        (["ask", "nobody", "one.png", "Is it?"], "is in no registry"),
        (["ask", "mini-llava", "one.png", "Is it?"], "is not pretrained yet"),
        (["ask", "huatuogpt-vision-7b", "one.png", "Is it?"], "has no file in medbench/models"),
    ):
        assert cli.main(wrong) == 2
        assert expected in capsys.readouterr().err
    Path("broken.png").write_bytes(b"no image")
    assert cli.main(["ask", str(folder), "broken.png", "Is it?", "--architecture", "llava"]) == 2
    assert "is no readable image" in capsys.readouterr().err
