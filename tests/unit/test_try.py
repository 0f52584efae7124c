"""`try`: what files and folders are taken for, what is asked by its flag, what stands in the two files that it writes."""

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image

from medbench import cli, config, trial
from medbench.datasets import layouts
from medbench.datasets.layouts import table as layout
from medbench.datasets.rows import tidied
from medbench.errors import MedbenchError
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
        (("Pneumonie", "gesund"), ("gesund", "Pneumonie")), (("krank", "Unauff\u00e4llig"), ("Unauff\u00e4llig", "krank")),
        (("ja", "nein"), ("nein", "ja")), (("m\u00e9lanome", "n\u00e6vus b\u00e9nin"), ("n\u00e6vus b\u00e9nin", "m\u00e9lanome")),
        (("glaucoma", "sano"), ("sano", "glaucoma")), (("con_lesione", "senza_lesione"), ("senza_lesione", "con_lesione")),
        (("b", "c", "a"), ("b", "c", "a")),
    ],
)  # fmt: skip
def test_the_positive_class_is_the_second(names: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert trial.ordered(names) == expected


def test_folders_of_patients_are_no_classes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(21):
        (folder / f"set/patient{number:03}").mkdir(parents=True)
        (folder / f"set/patient{number:03}/a.png").write_bytes((folder / "a.png").read_bytes())
    assert run("set", "--modality", "x-ray") == 2
    said = capsys.readouterr().err
    assert "holds 21 folders whose names differ in numbers alone (patient000, patient001, patient002, ...), as those of patients do" in said
    for number in range(20, 1, -1):
        (folder / f"set/patient{number:03}").rename(folder / f"grade {number}")
    assert trial.look(Path("set"), None, {}).classes == ("patient000", "patient001")


@pytest.mark.parametrize(("modality", "known"), [("ct", False), ("radiology", True)])
def test_a_modality_that_no_specialist_knows_is_said(modality: str, known: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(written("image,label,patient")), "--modality", modality) == 0
    assert (f"no specialist of the registry was trained on {modality}: RQ1 is not asked (" in capsys.readouterr().out) is not known


def test_a_pattern_for_patients_replaces_that_every_image_is_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, place in zip("abcd", ("benign/P1", "benign/P2", "malignant/P3", "malignant/P4"), strict=True):
        (folder / "skin" / place).mkdir(parents=True)
        (folder / f"skin/{place}/{name}.png").write_bytes((folder / f"{name}.png").read_bytes())
    assert run("skin", "--modality", "x-ray", "--group", "(P[0-9])") == 0
    said = capsys.readouterr().out
    assert "patients are told by what (P[0-9]) finds" in said and "a patient of its own" not in said


@pytest.mark.parametrize(("names", "bare"), [(("benign", "malignant"), None), (("0", "1.0"), "0"), (("nein", "ja"), "nein")])
def test_prompts_of_the_names_of_classes_are_said(names: tuple[str, str], bare: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    path = table("\n".join(["image,label,patient", *(f"{image},{names[label == 'malignant']},{group}" for image, label, group in ROWS)]))
    assert run(str(path), "--modality", "fundus") == 0
    said = capsys.readouterr().out
    assert f"prompts are made of the names of classes: 'a photo of {names[0]}', 'a photo of {names[1]}'" in said
    assert [line.strip().split(" says")[0] for line in said.splitlines() if "says nothing of an image" in line] == [
        f"class {bare!r}"
    ] * bool(bare)
    given = [f"{name}=a photo of a mole" for name in names]
    assert run(str(path), "--modality", "fundus", "--name", "described", "--prompts", *given) == 0
    assert "prompts are" not in (said := capsys.readouterr().out) and "says nothing" not in said


def test_questions_of_other_languages_are_closed_where_yes_or_no_answers_them(folder: Path) -> None:
    path = table("Bild;Frage;Antwort\na.png;Ist es ein Naevus?;Ja\nb.png;Ist es ein Naevus?;nein.\nc.png;Was ist es?;ein Naevus\n")
    seen = trial.look(path, None, {})
    assert "2 of 3 answers are yes or no" in seen.said
    options = layout.Options.model_validate(seen.options)
    found = layout.items(options, layouts.Source("moles", "vqa", folder, (), 0))
    assert [item.answer_type for item in found if isinstance(item, layouts.VqaItem)] == ["closed", "closed", "open"]


def test_class_folders_with_and_without_splits(folder: Path) -> None:
    for name in ("set/CXR/a.png", "set/Hand/b.png", "split/train/sick/a.png", "split/train/healthy/b.png", "split/test/sick/c.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((folder / "a.png").read_bytes())
    seen = trial.look(Path("set"), None, {})
    assert (seen.layout, seen.classes) == ("imagefolder", ("CXR", "Hand")) and "30% of the patients" in seen.said[-1]
    (folder / "set/Hand/behind").symlink_to(folder / "split/train")
    (folder / "set/Hand/.DS_Store").touch()
    assert trial.look(Path("set"), None, {}).n == 4
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
    assert "positive class: malignant" in said and "label is 'Diagnosis'" in said and "downloads: none" in said
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


@pytest.mark.parametrize(
    "wrong",
    ["--modality x/y", "--group (P[0-9]+", "--modes ots ots", "--classes benign benign malignant malignant", "--prompts malignant="],
    ids=["modality", "pattern", "modes", "classes", "prompt"],
)
def test_what_cannot_run_is_not_kept(wrong: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So the command, corrected, is not told that other files are there already."""
    for name, place in zip("abcd", ("benign/P1", "benign/P2", "malignant/P3", "malignant/P4"), strict=True):
        (folder / "skin" / place).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / f"skin/{place}/{name}.png")
    words = wrong.split()
    assert run("skin", *(() if "--modality" in words else ("--modality", "x-ray")), *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("ERROR: ") and error.count("\n") == 1, error
    assert not Path("tries/skin").exists()
    assert run("skin", "--modality", "x-ray") == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("demo", "my-demo"), ("nano", "my-nano"), ("bccd", "my-bccd"), ("Data.. 2021", "data.-2021"), ("exp.json", "exp-json"),
        ("a.run.parquet", "a-run-parquet"), ("../x", "x"), ("???", "my-set"), ("v1.2", "v1.2"),
    ],
)  # fmt: skip
def test_any_name_becomes_one_of_its_own(name: str, expected: str) -> None:
    for _ in range(2):  # the same again is no fault
        assert run(str(written("image,label,patient")), "--modality", "fundus", "--name", name) == 0
    assert [path.name for path in Path("tries").iterdir()] == [expected]


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
        ("titled.csv", "titled.csv: row 1 is no header, it says 'Results of 2024'; remove the rows above the header"),
        ("upper.csv --modality x", "(the first: A.PNG); case counts here, and there is a.png: write the paths as the files are called"),
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
    table("image,label,patient\nA.PNG,x,1\nB.PNG,y,2\n", "upper.csv")
    table("Results of 2024,,\nimage,label,patient\na.png,x,1\n", "titled.csv")
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


# --- DICOM


def scans(folder: Path, layout: str) -> None:
    """24 files without an ending of 12 patients: in class folders, in folders of patients, with an index as discs have it."""
    pydicom = pytest.importorskip("pydicom")
    from tests.unit.test_dicom import dicom

    for number in range(24):
        tags = {"PatientID": f"P{number // 2}", "Modality": "DX", "BodyPartExamined": "CHEST" if number % 2 else "HAND"}
        path = folder / layout.format(label="chest" if number % 2 else "hand", patient=number // 2) / f"IM{number:04}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dicom(np.full((8, 8), number, np.uint16), **tags))
    (folder / "DICOMDIR").write_bytes((folder / layout.format(label="hand", patient=0) / "IM0000").read_bytes())
    assert pydicom


@pytest.mark.parametrize(("layout", "columns"), [("{label}", ()), ("study/{patient}", ("--columns", "label=BodyPartExamined"))])
def test_a_folder_of_dicom_becomes_a_table_with_its_patients(layout: str, columns: tuple[str, ...], folder: Path) -> None:
    scans(folder / "scans", layout)
    assert run("scans", *columns, "--name", "scans-1") == 0
    entry = yaml.safe_load(Path("tries/scans-1/data.yaml").read_text())["scans-1"]
    assert (entry["modality"], entry["options"]) == ("x-ray", {"image_root": str(folder / "scans")})
    rows = pl.read_csv("tries/scans-1/labels.csv")
    assert rows.columns == ["image", "label", "group"] and len(rows) == 24 and rows["group"].n_unique() == 12
    assert set(rows["label"]) == set(entry["classes"]) and (folder / "scans" / rows["image"][0]).is_file()


def test_spellings_of_a_dicom_label_are_one_class_and_missing_ones_are_said(folder: Path) -> None:
    pytest.importorskip("pydicom")
    from tests.unit.test_dicom import dicom

    (folder / "scans").mkdir()
    for number, part in enumerate(["CHEST", "Chest ", "CHEST", "ABDOMEN", "Abdomen", "ABDOMEN", "N/A"]):
        pixels = np.full((8, 8), number, np.uint16)
        (folder / f"scans/{number}.dcm").write_bytes(dicom(pixels, PatientID=f"P{number}", BodyPartExamined=part))
    with pytest.raises(trial.Ask, match=r"BodyPartExamined \(3 values\)"):
        trial.look(Path("scans"), None, {})
    seen = trial.look(Path("scans"), None, {"label": "BodyPartExamined"})
    assert seen.classes == ("ABDOMEN", "CHEST", "N/A")
    assert sum("looks like a value that is missing" in line for line in seen.said) == 1


@pytest.mark.parametrize("layout", ["study/{patient}", "P{patient}", "P{patient}/series"])
def test_dicom_files_without_labels_are_asked_for_them(layout: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scans(folder / "scans", layout)
    assert run("scans") == 2
    said = capsys.readouterr().err
    assert "which lie in no class folders? Attributes that differ: BodyPartExamined (2 values)" in said and said.count("\n") == 1
    assert said.rstrip().endswith("give --columns label=NAME")
    assert run("scans", "--columns", "label=BodyPart") == 2
    assert "'BodyPart' is no attribute of DICOM; give its keyword, such as BodyPartExamined" in capsys.readouterr().err
    lines = [f"{layout.format(patient=n // 2)}/IM{n:04},{'ab'[n % 2]},{n // 2}" for n in range(24)]
    (folder / "scans/labels.csv").write_text("\n".join(["image,label,patient", *lines]))
    assert trial.look(Path("scans"), None, {}).classes == ("a", "b"), "a table beside them stands above all"


# --- what real tables are like


@pytest.mark.parametrize(
    "header",
    [
        "Bilddatei;Befund;Patienten-ID",
        "Nom du fichier;Diagnostic;Numéro patient",
        "ARCHIVO;Diagnóstico;Paciente",
        "File Name;DIAGNOSIS;MRN",
    ],
)
def test_names_of_columns_in_other_languages(header: str) -> None:
    image, label, group = header.split(";")
    seen = trial.look(written(header, ";"), None, {})
    assert seen.options["columns"] == {"image": image, "label": label, "group": group}


def test_classes_are_told_from_all_rows_of_a_sorted_table(folder: Path) -> None:
    rows = [("a.png", "benign")] * 3000 + [("b.png", "malignant")] * 3000
    seen = trial.look(table("image,label\n" + "".join(f"{image},{label}\n" for image, label in rows)), None, {})
    assert (seen.classes, seen.n) == (("benign", "malignant"), 6000)
    assert run("moles.csv", "--modality", "x") == 0
    assert yaml.safe_load(Path("tries/moles/data.yaml").read_text())["moles"]["sample"] == trial.SAMPLE
    assert run("moles.csv", "--modality", "x", "--all", "--name", "whole") == 0
    assert "sample" not in yaml.safe_load(Path("tries/whole/data.yaml").read_text())["whole"]


def test_spellings_of_a_class_are_one_and_missing_values_are_said() -> None:
    labels = ["Chest ", "chest", "chest", "hand", "HAND", "hand", "H\u00e4nd", "Ha\u0308nd", "N/A", "#N/A", "nan", ""]
    path = table("image,label,patient\n" + "".join(f"{'abcd'[n % 4]}.png,{label},{n}\n" for n, label in enumerate(labels)))
    seen = trial.look(path, None, {})
    assert seen.classes == ("#N/A", "H\u00e4nd", "N/A", "chest", "hand", "nan")
    assert sum("looks like a value that is missing" in line for line in seen.said) == 3


def test_numbers_of_a_csv_are_labels_as_a_spreadsheet_shows_them() -> None:
    labels = ["0", "1", "1.0", "0.0", "1", "0"]
    path = table("image,label,patient\n" + "".join(f"{'abcd'[n % 4]}.png,{label},{n}\n" for n, label in enumerate(labels)))
    seen = trial.look(path, None, {})
    assert seen.classes == ("0", "1")
    source = layouts.Source("moles", "diagnosis", Path("."), seen.classes, 0)
    items = tidied(layout.items(layouts.read_options("table", seen.options, "moles"), source), source)
    assert [item.label for item in items if isinstance(item, layouts.DiagnosisItem)] == ["0", "1", "1", "0", "1", "0"]


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("Train/Chest", "Train/hand", "Test/chest", "Test/hand"), "'Chest' and 'chest', which differ in case or spaces alone"),
        (("hand", "hand ", "chest"), "'hand' and 'hand ', which differ in case or spaces alone"),
        (
            ("training set/chest", "training set/hand", "testing set/chest", "testing set/hand"),
            "holds the folders testing set, training set, and each of them holds chest, hand, which may be the classes; call the folders",
        ),
        (("fold1/a", "fold1/b", "fold2/a", "fold2/b"), "call the folders of splits train, val and test"),
    ],
)
def test_folders_that_are_no_classes(folders: tuple[str, ...], expected: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in folders:
        (folder / "raw" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / "raw" / name / "a.png")
    assert run("raw", "--modality", "x-ray") == 2
    assert expected in capsys.readouterr().err


def test_a_sheet_behind_a_legend_is_found_and_another_can_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.title = "Legend"
    for line in (("Code", "Meaning"), ("x", "a cross")):
        book.active.append(line)
    for title, label in (("Data", "finding"), ("Second reading", "diagnosis")):
        sheet = book.create_sheet(title)
        for line in (("image", label, "patient"), *ROWS):
            sheet.append(line)
    book.save("moles.xlsx")
    assert run("moles.xlsx", "--modality", "dermoscopy") == 0
    said = capsys.readouterr().out
    assert "sheet 'Data' is read, others are not: Legend, Second reading (--sheet NAME)" in said and "label is 'finding'" in said
    assert yaml.safe_load(Path("tries/moles/data.yaml").read_text())["moles"]["options"]["sheet"] == "Data"
    assert run("moles.xlsx", "--modality", "dermoscopy", "--sheet", "Second reading", "--name", "again") == 0
    assert "label is 'diagnosis'" in capsys.readouterr().out
    assert run("moles.xlsx", "--modality", "x", "--sheet", "Daten") == 2
    assert "moles.xlsx: has no sheet 'Daten'; did you mean Data?" in capsys.readouterr().err
    assert run(str(written("image,label,patient")), "--modality", "x", "--sheet", "Data") == 2
    assert "--sheet Data: is of a spreadsheet, and moles.csv is none; leave it out" in capsys.readouterr().err


@pytest.mark.parametrize(("header", "column"), [("image_id", "image_id"), ("x1", "x1")])
def test_endings_that_a_table_leaves_out_are_added(header: str, column: str, folder: Path) -> None:
    """As in ISIC's and many of Kaggle's tables; texts lie beside the images, and a class is called like one of them."""
    rows = [(f"ISIC_{n:04}", str(n % 2), f"P{n // 3}") for n in range(30)]
    for name in (*(row[0] for row in rows), "1"):
        Image.new("RGB", (8, 8)).save(folder / f"{name}.png")
        (folder / f"{name}.json").write_text("{}")
    path = table("\n".join([f"{header},kind,patient", *(",".join(row) for row in rows)]))
    seen = trial.look(path, None, {})
    assert (seen.options["columns"]["image"], seen.options["ending"], seen.classes) == (column, ".png", ("0", "1"))
    assert f"column {column!r} leaves out the ending of the files: .png is added" in seen.said
    source = layouts.Source("moles", "diagnosis", Path("."), seen.classes, 0)
    items = [item for item in layout.items(layouts.read_options("table", seen.options, "moles"), source) if hasattr(item, "label")]
    assert len(items) == 30 and all(item.image.is_file() and item.image.suffix == ".png" for item in items)


@pytest.mark.parametrize(
    ("header", "values", "ours", "said"),
    [
        ("fold", "01234", "split", "column 'fold' is not read: it says '0', which is no split (--columns split=NAME)"),
        ("set", "AB", "split", "column 'set' is not read: it says 'A', which is no split"),
        ("study", ["EMPIRE-2"], "group", "column 'study' is not read: all its values are equal, so it names no patients"),
    ],
)
def test_columns_that_are_only_called_so_are_not_read(header: str, values: list[str], ours: str, said: str) -> None:
    rows = [(image, label, values[n % len(values)]) for n, (image, label, _) in enumerate(ROWS)]
    path = table("\n".join([f"image,label,{header}", *(",".join(row) for row in rows)]))
    seen = trial.look(path, None, {})
    assert seen.options["columns"].get(ours, "image") == "image" and any(line.startswith(said) for line in seen.said)
    assert any("every image counts as a patient" in line for line in seen.said)
    assert run(str(path), "--modality", "x") == 0


def test_a_fold_beside_a_set_of_splits() -> None:
    rows = [(image, label, str(n % 5), ("train", "test")[n % 2]) for n, (image, label, _) in enumerate(ROWS)]
    seen = trial.look(table("\n".join(["image,label,fold,set", *(",".join(row) for row in rows)])), None, {})
    assert seen.options["columns"]["split"] == "set"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("moles.csv --group P([0-9]+)", "--group: is of class folders, and moles.csv has none; give the column, or the attribute of DICOM"),
        ("skin --images .", "--images: is of a table, and skin holds class folders; leave it out"),
        ("skin --columns group=patient", "--columns: is of a table, and skin holds class folders; leave it out"),
        ("skin --sheet Data", "--sheet: is of a table, and skin holds class folders; leave it out"),
        ("some/hub-set --columns answer=A", "--columns: is of a table, and some/hub-set holds a data set of the hub; leave it out"),
    ],
)
def test_a_flag_that_does_not_fit_is_refused(words: str, expected: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written("image,label,patient")
    for name in ("a", "b"):
        (folder / "skin" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / f"skin/{name}/{name}.png")
    assert run(*words.split(), "--modality", "x") == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1 and not Path("tries").exists()


def test_numbers_in_parquet_are_labels_as_a_spreadsheet_shows_them() -> None:
    frame = pl.DataFrame({"image": ["a.png", "b.png", "c.png", "d.png"] * 5, "label": [0.0, 1.0] * 10, "patient": list(range(20))})
    frame.write_parquet("numbers.parquet")
    seen = trial.look(Path("numbers.parquet"), None, {})
    assert seen.classes == ("0", "1")
    from medbench.datasets.layouts import DiagnosisItem, Source, read_options
    from medbench.datasets.layouts import table as layout

    source = Source("numbers", "diagnosis", Path("."), seen.classes, 0)
    found = layout.items(read_options("table", seen.options, "numbers"), source)
    items = [item for item in found if isinstance(item, DiagnosisItem)]
    assert {item.label for item in items} == {"0", "1"} and sorted(item.group_id for item in items)[:2] == ["0", "1"]


def test_what_two_splits_share_is_reported_and_not_refused() -> None:
    """VQA-RAD is published so, and a first look that ends in 1059 mistakes helps nobody."""
    path = table("image,label,split\na.png,x,train\nb.png,y,train\na.png,x,test\nb.png,y,test\n")
    assert run(str(path), "--modality", "x") == 0
    assert yaml.safe_load(Path("tries/moles/data.yaml").read_text())["moles"]["allow_group_overlap"] is True
    assert "allow_group_overlap" not in trial.entry(trial.look(written("image,label,patient"), None, {}), "x", {})


WRONG = {
    "empty.csv": ("", "empty.csv: is empty; give a table with a header"),
    "header.csv": ("image,label\n", "header.csv: holds no rows; give a table with a header and a row for each image"),
    "quote.csv": ('image,label\na.png,x\n"b.png,y\n', "quote.csv after row 2: is no CSV (unexpected end of data); fix the quotes there"),
    "one.csv": ("image,label\na.png,x\nb.png,x\n", "column 'label' has 1 different value (x): there is nothing to tell apart"),
    "away.csv": (
        "image,label\nx/a.png,x\nx/b.png,y\n",
        "none of the 2 images that column 'image' names first is in . (the first: x/a.png)",
    ),
    "windows.csv": (
        "image,label\nC:\\export\\x1.png,x\nC:\\export\\x2.png,y\n",
        "(the first: C:/export/x1.png); leave out C:/export/ or a part of it in the column, and give the folder that they are relative to",
    ),
    "absolute.csv": ("image,label\n/data/x1.png,x\n/data/x2.png,y\n", "(the first: /data/x1.png); leave out /data/ or a part of it"),
    "twice.csv": ("image,label,label\na.png,x,x\nb.png,y,y\n", "column 'label' stands twice; keep one of them, or rename it"),
    "blank.csv": ("image,label\n,x\n,y\n", "column 'image' names no image in the first 2 rows; give another: --columns image=NAME"),
    "answerless.csv": ("image,question\na.png,Is it?\n", "has a column question and none for the answer: which is it?"),
    "binary.csv": (bytes(range(256)).decode("latin-1"), "is neither UTF-8"),
    "broken.parquet": ("PAR1xxxx", "is no readable Parquet file"),
    "broken.xlsx": ("PKxxxx", "is no readable spreadsheet"),
    "old.xls": ("x", "old.xls: is no table (.xls); give one of .csv"),
    "data.json": ("[]", "data.json: is empty; give a table with a header"),
    "coco.json": ('{"images": []}', "coco.json: is no list of objects; write a list of objects (.json), or one object a line (.jsonl)"),
    "cut.jsonl": ('{"image": "a.png", "label": "x"}\n{"image"', "cut.jsonl after line 1: is no JSON"),
    "photos.zip": ("PK", "photos.zip: is an archive (.zip); unpack it, and give the folder or the table in it"),
}


@pytest.mark.parametrize("name", WRONG)
def test_each_wrong_input_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text, expected = WRONG[name]
    Path(name).write_text(text, encoding="latin-1")
    assert run(name, "--modality", "x-ray") == 2
    error = capsys.readouterr().err
    assert error.startswith("ERROR: ") and error.count("\n") == 1 and expected in error, error
    assert not Path("tries").exists()


def test_empty_class_folders_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        Path("two", name).mkdir(parents=True)
    assert run("two", "--modality", "x") == 2 and "two: class folder 'a' holds no file" in capsys.readouterr().err


def test_a_terminal_is_asked_for_a_column(monkeypatch: pytest.MonkeyPatch) -> None:
    table("image,n,m\n" + "".join(f"{'abcd'[n % 4]}.png,{n % 2},{n % 3}\n" for n in range(24)), "plain.csv")
    asked: list[str] = []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda prompt: asked.append(prompt) or "n")
    assert run("plain.csv", "--modality", "x") == 0
    assert "which column of plain.csv is the diagnosis? It has n, m" in asked[0]


def test_of_several_tables_the_one_of_a_usual_name_is_read(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(10):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"images/{number}.png")
    rows = "image,label,split,group\n" + "".join(f"images/{n}.png,{'ab'[n % 2]},{'train' if n < 6 else 'test'},p{n}\n" for n in range(10))
    (tmp_path / "labels.csv").write_text(rows)
    (tmp_path / "questions.csv").write_text("image,question,answer\nimages/0.png,What?,this\n")
    seen = trial.look(tmp_path, None, {})
    assert seen.task == "diagnosis" and seen.classes == ("a", "b") and any("questions.csv by name" in line for line in seen.said)
    (tmp_path / "labels.csv").rename(tmp_path / "some.csv")
    with pytest.raises(MedbenchError, match=r"holds 2 tables: questions.csv, some.csv; give the one"):
        trial.look(tmp_path, None, {})


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("option_0,option_1,option_2", 3), (",".join(f"option_{n}" for n in range(1, 11)), 10), ("Choice A,Choice B,Choice C", 3),
        (",".join("ABCDEFGHIJKL"), 12), ("0,1,2", 3), ("A,B,C,x,y", 3), ("optionK,optionL", 2), ("x,y", 0), ("A,note", 0),
    ],
)  # fmt: skip
def test_columns_of_choices_are_all_found(names: str, expected: int) -> None:
    assert trial.names.choice_columns(names.split(",")) == names.split(",")[:expected]


@pytest.mark.parametrize(
    ("cells", "answer", "expected"),
    [
        (",chest,skull", "B", "chest"), (",chest,skull", "C", "skull"), ("hand,,skull", "c", "skull"), ("hand,,skull", "SKULL", "skull"),
        ("hand,chest,", "(B)", "chest"), (",chest,skull", "A", None), ("hand,,skull", "B", None), ("hand,chest,", "C", None),
    ],
)  # fmt: skip
def test_a_letter_is_that_of_its_column_whatever_other_cells_are_empty(
    tmp_path: Path, cells: str, answer: str, expected: str | None
) -> None:
    Path("t.csv").write_text(f"image,question,A,B,C,answer,split,group\na.png,What?,{cells},{answer},test,p1\n")
    source = layouts.Source("t", "mcq", tmp_path, (), 0)
    [item] = list(layout.items(layout.Options(index="t.csv", choices=("A", "B", "C")), source))
    if expected is None:
        assert f"the answer '{answer}' is no letter and no option of 2" in str(item)
    else:
        assert isinstance(item, layouts.ChoiceItem)
        assert item.options["ABC".index(item.answer)] == expected and "" not in item.options


@pytest.mark.parametrize(
    ("cells", "answer", "expected"),
    [
        ("D,C,B,A", "A", None), ("D,C,B,A", "(A)", "D"), ("D,C,B,A", "(D)", "A"), ("O,A,B,AB", "a", None), ("O,A,B,AB", "AB", "AB"),
        ("O,A,B,AB", "O", "O"), ("A,B,C,D", "A", "A"), ("A,B,C,D", "d", "D"), ("D,D,A,x", "A", None), ("A,A,b,c", "A", "A"),
    ],
)  # fmt: skip
def test_a_letter_that_is_the_text_of_another_option_is_refused(tmp_path: Path, cells: str, answer: str, expected: str | None) -> None:
    Path("t.csv").write_text(f"image,question,A,B,C,D,answer,split,group\na.png,What?,{cells},{answer},test,p1\n")
    source = layouts.Source("t", "mcq", tmp_path, (), 0)
    [item] = list(layout.items(layout.Options(index="t.csv", choices=("A", "B", "C", "D")), source))
    if expected is None:
        assert f"t.csv row 2: the answer '{answer}' is the letter of option" in str(item) and "in parentheses: (A) or (" in str(item)
    else:
        assert isinstance(item, layouts.ChoiceItem) and item.options["ABCD".index(item.answer)] == expected


@pytest.mark.parametrize("options", [{"A": "red", "B": "blue", "C": None}, ["red", "blue"]])
def test_lettered_questions_of_json_have_a_column_for_each_option(tmp_path: Path, options: object) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    rows = [{"image": ["0.png"], "question": "Which?", "options": options, "answer": "B", "meta": {"seen": [1, 2]}, "split": "test"}]
    (tmp_path / "t.json").write_text(json.dumps([*rows, {**rows[0], "options": ["red", "blue", "green"], "answer": "green"}]))
    seen = trial.look(tmp_path / "t.json", None, {})
    assert seen.task == "mcq" and seen.options["choices"] == ["options A", "options B", "options C"]
    found = list(layout.items(layout.Options.model_validate(seen.options), layouts.Source("t", "mcq", tmp_path, (), 0)))
    items = [one for one in found if isinstance(one, layouts.ChoiceItem)]
    assert [(one.answer, one.options) for one in items] == [("B", ("red", "blue")), ("C", ("red", "blue", "green"))]


def test_json_beside_class_folders_is_no_table() -> None:
    for name in ("a", "b"):
        Path("set", name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(Path("set", name, "1.png"))
    Path("set/dataset.json").write_text("[]")
    assert trial.look(Path("set"), None, {}).classes == ("a", "b")


def test_lettered_questions_are_read_with_their_options(tmp_path: Path) -> None:
    for number in range(4):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    rows = ["image,question,option A,option B,option C,answer,patient"]
    rows += [
        f"{number}.png,Which colour?,red,blue,{'green' if number else ''},{('B', 'red', 'c', '(A)')[number]},p{number}"
        for number in range(4)
    ]
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    seen = trial.look(tmp_path / "t.csv", None, {})
    assert seen.task == "mcq" and seen.options["choices"] == ["option A", "option B", "option C"]
    source = layouts.Source("t", "mcq", tmp_path, (), 0)
    found = list(layout.items(layout.Options.model_validate(seen.options), source))
    items = [one for one in found if isinstance(one, layouts.ChoiceItem)]
    assert [one.answer for one in items] == ["B", "A", "C", "A"] and items[0].options == ("red", "blue")
    (tmp_path / "t.csv").write_text("\n".join([rows[0], "0.png,Which?,red,blue,,D,p0", "1.png,Which?,red,,,A,p1"]) + "\n")
    errors = [str(one) for one in layout.items(layout.Options.model_validate(seen.options), source) if isinstance(one, MedbenchError)]
    assert ["the answer 'D' is no letter and no option of 2" in errors[0], "no option of 1" in errors[1]] == [True, True]
