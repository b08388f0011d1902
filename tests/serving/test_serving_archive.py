"""Archives and their configuration, read without PyTorch and without trust."""

from __future__ import annotations

import io
import json
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from modelyard.serving.errors import LoadFailed
from modelyard.serving.runtimes.archive import choose_archive, parse_properties, read_manifest, unpack


def write_archive(path: Path, name: str = "iris", files: dict[str, bytes] | None = None, **model: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"model": {"modelName": name, "handler": "handler.py", "modelVersion": "2.0"} | model}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(document))
        for file_name, content in (files or {}).items():
            archive.writestr(file_name, content)
    return path


def configure(root: Path, text: str) -> None:
    (root / "config").mkdir(parents=True, exist_ok=True)
    (root / "config" / "config.properties").write_text(text)


def test_properties_of_every_form() -> None:
    text = r"""
# a comment
! another
plain=value with spaces
  colon: 8080
spaced  text
escaped\=key=a\tbA\\
models={\
    "iris": {"1.0": \
        {"marName": "iris.mar"}}}
empty=
"""
    assert parse_properties(text) == {
        "plain": "value with spaces",
        "colon": "8080",
        "spaced": "text",
        "escaped=key": "a\tbA\\",
        "models": '{"iris": {"1.0": {"marName": "iris.mar"}}}',
        "empty": "",
    }


@pytest.mark.parametrize(
    "text",
    [
        'models={"iris": {"1.0": {"marName": "first.mar", "batchSize": 4}}}',
        'model_snapshot={"name":"s","modelCount":1,"models":{"iris":{"1.0":{"marName":"first.mar","batchSize":4}}}}',
        'models={"iris": {"0.9": {"marName": "gone.mar"}, "1.0": {"defaultVersion": true, "marName": "first.mar", "batchSize": 4}}}',
    ],
)
def test_the_configuration_names_the_archive(tmp_path: Path, text: str) -> None:
    write_archive(tmp_path / "model-store" / "first.mar", "whatever")
    write_archive(tmp_path / "model-store" / "second.mar", "iris")
    configure(tmp_path, text + "\nservice_envelope=kserve\n")
    choice = choose_archive(tmp_path, "iris")
    assert (choice.path.name, choice.is_named, choice.envelope) == ("first.mar", True, "kserve")
    assert choice.settings["batchSize"] == 4


def test_load_models_with_a_name_counts_too(tmp_path: Path) -> None:
    write_archive(tmp_path / "first.mar", "whatever")
    configure(tmp_path, "load_models=iris=first.mar\n")
    assert choose_archive(tmp_path, "iris").path.name == "first.mar"


def test_without_names_in_the_configuration_the_manifest_decides(tmp_path: Path) -> None:
    write_archive(tmp_path / "a.mar", "rose")
    write_archive(tmp_path / "b.mar", "iris")
    configure(tmp_path, "load_models=all\n")
    assert choose_archive(tmp_path, "iris").path.name == "b.mar"


@pytest.mark.parametrize("configured", [True, False])
def test_a_wrong_name_tells_both(tmp_path: Path, configured: bool) -> None:
    write_archive(tmp_path / "a.mar", "rose")
    if configured:
        configure(tmp_path, 'models={"rose": {"1.0": {"marName": "a.mar"}}}')
    with pytest.raises(LoadFailed, match=r"'rose'.*'iris'.*must be the same"):
        choose_archive(tmp_path, "iris")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("models={broken", "not JSON"),
        ('models=["iris"]', "not a JSON object"),
        (
            'models={"iris": {"1.0": {"marName": "gone.mar"}}}',
            "names the archive 'gone.mar', but the artifact has a.mar",
        ),
    ],
)
def test_a_broken_configuration_is_told(tmp_path: Path, text: str, sentence: str) -> None:
    write_archive(tmp_path / "a.mar")
    configure(tmp_path, text)
    with pytest.raises(LoadFailed, match=sentence):
        choose_archive(tmp_path, "iris")


def test_a_configuration_without_an_archive_is_told(tmp_path: Path) -> None:
    configure(tmp_path, "load_models=all")
    with pytest.raises(LoadFailed, match=r"no \.mar archive"):
        choose_archive(tmp_path, "iris")


def test_manifests(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.mar", serializedFile="w.pt", requirementsFile="requirements.txt")
    manifest = read_manifest(path)
    assert (manifest.model_name, manifest.model_version, manifest.handler) == ("iris", "2.0", "handler.py")
    assert (manifest.serialized_file, manifest.model_file, manifest.requirements_file) == (
        "w.pt",
        None,
        "requirements.txt",
    )
    for bad, sentence in (
        ({"handler": ""}, "without"),
        ({"serializedFile": "../w.pt"}, "outside"),
        ({"modelFile": "/etc/x"}, "outside"),
    ):
        with pytest.raises(LoadFailed, match=sentence):
            read_manifest(write_archive(tmp_path / "bad.mar", **bad))
    with zipfile.ZipFile(tmp_path / "empty.mar", "w") as archive:
        archive.writestr("x", "")
    with pytest.raises(LoadFailed, match="torch-model-archiver"):
        read_manifest(tmp_path / "empty.mar")


def test_unpacking_keeps_directories(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.mar", files={"deep/er/x.txt": b"x", "w.pt": b"1" * 3_000_000})
    folder = unpack(path, tmp_path / "out")
    assert (folder / "deep" / "er" / "x.txt").read_bytes() == b"x"
    assert (folder / "w.pt").stat().st_size == 3_000_000
    assert unpack(folder, tmp_path / "elsewhere") == folder


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "..\\x", "C:\\x"])
def test_names_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    path = write_archive(tmp_path / "a.mar", files={name: b"x"})
    with pytest.raises(LoadFailed, match="outside"):
        unpack(path, tmp_path / "in" / "out")
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "in" / "x").exists()


def test_links_are_refused(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.mar")
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(LoadFailed, match="link or device"):
        unpack(path, tmp_path / "out")
    packed = tmp_path / "a.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        entry = tarfile.TarInfo("link")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)
    with pytest.raises(LoadFailed, match="link or device"):
        unpack(packed, tmp_path / "out2")


def test_the_tar_form_of_the_archiver(tmp_path: Path) -> None:
    packed = tmp_path / "a.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        for name, content in (
            ("MAR-INF/MANIFEST.json", json.dumps({"model": {"modelName": "iris", "handler": "h.py"}}).encode()),
            ("h.py", b"x = 1\n"),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    assert choose_archive(tmp_path, "iris").path == packed
    assert (unpack(packed, tmp_path / "out") / "h.py").read_bytes() == b"x = 1\n"


@pytest.mark.slow
def test_a_bomb_is_refused(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.mar", files={"zeros": b"\0" * (300 * 1024 * 1024)})
    assert path.stat().st_size < 1_000_000
    with pytest.raises(LoadFailed, match="far more than it holds"):
        unpack(path, tmp_path / "out")


def test_a_damaged_archive_is_told(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.mar", files={"w.pt": bytes(range(256)) * 100})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(LoadFailed, match=r"unpacked|damaged|read"):
        unpack(path, tmp_path / "out")
        read_manifest(path)
