"""The artifact, format 1: `config.json` and `vqzoo.safetensors` (see docs/artifact.md)."""
