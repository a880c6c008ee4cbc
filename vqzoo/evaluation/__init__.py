"""Accuracy, agreement and retrieval, with confidence intervals."""
