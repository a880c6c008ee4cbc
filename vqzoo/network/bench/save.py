"""Keep a benchmark beside its artifact."""

from pathlib import Path

from vqzoo.artifact.schema import CONFIG_FILE
from vqzoo.errors import UsageError
from vqzoo.plugin.manager import installed_plugins
from vqzoo.report.card import write_card
from vqzoo.report.costs.file import write_costs
from vqzoo.report.costs.record import BenchRecord


def check_folder(source: str | Path) -> None:
    """Refuse what is not a folder on this machine.

    Raises:
        UsageError: figures can be kept in a folder alone.
    """
    if not (Path(source) / CONFIG_FILE).is_file():
        raise UsageError(f"--save keeps figures in an artifact's folder, which {source} is not")


def save_costs(record: BenchRecord, source: str | Path) -> None:
    """Write bench.json into an artifact's folder, and its card anew.

    Raises:
        UsageError: the artifact is no folder.
    """
    check_folder(source)
    folder = Path(source)
    write_costs(record, folder)
    write_card(folder, installed_plugins())
