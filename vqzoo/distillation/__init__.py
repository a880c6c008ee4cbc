"""Distillation of a dense network: a small network learns the answers of a large one."""
