"""What the engine `slurm` says before it submits anything."""

import sys

import pytest

from vqzoo.errors import UsageError
from vqzoo.plugin.manager import installed_plugins

engine = installed_plugins().engines.get("slurm").item


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("gpu large", "'gpu large' is no partition"),
        ("gpu,qos", "'qos' is none of account"),
        ("gpu,shell=rm", "'shell=rm' is none of account"),
        ("gpu,qos=a,qos=b", "each at most once"),
        ("gpu,qos=$(id)", "is none of account"),
        ("gpu,qos=a\n#SBATCH", "is none of account"),
        ("gpu,time=1h", "time is a whole number above 0"),
        ("cluster=local,parallel=0", "parallel is a whole number above 0"),
        ("cluster=mars", "cluster is slurm or local"),
    ],
)
def test_an_address_that_is_none_is_refused(address: str, reason: str) -> None:
    with pytest.raises(UsageError) as refused:
        engine.check(address)
    assert reason in str(refused.value)


def test_without_submitit_the_engine_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UsageError, match=r"pip install 'vqzoo\[slurm\]'"):
        engine.check("gpu,time=60")


def test_without_slurm_the_engine_says_where_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "/nowhere")
    engine.check("cluster=local")
    with pytest.raises(UsageError, match="there is no sbatch here; run this on a login node"):
        engine.check("gpu")
