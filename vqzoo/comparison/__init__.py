"""Several methods on one model: accuracy or retrieval against size."""
