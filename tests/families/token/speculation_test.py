"""Speculation over a net: caches that are rolled back, trees, drafters."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.system import UserError, build
from ar_jax.families.token.drafting import eagle_drafts, speculation
from ar_jax.families.token.program import TokenProgram
from tests import filled

# 4 x 4 units from images of 8 pixels.
TOKENIZER = dict(name="patch_codes", vocab=16, patch=2, size=8, in_channels=3)
TINY = dict(tokenizer=TOKENIZER, depth=2, width=32, heads=2, multiple_of=32)
TEXT = dict(name="bytes", length=4, width=16, depth=1, heads=2)
L, K = 16, 3
KEYS = jax.random.split(jax.random.key(0), 100)


@functools.cache
def lantern(by):
  """LANTERN over a LlamaGen with random weights, and its variables."""
  cond = dict(num_classes=3) if by == "label" else dict(text=TEXT)
  system = build("lantern", target=dict(name="llamagen", **TINY, **cond))
  return system, filled.variables(system)


def parts(by):
  """The target as a program, its variables, and what an eagle needs."""
  system, variables = lantern(by)
  program = system.target.program(guidance=2.0, top_k=12)
  own = {k: v for k, v in variables.items() if k not in ("params", "tokenizer")}
  own["params"] = own.pop("target")
  return program, own, system.eagle, {"params": variables["params"]}


def cond(by):
  if by == "label":
    return {"label": jnp.arange(len(KEYS)) % 3}
  words = np.frombuffer(b"ab\0\0xyz\0wxyzq\0\0\0", np.uint8).reshape(4, 4)
  return {"text": jnp.asarray(np.tile(words, (25, 1)), jnp.int32)}


def source(name, program, own, layer, params):
  if name == "tree":
    return eagle_drafts.source(
      layer, params, k=0, tree=eagle_drafts.Tree(3, 3, 9)
    )
  if name == "model":
    return speculation.model(K, program, own)
  return speculation.jacobi(K, program)


@functools.partial(jax.jit, static_argnums=(0, 1))
def speculated(by, name, keys, cond, own, params, prompt=None, known=None):
  program, _, layer, _ = parts(by)
  return speculation.generate(
    program, own, cond, keys, source(name, program, own, layer, params),
    mode="gumbel", prompt=prompt, known=known,
  )  # fmt: skip


class SpeculationTest(parameterized.TestCase):
  # With the same numbers for the same places, whatever is drafted, forgotten
  # and moved in the cache must not show in what is drawn.
  def test_a_tree_of_features_draws_what_the_plain_sampler_draws(self):
    program, own, _, params = parts("text")
    words = cond("text")
    prompt = jnp.asarray(np.random.default_rng(0).integers(0, 16, (100, 3)))
    known = jnp.arange(100) % 4
    units, stats = speculated(
      "text", "tree", KEYS, words, own, params, prompt, known
    )
    plain = jax.jit(program.complete)(own, words, prompt, known, KEYS)
    np.testing.assert_array_equal(units, plain)
    self.assertGreater(stats.accepted.sum(), 0)

  def test_a_drafter_that_is_the_target_is_always_right(self):
    program, own, _, params = parts("label")
    units, stats = speculated(
      "label", "model", KEYS, cond("label"), own, params
    )
    plain = jax.jit(program.run)(own, cond("label"), KEYS)
    np.testing.assert_array_equal(units, plain)
    # One forward reads the condition; each other one brings K + 1 units.
    self.assertTrue((stats.forwards == 1 + -(-(L - 1) // (K + 1))).all())
    few, _ = speculated("label", "jacobi", KEYS, cond("label"), own, params)
    np.testing.assert_array_equal(few, plain)

  def test_features_drafted_with_a_cache_are_those_without(self):
    program, own, layer, params = parts("text")
    words = {"text": cond("text")["text"][:2]}
    units = jnp.arange(2 * L).reshape(2, L) % 16

    @jax.jit
    def both(own, params):
      net, bound = program.net.bind(own), layer.bind(params)
      features = net.features(words, units)
      whole = bound.forced(net, words, units, features)
      alone = TokenProgram(program.net)
      start = speculation.Start(
        alone, own, words, units[:, :3], features[:, : 4 + 3],
        net.prefix.valid(words),
      )  # fmt: skip
      forward = eagle_drafts._Forward(layer, params, start)
      cache, got = forward.begin(1), []
      for first, last in ((3, 4), (4, 9), (9, 15)):
        index = jnp.full(2, 3 + first)
        cache = dataclasses.replace(cache, index=index)
        h, cache = forward.feed(
          cache,
          units[:, first:last],
          features[:, 3 + first : 3 + last],
          jnp.arange(first, last)[None],
          cache.causal(last - first),
        )
        got.append(h)
      return jnp.concatenate(got, 1), whole[:, 3:]

    got, want = both(own, params)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)

  def test_what_does_not_fit(self):
    program, own, layer, params = parts("label")
    label = cond("label")
    trace = lambda source, program=program, **kwargs: jax.eval_shape(
      lambda keys: speculation.generate(
        program, own, label, keys, source, **kwargs
      ),
      KEYS,
    )
    other = dict(TOKENIZER, vocab=32)
    small = build("llamagen", **{**TINY, "tokenizer": other}, num_classes=3)
    bare = build("llamagen", **TINY, num_classes=3, label_dropout=0.0)
    with self.assertRaisesRegex(UserError, "vocabulary of 32.*of 16"):
      drafts = speculation.model(K, small.program(), filled.variables(small))
      trace(drafts)
    with self.assertRaisesRegex(UserError, "no null class"):
      bare.program(guidance=2.0)
    with self.assertRaisesRegex(UserError, "top_k=17.*16"):
      trace(
        speculation.lookup(K),
        TokenProgram(program.net, None, (("top_k", 17),)),
      )
    with self.assertRaisesRegex(UserError, "prompt of 16 units"):
      trace(
        speculation.lookup(K),
        prompt=jnp.zeros((100, L), jnp.int32),
        known=jnp.zeros(100, jnp.int32),
      )
    with self.assertRaisesRegex(UserError, "cache of 18 rows.*19"):
      # A drafter that drafts more than it has said.
      drafts = speculation.lookup(K)
      trace(drafts._replace(k=K - 1))
    with self.assertRaisesRegex(UserError, "at least one draft"):
      trace(speculation.lookup(0))
    with self.assertRaisesRegex(UserError, "1 to 21 nodes"):
      eagle_drafts.source(layer, params, k=0, tree=eagle_drafts.Tree(3, 3, 22))


if __name__ == "__main__":
  absltest.main()
