"""Official files from the hub and by address, by the real clients against a server of this machine that fails in every way."""

import base64
import gzip
import hashlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from medbench import cells, cli, config, paths
from medbench.errors import Interrupted, MedbenchError
from medbench.jobs import archives, fetching
from medbench.stages import fetch, prepare
from tests.unit import official
from tests.unit.hubserver import COMMIT, REPO, Hub, serving

ROOT = Path(__file__).parents[2]
TOKEN = "hf_planted0token1that2must3never4appear"
BIG = os.urandom(3 * 2**20)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A server, and an empty working directory."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("MEDBENCH_DATA", raising=False)
    monkeypatch.setattr(fetching, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(fetching, "TIMEOUT_SECONDS", (2.0, 1.0))
    with serving() as running:
        yield running


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- by address


def checksum(data: bytes, algorithm: str = "md5") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def get(hub: Hub, data: bytes = BIG, faults: tuple[str, ...] = (), **how: Any) -> Path:
    """Download one file."""
    hub.files["file.bin"], hub.faults["file.bin"] = data, list(faults)
    path = Path("raw/file.bin")
    how = {"checksum": checksum(data), "size": None, "where": "data set toy", **how}
    fetching.download(f"{hub.address}/files/file.bin", path, **how)
    return path


@pytest.mark.parametrize("fault", ["break", "stall"])
def test_a_download_that_breaks_off_goes_on_where_it_was(hub: Hub, fault: str) -> None:
    assert get(hub, faults=(fault, fault)).read_bytes() == BIG
    assert hub.sent["file.bin"] < 1.1 * len(BIG), "nothing came twice"


def test_a_download_that_is_killed_goes_on_in_the_next_start(hub: Hub) -> None:
    with pytest.raises(Interrupted, match=r"data set toy: file.bin: the download broke off .*; run again: what has arrived is kept"):
        hub.files["file.bin"], hub.faults["file.bin"] = BIG, ["break"]
        fetching.ATTEMPTS, kept = 0, fetching.ATTEMPTS
        try:
            fetching.download(f"{hub.address}/files/file.bin", Path("raw/file.bin"), checksum(BIG), None, "data set toy")
        finally:
            fetching.ATTEMPTS = kept
    assert not Path("raw/file.bin").exists() and 0 <= len(BIG) // 2 - Path("raw/file.bin.part").stat().st_size <= fetching.CHUNK
    assert get(hub).read_bytes() == BIG and hub.sent["file.bin"] <= len(BIG) + fetching.CHUNK


def test_a_damaged_download_is_removed_and_comes_right_the_next_time(hub: Hub) -> None:
    with pytest.raises(MedbenchError, match=r"data set toy: file\.bin arrived damaged, and is removed") as error:
        get(hub, faults=("corrupt",))
    assert "\n" not in str(error.value) and list(Path("raw").iterdir()) == []
    assert get(hub).read_bytes() == BIG


def test_a_checksum_of_a_secondary_source_is_only_said(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    get(hub, checksum="md5:" + "0" * 32, enforce=False)
    assert "WARNING: data set toy: file.bin is not md5:000" in capsys.readouterr().err


def test_a_file_of_another_size_is_refused(hub: Hub) -> None:
    with pytest.raises(MedbenchError, match=rf"file.bin has {len(BIG)} bytes, 7 are expected"):
        get(hub, size=7)
    assert list(Path("raw").iterdir()) == []


@pytest.mark.parametrize("status", ["403", "401"])
def test_a_refusal_is_no_reason_to_try_again(hub: Hub, status: str) -> None:
    with pytest.raises(MedbenchError, match=f"answers {status}; open it in a browser"):
        get(hub, faults=(status,))


def test_a_wrong_file_that_lies_there_already_is_not_taken_for_the_right_one(hub: Hub) -> None:
    Path("raw").mkdir()
    Path("raw/file.bin").write_bytes(b"by hand")
    with pytest.raises(MedbenchError, match=r"raw/file\.bin is not md5:[0-9a-f]+; remove it, so that it is fetched anew"):
        get(hub)
    assert Path("raw/file.bin").read_bytes() == b"by hand"


def test_the_record_names_what_came(hub: Hub) -> None:
    hub.files["a.csv"], hub.files["b.zip"] = b"1,2", zipped({"x.txt": b"x"})
    files = [
        {"name": "a.csv", "checksum": "md5:" + "0" * 32, "enforce": False, "unpack": None},
        {"name": "b.zip", "checksum": None, "enforce": True, "unpack": "in"},
    ]
    files = [{**file, "url": f"{hub.address}/files/{file['name']}", "bytes": None} for file in files]
    found = fetching.from_addresses({"files": files}, Path("raw"), "data set toy")
    assert found.files["a.csv"] == checksum(b"1,2") and found.files["b.zip"] == checksum(hub.files["b.zip"], "sha256")
    assert Path("raw/in/x.txt").read_bytes() == b"x"


# --- credentials in addresses

SECRET = "Planted0Secret1/Never2+Appears="
PLACES = {
    "query": "{address}/files/{name}?sv=1&sig=${{TOY_KEY}}",
    "user": "http://user:${{TOY_KEY}}@{host}/files/{name}",
    "path": "{address}/files/{name}/${{TOY_KEY}}",
    "whole": "${{TOY_ADDRESS}}",
}


def fetched_by(url: str) -> int:
    """`fetch` of one file by an address."""
    about = {"task": "diagnosis", "layout": "table", "modality": "mr", "specialty": "radiology", "classes": ["a", "b"]}
    entry = {
        **about,
        "prompts": {"main": {"a": ["a"], "b": ["b"]}},
        "source": {"kind": "files", "files": [{"url": url, "name": "labels.csv"}]},
    }
    Path("datasets.yaml").write_text(yaml.safe_dump({"toy": entry, **nano()}))
    Path("run.yaml").write_text(yaml.safe_dump({"registries": {"datasets": str(Path("datasets.yaml").resolve())}}))
    return cli.main(["fetch", "toy", "--configfile", str(ROOT / "config/nano.yaml"), "run.yaml"])


def requires_unseen(said: str) -> None:
    """The secret stands nowhere: not on the screen, not in any file, whole or in pieces, plain or quoted."""
    texts = [said.encode(), *(path.read_bytes() for path in Path().rglob("*") if path.is_file())]
    for piece in (SECRET, quote(SECRET, safe=""), "Planted0Secret1", "Never2"):
        assert not [text for text in texts if piece.encode() in text], piece


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("fault", ["none", "403", "gone", "break", "moved", "refused"])
def test_a_key_in_an_address_stands_nowhere(
    hub: Hub, place: str, fault: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    name = "moved.csv" if fault == "moved" else "labels.csv"
    hub.files[name] = b"image,label,split\nx.png,a,test\n"
    address = hub.address if fault != "refused" else "http://127.0.0.1:9"
    if fault in ("403", "break"):
        hub.faults[name] = [fault] * 20
    if fault == "gone":
        del hub.files[name]
    hub.moved = {name: f"http://127.0.0.1:9/there?X-Amz-Signature={quote(SECRET, safe='')}"} if fault == "moved" else {}
    whole = f"{address}/files/{name}?sig={quote(SECRET, safe='')}"
    url = PLACES[place].format(address=address, host=address.removeprefix("http://"), name=name)
    monkeypatch.setenv("TOY_KEY", quote(SECRET, safe="") if place in ("query", "path") else SECRET)
    monkeypatch.setenv("TOY_ADDRESS", whole)
    code, said = fetched_by(url), capfd.readouterr()
    requires_unseen(said.out + said.err)
    assert code == (0 if fault == "none" else 2), said.err
    if fault != "none":
        assert said.err.splitlines()[-1].startswith("ERROR: data set toy: ") and said.err.count("ERROR") == 1
    if place == "user" and fault == "none":
        assert base64.b64encode(f"user:{SECRET}".encode()).decode() in (hub.tokens[-1] or ""), "the server really had the password"


def test_a_variable_of_an_address_that_is_not_set_is_one_line(hub: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    assert fetched_by("https://host/file?sig=${TOY_ABSENT}") == 2
    assert "needs the variable TOY_ABSENT, which is not set; export TOY_ABSENT=<its value>" in capfd.readouterr().err


# --- archives


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def tarred(members: dict[str, bytes | None]) -> bytes:
    """None: a symbolic link out of the folder."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            if data is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc"
            else:
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data or b""))
    return stream.getvalue()


def unpacked(data: bytes, name: str = "a.zip") -> list[str]:
    """Names of what an archive leaves in its folder."""
    Path("raw").mkdir(exist_ok=True)
    Path("raw", name).write_bytes(data)
    archives.unpack(Path("raw", name), Path("raw/in"), "data set toy")
    return sorted(str(path.relative_to("raw/in")) for path in Path("raw/in").rglob("*") if path.is_file())


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_an_archive_is_unpacked_and_goes(hub: Hub, pack: Any) -> None:
    assert unpacked(pack({"x/a.txt": b"a", "b.txt": b"bb"})) == ["b.txt", "x/a.txt"]
    assert not Path("raw/a.zip").exists()
    archives.unpack(Path("raw/a.zip"), Path("raw/in"), "data set toy")  # done already


@pytest.mark.parametrize(
    "data",
    [
        zipped({"../up.txt": b"x"}), zipped({"/etc/x": b"x"}), zipped({"a\\..\\..\\x": b"x"}), zipped({"C:/x": b"x"}),
        tarred({"../up.txt": b"x"}), tarred({"/etc/x": b"x"}), tarred({"link": None}),
    ],
    ids=["zip up", "zip absolute", "zip backslash", "zip drive", "tar up", "tar absolute", "tar link"],
)  # fmt: skip
def test_members_that_lead_out_are_refused_before_anything_is_written(hub: Hub, data: bytes) -> None:
    with pytest.raises(MedbenchError, match="which leads out of its folder; take the official file"):
        unpacked(data)
    assert not Path("raw/in").exists() and not Path("up.txt").exists()


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_truncated_archive_is_removed(hub: Hub, pack: Any) -> None:
    whole = pack({f"{number}.bin": os.urandom(20_000) for number in range(5)})
    with pytest.raises(MedbenchError, match=r"data set toy: a\.zip is no whole archive .* and is removed; run again"):
        unpacked(whole[: len(whole) // 2])
    assert not Path("raw/a.zip").exists()
    assert len(unpacked(whole)) == 5


def test_a_bomb_is_refused(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SMALL", 2**20)
    with pytest.raises(MedbenchError, match="claims to unpack to 4194304; take the official file, or unpack it by hand"):
        unpacked(zipped({"zeros": bytes(2**22)}))
    assert not Path("raw/in").exists()


def test_a_killed_unpacking_writes_no_file_twice(hub: Hub) -> None:
    members = {f"{number}.txt": bytes([number]) * 100 for number in range(4)}
    Path("raw/in").mkdir(parents=True)
    Path("raw/in/0.txt").write_bytes(members["0.txt"])
    Path("raw/.a.zip.unpacking").write_bytes(b"half")
    before = Path("raw/in/0.txt").stat().st_mtime_ns
    assert unpacked(zipped(members)) == ["0.txt", "1.txt", "2.txt", "3.txt"]
    assert Path("raw/in/0.txt").stat().st_mtime_ns == before
    assert [path.name for path in Path("raw").iterdir() if path.is_file()] == [".a.zip.unpacked"]


@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small file system needs root")
def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing_that_looks_finished(hub: Hub) -> None:
    Path("raw").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "raw"], check=False, capture_output=True).returncode:
        pytest.skip("mount is not allowed here")
    try:
        with pytest.raises(OSError, match="No space left"):
            get(hub)  # the command line makes one line of it
        assert not Path("raw/file.bin").exists()
    finally:
        subprocess.run(["umount", "raw"], check=True)


# --- archives that attack


def entries(*infos: tuple[str, bytes] | tarfile.TarInfo, mode: str = "w", end: bool = True) -> bytes:
    """A tar of files, and of whatever a header says."""
    stream = io.BytesIO()
    archive = tarfile.open(fileobj=stream, mode=mode)  # type: ignore[call-overload]  # noqa: SIM115
    for one in infos:
        info, data = (one, b"") if isinstance(one, tarfile.TarInfo) else (tarfile.TarInfo(one[0]), one[1])
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    if end:
        archive.close()
    return stream.getvalue()


def special(kind: bytes, name: str = "odd") -> tarfile.TarInfo:
    """A member that is no file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "a"
    return info


def twice(*members: tuple[str, bytes]) -> bytes:
    """A zip that may hold a name twice."""
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as archive:
        warnings.simplefilter("ignore")
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data)
    return stream.getvalue()


def encrypted() -> bytes:
    """A zip whose member says that it has a password."""
    return zipped({"a": b"x"}).replace(b"PK\x01\x02\x14\x03\x14\0\0\0", b"PK\x01\x02\x14\x03\x14\0\x01\0").replace(
        b"PK\x03\x04\x14\0\0\0", b"PK\x03\x04\x14\0\x01\0"
    )  # fmt: skip


def compressed_by(method: int) -> bytes:
    """A zip whose member says that it is compressed in a way that Python has not."""
    found = zipped({"a": b"x"})
    for begin, place in ((b"PK\x01\x02", 10), (b"PK\x03\x04", 8)):
        place += found.index(begin)
        found = found[:place] + struct.pack("<H", method) + found[place + 2 :]
    return found


OFFICIAL = "; take the official file"
REFUSED = {
    "zip file and folder": (twice(("a", b"1"), ("a/b", b"2")), f"holds 'a', which is a file and a folder there{OFFICIAL}"),
    "zip folder and file": (twice(("a/b/c", b"1"), ("a", b"2")), f"holds 'a', which is a file and a folder there{OFFICIAL}"),
    "tar file and folder": (entries(("a", b"1"), ("a/b", b"2")), f"holds 'a', which is a file and a folder there{OFFICIAL}"),
    "zip twice": (twice(("a", b"1"), ("a", b"2")), f"holds 'a', which stands there twice, also as 'a'{OFFICIAL}"),
    "tar twice": (entries(("a", b"1"), ("a", b"2")), f"holds 'a', which stands there twice, also as 'a'{OFFICIAL}"),
    "tar ./a": (entries(("a", b"1"), ("./a", b"2")), f"holds './a', which stands there twice, also as 'a'{OFFICIAL}"),
    "zip x//a": (twice(("x/a", b"1"), ("x//./a", b"2")), f"holds 'x//./a', which stands there twice, also as 'x/a'{OFFICIAL}"),
    "zip backslash": (twice(("x/a", b"1"), ("x\\a", b"2")), f"holds 'x/a', which stands there twice, also as 'x/a'{OFFICIAL}"),
    "zip long": (zipped({"x" * 256: b""}), f"which no file can be called{OFFICIAL}"),
    "zip long in bytes": (zipped({"é" * 130: b""}), f"which no file can be called{OFFICIAL}"),
    "zip deep": (zipped({"x/" * 3000 + "a": b""}), f"which no file can be called{OFFICIAL}"),
    "tar long": (entries(("x" * 300, b"")), f"which no file can be called{OFFICIAL}"),
    "tar itself": (entries((".", b"")), f"holds '.', which no file can be called{OFFICIAL}"),
    "tar hard link": (entries(("a", b""), special(tarfile.LNKTYPE)), f"holds 'odd', which leads out of its folder{OFFICIAL}"),
    "tar symbolic link": (entries(special(tarfile.SYMTYPE)), f"holds 'odd', which leads out of its folder{OFFICIAL}"),
    "tar pipe": (entries(special(tarfile.FIFOTYPE)), f"holds 'odd', which is no file{OFFICIAL}"),
    "tar device": (entries(special(tarfile.CHRTYPE)), f"holds 'odd', which is no file{OFFICIAL}"),
    "tar unknown": (entries(special(b"Z")), f"holds 'odd', which is no file{OFFICIAL}"),
    "zip password": (encrypted(), "a.zip cannot be unpacked here (a is encrypted); unpack it by hand, and set raw_dir"),
    "zip method": (compressed_by(97), "a.zip cannot be unpacked here (That compression method is not supported); unpack it by hand"),
    "zip claims": (zipped({"a": b""}).replace(struct.pack("<II", 2, 0), struct.pack("<II", 2, 2**31)), "claims to unpack to 2147483648"),
    "tar of empty files": (
        entries(*[(str(number), b"") for number in range(300)], mode="w:gz"), "claims to unpack to"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_unpacked_whole_is_refused_and_stays(work: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    data, found = REFUSED[name]
    monkeypatch.setattr(archives, "SMALL", 2**20)
    with pytest.raises(MedbenchError) as caught:
        unpacked(data)
    assert found in str(caught.value) and "\n" not in str(caught.value)
    assert not [path for path in Path("raw").rglob("*") if path.is_file() and path.name != "a.zip"]
    assert Path("raw/a.zip").exists()


def damaged(data: bytes, place: int) -> bytes:
    return data[:place] + bytes(50) + data[place + 50 :]


def flipped(data: bytes, place: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 1
    return bytes(changed)


def stored() -> bytes:
    """A compressed tar whose bytes are not compressed, so that damaged ones are still a stream: only the checksum at its end tells."""
    data = gzip.compress(entries(*FILES), compresslevel=0)
    return flipped(data, data.index(FILES[1][1][100:120]))


def sparse() -> bytes:
    """A tar whose only member says that it has holes, and not where."""
    info, stream = tarfile.TarInfo("a"), io.BytesIO()
    info.size, info.pax_headers = 3, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "a"}
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(b"abc"))
    return stream.getvalue()


FILES = [(f"{number}.bin", os.urandom(2000)) for number in range(5)]
BROKEN = {
    "tar at a member": entries(*FILES, end=False)[: 2 * 2560],
    "tar in a header": entries(*FILES)[: 2 * 2560 + 100],
    "tar in a member": entries(*FILES)[: 2 * 2560 + 1000],
    "tar header": damaged(entries(*FILES), 2 * 2560 + 100),
    "gz cut": entries(*FILES, mode="w:gz")[:-3000],
    "gz damaged": damaged(entries(*FILES, mode="w:gz"), 5000),
    "gz with another checksum": flipped(entries(*FILES, mode="w:gz"), -8),
    "gz with other bytes under its checksum": stored(),
    "bz2 cut": entries(*FILES, mode="w:bz2")[:-3000],
    "bz2 damaged": damaged(entries(*FILES, mode="w:bz2"), 5000),
    "xz cut": entries(*FILES, mode="w:xz")[:-3000],
    "xz damaged": damaged(entries(*FILES, mode="w:xz"), 5000),
    "zip cut": zipped(dict(FILES))[:-3000],
    "zip damaged": damaged(zipped(dict(FILES)), 5000),
    "zip member shorter than it claims": zipped({"a": b"x" * 77_000}).replace(struct.pack("<I", 77_000), struct.pack("<I", 77_001)),
    "tar with a sparse map of nothing": sparse(),
    "nothing": b"",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_archive_never_passes_for_whole(work: Path, name: str) -> None:
    with pytest.raises(MedbenchError, match=r"data set toy: a\.zip is no whole archive \(.*\), and is removed; run again"):
        unpacked(BROKEN[name])
    assert not Path("raw/a.zip").exists() and not archives.marker(Path("raw/a.zip")).exists()


def test_a_tar_with_attributes_of_a_gigabyte_is_not_read(work: Path) -> None:
    header = special(tarfile.XHDTYPE)
    header.size = 2**30
    data = gzip.compress(entries(("a", b"1"))[:1024] + header.tobuf(tarfile.USTAR_FORMAT) + bytes(2**20))
    with pytest.raises(MedbenchError, match=r"a\.zip is no whole archive \(a header of 1073741824 bytes\)"):
        unpacked(data)


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize(
    "names",
    [
        ["a.part", "a", "a.part.part", "b/a", "b/a.part", ".a.zip.part"],
        ["A", "a", "caf\u00e9", "cafe\u0301", "CON", "aux.txt", "a.", "a "],
        ["x" * 255, "\u00e9" * 127],
    ],
    ids=["part", "twins", "long"],
)
def test_no_member_is_lost(work: Path, pack: Any, names: list[str]) -> None:
    assert unpacked(pack({name: name.encode() for name in names})) == sorted(names)
    assert all(Path("raw/in", name).read_text() == name for name in names)


def test_members_that_this_disk_takes_for_one_are_named(work: Path) -> None:
    Path("raw/in/X").mkdir(parents=True)
    Path("raw/in/x").symlink_to("X")  # as a disk that ignores case has it
    with pytest.raises(MedbenchError, match="holds 'x/a' and 'X/a', which are one file in raw/in; put the data on a disk that tells"):
        unpacked(zipped({"x/a": b"1", "X/a": b"22"}))
    assert Path("raw/a.zip").exists()


@pytest.mark.parametrize("name", ["a.zip", ".a.zip.unpacked", ".a.zip.unpacking", "./a.zip"])
def test_a_member_cannot_replace_its_archive(work: Path, name: str) -> None:
    Path("raw").mkdir()
    Path("raw/a.zip").write_bytes(zipped({"b": b"1", name: b"2"}))
    with pytest.raises(MedbenchError, match="which would overwrite the archive"):
        archives.unpack(Path("raw/a.zip"), Path("raw"), "data set toy")
    assert sorted(path.name for path in Path("raw").iterdir()) == ["a.zip"]


def test_a_tar_that_ends_in_a_zip_is_a_tar(work: Path) -> None:
    assert unpacked(entries(("a", b"1"), ("inner.zip", zipped({"x": b"2"})))) == ["a", "inner.zip"]


def test_names_written_by_windows_are_folders(work: Path) -> None:
    assert unpacked(twice(("imgs\\", b""), ("imgs\\1.png", b"1"))) == ["imgs/1.png"]


@pytest.mark.timeout(30)
def test_a_pipe_in_place_of_a_download_is_named(hub: Hub) -> None:
    Path("raw").mkdir()
    os.mkfifo("raw/file.bin")
    with pytest.raises(MedbenchError, match=r"raw/file\.bin is a pipe, not a file; remove it"):
        get(hub)
    with pytest.raises(MedbenchError, match=r"raw/file\.bin is a pipe, not an archive"):
        archives.unpack(Path("raw/file.bin"), Path("raw"), "data set toy")


# --- the hub, by its real client in a process of its own


def run(hub: Hub, verb: str = "fetch", entry: dict[str, Any] | None = None, **variables: str) -> "subprocess.CompletedProcess[str]":
    """A verb for the data set `toy`, with a registry of its own."""
    source = {"kind": "hub", "repo": REPO, "patterns": ["*.json", "imgs.zip"], "unpack": {"imgs.zip": "."}}
    toy = {"task": "vqa", "layout": "slake", "modality": "radiology", "specialty": "radiology", "max_drops": 0.5, "source": source}
    Path("datasets.yaml").write_text(yaml.safe_dump({"toy": {**toy, **(entry or {})}, **nano()}))
    Path("run.yaml").write_text(yaml.safe_dump({"registries": {"datasets": str(Path("datasets.yaml").resolve())}}))
    command = [sys.executable, "-m", "medbench", verb, "toy", "--configfile", str(ROOT / "config/nano.yaml"), "run.yaml"]
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "HF_ENDPOINT": hub.address, "HF_HOME": str(Path("hf").resolve()), "HF_TOKEN": TOKEN,
        "HF_HUB_DOWNLOAD_TIMEOUT": "1", "HF_HUB_DISABLE_XET": "1", **variables,
    }  # fmt: skip
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def nano() -> dict[str, Any]:
    entries = yaml.safe_load((ROOT / "config/datasets.yaml").read_text())
    return {name: entries[name] for name in ("nano-radiology", "nano-vqa-radiology")}


def slake(hub: Hub) -> None:
    """The files of a small SLAKE on the server."""
    folder = official.slake(Path("source"))
    hub.files = {path.name: path.read_bytes() for path in folder.glob("*.json")}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path in sorted(folder.rglob("*.jpg")):
            archive.write(path, path.relative_to(folder))
    hub.files["imgs.zip"], hub.files["README.md"] = stream.getvalue(), b"not wanted"
    shutil.rmtree(folder)


def record() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(paths.fetched("toy").read_text())
    return found


def test_a_hub_data_set_is_fetched_and_prepared_and_nothing_says_the_token(hub: Hub) -> None:
    slake(hub)
    done = run(hub)
    assert done.returncode == 0, done.stderr
    assert record()["revision"] == COMMIT and record()["files"]["imgs.zip"] == checksum(hub.files["imgs.zip"], "sha256")
    assert Path("raw/toy/imgs/xmlab0/source.jpg").is_file() and not Path("raw/toy/README.md").exists()
    assert run(hub, "prepare").returncode == 0 and paths.card("toy").is_file()
    assert f"Bearer {TOKEN}" in hub.tokens, "the client really had the token"
    written = [path for path in Path().rglob("*") if path.is_file()]
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()] and TOKEN not in done.stderr + done.stdout


def test_a_hub_download_that_breaks_off_resumes(hub: Hub) -> None:
    slake(hub)
    hub.faults["imgs.zip"] = ["break"]
    first = run(hub)
    second = first if first.returncode == 0 else run(hub)
    assert second.returncode == 0, second.stderr
    assert hub.sent["imgs.zip"] <= 1.6 * len(hub.files["imgs.zip"])


def test_a_hub_file_that_arrives_damaged_is_removed_and_comes_again(hub: Hub) -> None:
    slake(hub)
    hub.faults["imgs.zip"] = ["corrupt"]
    done = run(hub)
    assert done.returncode == 2 and "imgs.zip arrived damaged, and is removed; run again" in done.stderr, done.stderr
    assert not paths.fetched("toy").exists()
    assert run(hub).returncode == 0


@pytest.mark.parametrize(
    ("fault", "entry", "expected"),
    [
        ("gated", {}, "is gated and access was refused; accept its licence at"),
        ("down", {}, "the hub answered"),
        ("", {"revision": "v9"}, "has no revision 'v9'; choose one from"),
        ("", {"repo": "owner/other"}, "is not on the hub, or not visible to you"),
        ("", {"patterns": ["*.csv"], "unpack": {}}, "holds no file that matches *.csv"),
    ],
)
def test_what_the_hub_refuses_is_one_line(hub: Hub, fault: str, entry: dict[str, Any], expected: str) -> None:
    slake(hub)
    hub.faults["info"] = [fault] * 9 if fault else []
    source = {"kind": "hub", "repo": REPO, "patterns": ["*.json", "imgs.zip"], "unpack": {"imgs.zip": "."}, **entry}
    done = run(hub, entry={"source": source})
    assert done.returncode == 2 and expected in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not paths.fetched("toy").exists()


def test_without_a_network_what_lies_whole_in_the_folder_is_taken(hub: Hub) -> None:
    slake(hub)
    done = run(hub, HF_HUB_OFFLINE="1")
    assert done.returncode == 2 and "cannot be reached" in done.stderr
    assert run(hub).returncode == 0
    before, n = paths.fetched("toy").read_bytes(), len(hub.tokens)
    paths.fetched("toy").unlink()
    done = run(hub, HF_HUB_OFFLINE="1")
    assert done.returncode == 0 and len(hub.tokens) == n, done.stderr
    assert paths.fetched("toy").read_bytes() == before, "the same files, the same record: nothing is prepared anew"
    paths.fetched("toy").unlink()
    Path("raw/toy/test.json").unlink()
    done = run(hub, HF_HUB_OFFLINE="1")
    assert done.returncode == 2 and "test.json is missing in raw/toy; connect once and run again" in done.stderr
    assert not paths.fetched("toy").exists()


def test_without_a_network_the_hubs_own_cache_is_taken(hub: Hub) -> None:
    slake(hub)
    snapshot = Path("hf/hub/datasets--owner--name/snapshots") / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs/main").write_text(COMMIT)
    for name, data in hub.files.items():
        (snapshot / name).write_bytes(data)
    done = run(hub, HF_HUB_OFFLINE="1")
    assert done.returncode == 0 and not hub.tokens, done.stderr
    assert record()["revision"] == COMMIT and record()["files"]["imgs.zip"] == checksum(hub.files["imgs.zip"], "sha256")
    assert Path("raw/toy/imgs/xmlab0/source.jpg").is_file()


def test_an_unpinned_set_stays_at_the_revision_of_its_first_fetch(hub: Hub) -> None:
    slake(hub)
    assert run(hub).returncode == 0
    shutil.rmtree("results")
    assert run(hub).returncode == 0 and record()["revision"] == COMMIT
    assert hub.asked[-1] == COMMIT, "asked for the commit, not for the newest"


def test_an_archive_that_is_not_fetched_is_named(hub: Hub) -> None:
    slake(hub)
    done = run(hub, entry={"source": {"kind": "hub", "repo": REPO, "patterns": ["*.json"], "unpack": {"imgs.zip": "."}}})
    assert done.returncode == 2 and "`unpack` names imgs.zip, which is not among the files fetched" in done.stderr


# --- manual sets, raw_dir, runs


def manual() -> config.Config:
    loaded = config.from_files([ROOT / "config/nano.yaml"], ROOT)
    return loaded._replace(run=loaded.run.model_copy(update={"datasets": ("chexpert",)}))


def test_a_manual_set_says_where_to_apply_and_what_to_put_where(hub: Hub) -> None:
    loaded = manual()
    with pytest.raises(MedbenchError) as error:
        fetch.run(fetch.params(loaded, "chexpert"), "chexpert")
    message = str(error.value)
    for part in (
        "needs an application" if False else "need an application",
        "https://",
        "train.csv",
        "raw/chexpert",
        "run the same command again",
    ):
        assert part in message
    assert cli.unready(loaded) == [f"chexpert: {error.value.found}; {error.value.remedy}"]
    official.chexpert(Path("raw/chexpert"))
    assert cli.unready(loaded) == []
    fetch.run(fetch.params(loaded, "chexpert"), "chexpert")
    assert set(json.loads(paths.fetched("chexpert").read_text())["files"]) == {
        f"CheXpert-v1.0-small/{name}.csv" for name in ("train", "valid")
    }
    assert prepare.index_files(prepare.params(loaded, "chexpert"), "chexpert") == [paths.fetched("chexpert")]


def test_raw_dir_stands_above_the_source_where_its_variable_is_set(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = manual()
    entry = loaded.datasets["vqa-rad"]
    monkeypatch.delenv("MEDBENCH_REAL_DATA", raising=False)
    assert config.is_fetched(entry) and config.raw_dir(loaded, "vqa-rad") == Path("raw/vqa-rad")
    monkeypatch.setenv("MEDBENCH_DATA", "/somewhere")
    assert config.raw_dir(loaded, "vqa-rad") == Path("/somewhere/vqa-rad")
    Path("real/vqa-rad").mkdir(parents=True)
    monkeypatch.setenv("MEDBENCH_REAL_DATA", str(Path("real").resolve()))
    assert not config.is_fetched(entry) and config.raw_dir(loaded, "vqa-rad") == Path("real/vqa-rad").resolve()


def test_every_set_of_the_study_says_where_its_files_come_from() -> None:
    paper = config.from_files([ROOT / "config/config.yaml", ROOT / "config/paper.yaml"], ROOT)
    for name in paper.run.datasets:
        entry = paper.datasets[name]
        assert entry.source is not None and entry.expected is not None and entry.about.citation and entry.about.licence, name
        assert isinstance(entry.source, config.Manual) == (entry.about.access == "manual"), name


def test_the_studys_run_has_216_cells_and_says_what_needs_an_application(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDBENCH_REAL_DATA", raising=False)
    paper = config.from_files([ROOT / "config/config.yaml", ROOT / "config/paper.yaml"], ROOT)
    assert cli.summary(paper, cells.grid(paper)) == "run paper: 216 cells (144 diagnosis, 72 vqa), 14 of baselines"
    needing = [line.partition(":")[0] for line in cli.unready(paper) if "need an application" in line]
    assert needing == ["chexpert", "fairvlmed-vqa"]
    config.from_files([ROOT / "config/config.yaml", ROOT / "config/open.yaml"], ROOT)
