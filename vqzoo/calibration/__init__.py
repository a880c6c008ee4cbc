"""Calibration and repair with unlabelled images."""
