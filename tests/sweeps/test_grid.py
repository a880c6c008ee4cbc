"""Grids: products of lists, and errors that begin with file and line."""

from pathlib import Path

import pytest

from vqzoo.errors import UsageError
from vqzoo.runs.recipe import Recipe
from vqzoo.sweeps.grid import read_grid


def grid(tmp_path: Path, text: str) -> list[Recipe]:
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    return read_grid(path)


def test_cells_are_the_product_of_the_lists(tmp_path: Path) -> None:
    recipes = grid(
        tmp_path,
        """
models: [test_resnet, test_vit]
methods: [pq, km]
ratios: [8, 16]
seeds: [0, 1]
layers: [dense, "all,!fc", [conv]]
images: 20
data: imagefolder:val
weights: random
""",
    )
    assert len(recipes) == 2 * 2 * 2 * 2 * 3
    assert len({recipe.model_dump_json() for recipe in recipes}) == len(recipes)
    assert {recipe.layers for recipe in recipes} == {("dense",), ("all", "!fc"), ("conv",)}
    assert {(recipe.images, recipe.data, recipe.weights) for recipe in recipes} == {
        (20, "imagefolder:val", "random")
    }
    models = [recipe.model for recipe in recipes]
    assert models == sorted(models)  # cells of one network stand together


def test_a_cell_has_a_ratio_or_a_size_and_sizes_choose_methods(tmp_path: Path) -> None:
    recipes = grid(tmp_path, "models: [test_resnet]\nsizes: [200kB, 300000]\n")
    assert [(recipe.size, recipe.method, recipe.layers) for recipe in recipes] == [
        ("200kB", None, ("all",)),
        ("300kB", None, ("all",)),
    ]
    both = "models: [test_resnet]\nmethods: [ecq]\nratios: [8]\nsizes: [200kB]\n"
    assert [(recipe.ratio, recipe.size) for recipe in grid(tmp_path, both)] == [
        (8, None),
        (None, "200kB"),
    ]


def test_options_are_those_of_all_methods_or_of_each(tmp_path: Path) -> None:
    text = "models: [test_resnet]\nmethods: [km, pq]\noptions: "
    alike = grid(tmp_path, text + "[{k: 4}, {k: 16}]\n")
    assert [(recipe.method, recipe.options["k"]) for recipe in alike] == [
        ("km", 4), ("km", 16), ("pq", 4), ("pq", 16)
    ]  # fmt: skip
    by_method = grid(tmp_path, text + "{pq: [{k: 16, d: 4}, {k: 16, d: 8}]}\n")
    assert [(recipe.method, recipe.options.get("d")) for recipe in by_method] == [
        ("km", None), ("pq", 4), ("pq", 8)
    ]  # fmt: skip


def test_cells_are_left_out_and_added(tmp_path: Path) -> None:
    recipes = grid(
        tmp_path,
        """
models: [test_resnet, test_vit]
methods: [km, pq]
ratios: [8, 16]
images: 10
exclude:
- {model: "*_vit", method: pq}
- {ratio: 16}
include:
- {model: test_vit, method: svd, options: {rank: 4}}
- {model: test_vit, method: km, ratio: 8}
""",
    )
    assert [(recipe.model, recipe.method, recipe.ratio) for recipe in recipes] == [
        ("test_resnet", "km", 8),
        ("test_resnet", "pq", 8),
        ("test_vit", "km", 8),
        ("test_vit", "svd", None),
    ]
    assert {recipe.images for recipe in recipes} == {10}


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("models: [test_resnet]\nmethods: [pq\n", 3, "this is not YAML"),
        ("- test_resnet\n", 1, "a grid is a mapping"),
        ("methods: [pq]\n", 1, "models: field required"),
        ("models: []\nmethods: [pq]\n", 1, "models: list should have at least 1 item"),
        ("models: [test_resnet]\nmethod: pq\n", 2, "method: unknown; write a list: methods"),
        ("models: [test_resnet]\nmethds: [pq]\n", 2, "methds: unknown; did you mean methods?"),
        ("models: [test_resnet]\nmethods: [pq]\nratios:\n- 8\n- many\n", 5, "ratios.1: "),
        ("models: [test_resnet]\nmethods: [pq]\nratios:\n- 8\n- 0.5\n", 5, "ratio: "),
        ("models: [test_resnet]\nmethods: [pq]\nimages: none\n", 3, "images: "),
        ("models: [test_resnet]\nmethods:\n- pq\n- qp\n", 4, "no method called 'qp'"),
        ("models:\n- test_resnet\n- test_resnt\nmethods: [pq]\n", 3, "did you mean test_resnet"),
        ("models: [test_resnet]\nmethods: [pq]\noptions:\n- {k: 4}\n- {q: 4}\n", 5, "pq has no"),
        ("models: [test_resnet]\noptions: {pq: [{k: 2}, {k: x}]}\nmethods: [pq]\n", 2, "pq: opt"),
        ("models: [test_resnet]\nmethods: [pq]\ninclude:\n- {model: test_vit}\n", 4, "give a meth"),
        ("models: [test_resnet]\n", 1, "give a method"),
        ("models: [test_resnet]\nmodels: [test_vit]\n", 2, "models is given twice"),
        ("models: [test_resnet]\nmethods: [pq]\nexclude: [{}]\n", None, "no cell is left"),
        ("models: [test_resnet]\ncommon: {images: 3}\n", 2, "common: write its fields beside"),
    ],
)
def test_errors_begin_with_file_and_line(
    text: str, line: int | None, says: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as error:
        grid(tmp_path, text)
    place = f"{tmp_path / 'grid.yaml'}:" + ("" if line is None else f"{line}:")
    assert str(error.value).startswith(place), error.value
    assert says in str(error.value)
