"""What the commands for the Hub print, and what they say when something goes wrong."""

import json
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants
from typer.testing import CliRunner

import vqzoo
from vqzoo.cli.main import app
from vqzoo.errors import UsageError
from vqzoo.hub.repository import push
from vqzoo.testing.hub.server import Fault, HubServer

REPO = "org/small"


def call(line: str) -> str:
    done = CliRunner().invoke(app, line.split())
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_push_pull_search(hub: HubServer, artifact: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert call(f"push {artifact} {REPO} --private").strip() == f"{hub.url}/{REPO}"
    assert len(hub.repos[REPO].commits) == 2
    assert hub.repos[REPO].private
    (folder,) = call(f"pull {REPO}").splitlines()
    call(f"pull hf-hub:{REPO}@main --out {tmp_path / 'out'}")
    for name in ("config.json", "vqzoo.safetensors"):
        data = (artifact / name).read_bytes()
        assert (Path(folder) / name).read_bytes() == (tmp_path / "out" / name).read_bytes() == data
    size = (artifact / "vqzoo.safetensors").stat().st_size
    assert f"{size / 1e6:.2f} MB" in call("search resnet pq")
    assert "not measured" in call("search")
    assert json.loads(call("search binary --json")) == []


def test_inspect_reads_a_repository_like_a_folder(hub: HubServer, artifact: Path) -> None:
    push(artifact, REPO)
    shown = call(f"inspect {artifact}")
    for source in (REPO, f"{REPO}@main", f"hf-hub:{REPO}"):
        assert call(f"inspect {source}") == shown
    with pytest.raises(UsageError, match=r"^there is no folder out/typo; there is no model"):
        vqzoo.load("out/typo")


def test_cards_that_anyone_may_have_written_are_listed_safely(hub: HubServer) -> None:
    api = HfApi(endpoint=hub.url, token=hub.token)
    card = b"""---
tags: [vqzoo]
vqzoo: {model: "[red]evil\\e[31m", method: [1], bytes: many, ratio_layers: .nan}
model-index: [{name: x, results: []}]
---
"""
    for name, text in (("a", card), ("b", b"---\ntags: [vqzoo]\nvqzoo: 3\n---\n")):
        api.create_repo(f"org/{name}")
        api.upload_file(path_or_fileobj=text, path_in_repo="README.md", repo_id=f"org/{name}")
    shown = call("search")
    assert "\x1b" not in shown
    assert "[red]evil" in shown
    assert len(json.loads(call("search --json"))) == 2


def test_pull_and_export_into_the_empty_working_directory(
    hub: HubServer, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(artifact, REPO)
    for name, line in (
        ("a", f"pull {REPO} --out ."),
        ("b", f"export {artifact} --to dense --out ."),
    ):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        call(line)
        assert Path("config.json").is_file()
        fails(line, 2, "not empty")
    fails(f"eval {artifact} --checkpoint mine.safetensors", 2, "already has weights")


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("pull org/nothing", 2, "there is no model org/nothing"),
        ("pull org/tiny@v3", 2, "no such revision"),
        ("pull nothing", 2, "ORG/NAME"),
        ("pull org/tiny --out mine", 2, "not empty"),
        ("eval org/nothing", 2, "there is no model org/nothing"),
        ("push nothing org/tiny", 2, "not a folder"),
        ("inspect nothing", 2, "not a folder"),
        ("inspect org/nothing", 2, "error: there is no folder org/nothing; there is no model"),
        ("inspect hf-hub:org/nothing", 2, "error: there is no model org/nothing"),
        ("inspect org/tiny@v3", 2, "there is no folder org/tiny@v3; org/tiny has no such revision"),
        ("finetune org/typo --epochs 1", 2, "error: there is no folder org/typo; "),
        ("export nothing/here/at-all --to dense", 2, "not a folder"),
        ("push mine org/tiny", 1, "not an artifact"),
        ("run test_resnet --weights random -m pq --push org/tiny", 2, "random weights"),
        ("run test_resnet -m pq --push tiny", 2, "ORG/NAME"),
    ],
)
def test_errors_are_one_line(
    hub: HubServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    code: int,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    HfApi(endpoint=hub.url, token=hub.token).create_repo("org/tiny")
    fails(line, code, says)


def fails(line: str, code: int, says: str) -> None:
    done = CliRunner().invoke(app, line.split())
    assert done.exit_code == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_errors_without_token_or_connection(
    hub: HubServer, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as anonymous:
        anonymous.setattr("huggingface_hub.get_token", lambda: None)
        fails(f"push {artifact} {REPO}", 1, "hf auth login")
        fails("run alexnet -m pq --push org/tiny", 1, "hf auth login")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", "http://127.0.0.1:9")
    fails(f"pull {REPO}", 1, "cannot be reached")
    fails("search", 1, "cannot be reached")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fails(f"pull {REPO}", 1, "HF_HUB_OFFLINE")
    fails(f"push {artifact} {REPO}", 1, "HF_HUB_OFFLINE")


def test_a_run_reports_when_the_upload_has_ended_and_resumes_it(
    hub: HubServer, made: Path, tmp_path: Path
) -> None:
    """The artifact of the first call is the one that the second call publishes."""
    out = tmp_path / "out"
    weights = made.parent / "mine.safetensors"
    run = (
        f"run test_resnet --checkpoint {weights} -m km -o k=4 --layers fc --out {out} --push {REPO}"
    )
    hub.faults.add(Fault("error", "POST", f"/api/models/{REPO}/commit/", status=500))
    failed = CliRunner().invoke(app, run.split())
    assert failed.exit_code == 1
    assert failed.stdout == ""
    said = failed.stderr.splitlines()
    assert f"{out} is complete; publishing it as {REPO}" in said  # the client's bars come behind it
    assert said[-1].startswith("error: ")
    assert hub.files(REPO) == {}
    before = (out / "report.json").stat().st_mtime_ns
    done = CliRunner().invoke(app, run.split())
    assert done.exit_code == 0, done.stderr
    assert (out / "report.json").stat().st_mtime_ns == before
    assert str(out) in done.stdout
    assert done.stderr.splitlines()[-1] == f"published: {hub.url}/{REPO}"
    assert hub.files(REPO)["vqzoo.safetensors"] == (out / "vqzoo.safetensors").read_bytes()


def test_a_push_never_falls_back_on_another_network(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vqzoo.models.dense.is_reachable", lambda cfg: False)
    fails("run alexnet -m pq --push org/x", 1, "--checkpoint")
    assert hub.repos == {}
