"""Second-order statistics of a network: how much each weight's error matters to the logits."""
