"""vqzoo adds its architectures to timm's registry only on request."""

import subprocess
import sys
import textwrap

import timm

from vqzoo.models.registration import register_models
from vqzoo.plugin import hookimpl, hookspecs
from vqzoo.plugin.manager import Plugins, installed_plugins


def run_python(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    ).stdout


def test_importing_vqzoo_installs_no_finder_and_imports_neither_torch_nor_timm() -> None:
    printed = run_python(
        """
        import sys
        finders = list(sys.meta_path)
        import vqzoo
        print(sys.meta_path == finders, {"torch", "timm"} & set(sys.modules))
        """
    )
    assert printed.strip() == "True set()"


def test_models_are_registered_on_request_only() -> None:
    printed = run_python(
        """
        import timm, vqzoo
        print(timm.is_model("alexnet_mini"))
        vqzoo.register_models()
        print(timm.is_model("alexnet_mini"), timm.is_model("alexnet"))
        """
    )
    assert printed.split() == ["False", "True", "True"]


class Counting:
    """A plugin that counts how often it is asked for models."""

    calls = 0

    @hookimpl
    def vqzoo_models(self) -> None:
        self.calls += 1


def test_each_plugin_is_asked_for_models_once() -> None:
    plugins, plugin = Plugins(), Counting()
    plugins.hooks.add_hookspecs(hookspecs)
    plugins.hooks.register(plugin)
    register_models(plugins)
    register_models(plugins)
    assert plugin.calls == 1


def test_registered_models_stay_the_same_when_registered_again() -> None:
    register_models()
    factory = timm.models.model_entrypoint("alexnet_mini")
    register_models(installed_plugins())
    assert timm.models.model_entrypoint("alexnet_mini") is factory
