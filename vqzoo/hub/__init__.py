"""Pushing to, pulling from and searching the Hugging Face Hub."""
