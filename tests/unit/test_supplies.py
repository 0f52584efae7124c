"""What a run needs from elsewhere: fetched with every byte checked, packed into a bundle without a token, refused where it is damaged."""

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from huggingface_hub import constants
from PIL import Image

from medbench import cli, config
from medbench.models import fetching
from medbench.supplies import bundle, needed
from tests.conftest import ROOT
from tests.unit import tiny
from tests.unit.hubserver import COMMIT, REPO, Hub, serving

TOKEN = "hf_planted0token1that2must3never4appear"
MODEL = {
    "family": "siglip", "role": "generalist", "architecture": "siglip", "checkpoint": REPO, "revision": COMMIT,
    "pretrained_on": ["everyday"], "about": {"licence": "MIT"},
}  # fmt: skip
DATA = {
    "task": "diagnosis", "layout": "table", "modality": "dermoscopy", "specialty": "dermatology", "raw_dir": "moles",
    "classes": ["dark", "bright"], "prompts": {"main": {"dark": ["a dark square"], "bright": ["a bright square"]}},
}  # fmt: skip


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a tiny SigLIP, and others that no loader reads."""
    folder = tiny.checkpoint("siglip", tmp_path_factory.mktemp("siglip") / "m")
    return {path.name: path.read_bytes() for path in folder.iterdir()} | {"README.md": b"a card", "pytorch_model.bin": b"pickles"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published: dict[str, bytes]) -> Iterator[Hub]:
    """A server that has the model, and a working directory with a run that needs it and a data set of one's own."""
    monkeypatch.chdir(tmp_path)
    for name in ("MEDBENCH_DATA", "MEDBENCH_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    write_run()
    moles(Path("moles"))
    with serving() as running:
        running.files = dict(published)
        yield running


def write_run(model: dict[str, Any] | None = None) -> None:
    Path("models.yaml").write_text(yaml.safe_dump({"my-clip": {**MODEL, **(model or {})}}))
    Path("datasets.yaml").write_text(yaml.safe_dump({"my-moles": DATA}))
    run = {
        "run": "carried", "registries": {"models": "models.yaml", "datasets": "datasets.yaml"}, "models": ["my-clip", "mini-medsiglip"],
        "datasets": ["my-moles"], "modes": ["ots", "lp"],
    }  # fmt: skip
    Path("run.yaml").write_text(yaml.safe_dump(run))


def moles(folder: Path) -> None:
    """Images of two classes with a table, and a file that no row names."""
    folder.mkdir()
    lines = ["image,label,split,group"]
    for number in range(24):
        Image.new("RGB", (24, 24), (10 * number,) * 3).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{'bright' if number > 11 else 'dark'},{'test' if number % 2 else 'train'},p{number}")
    (folder / "labels.csv").write_text("\n".join(lines))
    (folder / "letters.txt").write_text("names of patients")


class Done(NamedTuple):
    """What a verb did."""

    returncode: int
    stdout: str
    stderr: str


def run(hub: Hub, *words: str, offline: bool = False) -> Done:
    """A verb in this process, by the hub's real client: a process of its own would import torch each time."""
    made = {
        "ENDPOINT": hub.address, "HUGGINGFACE_CO_URL_TEMPLATE": hub.address + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(Path("hf/hub").resolve()), "HF_HUB_OFFLINE": offline, "HF_HUB_DISABLE_XET": True,
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as said, redirect_stderr(io.StringIO()) as complained:
        patch.setenv("HF_TOKEN", TOKEN)
        patch.setenv("MEDBENCH_CACHE", str(Path("cache").resolve()))
        for name, value in made.items():
            assert hasattr(constants, name)
            patch.setattr(constants, name, value)
        return Done(cli.main([*words]), said.getvalue(), complained.getvalue())


def blobs() -> list[Path]:
    return sorted(Path("hf/hub/models--owner--name/blobs").iterdir(), key=lambda path: path.stat().st_size)


def test_all_that_a_run_needs_is_fetched_said_and_enough_without_a_network(hub: Hub) -> None:
    done = run(hub, "fetch", "--all", "--configfile", "run.yaml")
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert f"weights my-clip: {REPO} at {COMMIT[:12]}; " in said and " MB; MIT; open" in said and "data my-moles: here, checked" in said
    assert "mini-medsiglip" not in said, "what the workflow makes is fetched from nowhere"
    sent, asked = sum(hub.sent.values()), len(hub.tokens)
    assert hub.sent["pytorch_model.bin"] == 0 and hub.sent["README.md"] == 0
    again = run(hub, "fetch-all", "--configfile", "run.yaml")
    assert "here already" in again.stdout and sum(hub.sent.values()) == sent, "nothing comes twice"
    asked = len(hub.tokens)
    offline = run(hub, "fetch", "--all", "--configfile", "run.yaml", offline=True)
    assert offline.returncode == 0 and len(hub.tokens) == asked, offline.stderr


def test_a_damaged_file_of_the_cache_is_removed_and_comes_again(hub: Hub) -> None:
    words = ("fetch", "--all", "--configfile", "run.yaml")
    assert run(hub, *words).returncode == 0
    for place in (0, -1):  # a small file has git's digest, weights have SHA-256
        file = blobs()[place]
        file.write_bytes(file.read_bytes()[:-1] + b"~")
        done = run(hub, *words)
        assert done.returncode == 2 and "is damaged, and is removed; run again" in done.stderr, done.stderr
        assert "ERROR: run carried: weights my-clip is missing; each line above says why" in done.stderr
        assert run(hub, *words).returncode == 0
    hub.faults["model.safetensors"] = ["break"]
    blobs()[-1].unlink()
    done = run(hub, *words)
    assert done.returncode == 0 or run(hub, *words).returncode == 0, "a download that breaks off goes on"


@pytest.mark.parametrize(
    ("model", "fault", "expected"),
    [
        (
            {"revision": None},
            "info",
            f"checkpoint {REPO}: is gated and access was refused; accept its licence at https://huggingface.co/{REPO}",
        ),
        ({}, "model.safetensors", "is gated and access was refused; accept its licence"),
        ({"revision": "v9"}, "", "has no revision 'v9'; choose one from"),
        ({"checkpoint": "owner/other", "revision": None}, "", "is not on the hub, or not visible to you"),
        ({"checksums": {"model.safetensors": "0" * 64}}, "", "the registry pins 0000"),
    ],
)
def test_what_cannot_be_fetched_is_one_line_and_the_rest_comes(hub: Hub, model: dict[str, Any], fault: str, expected: str) -> None:
    write_run(model)
    hub.faults = {"info": ["gated"] * 9} if fault == "info" else {fault: ["403"] * 9}
    done = run(hub, "fetch", "--all", "--configfile", "run.yaml")
    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    assert done.returncode == 2 and len(lines) == 2 and expected in lines[0] and "Traceback" not in done.stderr, done.stderr
    assert "data my-moles: here, checked" in done.stdout


def test_without_a_network_the_remedy_is_the_verb(hub: Hub) -> None:
    write_run({"revision": None})
    done = run(hub, "fetch", "--all", "--configfile", "run.yaml", offline=True)
    assert "is not in the local cache and the hub cannot be reached (HF_HUB_OFFLINE is set); connect once (`python -m" in done.stderr
    assert "None" not in done.stderr


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_each_architecture_says_itself_which_files_it_reads(architecture: str, tmp_path: Path) -> None:
    """What `fetch` leaves in the cache is what `load` reads: no list of files stands in two places."""
    folder = tiny.checkpoint(architecture, tmp_path / "m")
    source = tiny.source(architecture, folder)
    assert fetching.fetch(source) == {str(folder): folder} and fetching.size(source) is None


def test_a_baseline_and_what_is_drawn_are_needed_from_nowhere() -> None:
    assert needed(config.from_files([ROOT / "config/config.yaml"], ROOT)) == []


def test_a_judge_is_needed_and_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    judge = {**MODEL, "family": "qwen-vl", "architecture": "qwen2-5-vl"}
    Path("models.yaml").write_text(yaml.safe_dump({"my-judge": judge}))
    own = {"run": "judged", "registries": {"models": "models.yaml"}, "models": ["mini-llava"], "datasets": ["nano-vqa-radiology"]}
    Path("run.yaml").write_text(yaml.safe_dump({**own, "modes": ["ots"], "judge": {"models": ["my-judge"]}}))
    loaded = config.from_files([ROOT / "config/config.yaml", Path("run.yaml")], ROOT)
    assert [str(one) for one in needed(loaded)] == ["weights my-judge"]
    texts = {member.path: member.content for member in bundle.members(loaded, {}, "judged.tar")}
    assert {"my-judge", "mini-llava"} == set(yaml.safe_load(str(texts["models.yaml"])))


# --- bundles


def packed(hub: Hub, *words: str) -> Path:
    done = run(hub, "bundle", "out.tar", "--configfile", "run.yaml", "--include", "my-moles", *words)
    assert done.returncode == 0, done.stderr
    return Path("out.tar")


def names(tar: Path) -> list[str]:
    with tarfile.open(tar) as found:
        return found.getnames()


def test_a_bundle_holds_what_the_run_reads_and_no_token(hub: Hub, tmp_path: Path) -> None:
    (Path("hf")).mkdir()
    Path("hf/token").write_text(TOKEN)
    tar = packed(hub)
    found = names(tar)
    assert TOKEN.encode() not in tar.read_bytes() and str(tmp_path).encode() not in tar.read_bytes()
    snapshot = f"bundles/carried/hub/models--owner--name/snapshots/{COMMIT}"
    assert f"{snapshot}/model.safetensors" in found and f"{snapshot}/config.json" in found and found[-1] == "bundles/carried/SHA256SUMS"
    assert "bundles/carried/data/my-moles/images/23.png" in found
    assert not [name for name in found if name.endswith(("README.md", ".bin", "letters.txt"))]
    elsewhere = tmp_path / "there"
    elsewhere.mkdir()
    os.chdir(elsewhere)
    assert cli.main(["unbundle", str(tmp_path / "out.tar")]) == 0
    folder = Path("bundles/carried")
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    models = yaml.safe_load((folder / "models.yaml").read_text())
    assert models["my-clip"]["revision"] == COMMIT
    assert cli.main(["unbundle", str(tmp_path / "out.tar")]) == 2


def test_an_unpinned_model_is_pinned_in_its_bundle(hub: Hub) -> None:
    write_run({"revision": None})
    with tarfile.open(packed(hub)) as tar:
        models = yaml.safe_load(tar.extractfile("bundles/carried/models.yaml"))  # type: ignore[arg-type]
    assert models["my-clip"]["revision"] == COMMIT


def test_what_is_not_anybodys_to_pass_on_is_packed_only_by_name(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    write_run({"about": {"licence": "Health AI terms", "gated": True}})
    done = run(hub, "bundle", "out.tar", "--configfile", "run.yaml")
    expected = (
        "ERROR: bundle: weights my-clip is gated, licence 'Health AI terms'; data my-moles is your own data, of patients perhaps, licence "
        "'licence not stated'; give `--include my-clip my-moles` where you may pass them on, or `--without my-clip my-moles`"
    )
    assert done.returncode == 2 and expected in done.stderr and not hub.tokens and not Path("out.tar").exists()
    done = run(hub, "bundle", "out.tar", "--configfile", "run.yaml", "--without", "my-clip", "my-mole")
    assert "--without my-mole: is nothing that the run needs from elsewhere; did you mean my-moles?" in done.stderr
    done = run(hub, "bundle", "out.tar", "--configfile", "run.yaml", "--include", "my-moles", "--without", "my-clip")
    assert done.returncode == 0 and not [name for name in names(Path("out.tar")) if "/hub/" in name]


def test_a_folder_of_weights_and_a_folder_of_classes_are_carried(hub: Hub, published: dict[str, bytes]) -> None:
    Path("weights").mkdir()
    for name, data in published.items():
        Path("weights", name).write_bytes(data)
    write_run({"checkpoint": "weights", "revision": None})
    shutil.move("moles/letters.txt", "letters.txt")
    for name in ("dark", "bright"):
        Path("moles", name).mkdir()
    shutil.move("moles/1.png", "moles/dark/1.png")
    Path("disk/batch").mkdir(parents=True)
    shutil.copy("moles/dark/1.png", "disk/batch/2.png")
    Path("moles/dark/behind").symlink_to(Path("disk").absolute())
    Path("datasets.yaml").write_text(yaml.safe_dump({"my-moles": {**DATA, "layout": "imagefolder"}}))
    found = names(packed(hub))
    assert "bundles/carried/cache/folders/my-clip/model.safetensors" in found and "bundles/carried/data/my-moles/dark/1.png" in found
    assert "bundles/carried/data/my-moles/dark/behind/batch/2.png" in found


@pytest.mark.parametrize("inside", ["", "tables/"])
def test_a_table_is_carried_as_the_other_site_can_read_it(hub: Hub, inside: str, tmp_path: Path) -> None:
    """Its images lie elsewhere, and there in another folder than here; an absolute path would lead nowhere, and is refused."""
    Path("moles/tables").mkdir()
    shutil.move("moles/labels.csv", table := Path(f"moles/{inside}labels.csv"))
    Path("elsewhere/deep").mkdir(parents=True)
    shutil.move("moles/3.png", "elsewhere/deep/3.png")
    table.write_text("image,label,split,group\n./deep\\3.png,dark,train,p3\n")
    options = {"index": f"{inside}labels.csv", "image_root": str(tmp_path / "elsewhere")}
    Path("datasets.yaml").write_text(yaml.safe_dump({"my-moles": {**DATA, "options": options}}))
    found = names(packed(hub))
    assert {f"bundles/carried/data/my-moles/{inside}labels.csv", "bundles/carried/data/my-moles/images/deep/3.png"} <= {*found}
    table.write_text(f"image,label,split,group\n{tmp_path}/elsewhere/deep/3.png,dark,train,p3\n")
    done = run(hub, "bundle", "out.tar", "--configfile", "run.yaml", "--include", "my-moles")
    line = f"ERROR: data set my-moles: {inside}labels.csv row 2: names an image by an absolute path, which the other site has not; write "
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith(line), done.stderr


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("byte", "is damaged; carry the file again"),
        ("cut", "is no whole bundle"),
        ("unfinished", "is no whole bundle (it holds no SHA256SUMS)"),
        ("other", "holds '../evil', which is no file below bundles/RUN; take a bundle that medbench wrote"),
        ("link", "which is no file below bundles/RUN"),
        ("more", "more.txt is not on its list"),
        ("text", "is no whole bundle"),
        ("absent", "is no file; give the tar that `python -m medbench bundle` wrote"),
    ],
)
def test_a_bundle_that_is_not_as_it_was_is_one_line_and_leaves_nothing(
    damage: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tar = Path("out.tar")
    (tmp_path / "weights").write_bytes(b"w" * 5000)
    bundle.write(tar, "carried", [bundle.Member("run.yaml", "run: x\n"), bundle.Member("hub/w", tmp_path / "weights")])
    data = tar.read_bytes()
    if damage in ("byte", "cut"):
        place = data.index(b"wwww") + 100
        tar.write_bytes(data[:place] + (b"~" + data[place + 1 :] if damage == "byte" else b""))
    elif damage == "text":
        tar.write_text("a text")
    elif damage == "absent":
        tar.unlink()
    else:
        with tarfile.open(tar, "w") as made:
            for name in {"unfinished": ["bundles/carried/a"], "other": ["../evil"], "link": [], "more": ["bundles/carried/more.txt"]}[
                damage
            ]:
                info = tarfile.TarInfo(name)
                info.size = 1
                made.addfile(info, io.BytesIO(b"x"))
            if damage == "link":
                info = tarfile.TarInfo("bundles/carried/link")
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
                made.addfile(info)
            if damage == "more":
                made.addfile(tarfile.TarInfo("bundles/carried/SHA256SUMS"), io.BytesIO())
    assert cli.main(["unbundle", "out.tar"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("ERROR: out.tar: ") and expected in said and said.count("\n") == 1, said
    assert not [path for path in Path("bundles").rglob("*") if path.is_file()] and not Path("evil").exists()


def test_a_pickle_is_carried_only_where_there_are_no_safetensors(tmp_path: Path) -> None:
    for name in ("a/w.bin", "b/w.bin", "b/w.safetensors", "b/notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [name for name in ("a/w.bin", "b/w.bin", "b/w.safetensors", "b/notes.md") if bundle._is_read(tmp_path / name)] == [
        "a/w.bin", "b/w.safetensors",
    ]  # fmt: skip
