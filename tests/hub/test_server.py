"""The Hub on loopback behaves as huggingface_hub expects."""

import hashlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from vqzoo.testing.hub.server import Account, Fault, HubServer

WEIGHTS = bytes(range(256)) * 400
CARD = b"""---
license: mit
library_name: vqzoo
tags: [vqzoo, pq]
base_model: timm/alexnet
---
# x
"""


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    return HfApi(endpoint=hub.url, token=hub.token)


def commit(api: HfApi, repo: str, files: dict[str, bytes], **options: object):
    operations = [CommitOperationAdd(path, data) for path, data in files.items()]
    return api.create_commit(repo, operations, commit_message="a commit", **options)


@pytest.fixture
def repo(hub: HubServer, api: HfApi) -> str:
    api.create_repo("org/one")
    commit(api, "org/one", {"w.safetensors": WEIGHTS, "config.json": b"{}", "README.md": CARD})
    return "org/one"


def test_downloads_give_back_what_was_committed(hub: HubServer, api: HfApi, repo: str) -> None:
    for name, data in (("w.safetensors", WEIGHTS), ("config.json", b"{}")):
        path = Path(hf_hub_download(repo, name))
        assert path.read_bytes() == data
        assert path.parent.name == api.model_info(repo).sha
    tree = {entry.path: entry for entry in api.list_repo_tree(repo, recursive=True)}
    assert tree["w.safetensors"].lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert tree["config.json"].lfs is None
    (info,) = api.get_paths_info(repo, ["w.safetensors", "nothing"])
    assert info.size == len(WEIGHTS)
    assert {s.rfilename for s in api.model_info(repo).siblings} >= {"w.safetensors", "README.md"}


def test_large_files_are_uploaded_in_parts(tmp_path: Path, hub: HubServer, api: HfApi) -> None:
    hub.state.part_size = 30_000
    api.create_repo("org/parts")
    commit(api, "org/parts", {"w.safetensors": WEIGHTS})
    puts = [e for e in hub.exchanges if e.method == "PUT"]
    assert [e.received for e in puts] == [30_000, 30_000, 30_000, 12_400]
    assert hub.files("org/parts") == {"w.safetensors": WEIGHTS}


def test_the_same_commit_again_uploads_nothing(hub: HubServer, api: HfApi, repo: str) -> None:
    before = len(hub.exchanges)
    first = api.model_info(repo).sha
    info = commit(api, repo, {"w.safetensors": WEIGHTS, "config.json": b"{}"})
    assert info.oid == first
    assert not [e for e in hub.exchanges[before:] if e.method == "PUT" or "/commit/" in e.target]


def test_listing_by_tag_author_and_words(hub: HubServer, api: HfApi, repo: str) -> None:
    api.create_repo("tester/two")
    api.create_repo("org/secret", private=True)
    names = lambda **query: [model.id for model in api.list_models(**query)]  # noqa: E731
    assert names(filter="vqzoo") == [repo]
    assert names(filter=["vqzoo", "base_model:timm/alexnet"]) == [repo]
    assert names(filter=["vqzoo", "km"]) == []
    assert names(author="tester") == ["tester/two"]
    assert names(search="ON") == [repo]
    assert set(names()) == {repo, "tester/two", "org/secret"}
    assert set(names(token=False)) == {repo, "tester/two"}
    (model,) = api.list_models(filter="vqzoo", cardData=True)
    assert model.card_data.license == "mit"


def test_listing_has_pages(hub: HubServer, api: HfApi, repo: str) -> None:
    for index in range(104):
        hub.repos[f"org/{index}"] = replace(hub.repos[repo], id=f"org/{index}")
    assert len({model.id for model in api.list_models()}) == 105
    assert len(list(api.list_models(limit=7))) == 7


def test_revisions_branches_tags_and_pull_requests(hub: HubServer, api: HfApi, repo: str) -> None:
    api.create_tag(repo, tag="v1")
    api.create_branch(repo, branch="next")
    commit(api, repo, {"config.json": b"[]"}, revision="next")
    pull_request = commit(api, repo, {"config.json": b"[1]"}, create_pr=True)
    read = lambda revision: Path(  # noqa: E731
        hf_hub_download(repo, "config.json", revision=revision)
    ).read_bytes()
    assert [read("main"), read("v1"), read("next")] == [b"{}", b"{}", b"[]"]
    assert read(pull_request.pr_revision) == b"[1]"
    refs = api.list_repo_refs(repo, include_pull_requests=True)
    assert {ref.name for ref in refs.branches} == {"main", "next"}
    assert [ref.ref for ref in refs.pull_requests] == ["refs/pr/1"]
    assert [c.title for c in api.list_repo_commits(repo)] == ["a commit", "initial commit"]
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download(repo, "config.json", revision="v2")
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(repo, "nothing.json")


def test_deleting_and_outdated_parents(hub: HubServer, api: HfApi, repo: str) -> None:
    parent = api.model_info(repo).sha
    api.create_commit(repo, [CommitOperationDelete("config.json")], commit_message="gone")
    assert "config.json" not in hub.files(repo)
    with pytest.raises(HfHubHTTPError, match="412"):
        commit(api, repo, {"config.json": b"3"}, parent_commit=parent)


def test_permissions(hub: HubServer, api: HfApi, repo: str) -> None:
    hub.state.accounts["hf_stranger"] = Account("stranger")
    assert api.whoami()["name"] == "tester"
    api.create_repo("org/secret", private=True)
    assert api.model_info("org/secret").private
    for token in (False, "hf_stranger"):
        with pytest.raises(RepositoryNotFoundError):
            api.model_info("org/secret", token=token)
    for token in (hub.read_token, "hf_stranger"):
        with pytest.raises(HfHubHTTPError, match="403"):
            commit(HfApi(endpoint=hub.url, token=token), repo, {"config.json": b"3"})
    with pytest.raises(OSError, match="Invalid user token"):
        api.whoami(token="hf_unknown")
    assert hub.files(repo)["config.json"] == b"{}"


def test_invalid_metadata_is_refused(hub: HubServer, api: HfApi, repo: str) -> None:
    with pytest.raises((ValueError, BadRequestError), match="license"):
        commit(api, repo, {"README.md": b"---\nlicense: Apache, version 2\n---\n"})


def test_a_cut_upload_is_resumed_and_a_garbled_one_refused(hub: HubServer, api: HfApi) -> None:
    api.create_repo("org/new")
    hub.faults.add(Fault("cut", "PUT", "/lfs/", after=70_000))
    hub.faults.add(Fault("error", "PUT", "/lfs/", status=503))
    commit(api, "org/new", {"a.safetensors": WEIGHTS})
    assert [e.status for e in hub.exchanges if e.method == "PUT"] == [0, 503, 200]
    hub.faults.add(Fault("garble", "PUT", "/lfs/", after=10))
    with pytest.raises(RuntimeError, match=r"b\.safetensors"):
        commit(api, "org/new", {"b.safetensors": WEIGHTS[:500]})
    assert hub.files("org/new") == {"a.safetensors": WEIGHTS}


def test_a_cut_download_is_resumed(
    hub: HubServer, repo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)
    hub.faults.add(Fault("cut", "GET", "resolve/.*w.safetensors", after=70_000))
    hub.faults.add(Fault("slow", "GET", "resolve/.*config", seconds=0.05))
    with suppress(OSError):  # clients before 1.0 go on only when they are called again
        hf_hub_download(repo, "w.safetensors")
    assert Path(hf_hub_download(repo, "w.safetensors")).read_bytes() == WEIGHTS
    ranges = [e.status for e in hub.exchanges if e.method == "GET" and "w.safetensors" in e.target]
    assert ranges == [0, 206]
    assert Path(hf_hub_download(repo, "config.json")).read_bytes() == b"{}"


def test_garbled_downloads_keep_their_size(hub: HubServer, repo: str) -> None:
    hub.faults.add(Fault("garble", "GET", "resolve/.*w.safetensors", after=100))
    data = Path(hf_hub_download(repo, "w.safetensors")).read_bytes()
    assert len(data) == len(WEIGHTS)
    assert data[:100] == WEIGHTS[:100]
    assert data != WEIGHTS
