"""certjax: provable robustness, and the attacks that test it."""
__version__ = "0.1.0"
