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


def test_older_readers_refuse_rounded_products_by_version() -> None:
    rtn, rounded = installed_plugins().method("rtn").item, code()
    exact = Code(rounded.shape, rounded.parts, {"group": 16})
    assert (rtn.version_of(rounded), rtn.version_of(exact)) == ("2", "1")


def test_other_products_are_refused() -> None:
    with pytest.raises(ValueError, match="fact 'products' is 'int8', not 'float16'"):
        installed_plugins().method("rtn").item.check(code("int8"))
