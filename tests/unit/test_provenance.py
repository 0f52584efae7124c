"""Code digests: what an edit reruns follows from them."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from medbench import provenance


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of three modules in place of medbench: a imports b inside a function, c stands alone."""
    folder = tmp_path / "medbench"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "a.py").write_text('"""Doc."""\n\ndef f():\n    from medbench import b\n    return b.VALUE\n')
    (folder / "b.py").write_text("VALUE = 1  # one\n")
    (folder / "c.py").write_text("VALUE = 3\n")
    monkeypatch.setattr(provenance, "PACKAGE", folder)
    forget()
    yield folder
    forget()


def forget() -> None:
    for function in (provenance.code_digest, provenance.closure, provenance.libraries, provenance._parsed, provenance._source):
        function.cache_clear()


def digest_after(path: Path, text: str) -> str:
    path.write_text(text)
    forget()
    return provenance.code_digest(("medbench.a",))


def test_closure_follows_imports_inside_functions(package: Path) -> None:
    assert provenance.closure(("medbench.a",)) == ("medbench.a", "medbench.b")


def test_comments_docstrings_and_layout_change_nothing(package: Path) -> None:
    before = provenance.code_digest(("medbench.a",))
    assert digest_after(package / "b.py", '"""Now documented."""\n\n\nVALUE = 1\n') == before
    assert digest_after(package / "c.py", "VALUE = 4\n") == before


def test_an_edit_anywhere_in_the_closure_changes_the_digest(package: Path) -> None:
    before = provenance.code_digest(("medbench.a",))
    assert digest_after(package / "b.py", "VALUE = 2\n") != before


def test_what_was_parsed_is_kept_until_its_source_differs(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = provenance.code_digest(("medbench.a",))
    kept = sorted((package / "__pycache__").glob("*.code.json"))
    assert [file.name.partition(".")[0] for file in kept] == ["a", "b"]
    with monkeypatch.context() as patched:
        patched.setattr(provenance, "_parse", None)  # called for what is not kept only
        forget()
        assert provenance.code_digest(("medbench.a",)) == before
    kept[0].write_text("{")
    assert digest_after(package / "b.py", "VALUE = 2\n") != before
    assert digest_after(package / "b.py", "VALUE = 1\n") == before


def test_run_record_paths_of_names_with_dots() -> None:
    from medbench import paths

    assert paths.run_record(paths.predictions("a", "qwen2.5-vl", "ots")).name == "ots.run.json"
    assert paths.run_record(paths.embeddings("a", "qwen2.5-vl")).name == "qwen2.5-vl.run.json"
    assert paths.run_record(paths.model_folder("qwen2.5-vl")).name == "qwen2.5-vl.run.json"


def test_libraries_are_those_that_the_closure_imports(package: Path) -> None:
    assert provenance.libraries(("medbench.a",)) == ()
    (package / "b.py").write_text(
        "import sklearn.metrics\n\ndef f():\n    from PIL import Image\n    import json\n    return Image, json\n"
    )
    forget()
    assert provenance.libraries(("medbench.a",)) == ("pillow", "scikit-learn", "scipy")


def test_a_result_without_a_readable_record_counts_as_made_now(package: Path, tmp_path: Path) -> None:
    (package / "a.py").write_text("import numpy\n")
    forget()
    path = tmp_path / "x.run.json"
    for text in (None, "{", "{}"):
        if text is not None:
            path.write_text(text)
        made = provenance.made(path, ("medbench.a",))
        assert made.then == made.now == {"numpy": provenance.versions()["numpy"]}
    path.write_text('{"versions": {"numpy": "1.0", "torch": "1.0"}}')
    made = provenance.made(path, ("medbench.a",))
    assert made.then == {"numpy": "1.0"} != made.now


def test_a_process_knows_when_it_started() -> None:
    code = "import time; time.sleep(0.3); from medbench import provenance; print(provenance.process_start())"
    before = time.time()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert before - 0.05 <= float(done.stdout) <= before + 0.25
