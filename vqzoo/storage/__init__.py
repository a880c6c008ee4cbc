"""Folders at URLs: s3://, hf://, file:// and whatever else fsspec opens."""
