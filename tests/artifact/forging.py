"""Take an artifact apart, and seal a forged one with correct checksums."""

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Forgery:
    """An artifact in pieces that a test may change.

    Attributes:
        config: config.json without its `vqzoo` block.
        block: that block.
        header: the safetensors header's tensors: name -> {dtype, shape, data_offsets}.
        metadata: value of the one metadata key, parsed.
        data: the bytes of each tensor.
    """

    config: dict[str, Any]
    block: dict[str, Any]
    header: dict[str, dict[str, Any]]
    metadata: dict[str, Any]
    data: dict[str, bytes]

    def layer(self) -> dict[str, Any]:
        """The entry of the first compressed layer."""
        entry: dict[str, Any] = next(iter(self.metadata["layers"].values()))
        return entry

    def key(self) -> str:
        """The state dict key of that layer."""
        return str(next(iter(self.metadata["layers"])))

    def set_tensor(self, name: str, dtype: str, shape: list[int], data: bytes) -> None:
        """Replace or add a tensor."""
        self.header[name] = {"dtype": dtype, "shape": shape}
        self.data[name] = data

    def drop_tensor(self, name: str) -> None:
        """Remove a tensor."""
        del self.header[name], self.data[name]

    def seal(self, folder: Path, *, relay: bool = True) -> Path:
        """Write both files; with `relay`, recompute offsets and every checksum."""
        folder.mkdir(parents=True, exist_ok=True)
        if relay:
            self._relay()
            self.metadata["config_sha256"] = _sha256(_canonical(self.config).encode())
        entries: dict[str, Any] = {"__metadata__": {"vqzoo": _canonical(self.metadata)}}
        text = _canonical(entries | self.header).encode()
        raw = struct.pack("<Q", len(text)) + text + b"".join(self.data.values())
        (folder / "vqzoo.safetensors").write_bytes(raw)
        if relay:
            self.block |= {"sha256": _sha256(raw), "bytes": len(raw)}
        (folder / "config.json").write_text(json.dumps({**self.config, "vqzoo": self.block}))
        return folder

    def _relay(self) -> None:
        position = 0
        self.data = {name: self.data[name] for name in self.header}
        for name, entry in self.header.items():
            end = position + len(self.data[name])
            entry["data_offsets"] = [position, end]
            position = end
        for key, entry in dict(self.metadata["layers"]).items():
            parts = sorted(name for name in self.data if name.startswith(key + "::"))
            entry["sha256"] = _sha256(b"".join(self.data[name] for name in parts))


def take_apart(folder: Path) -> Forgery:
    """Read an artifact without vqzoo's code."""
    config = json.loads((folder / "config.json").read_text())
    block = config.pop("vqzoo")
    raw = (folder / "vqzoo.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    metadata = json.loads(header.pop("__metadata__")["vqzoo"])
    header = dict(sorted(header.items(), key=lambda item: item[1]["data_offsets"]))
    start = 8 + length
    data = {
        name: raw[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]]
        for name, entry in header.items()
    }
    return Forgery(config, block, header, metadata, data)


def reseal_bytes(folder: Path, raw: bytes) -> None:
    """Replace the weights file by other bytes, and record their checksum."""
    (folder / "vqzoo.safetensors").write_bytes(raw)
    config = json.loads((folder / "config.json").read_text())
    config["vqzoo"] |= {"sha256": _sha256(raw), "bytes": len(raw)}
    (folder / "config.json").write_text(json.dumps(config))


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
