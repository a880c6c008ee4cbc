"""Read-only folders, terminals without Unicode, termination, and two runs at once.

Each test starts real processes, because the process and its surroundings are what is tested.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import vqzoo
from vqzoo.artifact.lock import folder_lock
from vqzoo.errors import VqzooError

ROOT = Path(vqzoo.__file__).parents[1]
RUN = ("run", "test_resnet", "--weights", "random", "--method", "km", "-o", "k=4")
_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 24, 1, 2


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "vqzoo.cli.main", *arguments]


def without_root_privileges() -> None:
    """Make permissions of files count for root, too."""
    libc = ctypes.CDLL(None)
    for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


@pytest.fixture
def read_only_installation(tmp_path: Path):
    """A copy of the packages in which no folder can be written."""
    site, home = tmp_path / "site", tmp_path / "home"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "vqzoo", site / "vqzoo", ignore=ignore)
    shutil.copytree(ROOT / "plugins", site / "plugins", ignore=ignore)
    home.mkdir()
    folders = [home, *(path for path in [site, *site.rglob("*")] if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    path = os.pathsep.join([str(site), str(site / "plugins")])
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA", "XDG", "PYTHONPATH"))}
    yield {**kept, "HOME": str(home), "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    for folder in folders:
        folder.chmod(0o755)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="drops capabilities of Linux")
def test_nowhere_to_cache_kernels_costs_time_and_one_warning(
    read_only_installation: dict[str, str], tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    run = (*RUN[:4], "--method", "rtn", "--out", "a")  # compiles few kernels
    for arguments in (run, ("eval", "a", "--help")):
        result = subprocess.run(
            command(*arguments),
            cwd=work,
            env=read_only_installation,
            preexec_fn=without_root_privileges,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        if arguments[0] == "run":
            assert result.stderr.count("NUMBA_CACHE_DIR") == 1
    assert vqzoo.load(work / "a") is not None
    assert not list((tmp_path / "site").rglob("*.nbi"))


@pytest.mark.skipif(sys.platform != "linux", reason="drops capabilities of Linux")
def test_doctor_says_that_kernels_cannot_be_cached(
    read_only_installation: dict[str, str], tmp_path: Path
) -> None:
    result = subprocess.run(
        command("doctor"),
        cwd=tmp_path,
        env=read_only_installation,
        preexec_fn=without_root_privileges,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    problems = result.stdout.splitlines()[result.stdout.splitlines().index("problems") :]
    assert any("caches: numba: " in line and "NUMBA_CACHE_DIR" in line for line in problems)
    assert any("caches: hub: " in line and "not writable" in line for line in problems)


@pytest.mark.parametrize(
    ("encoding", "arguments"),
    [("ascii", (*RUN, "--layers", "all", "--out", "a")), ("cp437", ("inspect", "artifact"))],
)
def test_a_terminal_without_unicode_gets_question_marks(
    encoding: str, arguments: tuple[str, ...], artifact: Path
) -> None:
    result = subprocess.run(
        command(*arguments),
        cwd=artifact.parent,
        env={**os.environ, "PYTHONIOENCODING": encoding, "LC_ALL": "C", "PYTHONUTF8": "0"},
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr.decode(encoding)
    shown = result.stdout.decode(encoding)
    assert "bits/weight" in shown
    assert "1000?96" in shown


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_terminated_run_says_how_to_resume(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    plugin = tmp_path / "patient.py"
    plugin.write_text(
        "import time\nfrom pathlib import Path\nfrom vqzoo.plugin import hookimpl\n\n"
        "@hookimpl\ndef vqzoo_layer_compressed(layer, done, total):\n"
        "    Path('started').touch()\n    time.sleep(60)\n"
    )
    arguments = command(*RUN, "--plugin", str(plugin), "--out", "a")
    process = subprocess.Popen(
        arguments,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert "run the same command again to resume" in stderr
    assert "Traceback" not in stderr
    assert (tmp_path / "a.partial").is_dir()
    assert not (tmp_path / ".a.lock").exists()


def test_a_second_run_is_told_who_writes_the_folder(vqzoo, tmp_path: Path) -> None:
    with folder_lock(tmp_path / "a"):
        owner = json.loads((tmp_path / ".a.lock").read_text())
        refused = subprocess.run(
            command(*RUN, "--out", "a"), cwd=tmp_path, capture_output=True, text=True, check=False
        )
    assert refused.returncode == 1
    assert f"process {owner['pid']} on {owner['host']!r}" in refused.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == []
    assert vqzoo(*RUN, "--out", "a").exit_code == 0


def test_the_lock_of_a_killed_process_blocks_nobody(tmp_path: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom vqzoo.artifact.lock import folder_lock\n"
        "with folder_lock(Path('a')):\n    print('locked', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    with (
        pytest.raises(VqzooError, match=f"process {process.pid} "),
        folder_lock(tmp_path / "a"),
    ):
        pass
    process.kill()
    process.wait()
    with folder_lock(tmp_path / "a"):
        assert json.loads((tmp_path / ".a.lock").read_text())["pid"] == os.getpid()
