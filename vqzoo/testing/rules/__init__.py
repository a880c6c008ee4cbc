"""The rules that the conformance kit checks, one file a topic."""
