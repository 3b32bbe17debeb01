"""Heuristic defences: wrappers `model_fn -> model_fn`. None of them proves anything."""

from certjax.defenses._binarize import binarize

__all__ = ['binarize']
