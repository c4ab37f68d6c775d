"""Evaluators of what a system must not draw, or must show of itself."""
