"""Commands load timm without torch's compiler, and whoever needs the compiler gets it."""

import subprocess
import sys
from pathlib import Path

START = """
import sys
from vqzoo.plugin.execution.quick_start import start_quickly
start_quickly()
"""
RUN = "['run', 'vit_mini.fmnist', '--method', 'rtn', '--layers', 'head', '--images', '5']"


def run_python(program: str, folder: Path) -> list[str]:
    words = [sys.executable, "-c", START + program]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_run_and_an_evaluation_need_no_compiler(tmp_path: Path) -> None:
    printed = run_python(
        f"""
from typer.testing import CliRunner
from vqzoo.cli.main import app
for words in ({RUN} + ['--out', 'a'], ['eval', 'a', '--images', '5']):
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
import torch.optim, timm.layers
print({{'torch._dynamo', 'torch._dynamo.utils'}} & set(sys.modules))
print([finder for finder in sys.meta_path if 'vqzoo' in type(finder).__module__])
""",
        tmp_path,
    )
    assert printed == ["set()", "[]"]


def test_the_compiler_works_where_it_is_needed(tmp_path: Path) -> None:
    printed = run_python(
        """
import timm, torch, torchvision
print('torch._dynamo' in sys.modules, timm.data.ImageNetInfo().num_classes())
program = torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),))
print(torch.compiler.disable.__module__)
from torch._dynamo.utils import counters, is_compile_supported
print(type(counters).__name__, is_compile_supported('cpu'))
boxes = torch.tensor([[0.0, 0.0, 0.0, 2.0, 2.0]])
print(torchvision.ops.roi_align(torch.ones(1, 1, 4, 4), boxes, (1, 1)).item())
twice = torch.compile(lambda x: 2 * x, backend='eager')
print(twice(torch.ones(1)).item())
""",
        tmp_path,
    )
    assert printed == ["False 1000", "torch.compiler", "defaultdict True", "1.0", "2.0"]
