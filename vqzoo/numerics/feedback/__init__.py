"""Error feedback: each column's error is pushed into the columns quantized after it."""
