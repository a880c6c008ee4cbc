"""Walk through the code of a layer: its parts and the codes that it is built from."""

from collections.abc import Iterator

from vqzoo.artifact.schema import SEPARATOR, CodeEntry, FloatsEntry, IndicesEntry, LayerEntry


def layer_parts(
    key: str, code: CodeEntry, prefix: str = ""
) -> Iterator[tuple[str, IndicesEntry | FloatsEntry]]:
    """Yield (tensor key, part) for each part of a layer, those of child codes included."""
    for name, part in code.parts.items():
        yield f"{key}{SEPARATOR}{prefix}{name}", part
    for name, child in code.children.items():
        yield from layer_parts(key, child, f"{prefix}{name}.")


def part_keys(key: str, entry: LayerEntry) -> list[str]:
    """Keys of the tensors that hold a layer's parts."""
    return [name for name, _ in layer_parts(key, entry.code)]


def code_entries(code: CodeEntry) -> Iterator[CodeEntry]:
    """Yield a code and, recursively, its child codes."""
    yield code
    for child in code.children.values():
        yield from code_entries(child)
