"""Trees of arrays: compared by names and shapes, and taken apart by paths.

The path of a leaf of nested dicts is 'a/b/c'. A pattern is one of `fnmatch`,
whose * stands for anything, slashes as well; it names every leaf whose path, or
the path of a dict that holds it, it matches: 'head' is all of the head,
'*/bias' every bias.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from ar_jax.core.errors import UserError

Tree = Mapping[str, Any]


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


def split(
  tree: Tree, patterns: str | Sequence[str], where: str = ""
) -> tuple[dict, dict]:
  """(the leaves that any of the patterns names, all others), as nested dicts
  without empty ones; `merge` puts them together again.

  Args:
    tree: nested dicts with keys of text.
    patterns: one, or several.
    where: begins the message.

  Raises:
    UserError: a pattern names nothing.
  """
  flat = _flat(tree)
  chosen: set[str] = set()
  for pattern in [patterns] if isinstance(patterns, str) else patterns:
    found = named(flat, pattern)
    if not found:
      raise UserError(f"{where or pattern}: {missing(flat, pattern)}")
    chosen |= found
  part = lambda holds: _nested({k: v for k, v in flat.items() if holds(k)})
  return part(chosen.__contains__), part(lambda name: name not in chosen)


def select(tree: Tree, patterns: str | Sequence[str], where: str = "") -> dict:
  """The leaves that any of the patterns names; see `split`."""
  return split(tree, patterns, where)[0]


def merge(a: Tree, b: Tree) -> dict:
  """The leaves of both trees; where both have one, that of b.

  Raises:
    UserError: where one has a leaf the other has a dict.
  """
  out = dict(a)
  for key, value in b.items():
    inner = isinstance(value, Mapping)
    if key in out and inner != isinstance(out[key], Mapping):
      raise UserError(f"{key}: an array in one tree, a part of the other")
    out[key] = merge(out.get(key, {}), value) if inner else value
  return out


def paths(tree: Tree) -> list[str]:
  """The paths of all leaves, in the order of the tree."""
  return list(_flat(tree))


def named(leaves: Any, pattern: str) -> set[str]:
  """Those of the paths of leaves that a pattern names."""
  match = lambda path: fnmatch.fnmatchcase(path, pattern)
  return {leaf for leaf in leaves if any(map(match, _nodes(leaf)))}


def missing(leaves: Any, pattern: str) -> str:
  """What to say of a pattern that names nothing: the nearest names."""
  nodes = list(dict.fromkeys(n for leaf in leaves for n in _nodes(leaf)))
  near = difflib.get_close_matches(pattern, nodes, 3, 0.4)
  tops = list(dict.fromkeys(leaf.split("/")[0] for leaf in leaves))
  hint = f"did you mean {' or '.join(near)}? " if near else ""
  return f"no part is named {pattern!r}; {hint}there are {', '.join(tops)}"


def _nodes(leaf: str) -> list[str]:
  """The path of a leaf and those of the dicts that hold it."""
  parts = leaf.split("/")
  return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def _flat(tree: Tree, name: str = "") -> dict[str, Any]:
  flat: dict[str, Any] = {}
  for key, value in tree.items():
    if isinstance(value, Mapping):
      flat |= _flat(value, f"{name}{key}/")
    else:
      flat[f"{name}{key}"] = value
  return flat


def _nested(flat: Mapping[str, Any]) -> dict:
  out: dict = {}
  for name, value in flat.items():
    *above, last = name.split("/")
    node = out
    for key in above:
      node = node.setdefault(key, {})
    node[last] = value
  return out
