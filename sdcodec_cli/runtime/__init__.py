"""Models as the engine knows them: numpy in, numpy out, whatever computes in between.

`model` has the contract, `onnx` and `torch` are the two runtimes behind it, `graphs` writes a network down for the
former, and `threads` says how many cores are free.
"""

from .load import load_model
from .model import Analysis, CascadeModel, CodecModel, Model, Refinement, SeparatorModel
from .parts import Runtime

__all__ = ["Analysis", "CascadeModel", "CodecModel", "Model", "Refinement", "Runtime", "SeparatorModel", "load_model"]
