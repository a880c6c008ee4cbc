"""Architectures that importing their modules registers with timm."""
