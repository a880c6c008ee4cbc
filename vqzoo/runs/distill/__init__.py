"""`vqzoo distill`: a small dense network learns from a large one."""
