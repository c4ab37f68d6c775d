"""Evaluators of text."""
