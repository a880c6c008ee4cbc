"""Calls on executors: from `--executor` to workers, and how calls reach them."""
