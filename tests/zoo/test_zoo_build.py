"""Recipe files, the sizes computed from them, and building many artifacts."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from vqzoo.artifact.reader import open_artifact
from vqzoo.cli.main import app
from vqzoo.errors import PluginError, UsageError
from vqzoo.models.names import check_name
from vqzoo.models.registration import register_models
from vqzoo.plugin.code import Code
from vqzoo.plugin.manager import installed_plugins
from vqzoo.progress import SilentWatcher
from vqzoo.runs.recipe import make_recipe
from vqzoo.runs.run import run
from vqzoo.zoo.expected_size import expected_size
from vqzoo.zoo.recipes import ZooRecipe, find_recipes, recipes_folder

GOOD = "model: test_resnet\nweights: random\nmethod: km\noptions: {k: 4}\nlayers: [fc]\n"


def test_the_recipes_that_come_with_vqzoo() -> None:
    plugins = installed_plugins()
    register_models(plugins)
    recipes = find_recipes([], recipes_folder())
    for recipe in recipes:
        check_name(recipe.recipe.model)
        assert "." in recipe.recipe.model, f"{recipe.name}: weights are named exactly"
        assert recipe.recipe.weights == "pretrained"
        for choice in [recipe.recipe.choice(), *(r.choice() for r in recipe.recipe.rules)]:
            assert choice is None or choice.method in plugins.quantizers.names()
    families = {recipe.recipe.model.partition(".")[0] for recipe in recipes}
    assert families >= {
        "alexnet", "alexnet_mini", "vgg16", "resnet18", "resnet50", "efficientnet_lite0",
        "convnext_tiny", "vit_tiny_patch16_224",
    }  # fmt: skip
    methods = {r.recipe.method for r in recipes if r.recipe.model.startswith("alexnet.")}
    assert methods == {"pq", "km", "rq", "svd", "binary"}
    assert len({recipe.repo for recipe in recipes}) == len(recipes)


@pytest.mark.parametrize("recipe", find_recipes([], recipes_folder()), ids=lambda r: r.name)
def test_recipes_reach_the_ratio_in_their_name(recipe: ZooRecipe) -> None:
    size = expected_size(recipe.recipe, installed_plugins())
    assert size.exact
    named = re.search(r"-(\d+)x$", recipe.name)
    assert size.dense_layers / size.compressed >= (int(named[1]) if named else 30)


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "pq"},
        {"method": "pq", "options": {"k": 16, "d": 4}, "layers": ("all",)},
        {"method": "km", "ratio": 6, "layers": ("all",)},
        {"method": "rq", "options": {"k": 16, "d": 8}, "layers": ("fc",)},
        {"method": "svd", "options": {"rank": 48}, "layers": ("all",)},
        {"method": "binary", "options": {"scale": "row"}, "layers": ("all", "!conv1.0")},
        {"method": "pq", "rules": ({"layers": "fc", "method": "rtn"},)},
    ],
)
def test_the_size_is_exact_without_weights(fields: dict, tmp_path: Path) -> None:
    recipe = make_recipe({"model": "test_resnet", "weights": "random", **fields})
    size = expected_size(recipe, installed_plugins())
    artifact = open_artifact(run(recipe, SilentWatcher(), out=tmp_path / "a").folder)
    layers = artifact.metadata.layers
    assert size.layers == len(layers)
    assert size.compressed == sum(artifact.layer_bytes(key) for key in layers)
    assert size.rest == sum(tensor.nbytes for tensor in artifact.dense_tensors().values())
    assert size.file == artifact.weights_path.stat().st_size


def test_the_embedded_recipe_becomes_the_file_that_the_dry_run_lists(tmp_path: Path) -> None:
    (embedded,) = find_recipes(["alexnet-mini-pq-16x"], recipes_folder())
    recipe = embedded.recipe.model_copy(update={"images": 10})
    size = expected_size(recipe, installed_plugins())
    written = run(recipe, SilentWatcher(), out=tmp_path / "a").folder / "vqzoo.safetensors"
    assert size.file == written.stat().st_size


@pytest.mark.parametrize("packing", [p.name for p in installed_plugins().packings])
def test_a_packing_never_exceeds_the_expected_size(packing: str, tmp_path: Path) -> None:
    recipe = make_recipe(
        {"model": "test_resnet", "weights": "random", "method": "km", "packing": packing}
    )
    size = expected_size(recipe, installed_plugins())
    written = run(recipe, SilentWatcher(), out=tmp_path / "a").folder / "vqzoo.safetensors"
    assert size.exact == (packing == "bits")
    assert written.stat().st_size <= size.file
    assert not size.exact or written.stat().st_size == size.file


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"method": "svd", "options": {"energy": 0.9}}, "fc: the rank that keeps energy=0.9"),
        (
            {"method": "km", "transforms": ["prune"]},
            "fc: what prune leaves to km depends on the weights",
        ),
        ({"method": "prune"}, "fc: prune does not say beforehand what it will store"),
        ({"method": "deep-compression"}, "fc: deep-compression does not say beforehand"),
    ],
)
def test_a_dry_run_says_which_sizes_only_the_weights_can_tell(
    fields: dict[str, Any], says: str, recipes: Path
) -> None:
    (recipes / "b.yaml").unlink()
    recipe = {"model": "test_resnet", "weights": "random", **fields}
    (recipes / "d.yaml").write_text(yaml.safe_dump(recipe))
    done = CliRunner().invoke(app, ["zoo", "build", "--recipes", "recipes", "--dry-run"])
    assert done.exit_code == 0, done.stderr
    assert f"d: the size is not known before it is built: {says}" in done.stdout
    assert "26,008" in done.stdout


@pytest.mark.parametrize("failure", [ZeroDivisionError("division by zero"), SystemExit(3)])
def test_a_method_whose_layout_fails_is_named(
    failure: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def layout(*args: Any) -> Code:
        raise failure

    plugins = installed_plugins()
    monkeypatch.setattr(type(plugins.quantizers.get("km").item), "layout", layout)
    recipe = make_recipe({"model": "test_resnet", "weights": "random", "method": "km"})
    with pytest.raises(PluginError, match=r"^km \(plugin .*\) on layer fc failed: "):
        expected_size(recipe, plugins)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("model: x\nmethod: [pq\n", 3, "this is not YAML"),
        ("- pq\n", 1, "a recipe is a mapping"),
        ("", 1, "a recipe is a mapping"),
        ("model: test_resnet\n", 1, "give a method"),
        ("model: test_resnet\nmethod: pq\nration: 16\n", 3, "ration: unknown"),
        ("model: test_resnet\nmethod: pq\nratio: 0.5\n", 3, "ratio: "),
        ("model: test_resnet\nmethod: pq\nmodel: x\n", 3, "model is given twice"),
        ("model: x\nrules:\n- {layers: fc, method: km}\n- layers: fc\n", 4, "rules.1.method"),
        ("model: x\nrules:\n- layers: fc\n  method: km\n  ratio: no\n", 5, "rules.0.ratio"),
        ("model: x\nmethod: pq\nrepo: org/name\n", 3, "repo: "),
    ],
)
def test_errors_begin_with_file_and_line(text: str, line: int, says: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        find_recipes([], tmp_path)
    assert str(error.value).startswith(f"{path}:{line}: "), error.value
    assert says in str(error.value)


def test_unknown_recipes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean alexnet-pq-16x"):
        find_recipes(["alexnet-pq-16"], recipes_folder())
    with pytest.raises(UsageError, match="holds no recipes"):
        find_recipes([], tmp_path)


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("recipes").mkdir()
    Path("recipes/a.yaml").write_text(GOOD)
    Path("recipes/b.yaml").write_text(GOOD + "model_args: {depth: 900}\n")
    Path("recipes/c.yaml").write_text(GOOD.replace("km", "pq").replace("k: 4", "k: 8"))
    return Path("recipes")


def test_a_failure_does_not_stop_the_rest_and_finished_artifacts_are_kept(recipes: Path) -> None:
    done = CliRunner().invoke(app, ["zoo", "build", "--recipes", "recipes", "--out", "made"])
    assert done.exit_code == 1
    states = [line.split()[:2] for line in done.stdout.splitlines()[1:] if line[:2] in "a b c "]
    assert re.search(r"^b: .*depth", done.stdout, re.MULTILINE)
    assert states == [["a", "built"], ["b", "failed"], ["c", "built"]]
    (recipes / "b.yaml").unlink()
    times = {path: path.stat().st_mtime_ns for path in Path("made").rglob("*.safetensors")}
    done = CliRunner().invoke(app, ["zoo", "build", "--recipes", "recipes", "--out", "made"])
    assert done.exit_code == 0, done.stderr
    assert done.stdout.count(" existing ") == 2
    assert times == {path: path.stat().st_mtime_ns for path in Path("made").rglob("*.safetensors")}


def test_a_dry_run_writes_nothing_and_needs_no_weights(recipes: Path) -> None:
    (recipes / "b.yaml").unlink()
    done = CliRunner().invoke(app, ["zoo", "build", "--recipes", "recipes", "--dry-run", "a"])
    assert done.exit_code == 0, done.stderr
    assert "384,000" in done.stdout  # 1000 x 96 weights in fp32
    assert "26,008" in done.stdout  # two bits each, four centroids, a scale a row
    assert sorted(path.name for path in Path().iterdir()) == ["recipes"]
