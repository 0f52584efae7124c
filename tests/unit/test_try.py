"""`try`: what files and folders are taken for, what is asked by its flag, what stands in the two files that it writes."""

import sys
from pathlib import Path

import polars as pl
import pytest
import yaml
from PIL import Image

from medbench import cli, config, trial
from tests.conftest import ROOT

ROWS = [("a.png", "malignant", "P1"), ("b.png", "benign", "P1"), ("c.png", "malignant", "P2"), ("d.png", "benign", "P3")] * 3


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in "abcd":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    return tmp_path


def table(text: str, name: str = "moles.csv") -> Path:
    Path(name).write_text(text)
    return Path(name)


def written(header: str, delimiter: str = ",") -> Path:
    return table("\n".join([header, *(delimiter.join(row) for row in ROWS)]) + "\n")


def run(*words: str) -> int:
    return cli.main(["try", *words, "--only-write"])


@pytest.mark.parametrize(
    ("header", "delimiter", "columns"),
    [
        ("image,label,group", ",", {"image": "image", "label": "label", "group": "group"}),
        ("Filename;Diagnosis;Patient ID", ";", {"image": "Filename", "label": "Diagnosis", "group": "Patient ID"}),
        ("imagePath\tdx\tsubjectId", "\t", {"image": "imagePath", "label": "dx", "group": "subjectId"}),
        ("scan,Finding,case", ",", {"image": "scan", "label": "Finding", "group": "case"}),
        ("bild;Befund;Patient", ";", {"image": "bild", "label": "Befund", "group": "Patient"}),  # the label by its few values
        ("x1,kind,subject", ",", {"image": "x1", "label": "kind", "group": "subject"}),  # the image by the files that it names
    ],
)
def test_columns_are_told(header: str, delimiter: str, columns: dict[str, str]) -> None:
    seen = trial.look(written(header, delimiter), None, {})
    assert {"image": "image", "label": "label", "group": "group"} | seen.options["columns"] == columns
    assert (seen.task, seen.classes) == ("diagnosis", ("benign", "malignant"))


@pytest.mark.parametrize("kind", ["tsv", "parquet", "xlsx"])
def test_kinds_of_tables(kind: str) -> None:
    frame = pl.DataFrame(ROWS, schema=["Image", "Class", "Patient"], orient="row")
    path = Path(f"t.{kind}")
    if kind == "xlsx":
        openpyxl = pytest.importorskip("openpyxl")
        book = openpyxl.Workbook()
        for row in (frame.columns, *frame.iter_rows()):
            book.active.append(list(row))
        book.save(path)
    else:
        frame.write_parquet(path) if kind == "parquet" else frame.write_csv(path, separator="\t")
    assert trial.look(path, None, {}).classes == ("benign", "malignant")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("abnormal", "normal"), ("normal", "abnormal")), (("Normal", "Abnormal"), ("Normal", "Abnormal")), (("0", "1"), ("0", "1")),
        (("yes", "no"), ("no", "yes")), (("no finding", "effusion"), ("no finding", "effusion")), (("true", "false"), ("false", "true")),
        (("non-glaucoma", "glaucoma"), ("non-glaucoma", "glaucoma")), (("healthy", "disease"), ("healthy", "disease")),
        (("b", "c", "a"), ("b", "c", "a")),
    ],
)  # fmt: skip
def test_the_positive_class_is_the_second(names: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert trial.ordered(names) == expected


def test_class_folders_with_and_without_splits(folder: Path) -> None:
    for name in ("set/CXR/a.png", "set/Hand/b.png", "split/train/sick/a.png", "split/train/healthy/b.png", "split/test/sick/c.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((folder / "a.png").read_bytes())
    seen = trial.look(Path("set"), None, {})
    assert (seen.layout, seen.classes) == ("imagefolder", ("CXR", "Hand")) and "30% of the patients" in seen.said[-1]
    seen = trial.look(Path("split"), None, {})
    assert seen.classes == ("healthy", "sick") and not any("drawn" in line for line in seen.said)


def test_questions_and_the_hubs_files(folder: Path) -> None:
    path = table("image,question,answer\na.png,Is it benign?,yes\nb.png,What is it?,a mole\n")
    seen = trial.look(path, None, {})
    assert (seen.task, seen.classes, seen.options["columns"]) == ("vqa", (), {"group": "image"}) and "1 of 2 answers" in seen.said[-1]
    (folder / "rad/data").mkdir(parents=True)
    (folder / "rad/data/test-00000-of-00001.parquet").write_bytes(b"")
    assert trial.look(Path("rad"), None, {}).layout == "hub-vqa"
    assert trial.look(Path("flaviagiammarino/vqa-rad"), None, {}).source == {
        "kind": "hub", "repo": "flaviagiammarino/vqa-rad", "patterns": ["data/*.parquet"]
    }  # fmt: skip


def test_what_is_written_is_a_run_that_the_registries_admit(capsys: pytest.CaptureFixture[str]) -> None:
    path = written("Filename;Diagnosis;Patient", ";")
    assert run(str(path), "--modality", "Dermoscopy", "--prompts", "malignant=a photo of a melanoma") == 0
    said = capsys.readouterr().out
    assert "positive class: malignant" in said and "label is 'Diagnosis'" in said and "nothing to download" in said
    chosen = config.from_files([ROOT / "config/config.yaml", Path("tries/moles/run.yaml")], ROOT)
    assert chosen.run.run == "moles" and chosen.run.models == ("mini-clip", "mini-medclip")
    data = chosen.datasets["moles"]
    assert (data.modality, data.prompts["main"]["malignant"]) == ("dermoscopy", ("a photo of a melanoma",))
    assert data.prompts["main"]["benign"] == ("a photo of benign",)
    assert run(str(path), "--modality", "dermoscopy", "--prompts", "malignant=a photo of a melanoma") == 0, "the same again is no fault"
    file = Path("tries/moles/data.yaml")
    file.write_text(file.read_text().replace("melanoma", "black mole"))
    assert run(str(path), "--modality", "dermoscopy", "--prompts", "malignant=a photo of a melanoma") == 2
    assert "tries/moles/data.yaml: is there already and says something else; run it as it is: `snakemake" in capsys.readouterr().err
    assert yaml.safe_load(file.read_text())["moles"]["prompts"]["main"]["malignant"] == ["a photo of a black mole"]


def test_paths_of_images_may_be_elsewhere(folder: Path) -> None:
    (folder / "tables").mkdir()
    path = table("\n".join(["image,label,patient", *(",".join(row) for row in ROWS)]), "tables/labels.csv")
    assert run(str(path), "--modality", "fundus", "--images", ".", "--name", "Eyes 2024") == 0
    entry = yaml.safe_load(Path("tries/eyes-2024/data.yaml").read_text())["eyes-2024"]
    assert entry["options"]["image_root"] == str(folder) and entry["raw_dir"] == str(folder / "tables")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("moles.csv", "--modality: is not given, and decides which models are specialists for these images; give --modality, one of "),
        ("absent.csv", "absent.csv: is neither a file nor a folder; give a table of images, or a folder"),
        ("a.png", "a.png: is no table (.png); give one of .csv, "),
        ("empty", "empty: holds 0 class folders and no table; put the images of each class into a folder of its name"),
        ("plain.csv", "--columns label=NAME: which column of plain.csv is the diagnosis? It has n, m; give --columns label=NAME"),
        ("nothing.csv", "--columns image=NAME: which column of nothing.csv names the images? It has n, m"),
        ("many.csv", "column 'label' has 60 different values (c00, c01, c02, c03, c04, ...), which are no classes"),
        ("moles.csv --columns label=Diagnose", "has no column 'Diagnose' for label; did you mean Diagnosis? choose from "),
        ("moles.csv --columns Diagnosis", "--columns Diagnosis: is not OURS=THEIRS; ours is one of image, label, "),
        ("moles.csv --modality x --models mini-clop", "--models mini-clop: is in no registry; did you mean mini-clip? choose from "),
        ("moles.csv --modality x --modes lpp", "--modes lpp: is in no registry; did you mean lp? choose from "),
        ("moles.csv --modality x --prompts sick=ill", "--prompts sick=ill: is not CLASS=TEXT of a class; choose from benign, malignant"),
        ("moles.csv --modality x --classes benign other", "--classes: are not the classes that were found (benign, malignant)"),
    ],
)
def test_what_cannot_be_told_is_one_line_with_its_remedy(
    words: str, expected: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written("Filename;Diagnosis;Patient", ";")
    (folder / "empty").mkdir()
    table("image,n,m\n" + "".join(f"{name}.png,{n},{n + 1}\n" for n, name in enumerate("abcd")), "plain.csv")
    table("n,m\n1,2\n", "nothing.csv")
    table("image,label\n" + "".join(f"a.png,c{n:02}\n" for n in range(60)), "many.csv")
    assert run(*words.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("ERROR: ") and error.count("\n") == 1 and expected in error, error
    assert not Path("tries").exists()


def test_a_terminal_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    path = written("image,label,patient")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda prompt: "XRAY")
    assert run(str(path)) == 0
    assert yaml.safe_load(Path("tries/moles/data.yaml").read_text())["moles"]["modality"] == "x-ray"
