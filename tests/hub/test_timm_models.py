"""Models that timm's own `save_for_hf` wrote, pulled from a Hub and compressed as they are."""

from pathlib import Path

import timm
import torch
from huggingface_hub import HfApi
from timm.models import save_for_hf
from torch import nn
from typer.testing import CliRunner

import vqzoo
from vqzoo.cli.main import app
from vqzoo.testing.hub.server import HubServer

REPO = "org/silu"


def test_the_arguments_in_a_config_on_the_hub_reach_the_artifact(
    hub: HubServer, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = timm.create_model(
        "test_vit", num_classes=4, act_layer="silu", img_size=(64, 96), in_chans=1, qk_norm=True
    ).eval()
    save_for_hf(model, tmp_path / "timm", safe_serialization=True)
    HfApi().create_repo(REPO)
    HfApi().upload_folder(repo_id=REPO, folder_path=tmp_path / "timm")
    words = ["run", f"hf-hub:{REPO}", "-m", "rtn", "-o", "format=int8", "--layers", "all"]
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "a")])
    assert result.exit_code == 0, result.output
    loaded = vqzoo.load(tmp_path / "a")
    assert any(isinstance(module, nn.SiLU) for module in loaded.modules())
    image = torch.randn(1, 1, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, logits = model(image), loaded(image)
    assert (logits - expected).abs().max() < 0.1 * expected.abs().max()
