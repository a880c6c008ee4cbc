"""Publishing and pulling artifacts, with and without failures on the way."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, constants

import vqzoo
from vqzoo.errors import ArtifactError, UsageError, VqzooError
from vqzoo.hub.repository import PUBLISHED, pull, push
from vqzoo.progress import SilentWatcher
from vqzoo.runs.recipe import make_recipe
from vqzoo.runs.run import run
from vqzoo.testing.hub.server import Account, Fault, HubServer

REPO = "org/small"
ARTIFACT = ("config.json", "vqzoo.safetensors")
Vqzoo = Callable[..., subprocess.CompletedProcess[str]]


def uploads(hub: HubServer) -> list[int]:
    return [e.received for e in hub.exchanges if e.method == "PUT" and e.status == 200]


def commits(hub: HubServer, branch: str = "main") -> list[str]:
    repo = hub.repos[REPO]
    return [commit.title for commit in repo.history(repo.resolve(branch))]


def test_a_push_holds_the_artifact_its_card_and_nothing_else(
    hub: HubServer, artifact: Path
) -> None:
    (artifact / "notes.txt").write_text("mine")
    pushed = push(artifact, REPO)
    there = hub.files(REPO)
    assert set(there) == {"config.json", "vqzoo.safetensors", "README.md", "bytes.png"}
    for name in (*ARTIFACT, "bytes.png"):
        assert there[name] == (artifact / name).read_bytes()
    assert f'vqzoo.load("{REPO}")' in there["README.md"].decode()
    assert "ORG/NAME" not in there["README.md"].decode()
    assert pushed.url == f"{hub.url}/{REPO}"
    assert pushed.commit == hub.repos[REPO].branches["main"]
    assert commits(hub) == ["test_resnet compressed by pq", "initial commit"]


def test_pushing_again_uploads_nothing(hub: HubServer, artifact: Path) -> None:
    first = push(artifact, REPO)
    before = len(hub.exchanges)
    assert push(artifact, REPO) == first
    assert not [e for e in hub.exchanges[before:] if e.method == "PUT" or "/commit/" in e.target]


def test_pulled_artifacts_are_equal_byte_for_byte_and_give_equal_logits(
    hub: HubServer, artifact: Path, tmp_path: Path
) -> None:
    commit = push(artifact, REPO).commit
    pulled = pull(REPO, out=tmp_path / "out")
    assert pulled.commit == commit
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(hub.files(REPO))
    for name in ARTIFACT:
        assert (tmp_path / "out" / name).read_bytes() == (artifact / name).read_bytes()
    image = torch.randn(2, 3, 160, 160)
    loaded = vqzoo.load(REPO)
    assert torch.equal(loaded(image), vqzoo.load(artifact)(image))
    assert loaded.vqzoo_commit == commit
    assert vqzoo.load(artifact).vqzoo_commit is None
    with pytest.raises(UsageError, match="not empty"):
        pull(REPO, out=tmp_path / "out")


def test_every_way_to_name_a_repository(
    hub: HubServer, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = push(artifact, REPO).commit
    (artifact / "README.md").write_text("---\nlicense: mit\n---\nanother card\n")
    second = push(artifact, REPO).commit
    assert first != second
    commit = lambda *arguments, **options: vqzoo.load(*arguments, **options).vqzoo_commit  # noqa: E731
    assert commit(REPO) == commit(f"hf-hub:{REPO}") == second
    assert commit(f"{REPO}@{first}") == commit(REPO, revision=first) == first
    assert commit(f"hf-hub:{REPO}@main") == second
    with pytest.raises(UsageError, match="no such revision"):
        vqzoo.load(REPO, revision="v9")
    with pytest.raises(UsageError, match="names a revision"):
        vqzoo.load(f"{REPO}@main", revision="v9")
    monkeypatch.chdir(tmp_path)
    artifact.parent.joinpath("org").mkdir()
    artifact.rename(tmp_path / REPO)
    assert commit(REPO) is commit(f"local-dir:{REPO}") is None
    assert commit(f"hf-hub:{REPO}") == second
    with pytest.raises(UsageError, match="is a folder"):
        vqzoo.load(REPO, revision="main")


def test_branches_pull_requests_and_private_repositories(hub: HubServer, artifact: Path) -> None:
    push(artifact, REPO, private=True)
    assert hub.repos[REPO].private
    (artifact / "README.md").write_text("---\nlicense: mit\n---\nanother card\n")
    on_branch = push(artifact, REPO, revision="v2")
    assert on_branch.url.endswith("/tree/v2")
    request = push(artifact, REPO, create_pr=True)
    assert request.url == f"{hub.url}/{REPO}/discussions/1"
    assert len(commits(hub)) == 2
    assert hub.files(REPO, "v2") == hub.files(REPO, "refs/pr/1") != hub.files(REPO)
    assert vqzoo.load(REPO, revision="v2").vqzoo_commit == on_branch.commit
    with pytest.raises(UsageError, match="default branch"):
        push(artifact, REPO, create_pr=True, revision="v2")
    HfApi(endpoint=hub.url, token=hub.token).create_repo("org/open")
    with pytest.raises(UsageError, match="public"):
        push(artifact, "org/open", private=True)
    assert hub.files("org/open") == {}


def test_files_of_an_earlier_artifact_are_deleted(hub: HubServer, artifact: Path) -> None:
    (artifact / "model.safetensors").write_bytes(b"decoded weights")
    push(artifact, REPO)
    assert "model.safetensors" in hub.files(REPO)
    (artifact / "model.safetensors").unlink()
    push(artifact, REPO)
    assert "model.safetensors" not in hub.files(REPO)


def test_an_artifact_saved_from_memory_gets_a_card(hub: HubServer, tmp_path: Path) -> None:
    import timm

    vqzoo.compress(timm.create_model("test_vit"), "km", k=4).save(tmp_path / "a")
    push(tmp_path / "a", REPO)
    card = hub.files(REPO)["README.md"].decode()
    assert "not measured" in card
    assert "vqzoo.compress" in card
    assert set(hub.files(REPO)) <= set(PUBLISHED)


def test_random_weights_are_never_published(hub: HubServer, tmp_path: Path) -> None:
    fields = {"model": "test_resnet", "weights": "random", "method": "km", "options": {"k": 2}}
    folder = run(make_recipe(fields), SilentWatcher(), out=tmp_path / "a").folder
    with pytest.raises(UsageError, match="random weights"):
        push(folder, REPO)
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"random"', '"pretrained"'))
    with pytest.raises(ArtifactError, match="method and weights"):
        push(folder, REPO)
    assert hub.exchanges == []


def test_an_artifact_that_needs_a_plugin_file_is_not_published(
    hub: HubServer, tmp_path: Path
) -> None:
    import timm

    (tmp_path / "mine.py").write_text(
        "from vqzoo_vq.kmeans import ScalarKMeans\n"
        "from vqzoo.plugin import hookimpl\n"
        "class Mine(ScalarKMeans):\n    name = 'mine'\n"
        "@hookimpl\ndef vqzoo_quantizers():\n    return [Mine()]\n"
    )
    model = timm.create_model("test_resnet")
    vqzoo.compress(model, "mine", k=4, plugins=[tmp_path / "mine.py"]).save(tmp_path / "a")
    with pytest.raises(UsageError, match=r"plugin file mine\.py"):
        push(tmp_path / "a", REPO)
    assert hub.exchanges == []


def test_a_damaged_artifact_is_not_published(hub: HubServer, artifact: Path) -> None:
    with (artifact / "vqzoo.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(ArtifactError, match="damaged"):
        push(artifact, REPO)
    assert hub.exchanges == []


def whole(hub: HubServer) -> bool:
    """Whether the weights file of every commit is the one that its config names."""
    import hashlib

    for commit in hub.repos[REPO].commits.values():
        if "config.json" in commit.files:
            block = json.loads(commit.files["config.json"].data)["vqzoo"]
            weights = commit.files["vqzoo.safetensors"].data
            if hashlib.sha256(weights).hexdigest() != block["sha256"]:
                return False
    return True


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("PUT", "/lfs/", "cut"),
        ("PUT", "/lfs/", "error"),
        ("PUT", "/lfs/", "garble"),
        ("POST", "/lfs/.*/complete", "error"),
        ("POST", "/lfs/.*/verify", "error"),
        ("POST", "/objects/batch", "error"),
        ("POST", "/preupload/", "cut"),
        ("POST", "/commit/", "cut"),
        ("POST", "/commit/", "error"),
        ("POST", "/repos/create", "cut"),
        ("GET", "/api/models/org/small", "error"),
    ],
)
def test_a_push_that_fails_loses_nothing_and_can_be_run_again(
    hub: HubServer, artifact: Path, method: str, path: str, kind: str
) -> None:
    hub.state.part_size = 50_000
    hub.faults.add(Fault(kind, method, path, after=1000, times=99))
    with pytest.raises(VqzooError) as caught:
        push(artifact, REPO)
    assert "\n" not in str(caught.value)
    if REPO in hub.repos:
        assert hub.files(REPO) == {}
    hub.faults.clear()
    push(artifact, REPO)
    assert hub.files(REPO)["vqzoo.safetensors"] == (artifact / "vqzoo.safetensors").read_bytes()
    assert whole(hub)


def test_a_push_survives_short_faults(hub: HubServer, artifact: Path) -> None:
    hub.faults.add(Fault("cut", "PUT", "/lfs/", after=70_000))
    hub.faults.add(Fault("error", "PUT", "/lfs/", status=503))
    hub.faults.add(Fault("slow", "PUT", "/lfs/", seconds=0.1))
    push(artifact, REPO)
    assert uploads(hub) == [(artifact / "vqzoo.safetensors").stat().st_size]
    assert whole(hub)


def test_a_failed_update_leaves_the_old_artifact(
    hub: HubServer, artifact: Path, tmp_path: Path
) -> None:
    import timm

    push(artifact, REPO)
    before = hub.files(REPO)
    vqzoo.compress(timm.create_model("test_vit"), "km", k=4).save(tmp_path / "other")
    hub.faults.add(Fault("error", "POST", "/commit/", times=99))
    with pytest.raises(VqzooError, match="500"):
        push(tmp_path / "other", REPO)
    assert hub.files(REPO) == before
    hub.faults.clear()
    push(tmp_path / "other", REPO)
    assert vqzoo.load(REPO).pretrained_cfg["architecture"] == "test_vit"
    assert whole(hub)


def test_an_interrupted_pull_can_be_run_again(hub: HubServer, artifact: Path) -> None:
    push(artifact, REPO)
    hub.faults.add(Fault("cut", "GET", r"resolve/.*vqzoo\.safetensors", after=60_000))
    hub.faults.add(Fault("error", "GET", r"resolve/.*vqzoo\.safetensors", times=99))
    with pytest.raises(VqzooError):
        pull(REPO)
    hub.faults.clear()
    folder = pull(REPO).artifact.folder
    assert (folder / "vqzoo.safetensors").read_bytes() == hub.files(REPO)["vqzoo.safetensors"]


@pytest.mark.parametrize("name", ["vqzoo.safetensors", "config.json"])
def test_damaged_files_are_noticed_and_downloaded_again(
    hub: HubServer, artifact: Path, name: str
) -> None:
    push(artifact, REPO)
    hub.faults.add(Fault("garble", "GET", f"resolve/.*{re.escape(name)}", after=100, times=99))
    with pytest.raises(ArtifactError, match=REPO):
        pull(REPO)
    hub.faults.clear()
    folder = pull(REPO).artifact.folder
    assert (folder / name).read_bytes() == hub.files(REPO)[name]
    assert vqzoo.load(REPO) is not None


def test_cached_artifacts_load_offline(
    hub: HubServer, artifact: Path, tmp_path: Path, vqzoo: Vqzoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = push(artifact, REPO).commit
    # In separate processes: clients before 1.0 keep a session with the settings it started with.
    offline = {**hub.environment(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    done = vqzoo("pull", REPO, **offline)
    assert (done.exit_code, "HF_HUB_OFFLINE" in done.stderr) == (1, True), done.stderr
    pulled = pull(REPO)
    assert pulled.commit == commit
    exchanges = len(hub.exchanges)
    done = vqzoo("pull", REPO, **offline)
    assert done.stdout.strip() == str(pulled.artifact.folder), done.stderr
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(VqzooError, match="HF_HUB_OFFLINE"):
        push(artifact, REPO)
    assert len(hub.exchanges) == exchanges


def test_errors_without_connection(
    hub: HubServer, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    nobody = "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", nobody)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", nobody)
    with pytest.raises(VqzooError, match=f"{nobody} cannot be reached"):
        pull(REPO)
    with pytest.raises(VqzooError, match=f"{nobody} cannot be reached"):
        push(artifact, REPO)


def test_errors_without_permission(
    hub: HubServer, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.state.accounts["hf_stranger"] = Account("stranger")
    push(artifact, REPO, private=True)
    with pytest.raises(VqzooError, match="may not"):
        push(artifact, "org/other", token=hub.read_token)
    with pytest.raises(VqzooError, match="may not"):
        push(artifact, "org/other", token="hf_stranger")
    with pytest.raises(VqzooError, match="does not accept the token"):
        push(artifact, REPO, token="hf_unknown")
    with pytest.raises(UsageError, match="cannot see it"):
        pull(REPO, token="hf_stranger")
    with pytest.raises(UsageError, match="there is no model org/nothing"):
        pull("org/nothing")
    with pytest.raises(UsageError, match="ORG/NAME"):
        push(artifact, "no-slash")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(VqzooError, match="hf auth login"):
        push(artifact, REPO)


def test_repositories_without_an_artifact_are_refused(hub: HubServer, artifact: Path) -> None:
    api = HfApi(endpoint=hub.url, token=hub.token)
    api.create_repo("org/empty")
    with pytest.raises(ArtifactError, match=r"config\.json"):
        vqzoo.load("org/empty")
    push(artifact, REPO)
    api.delete_file("vqzoo.safetensors", REPO)
    with pytest.raises(ArtifactError, match=r"vqzoo\.safetensors"):
        vqzoo.load(REPO)
