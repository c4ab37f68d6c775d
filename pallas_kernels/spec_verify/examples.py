"""Random verifications, for tests and for whoever wants to try one."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels.spec_verify import reference, rules
from pallas_kernels.spec_verify import row as rows_of


def make(
  batch: int,
  k: int,
  vocab: int,
  *,
  seed: int = 0,
  guided: bool = False,
  mode: str = "exact",
  drawn: bool = True,
  tree: bool = False,
  dtype=jnp.float32,
  law: rules.Law = rules.Law(),  # noqa: B008
  rule: rules.Rule = None,
):
  """(settings, arrays by name): drafts that stand now and then.

  A third of the sequences has fewer live drafts than K; with `drawn`, a
  third has q = p, and a few have supports that do not meet.
  """
  rng = np.random.default_rng(seed)
  z = 2 * rng.standard_normal((batch, 1 + guided, k + 1, vocab), np.float32)
  arrays = {"logits": jnp.asarray(z, dtype)}
  # On the host: every operation outside of jit is a program to compile.
  mixed = np.asarray(arrays["logits"], np.float32)
  scale = np.where(np.arange(batch) % 2, 1.5, 1.0).astype(np.float32)
  if guided:
    arrays["guidance"] = jnp.asarray(scale)
    by = scale[:, None, None]
    mixed = by * mixed[:, 0] + (1 - by) * mixed[:, 1]
  else:
    mixed = mixed[:, 0]
  valid = np.where(np.arange(batch) % 3, k, rng.integers(0, k + 1, batch))
  arrays["valid"] = jnp.asarray(valid, jnp.int32)
  if mode == "exact" and drawn:
    shift = rng.standard_normal((batch, k, vocab), np.float32)
    shift *= (np.arange(batch) % 3 != 1)[:, None, None] * 0.7
    theirs = mixed[:, :k] + shift.astype(np.float32)
    apart = (np.arange(batch) % 7 == 6)[:, None, None]
    low = theirs < np.quantile(theirs, 0.5, -1, keepdims=True)
    theirs = np.where(apart & ~low, -np.inf, theirs).astype(np.float32)
    arrays["draft_logp"], drafts = _drawn(theirs, jax.random.key(seed), law)
  else:
    noise = rng.gumbel(size=(batch, k, vocab))
    drafts = np.argmax(mixed[:, :k] + 0.5 * noise, -1)
  if tree:
    parents = [[rng.integers(max(0, j - 3), j + 1) for j in range(k)]] * batch
    top = np.argsort(-mixed, -1)
    drafts = [
      [top[b, parents[b][j], rng.integers(0, 4)] for j in range(k)]
      for b in range(batch)
    ]
    arrays["parents"] = jnp.asarray(parents, jnp.int32)
  arrays["drafts"] = jnp.asarray(drafts, jnp.int32)
  uniform = rng.random((batch, k + 1), np.float32)
  bits = rng.integers(0, 2**32, (batch, k + 1, 2), np.uint32)
  arrays["noise"] = jnp.asarray(bits if mode == "gumbel" else uniform)
  if isinstance(rule, rules.Groups):
    groups = rng.integers(0, max(2, vocab // 4), vocab)
    arrays["table"] = jnp.asarray(groups, jnp.int32)
  elif rule is not None:
    far = np.where(np.eye(vocab), -1, rng.random((vocab, vocab)))
    ranks = np.argsort(np.argsort(far, 1), 1)
    arrays["table"] = jnp.asarray(ranks, jnp.int32)
    if isinstance(rule, rules.Cluster):
      arrays["radius"] = jnp.asarray(rng.integers(0, vocab, vocab), jnp.int32)
  return {"mode": mode, "law": law, "rule": rule}, arrays


@functools.partial(jax.jit, static_argnames="law")
def _drawn(logits, key, law: rules.Law) -> tuple[jax.Array, jax.Array]:
  """(log of the law of logits f32[B, K, V], a draw from it)."""
  vocab = logits.shape[-1]
  row = rows_of.target(reference._padded(logits, -jnp.inf), law, vocab)
  logp = (row.logits - row.lse)[..., :vocab]
  return logp, jax.random.categorical(key, logp)


def run(form, settings, arrays) -> rules.Verdict:
  """A form on a case."""
  arrays = dict(arrays)
  first = [arrays.pop(name) for name in ("logits", "drafts", "noise")]
  return form(*first, **arrays, **settings)
