"""onnxruntime-web: the files of the npm package that a page needs."""

import base64
import hashlib
import io
import os
import tarfile
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from vqzoo.artifact.files import write_bytes
from vqzoo.errors import VqzooError, one_line

VERSION = "1.30.0"
FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)
_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
_REGISTRY = "https://registry.npmjs.org"
_MOST_BYTES = 64 << 20  # of the package; it has 33 MB
_TIMEOUT = 60  # seconds without an answer


def runtime_files(cache: Path) -> dict[str, bytes]:
    """The files by their names, from a cache folder or else from npm's registry.

    `npm_config_registry` names another registry, as for npm itself. The package is verified by the
    checksum of this version; nothing of it is executed here.

    Raises:
        VqzooError: the package cannot be downloaded, or is another.
    """
    kept = cache / f"onnxruntime-web-{VERSION}"
    if all((kept / name).is_file() for name in FILES):
        return {name: (kept / name).read_bytes() for name in FILES}
    files = _unpacked(_package())
    kept.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_bytes(kept / name, content)
    return files


def _package() -> bytes:
    registry = os.environ.get("npm_config_registry", _REGISTRY).rstrip("/")  # noqa: SIM112  # npm's
    address = f"{registry}/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
    try:
        with urlopen(address, timeout=_TIMEOUT) as answer:
            content: bytes = answer.read(_MOST_BYTES + 1)
    except (URLError, OSError, ValueError) as error:
        raise VqzooError(
            f"onnxruntime-web cannot be downloaded from {registry} ({one_line(error)}): set "
            "npm_config_registry to a registry that can be reached"
        ) from error
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != _SHA512:
        raise VqzooError(f"{address} is not onnxruntime-web {VERSION}: its checksum is another")
    return content


def _unpacked(package: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(package), mode="r:gz") as archive:
        members = {name: archive.extractfile(f"package/dist/{name}") for name in FILES}
        return {name: member.read() for name, member in members.items() if member is not None}
