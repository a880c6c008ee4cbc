"""ExecuTorch programs (.pte), with XNNPACK for what it takes."""
