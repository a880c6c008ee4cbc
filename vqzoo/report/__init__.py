"""The record of a run, and the model card rendered from it."""
