"""Core AI assets (.aimodel) whose weights are palettes."""
