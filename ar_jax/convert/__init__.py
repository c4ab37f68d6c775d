"""Published PyTorch weights to ours and back, one key table per family.

A family is a module here with

  config(state, **options) -> {"system": name, "model": kwargs of its build}
  to_ours(state, **options) -> params       to_official(params) -> state
  PLACE     where params sit among the variables, as ("params", "tokenizer")
  HEADS     width -> heads, where the published files do not tell; optional
  join      puts it over the model that it belongs to; optional
  flat      makes a state of a file of another shape; optional

where `state` maps official keys to NumPy arrays and `options` are what a file
may not tell: heads, scales, size, frames. `wrappers` finds the state in what a
training script has saved. `python -m ar_jax.convert` turns files into
checkpoints and checkpoints into files.
"""
