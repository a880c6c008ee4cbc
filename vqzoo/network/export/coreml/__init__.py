"""Core ML packages (.mlpackage) whose weights are palettes."""
