"""Networks in torch, losses with gradients, and the parts of a network that a runtime runs."""
