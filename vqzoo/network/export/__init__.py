"""Networks for other tools: dense weights, ONNX, programs of torch.export."""

from vqzoo.network.export.formats import export

__all__ = ["export"]
