"""rtn with products in half precision, as imported files have them."""

import numpy as np
import pytest
import torch

from vqzoo.plugin import Code, Floats, Indices
from vqzoo.plugin.manager import installed_plugins


def code(product: str = "float16") -> Code:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(255, (6, 40), generator=generator)
    scale = (torch.rand(6, 3, generator=generator) + 0.5).half()
    parts: dict[str, Indices | Floats] = {"codes": Indices(codes, 255), "scale": Floats(scale)}
    return Code((6, 40), parts, {"group": 16, "products": product})


def test_products_are_those_of_numpy_in_half_precision() -> None:
    rtn, rounded = installed_plugins().method("rtn").item, code()
    rtn.check(rounded)
    integers = (rounded.indices("codes").numpy() - 127).astype(np.float16)
    scale = np.repeat(rounded.parts["scale"].stored.numpy(), 16, axis=1)[:, :40]
    expected = (integers * scale).astype(np.float32)
    assert np.array_equal(rtn.decode(rounded, rounded.floats()).numpy(), expected)
    assert not np.array_equal(expected, integers.astype(np.float32) * scale.astype(np.float32))
    params = {"scale": rounded.floats()["scale"].requires_grad_()}
    matrix = rtn.reconstruct(rounded, params)
    assert np.array_equal(matrix.detach().numpy(), expected)
    matrix[0, :16].sum().backward()
    assert params["scale"].grad[0, 0] == integers[0, :16].sum()


def test_products_in_bfloat16_are_rounded_once() -> None:
    rtn, rounded = installed_plugins().method("rtn").item, code("bfloat16")
    rtn.check(rounded)
    scale = rounded.floats()["scale"].repeat_interleave(16, dim=1)[:, :40]
    products = (rounded.indices("codes").float() - 127) * scale
    expected = products.bfloat16().float()
    assert not torch.equal(expected, products.half().float())
    assert torch.equal(rtn.decode(rounded, rounded.floats()), expected)
    assert torch.equal(rtn.reconstruct(rounded, rounded.floats()), expected)


def test_older_readers_refuse_rounded_products_by_version() -> None:
    rtn, halves = installed_plugins().method("rtn").item, [code(), code("bfloat16")]
    exact = Code(halves[0].shape, halves[0].parts, {"group": 16})
    assert [rtn.version_of(one) for one in (exact, *halves)] == ["1", "2", "3"]


def test_other_products_are_refused() -> None:
    with pytest.raises(ValueError, match="fact 'products' is 'int8', no half precision"):
        installed_plugins().method("rtn").item.check(code("int8"))
