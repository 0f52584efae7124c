"""The seam: what answers is found by its kind, and a hub model tells the probability of an answer."""

import pytest
import torch
from PIL import Image

from medbench.errors import MedbenchError
from medbench.models import answering, hub_answerer
from medbench.models.answering import Answer, Answerer, Query
from medbench.models.checkpoint import Source
from tests.unit import asked


@pytest.fixture(scope="module")
def answerer(tmp_path_factory: pytest.TempPathFactory) -> hub_answerer.HubAnswerer:
    source = Source(asked.MODULE, str(asked.checkpoint(tmp_path_factory.mktemp("seam") / "model")), batch_size=4)
    found = answering.load(source)
    assert isinstance(found, hub_answerer.HubAnswerer)
    return found


def test_the_module_behind_the_seam_follows_from_the_architecture() -> None:
    assert answering.module({"module": asked.MODULE}) == "medbench.models.hub_answerer"
    assert answering.module({"module": "medbench.models.remote.echo"}) == "medbench.models.remote.echo"


def test_probabilities_of_answers_are_those_of_their_tokens(answerer: hub_answerer.HubAnswerer) -> None:
    query, options = Query("sample a", Image.new("RGB", (32, 32), "grey"), "Is it large?"), ["yes", "no", "a longer answer"]
    together = answerer.loglikelihood(query, options)
    alone = [answerer.loglikelihood(query, [option])[0] for option in options]
    assert together == pytest.approx(alone, abs=1e-4)
    assert all(value < 0 for value in together)
    model = answerer.model
    for option, expected in zip(options, together, strict=True):
        prompt, ids = model.inputs([query], 0), model._completion_ids([query], [model.completion(option)])[0]
        total = 0.0
        for token in ids:  # one after another, as it would be generated
            with torch.inference_mode():
                logits = model.model(**model.placed(prompt)).logits[0, -1].float()
            total += float(logits.log_softmax(-1)[token])
            more = torch.tensor([[token]])
            grown = {
                "input_ids": torch.cat([prompt["input_ids"], more], 1),
                "attention_mask": torch.ones_like(prompt["attention_mask"][:, :1]),
            }
            prompt = {
                **prompt,
                "input_ids": grown["input_ids"],
                "attention_mask": torch.cat([prompt["attention_mask"], grown["attention_mask"]], 1),
            }
        assert total == pytest.approx(expected, abs=1e-3)


def test_a_model_that_tells_no_probability_says_so() -> None:
    class Mute(Answerer):
        def answers(self, questions: object, done: object, microbatching: object) -> object:  # type: ignore[override]
            return iter([{0: Answer("", "stop", 0)}])

    with pytest.raises(MedbenchError, match="Mute gives no probabilities of answers"):
        Mute().loglikelihood(Query("sample a", Image.new("RGB", (8, 8)), "?"), ["yes"])
