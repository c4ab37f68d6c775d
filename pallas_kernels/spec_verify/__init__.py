"""Verification of drafted tokens in one pass over the target's logits."""
