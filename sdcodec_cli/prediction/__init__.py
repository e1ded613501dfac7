"""Codes as fewer bytes: how likely each is, and a range coder. Whole numbers in numpy, the same on every machine."""

from .tables import Coded, CodeTables

__all__ = ["CodeTables", "Coded"]
