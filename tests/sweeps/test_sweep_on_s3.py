"""A sweep into S3, whose server runs on this machine: on Ray, and by processes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from vqzoo.artifact.schema import WEIGHTS_FILE
from vqzoo.cli.main import app

pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")
pytestmark = [pytest.mark.cluster, pytest.mark.slow]

GRID = """
models: [mobilenet_mini.fmnist]
methods: [km, rtn]
ratios: [6]
layers: [largest:1]
images: 40
"""


@pytest.fixture(scope="module")
def s3() -> Iterator[None]:
    """A server with one empty bucket, and the environment that points at it."""
    import s3fs

    server = moto_server.ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem().mkdir("zoo")
        yield
    server.stop()


def sweep(folder: Path, out: str, executor: str) -> Result:
    (folder / "grid.yaml").write_text(GRID)
    words = ["sweep", str(folder / "grid.yaml"), "--out", out, "--executor", executor]
    return CliRunner().invoke(app, [*words, "--threads", "1"])


def files(place: str) -> dict[str, bytes]:
    """Cell -> its weights file."""
    import s3fs

    bucket = s3fs.S3FileSystem(skip_instance_cache=True)
    paths = bucket.glob(f"{place.removeprefix('s3://')}/cells/*/{WEIGHTS_FILE}")
    return {path.split("/")[-2]: bucket.cat_file(path) for path in paths}


def test_a_sweep_on_ray_into_a_bucket(
    s3: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers have a cache of their own, and nothing else of the driver's."""
    pytest.importorskip("ray")
    monkeypatch.setenv("VQZOO_CACHE", str(tmp_path / "cache"))
    done = sweep(tmp_path, "s3://zoo/ray", "ray:local")
    assert done.exit_code == 0, done.output
    assert "2 cells: 2 done" in done.stdout
    assert "page: s3://zoo/ray/report.html" in done.stdout
    local = sweep(tmp_path, str(tmp_path / "local"), "local:1")
    assert local.exit_code == 0, local.output
    expected = (tmp_path / "local").glob(f"cells/*/{WEIGHTS_FILE}")
    assert files("s3://zoo/ray") == {file.parent.name: file.read_bytes() for file in expected}
    table = CliRunner().invoke(app, ["results", "s3://zoo/ray", "--json"])
    assert {row["state"] for row in json.loads(table.stdout)} == {"done"}
    page = tmp_path / "page.html"
    shown = CliRunner().invoke(app, ["report", "s3://zoo/ray", "--out", str(page)])
    assert "2 artifacts" in shown.stdout, shown.output
    assert page.stat().st_size > 100_000


def test_a_second_driver_finds_what_the_first_one_left(
    s3: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    monkeypatch.setenv("VQZOO_CACHE", str(tmp_path / "first"))
    done = sweep(tmp_path, "s3://zoo/two", "local:1")
    assert done.exit_code == 0, done.output
    before = files("s3://zoo/two")
    bucket = s3fs.S3FileSystem(skip_instance_cache=True)
    gone = sorted(before)[0]
    bucket.rm(f"zoo/two/cells/{gone}/report.json")
    monkeypatch.setenv("VQZOO_CACHE", str(tmp_path / "second"))
    again = sweep(tmp_path, "s3://zoo/two", "local:1")
    assert "2 cells: 2 done" in again.stdout, again.output
    assert files("s3://zoo/two") == before
    log = s3fs.S3FileSystem(skip_instance_cache=True).cat_file(f"zoo/two/logs/{gone}.log").decode()
    assert "evaluating the compressed model" in log
    assert "evaluating the dense model" not in log


def test_a_bucket_that_does_not_exist_is_one_line(s3: None, tmp_path: Path) -> None:
    done = sweep(tmp_path, "s3://nowhere/x", "local:1")
    assert done.exit_code == 1
    assert "s3://nowhere/x: " in done.stderr
    assert "Traceback" not in done.output
