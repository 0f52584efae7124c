"""The command line as a person meets it: help with examples that parse, names completed and corrected, the script from any folder."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from medbench import cli, command, verbs
from medbench.stages import STAGES
from tests.conftest import ROOT

SCRIPT = "import sys; sys.argv[0] = 'medbench'; from medbench.cli import script; sys.exit(script())"


@pytest.fixture(scope="module")
def parsers() -> dict[str, object]:
    return dict(cli.all_parsers())


@pytest.mark.parametrize("verb", [*STAGES, *verbs.VERBS])
def test_every_help_has_an_example_that_parses(verb: str, parsers: dict[str, object]) -> None:
    text = parsers[verb].format_help()  # type: ignore[attr-defined]
    examples = re.findall(r"^Example: python -m medbench (.+)$", text, re.MULTILINE)
    assert examples, text
    for example in examples:
        words = cli._plain(shlex.split(re.sub(r" > \S+$", "", example)))
        assert words[0] in (verb, "fetch-all")
        cli.parser([words[0]]).parse_args(words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("tri x.csv", "medbench tri: is no stage and no verb; did you mean try? choose from adapt, "),
        ("status --jsno", "unrecognized arguments: --jsno; did you mean --json? see `medbench --help`"),
        ("try x.csv --modalty x-ray", "did you mean --modality?"),
        ("status opn", "run 'opn': no file in config/ or tries/ has it; did you mean open? choose from companion, demo, "),
        ("fetch --all opn", "did you mean open?"),
        ("models biomedclp", "model biomedclp: is in no registry; did you mean biomedclip?"),
        ("datasets show vqarad", "data set vqarad: is in no registry; did you mean vqa-rad?"),
        ("ask mini-lava x.png What", "model mini-lava: is in no registry; did you mean mini-llava?"),
        ("completion fish", "argument shell: invalid choice: 'fish'"),
        ("-C nowhere status", "-C nowhere: is no folder to work in (No such file or directory); give one that exists"),
        ("ask", "the following arguments are required: model, image, question; see `medbench ask --help`"),
    ],
)
def test_a_wrong_word_is_one_line_with_what_was_meant(
    words: str, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert cli.main(shlex.split(words)) == 2
    said = capsys.readouterr().err
    assert said.startswith("ERROR: ") and said.count("\n") == 1 and expected in said, said


def completed(script: Path, *words: str) -> set[str]:
    """What a real bash offers for the last word."""
    typed = f"COMP_WORDS=({' '.join(map(shlex.quote, words))}); COMP_CWORD={len(words) - 1}"
    line = f"source {script}; {typed}; _medbench; printf '%s\\n' ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "--norc", "-c", line], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_bash_completes_verbs_flags_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    assert cli.main(["completion", "bash"]) == 0
    script = tmp_path / "medbench.bash"
    script.write_text(capsys.readouterr().out)
    assert completed(script, "medbench", "unb") == {"unbundle"}
    assert completed(script, "medbench", "try", "x.csv", "--mod") == {"--modality", "--models", "--modes"}
    assert completed(script, "medbench", "try", "x.csv", "--models", "clip", "biomedcl") == {"biomedclip"}
    assert completed(script, "medbench", "status", "nan") == {"nano"}
    assert {"nano-radiology", "nano-clip"} <= completed(script, "medbench", "predict", "nano-")
    assert "vqa-rad" in completed(script, "medbench", "datasets", "show", "vqa-r")
    assert completed(script, "medbench", "unbundle", "x") == set(), "files are the shell's own"
    assert cli.main(["completion", "zsh"]) == 0 and "bashcompinit" in capsys.readouterr().out


def script(folder: Path, *words: str, package: Path = ROOT, **variables: str) -> "subprocess.CompletedProcess[str]":
    """The script `medbench`, installed from `package`, from a folder."""
    environment = {**os.environ, "PYTHONPATH": str(package), **variables}
    return subprocess.run([sys.executable, "-c", SCRIPT, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_the_script_works_where_the_user_stands_with_the_clone_it_came_from(tmp_path: Path) -> None:
    (tmp_path / "moles.csv").write_text("image,label\n")
    done = script(tmp_path, "try", "moles.csv")
    assert done.returncode == 2 and "ERROR: moles.csv: holds no rows" in done.stderr, done.stderr
    (tmp_path / "deep").mkdir()
    done = script(tmp_path / "deep", "-C", "..", "try", "../moles.csv")
    assert done.returncode == 2 and "holds no rows" in done.stderr, "files are named from where the user stands"


def test_inside_a_clone_its_own_code_works_in_its_root(tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(ROOT / "medbench", other / "medbench", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "config", other / "config")
    shutil.copy(ROOT / "Snakefile", other)
    (other / "config/nano.yaml").write_text((ROOT / "config/nano.yaml").read_text().replace("run: nano", "run: other"))
    assert "run other" in script(other / "config", "status", "--configfile", "nano.yaml").stdout
    assert "run other" in script(tmp_path, "status", "other", MEDBENCH_HOME=str(other)).stdout


def test_a_wheel_without_a_clone_says_what_to_do(tmp_path: Path) -> None:
    package = tmp_path / "site-packages"
    shutil.copytree(ROOT / "medbench", package / "medbench", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "answers.csv").write_text("question,reference,answer,answer_type\nIs it?,yes,yes,closed\n")
    assert script(tmp_path, "score-answers", "answers.csv", package=package).returncode == 0
    done = script(tmp_path, "status", package=package)
    expected = "ERROR: medbench: is installed without its repository, where registries and rules are; clone it and set MEDBENCH_HOME to"
    assert done.returncode == 2 and done.stderr.startswith(expected), done.stderr


def test_an_interrupt_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("medbench.verbs.status.jobs", interrupted)
    monkeypatch.chdir(ROOT)
    assert cli.main(["status", "nano"]) == 130
    assert capsys.readouterr().err == "interrupted: the same command goes on where it was\n"


def test_files_are_named_from_where_the_user_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_start", tmp_path)  # as `-C` leaves it
    (tmp_path / "mine.yaml").touch()
    monkeypatch.chdir(ROOT)
    assert command.given("mine.yaml") == tmp_path / "mine.yaml"
    assert command.given("config/nano.yaml") == Path("config/nano.yaml"), "what is there in the working folder alone"
    assert command.output("config/nano.yaml") == tmp_path / "config/nano.yaml", "nothing is written over there"
    monkeypatch.chdir(tmp_path)
    assert command.given("absent.yaml") == Path("absent.yaml")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["label", "demo", "--sheet", "x"], "sheet"),
        (["label", "demo", "--read", "x"], "read"),
        (["store", "export", "m", "x"], "file"),
        (["export-model", "a/b/c", "x"], "out"),
        (["make-questions", "x", "y", "--model", "m"], "notes"),
        (["make-questions", "y", "x", "--model", "m"], "folder"),
        (["ask", "m", "x", "q"], "image"),
        (["bundle", "demo", "x"], "out"),
        (["unbundle", "x"], "tar"),
        (["score-answers", "x"], "answers"),
    ],
)
def test_every_verb_takes_files_from_where_the_user_stands(
    words: list[str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_start", tmp_path)
    monkeypatch.chdir(ROOT)
    assert getattr(cli.parser([words[0]]).parse_args(words), name) == tmp_path / "x"


def test_a_run_file_is_named_from_where_the_user_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_start", tmp_path)
    (tmp_path / "mine.yaml").write_text("run: mine\n")
    monkeypatch.chdir(ROOT)
    args = cli.parser(["status"]).parse_args(["status", "mine.yaml"])
    assert command.config_files(args) == [tmp_path / "mine.yaml"]
