"""Importers of networks that other libraries published as codes."""

from vqzoo.plugin import Importer, hookimpl
from vqzoo_importers.coreml import CoreMl
from vqzoo_importers.deep_compression import DeepCompression
from vqzoo_importers.onnx_file import Onnx
from vqzoo_importers.state_dicts.kill_the_bits import KillTheBits
from vqzoo_importers.state_dicts.permute_quantize import PermuteQuantizeFinetune
from vqzoo_importers.state_dicts.quanto import Quanto
from vqzoo_importers.state_dicts.torch_quantized import TorchQuantized
from vqzoo_importers.state_dicts.torchao import TorchAo

vqzoo_contract = 1


@hookimpl
def vqzoo_importers() -> list[Importer]:
    """The built-in importers."""
    return [
        KillTheBits(),
        PermuteQuantizeFinetune(),
        DeepCompression(),
        Onnx(),
        CoreMl(),
        TorchQuantized(),
        TorchAo(),
        Quanto(),
    ]
