"""Attention under any static mask that integers and a rule describe.

`tiles` compiles a mask on the host. `reference`, `xla` and `tpu` (and `gpu`)
are implementations with one signature:

  attention(q, k, v, pattern, *, scale=None) -> (out, lse)
  decode(q, k, v, cache_k, cache_v, lengths, pattern=None, *, scale=None)
    -> (out, lse)
"""
