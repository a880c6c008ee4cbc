"""A Hub on loopback for tests, which the real huggingface_hub client talks to."""
