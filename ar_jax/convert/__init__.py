"""Published PyTorch weights to ours and back, one key table per family.

A family is a module here with

  config(state) -> {"system": name, "model": kwargs of its build}
  to_ours(state) -> params          to_official(params) -> state
  PLACE     where params sit among the variables, as ("params", "tokenizer")

where `state` maps official keys to NumPy arrays. `python -m ar_jax.convert`
turns files into checkpoints and checkpoints into files.
"""
