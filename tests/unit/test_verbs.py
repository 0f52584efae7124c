"""Verbs that are no stage: one file each, one line for what a person can fix, and no traceback when a pipe closes."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from medbench import cli, paths, verbs
from medbench.jobs.stage import Stage
from medbench.metrics import vqa
from tests.unit.test_data_helpers import CLASSES, labelled

HEAD = "question,reference,answer,answer_type\n"


def test_every_verb_is_a_file_and_every_file_a_verb(capsys: pytest.CaptureFixture[str]) -> None:
    files = {file.stem.replace("_", "-") for file in Path(verbs.__file__).parent.glob("[a-z]*.py")}
    assert files - {"listing", "ship"} == set(verbs.VERBS)
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"    {name}" in shown for name in verbs.VERBS)


def test_scores_of_a_csv_are_those_of_the_cells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "answers.csv"
    file.write_text(HEAD + "Is it large?,yes,Yes. It is.,closed\nWhich organ?,liver,the left lung,open\nWhich side?,left,,open\n")
    assert cli.main(["score-answers", str(file)]) == 0
    shown = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    rows = [
        vqa.score("Is it large?", "yes", "Yes. It is.", True),
        vqa.score("Which organ?", "liver", "the left lung", False),
        vqa.score("Which side?", "left", "", False),
    ]
    assert shown["closed_accuracy"] == "1.0000"
    assert float(shown["token_f1"]) == pytest.approx(sum(row["token_f1_strict"] for row in rows) / 3, abs=1e-4)
    assert cli.main(["score-answers", str(file), "--scoring", "published"]) == 0
    shown = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert float(shown["f1"]) == pytest.approx(sum(row["f1_published"] for row in rows) / 3, abs=1e-4)


@pytest.mark.parametrize(("scoring", "line"), [("strict", "closed_accuracy: 1.0000"), ("published", "exact_match: 0.5000")])
def test_answer_types_are_read_whatever_their_case_and_blank_lines_are_no_answers(
    scoring: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = {
        "plain": HEAD + "Is it large?,yes,Yes.,closed\nWhich organ?,liver,lung,open\n",
        "people's": HEAD + "Is it large?,yes,Yes., CLOSED\n\nWhich organ?,liver,lung,Open \n,,,\n",
    }
    shown = {}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        assert cli.main(["score-answers", str(tmp_path / name), "--scoring", scoring]) == 0
        shown[name] = capsys.readouterr().out
    assert shown["people's"] == shown["plain"] and f"{line}\n" in shown["plain"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, "is no readable CSV"),
        ("question,answer\na,b\n", "lacks column 'reference'"),
        (HEAD + 'a,"b\n', "is no readable CSV"),
        (HEAD, "holds no answers"),
        (HEAD + "\n,,,\n", "holds no answers"),
        (HEAD + "Is it?,yes,yes,closed\n\nIs it?,yes,no,colsed\n", "row 4: answer_type 'colsed' is unknown; write one of open, closed"),
        (HEAD + "Is it?,yes,yes,\n", "row 2: answer_type '' is unknown"),
    ],
)
def test_a_wrong_csv_is_one_line(text: str | None, found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "answers.csv"
    if text is not None:
        file.write_text(text)
    assert cli.main(["score-answers", str(file)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"ERROR: {file}") and found in said and said.count("\n") == 1


def test_a_closed_pipe_is_no_error() -> None:
    command = [sys.executable, "-m", "medbench", "models"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_a_mistyped_verb_has_its_neighbour_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["predct", "a", "b", "ots"]) == 2
    assert capsys.readouterr().err.startswith("ERROR: medbench predct: is no stage and no verb; did you mean predict? choose from adapt, ")


@pytest.mark.parametrize("question", ["", "  \n"])
def test_an_empty_question_is_not_asked(question: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ask", "mini-llava", "x.png", question]) == 2
    assert capsys.readouterr().err == "ERROR: question: is empty; ask one\n"


def test_a_job_by_hand_says_what_it_wrote(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = {"task": "diagnosis", "layout": "table", "raw_dir": str(labelled(raw)), "modality": "x-ray", "specialty": "radiology"}
    prompts = {"main": {name: [name] for name in CLASSES}}
    (raw / "data.yaml").write_text(yaml.safe_dump({"toy": {**entry, "classes": list(CLASSES), "prompts": prompts}}))
    run = {"run": "own", "registries": {"datasets": str(raw / "data.yaml")}, "datasets": ["toy"], "models": ["mini-clip"], "modes": ["ots"]}
    (raw / "run.yaml").write_text(yaml.safe_dump(run))
    assert cli.main(["prepare", "toy", "--configfile", str(raw / "run.yaml")]) == 0
    assert capsys.readouterr().err == "wrote results/data/toy/train.parquet\n"
    assert cli.main(["prepare", "tooy", "--configfile", str(raw / "run.yaml")]) == 2
    assert "data set 'tooy' is in no registry; did you mean toy? choose from" in capsys.readouterr().err


def test_ctrl_c_ends_without_a_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("medbench.command.read_config", interrupted)
    assert cli.main(["models"]) == 130
    assert capsys.readouterr() == ("", "interrupted: the same command goes on where it was\n")


RUN = {"run": "own", "models": ["mini-llava"], "datasets": ["nano-vqa-radiology"], "modes": ["ots"], "judge": {"models": ["mini-llava"]}}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["ask", "mini-llava", "x.png", "q", "--architecture", "foo"], "--architecture foo: is none of a model that answers questions"),
        (["ask", "mini-llava", "x.png", "q", "--architecture", "clip"], "--architecture clip: is none of a model that answers questions"),
        (["make-questions", "n.csv", "q", "--model", "mini-clip"], "'mini-clip' is a contrastive model, which writes nothing"),
        (["make-questions", "n.csv", "q", "--model", "question-only"], "'question-only' is a baseline model, which writes nothing"),
        (["make-questions", "n.csv", "q", "--model", "mini-llava", "--max-new-tokens", "0"], "'0' is no whole number of 1 or more"),
        (["label", "run.yaml", "--sheet", "new.csv", "--n", "-3"], "'-3' is no whole number of 1 or more"),
        (["calibrate", "mini-clip", "--configfile", "run.yaml"], "calibrate mini-clip: 'mini-clip' is a contrastive model"),
        (["bundle", "run.yaml", "folder.tar"], "folder.tar: is a folder; give the name of a file"),
        (["store", "export", "m", "folder.tar"], "folder.tar: exists already"),
    ],
)
def test_a_user_s_mistake_is_one_line(
    words: list[str], found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.tar").mkdir()
    Path("n.csv").write_text("filename,note,use\na.npz,a note,test\n")
    Path("run.yaml").write_text(yaml.safe_dump(RUN))
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("ERROR: ") and found in said and said.count("\n") == 1


def test_what_a_stage_by_hand_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def lacking(*given: object, **more: object) -> None:
        paths.calibration("mini-llava").read_bytes()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Stage, "execute", lacking)
    Path("run.yaml").write_text(yaml.safe_dump(RUN))
    assert cli.main(["judge", "nano-vqa-radiology", "mini-llava", "ots", "--configfile", "run.yaml"]) == 2
    said = capsys.readouterr().err
    assert "ERROR: results/calibration/mini-llava.json: does not exist; `snakemake --cores all results/calibration/mini-llava.json`" in said


@pytest.mark.parametrize(
    ("words", "closed", "code"), [("models mini-clip", ">&-", 0), ("models mini-clipp", "2>&-", 2), ("models", ">&- 2>&-", 0)]
)
def test_closed_output_changes_no_exit_code(words: str, closed: str, code: int) -> None:
    done = subprocess.run(["bash", "-c", f"{sys.executable} -m medbench {words} {closed}"], capture_output=True, text=True, check=False)
    assert done.returncode == code and done.stdout == done.stderr == ""
