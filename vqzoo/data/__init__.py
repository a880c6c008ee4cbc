"""Images for evaluation, training and calibration, in batches that fit a model."""
