"""Layers. For now: the convolution whose gradient stays fast inside loops."""

from certjax.layers._conv import conv_general_dilated

__all__ = ['conv_general_dilated']
