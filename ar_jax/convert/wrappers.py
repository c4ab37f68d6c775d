"""Finds the weights in a file: training scripts wrap them in many ways.

A published file is a state dict, official key -> array. A training checkpoint
is a dict that holds one or more, under the usual names and often under several
of them ({"trainer": {"var_wo_ddp": ...}}), beside the optimizer and options.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.files.pickles import shown

# Names of wrappers, the best first: averages of the weights, as the scripts of
# LlamaGen, MAR and xAR take them for sampling, and then the weights.
AVERAGES = ("ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema",
            "params_ema", "ema_parameters", "shadow",
            "shadow_params")  # fmt: skip
WEIGHTS = ("model", "state_dict", "model_state_dict", "module", "net", "params",
           "weights", "generator", "transformer", "trainer", "var_wo_ddp",
           "var")  # fmt: skip
# The tokenizer inside of a training checkpoint of VAR's scripts.
TOKENIZERS = ("vae_local",)
_NAMES = (*AVERAGES, *WEIGHTS, *TOKENIZERS)
DEPTH = 4

# What wrappers of modules put before the names of parameters, everywhere.
_INSIDE = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
# And what all parameters have in front, of a module for several devices.
_FRONT = "module."
# Counters of averages, which are no weights.
_COUNTERS = ("n_averaged", "num_updates", "decay")


def _arrays(x: Any) -> dict[str, np.ndarray]:
  """The arrays that lie in a dict under texts."""
  if not isinstance(x, dict):
    return {}
  named = ((k, v) for k, v in x.items() if isinstance(k, str))
  return {k: v for k, v in named if isinstance(v, np.ndarray)}


def _is_state(x: Any) -> bool:
  """Whether this is a state dict: arrays with names, and no wrapper."""
  arrays = [k for k in _arrays(x) if k not in _COUNTERS]
  wrapped = (isinstance(x.get(name), dict) for name in _NAMES)
  return bool(arrays) and not any(wrapped)


def sets(content: Any) -> dict[str, dict[str, np.ndarray]]:
  """All sets of weights in a file by their paths, the best first; "" is the
  path of a file that is one itself."""
  found: dict[str, Any] = {}

  def look(x, path):
    if _is_state(x):
      found[".".join(path)] = x
    elif isinstance(x, dict) and len(path) < DEPTH:
      for key in _NAMES:
        if isinstance(x.get(key), dict):
          look(x[key], (*path, key))

  look(content, ())
  if not found:  # under a name of its own
    found = {str(k): x for k, x in content.items() if _is_state(x)}
  order = lambda path: tuple(_rank(name) for name in path.split("."))
  return {path: found[path] for path in sorted(found, key=order)}


def _rank(name: str) -> int:
  return 0 if name in AVERAGES else 2 if name in TOKENIZERS else 1


def unwrap(
  content: Any, only: str | None = None, tokenizer: bool = False
) -> tuple[dict[str, np.ndarray], str]:
  """The weights in a file, and one line that says which, or "".

  Args:
    content: of the file, as `torch_file.read` returns it.
    only: the set to take: its path, or a name in it.
    tokenizer: takes the tokenizer of a training checkpoint that has one.

  Raises:
    UserError: there are no weights, or not that set.
  """
  if not isinstance(content, dict):
    kind = type(content).__name__
    raise UserError(
      f"the file holds a {kind}, not weights by their names: save "
      "`model.state_dict()`"
    )
  found = sets(content)
  of = lambda path: path.rpartition(".")[2] in TOKENIZERS
  if only is None:
    own = {path: x for path, x in found.items() if of(path) == tokenizer}
    if not own and tokenizer:
      own = found
  else:
    own = {p: x for p, x in found.items() if p == only or only in p.split(".")}
  if not own:
    have = ", ".join(shown(p) for p in found) or ", ".join(
      shown(str(key)) for key in list(content)[:8]
    )
    what = "no weights" if only is None else f"no weights named {only!r}"
    raise UserError(f"the file holds {what}; it has: {have or 'nothing'}")
  if len(own) > 1 and not any(n in _NAMES for p in own for n in p.split(".")):
    names = ", ".join(map(shown, own))
    raise UserError(f"the file holds {names}: say which with --set=NAME")
  path, state = next(iter(own.items()))
  said = ""
  if path:
    said = f"weights: {shown(path)}"
    others = [p for p in found if p != path]
    if others:
      names = ", ".join(map(shown, others))
      said += f"; the file also has {names} (--set={others[0]} to take it)"
  return _named(_arrays(state)), said


def tokenizer_of(content: Any) -> dict[str, np.ndarray] | None:
  """The weights of the tokenizer that a training checkpoint holds, if any."""
  for path, state in sets(content).items():
    if path.rpartition(".")[2] in TOKENIZERS:
      return _named(_arrays(state))
  return None


def _named(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Without counters, and without what wrappers put before names."""
  state = {k: v for k, v in state.items() if k not in _COUNTERS}
  for part in _INSIDE:
    state = {k.replace(part, ""): v for k, v in state.items()}
  while state and all(key.startswith(_FRONT) for key in state):
    state = {k.removeprefix(_FRONT): v for k, v in state.items()}
  return state
