"""Fine-tuning of a compressed network by distillation: its floats are trained, its codes stay."""
