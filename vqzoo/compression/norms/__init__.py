"""Batch norms in eval mode as what they are: a scale and a shift for each channel.

The scale moves into the weights of the layer before the norm, where nothing else sees its outputs.
The modules stay, so that the architecture is the same, and hold what is left: a vector of shifts,
and constants.
"""
