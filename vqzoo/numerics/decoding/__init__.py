"""From codes and codebooks to matrices."""
