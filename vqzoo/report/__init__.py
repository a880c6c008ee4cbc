"""The record of a run, and the model card made from it."""
