"""Trees of arrays, compared by names and shapes."""

from __future__ import annotations

import jax


def mismatch(want, have) -> str | None:
  """How two trees differ in names and shapes, by the first that does.

  Args:
    want: what the config asks for; leaves have a shape.
    have: what a checkpoint holds.
  """
  want, have = _shapes(want), _shapes(have)
  for name in sorted(want.keys() | have.keys()):
    if want.get(name) != have.get(name):
      there, here = (tree.get(name, "absent") for tree in (have, want))
      return f"{name} is {there} there and {here} in this config"
  return None


def _shapes(tree) -> dict[str, tuple[int, ...]]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
    for path, leaf in leaves
  }
