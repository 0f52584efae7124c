"""The same checkpoint here and behind a real server: equal answers, and a server that dies and comes back costs nothing."""

import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from medbench import tables
from medbench.errors import Interrupted, MedbenchError
from medbench.jobs.microbatching import Microbatching
from medbench.jobs.partial import Work
from medbench.judging import asking as judging
from medbench.models import answering, remote_answerer
from medbench.models.checkpoint import Source
from medbench.predict import generative
from medbench.predict.job import Params
from medbench.remote.asking import ask
from medbench.remote.endpoint import Reached
from medbench.remote.endpoints.openai import OpenAI
from medbench.remote.limits import Limits
from medbench.remote.request import Picture, Request
from medbench.remote.store import Store
from medbench.tasks import vqa
from medbench.tasks.vqa import PredictionsVqa
from tests.unit import asked, served
from tests.unit.served import MINI, Served

REMOTE = "medbench.models.remote.openai"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served.serving(MINI, tmp_path_factory.mktemp("serve") / "log") as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEDBENCH_STORE", raising=False)
    asked.dataset("d", patients=(1, 1, 5))
    return tmp_path


def params(module: str, image: str = "own", model: str = str(MINI), **options: Any) -> Params:
    source = {"module": module, "checkpoint": model, "batch_size": 8, "options": options}
    return Params(
        "medbench.predict.generative", "vqa", source, (), asking=asked.ASKING._replace(max_new_tokens=32)._asdict(), image=image, seed=0
    )


def cell(chosen: Params, place: Path, **told: Any) -> tuple[pl.DataFrame, Work]:
    """Its table, from the beginning."""
    place.mkdir(parents=True)
    work = Work(place)
    work.beside = told
    return generative.predict(chosen, "d", "m", "ots", work), work


def answered(folder: Path) -> int:
    """Lines of the store."""
    return sum(len(file.read_bytes().splitlines()) for file in folder.glob("store/*/*.jsonl"))


@pytest.mark.parametrize("image", ["own", "blank", "shuffled"])
def test_a_remote_cell_equals_the_local_cell(server: Served, folder: Path, image: str) -> None:
    local, _ = cell(params(asked.MODULE, image), folder / "local")
    remote, work = cell(params(REMOTE, image), folder / "remote", url=server.url)
    assert remote.equals(local) and local["answer"].n_unique() > 2
    for name, frame in (("local", local), ("remote", remote)):
        tables.write(PredictionsVqa, frame, folder / f"{name}.parquet")
    assert (folder / "local.parquet").read_bytes() == (folder / "remote.parquet").read_bytes()
    facts = work.facts()
    assert facts["weights"] == {"model": f"{MINI}@main"} and facts["endpoint"]["returned"] == {f"{MINI}@main": len(local)}
    told = (local["n_tokens"] + (local["finish_reason"] == "stop")).sum()
    paid = facts["endpoint"]["tokens"]["output"]  # equal questions about equal pictures are asked once
    assert paid == told if image == "own" else 0 < paid <= told


def test_a_server_that_is_killed_and_comes_back_elsewhere_answers_nothing_twice(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local, _ = cell(params(asked.MODULE), folder / "local")
    with served.serving(MINI, folder / "first.log") as first:
        monkeypatch.setattr(remote_answerer, "GROUP", 1)
        seen = one_by_one(first.url)
        next(seen)
        first.kill()
        with pytest.raises(Interrupted, match="what was answered is kept"):
            list(seen)
    kept = answered(folder)
    assert 0 < kept < len(local)
    with served.serving(MINI, folder / "second.log") as second:
        remote, _ = cell(params(REMOTE), folder / "remote", url=second.url)
    distinct = pl.read_parquet("results/data/d/test.parquet").select("image_id", "question").unique().height
    assert remote.equals(local) and answered(folder) == distinct, "nothing was asked twice"
    again, _ = cell(params(REMOTE), folder / "again", url="http://127.0.0.1:9/v1")
    assert again.equals(remote), "all is read from the store"


def one_by_one(url: str) -> Iterator[Any]:
    """Answers of the cell one after another."""
    chosen = params(REMOTE)
    answerer = answering.load(Source(**(chosen.source or {})))
    answerer.told = {"url": url, "concurrency": 1, "max_tries": 2}
    return answerer.answers(generative.questions_of("d", vqa.asked("d", "test"), chosen), (), Microbatching())


def test_two_cells_at_once(server: Served, folder: Path) -> None:
    found: dict[str, pl.DataFrame] = {}

    def one(image: str) -> None:
        found[image] = cell(params(REMOTE, image), folder / image, url=server.url)[0]

    cells = [threading.Thread(target=one, args=(image,)) for image in ("own", "blank")]
    for thread in cells:
        thread.start()
    for thread in cells:
        thread.join()
    for image, frame in found.items():
        assert frame.equals(cell(params(asked.MODULE, image), folder / f"local-{image}")[0])


def test_a_model_that_is_not_served(server: Served, folder: Path) -> None:
    with pytest.raises(Interrupted, match="status 400"):
        cell(params(REMOTE, model="someone/else"), folder / "remote", url=server.url)


def test_a_path_that_nobody_serves(server: Served, folder: Path) -> None:
    with pytest.raises(MedbenchError, match="status 404"):
        cell(params(REMOTE), folder / "remote", url=server.url.replace("/v1", "/v9"))


def test_a_broken_image_is_named_and_the_next_request_on_its_connection_survives(server: Served, folder: Path) -> None:
    """After its 500 the server closes the connection without a word."""

    def questions() -> Iterator[tuple[int, Request]]:
        for place in range(6):
            shown = Picture(f"{place}", lambda place=place: b"no image" if place == 2 else png(place))
            yield place, Request("openai", str(MINI), (shown, "Is it red?"), {"temperature": 0, "max_tokens": 4}, name=f"sample {place}")

    seen = []
    with Store("openai", str(MINI)) as store, pytest.raises(Interrupted, match="1 request failed: sample 2: status 500"):
        for given in ask(questions(), OpenAI(Reached(server.url)), store, Limits(concurrency=1, max_tries=4)):
            seen.append(given.tag)
    assert sorted(seen) == [0, 1, 3, 4, 5]


def png(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (32, 32), (shade, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def test_a_judge_on_a_server_that_ignores_the_schema_gives_no_number(server: Served, folder: Path) -> None:
    """Its replies are free text, whatever the schema says: each is counted as failed, and none becomes a score."""
    source = {"module": REMOTE, "checkpoint": str(MINI), "options": {"parameters": {}}}
    triples = [judging.Triple("Where is it?", "left lung", f"in the {place}") for place in ("right lung", "heart", "spleen")]
    judge = judging.Judge("judge", source, 32)
    answerer = judging.load(judge, {"url": server.url, "concurrency": 2})
    found = [one for _, _, one in judging.judgements(answerer, judge, "strict", triples, 1)]
    assert [(one.reading.state, one.reading.score) for one in found] == [("failed", None)] * 3
    kept = [json.loads(line)["asked"] for file in folder.glob("store/*/*.jsonl") for line in file.read_text().splitlines()]
    assert len(kept) >= 2 * 3 and all("response_format" in asked["parameters"] for asked in kept), "asked once more, and with the schema"


def test_an_unknown_parameter_is_refused_by_name(server: Served, folder: Path) -> None:
    with pytest.raises(Interrupted, match=r"status 422.*no_such_parameter"):
        cell(params(REMOTE, parameters={"no_such_parameter": 1}), folder / "remote", url=server.url)


def test_the_store_says_what_was_asked(server: Served, folder: Path) -> None:
    cell(params(REMOTE), folder / "remote", url=server.url)
    line = json.loads(next(folder.glob("store/*/*.jsonl")).read_text().splitlines()[0])
    assert line["asked"]["parameters"] == {"temperature": 0, "max_completion_tokens": 32} and line["final"] is True
    assert line["asked"]["parts"][1] and set(line["asked"]["parts"][0]) == {"image", "detail"}
