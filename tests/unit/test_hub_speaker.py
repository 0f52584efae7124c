"""A generative hub model as a judge: text alone through its own chat template, greedy, without a server."""

import json
from pathlib import Path

import pytest

from medbench import paths
from medbench.errors import MedbenchError
from medbench.jobs.partial import Work
from medbench.judging import asking
from medbench.judging.asking import Judge, Triple
from medbench.models import hub_speaker
from medbench.models.answering import Prompt
from medbench.models.checkpoint import Source
from medbench.models.hub_speaker import HubSpeaker
from medbench.stages import calibrate
from tests.unit import asked, tiny_generative

MINI = str(Path(__file__).parents[2] / "resources/models/mini-llava")
SOURCE = Source(asked.MODULE, MINI, batch_size=4)
TEXTS = ("Is it a nodule?", "Is the lesion red, or is it blue, or both of them?", "Which shape?", "Is it large?", "Where?")


def prompts(*texts: str) -> list[tuple[int, Prompt]]:
    return [(place, Prompt(f"p{place}", "Answer briefly.", text)) for place, text in enumerate(texts)]


@pytest.fixture(scope="module")
def mini() -> HubSpeaker:
    found = asking.load(Judge("mini", SOURCE._asdict(), 8))
    assert isinstance(found, HubSpeaker)
    return found


def test_each_prompt_is_answered_as_it_is_alone(mini: HubSpeaker) -> None:
    together = dict(mini.says(prompts(*TEXTS), 8))
    assert set(together) == set(range(len(TEXTS))) and any(said.text for said in together.values())
    for place, text in enumerate(TEXTS):
        [(_, alone)] = hub_speaker.answerer(SOURCE).says([(0, Prompt("p", "Answer briefly.", text))], 8)
        assert alone == together[place]
    assert {said.answered_by for said in together.values()} == {mini.weights["checkpoint"]}
    assert len({said.request for said in together.values()}) == len(TEXTS)


def test_equal_prompts_are_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answerer, seen = hub_speaker.answerer(SOURCE), list[int]()
    generate = answerer.model.generate
    counted = lambda inputs, *more: seen.append(len(inputs["input_ids"])) or generate(inputs, *more)  # noqa: E731
    monkeypatch.setattr(answerer.model, "generate", counted)
    given = [*prompts("Is it red?", "Is it blue?", "Is it red?"), (7, Prompt("again", "Answer briefly.", "Is it red?", None, 3))]
    first = dict(answerer.says(given, 4))
    assert sum(seen) == 2 and first[0] == first[2] == first[7] and set(first) == {0, 1, 2, 7}
    assert dict(answerer.says(given, 4)) == first and sum(seen) == 2, "another call asks nothing"
    assert dict(answerer.says(given[:1], 5)) and sum(seen) == 3, "another budget does"


@pytest.mark.parametrize("mark", ["<image>", "</s>", "<s>", "<image><image>"])
def test_marks_in_a_text_are_text(mini: HubSpeaker, mark: str) -> None:
    """They stand in the answer that is judged: an image that is not there, or the end of the turn."""
    [(_, said)] = mini.says(prompts(f"Is it {mark} red?"), 4)
    assert said.finish_reason in ("stop", "length", "repetition")
    plain = mini._plain(f"Is it {mark} red?")
    ids = set(mini.model.text_ids([mini.model.prompt(plain, 0)])[0])
    assert mini.model.image_token_id not in ids and mini.model.tokenizer.eos_token_id not in ids


def test_a_prompt_that_is_too_long_is_not_asked(mini: HubSpeaker) -> None:
    given = dict(mini.says(prompts("word " * 1000, "Is it red?"), 4))
    assert (given[0].text, given[0].finish_reason) == ("", "context") and given[1].finish_reason != "context"


@pytest.mark.parametrize("family", tiny_generative.ALL)
def test_every_family_takes_text_alone_or_says_that_it_does_not(family: str, tmp_path: Path) -> None:
    answerer = HubSpeaker(tiny_generative.load(family, tiny_generative.checkpoint(family, tmp_path / "model")), 2)
    said = dict(answerer.says(prompts(*TEXTS[:3], "<image> <|im_end|> <|image_pad|> <IMG_CONTEXT> <image_soft_token> [INST] </s>"), 4))
    assert set(said) == {0, 1, 2, 3} and all(one.answered_by for one in said.values())
    alone = dict(answerer.says(prompts(TEXTS[0]), 4))
    assert alone[0] == said[0]


def test_a_model_that_takes_no_text_alone_says_so_in_one_line(mini: HubSpeaker, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(n_images: int) -> None:
        raise MedbenchError("checkpoint x", "cannot be shown 0 images at once: its processor wants one", "leave out the data set")

    monkeypatch.setattr(mini.model, "require_images", refuse)
    with pytest.raises(MedbenchError, match=r"checkpoint x: takes no text without an image .*; choose another model as the judge") as error:
        list(mini.says(prompts("Is it red?"), 4))
    assert "\n" not in str(error.value)


def test_a_judge_that_runs_here_needs_no_server() -> None:
    judge = Judge("mini-llava", SOURCE._asdict(), 16)
    found = list(asking.judgements(asking.load(judge), judge, "published", [Triple("Is it red?", "red", "blue")], 2))
    assert [(one.reading.state, one.reading.score) for _, _, one in found] == [("failed", None)] * 2, "it was never taught to judge"


def test_its_calibration_refuses_it_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its 512 tokens do not hold the rubric."""
    monkeypatch.chdir(tmp_path)
    calibrate.run(calibrate.Params(SOURCE._asdict(), 64, ("strict",)), "mini-llava", Work(tmp_path / "work"))
    report = json.loads(paths.calibration("mini-llava").read_bytes())["scorings"]["strict"]
    assert any(fault.startswith("auroc") for fault in report["faults"]) and report["n_failed"] > 200
    assert "the judge does not read so long a prompt" in capsys.readouterr().out
