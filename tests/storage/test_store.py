"""Folders at URLs: files go there and come back whole, and what is hostile is refused."""

import io
import zipfile
from pathlib import Path

import fsspec
import pytest

from vqzoo.errors import UsageError, VqzooError
from vqzoo.storage.shared import SharedFolder
from vqzoo.storage.store import Store, files_in, is_url


@pytest.fixture(params=["memory", "file", "dir"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty folder."""
    if request.param == "memory":
        return Store(f"memory://{tmp_path.name}/sweep")
    if request.param == "file":
        return Store(f"file://{tmp_path}/sweep")
    return Store(f"dir::file://{tmp_path}/sweep")


def folder_of_files(tmp_path: Path) -> Path:
    folder = tmp_path / "local"
    for name, content in {"report.json": b"{}", "a/b/z.bin": b"\0" * 70_000, "y": b""}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def named(folder: Path, name: str) -> dict[str, Path]:
    """What `put_files` takes, for the files of a local folder."""
    return {f"{name}/{file}": folder / file for file in files_in(folder)}


def test_a_folder_comes_back_as_it_went(store: Store, tmp_path: Path) -> None:
    assert store.names() == set()
    folder = folder_of_files(tmp_path)
    store.put_files(named(folder, "cells/1"))
    assert store.names() == {"cells/1/report.json", "cells/1/a/b/z.bin", "cells/1/y"}
    assert store.below("cells").names() == {"1/report.json", "1/a/b/z.bin", "1/y"}
    for name in ("report.json", "a/b/z.bin", "y"):
        assert store.has(f"cells/1/{name}")
        assert store.fetch(f"cells/1/{name}", tmp_path / "back" / name, 1 << 20)
        assert (tmp_path / "back" / name).read_bytes() == (folder / name).read_bytes()
    (folder / "y").write_text("new")
    store.put(folder / "y", "cells/1/y")
    assert store.fetch("cells/1/y", tmp_path / "y", 3)
    assert (tmp_path / "y").read_text() == "new"


def test_the_record_is_the_last_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    monkeypatch.setattr(Store, "put", lambda store, file, name: names.append(name))
    Store("memory://x").put_files(named(folder_of_files(tmp_path), "c"), last=["c/report.json"])
    assert names == ["c/a/b/z.bin", "c/y", "c/report.json"]


def test_files_that_are_missing_or_too_large(store: Store, tmp_path: Path) -> None:
    store.put_files(named(folder_of_files(tmp_path), "c"))
    target = tmp_path / "target"
    assert not store.has("c/nothing")
    assert not store.has("c/a")
    assert not store.fetch("c/nothing", target, 1 << 20)
    assert not store.fetch("c/a", target, 1 << 20)  # a folder
    with pytest.raises(VqzooError, match=r"c/a/b/z\.bin has 70,000 bytes: too large"):
        store.fetch("c/a/b/z.bin", target, 69_999)
    assert not target.exists()
    assert not list(tmp_path.glob("target*"))


def test_shared_files_are_fetched_once_and_reach_both_sides(store: Store, tmp_path: Path) -> None:
    here, there = SharedFolder(tmp_path / "here", store), SharedFolder(tmp_path / "there", store)
    path = here.find("dense/1.json", 100)
    assert not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("first")
    here.publish("dense/1.json")
    assert there.find("dense/1.json", 100).read_text() == "first"
    (tmp_path / "here/dense/2.json").write_text("kept from another sweep")
    here.find("dense/2.json", 100)
    assert store.has("dense/2.json")
    alone = SharedFolder(tmp_path / "here")
    assert alone.find("dense/1.json", 100) == path


def test_urls_that_cannot_be_opened() -> None:
    assert is_url("s3://bucket/x")
    assert is_url("dir::memory://x")
    assert not is_url("runs/s3")
    with pytest.raises(
        UsageError, match="nosuch://x cannot be opened: Protocol not known"
    ) as error:
        Store("nosuch://x").check()
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="oss://b/x needs the package ossfs: pip install ossfs"):
        Store("oss://b/x").check()


def test_names_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("cells/../../../evil/report.json", "{}")
    (tmp_path / "evil.zip").write_bytes(archive.getvalue())
    with pytest.raises(VqzooError, match="has a file outside its folder"):
        Store(f"zip::file://{tmp_path}/evil.zip").names()


def test_a_store_that_is_full_or_forbidden_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left\non device")

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "put_file", refuse)
    with pytest.raises(VqzooError, match=r"^memory://full: \[Errno 28\] No space left on device$"):
        Store("memory://full").put(Path(__file__), "a")
