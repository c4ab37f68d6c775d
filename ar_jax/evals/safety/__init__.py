"""Evaluators of what samples carry or must not show."""
