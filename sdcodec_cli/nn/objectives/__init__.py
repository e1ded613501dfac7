"""What networks lose in training: a module per family, and the terms that they share."""

from .adversarial import Critic
from .objective import Choices, Estimate, Objective, ParameterGroup

__all__ = ["Choices", "Critic", "Estimate", "Objective", "ParameterGroup"]
