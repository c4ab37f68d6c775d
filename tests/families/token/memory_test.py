"""A token model that looks at a source: its samplers do not know of it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.core.decoding import pairs
from ar_jax.core.system import build
from ar_jax.nn.layers.cross_attention import NullFeatures
from ar_jax.nn.layers.norms import Identity
from ar_jax.nn.stacks.llama import llama
from ar_jax.nn.stacks.segments import Segments
from ar_jax.systems.gsd import GSD
from tests import filled

TOKENIZER = dict(name="patch_codes", vocab=16, patch=2, size=8, in_channels=3)
SIZES = dict(width=32, heads=2, multiple_of=32)
KEYS = jax.random.split(jax.random.key(0), 4)
COND = {
  "label": jnp.arange(4) % 3,
  "source": jnp.array([[3, 5, 2, 0], [1, 9, 7, 4], [6, 0, 0, 0], [0] * 4]),
}
GREEDY = dict(guidance=2.0, temperature=0.0)


class Source(nn.Module):
  """Embedded ids, of which 0 is padding."""

  fields = ("source",)

  def example(self):
    return {"source": jnp.zeros((1, 4), jnp.int32)}

  @nn.compact
  def __call__(self, cond, hidden=None):
    x = nn.Embed(10, 12)(cond["source"])
    return NullFeatures()(x, hidden), cond["source"] > 0


def looking(parts):
  """A LlamaGen whose second layer, or both, look at a source."""
  system = build(
    "llamagen", tokenizer=TOKENIZER, depth=1, num_classes=3, **SIZES
  )
  if parts:
    first = llama(1, out_norm=Identity(), **SIZES)
    stack = Segments((first, llama(1, cross=True, **SIZES)))
  else:
    stack = llama(2, cross=True, **SIZES)
  net = system.net.clone(backbone=stack, memory=Source())
  return type(system)(net, system.tokenizer, system.label_dropout)


class MemoryTest(absltest.TestCase):
  def test_draws_are_those_of_the_teacher_forced_pass(self):
    for parts in (False, True):
      system = looking(parts)
      self.assertEqual(system.needs, ("label", "source"))
      variables = filled.variables(system)

      @jax.jit
      def run(variables, system=system):
        units = system.generate(variables, COND, KEYS, stop=9, **GREEDY)
        hidden = pairs.without(4)
        double = jax.tree.map(pairs.double, (COND, units))
        logits = system.logits(variables, *double, hidden)
        given, null = pairs.split(logits)
        scale = jnp.where(jnp.arange(16) < 9, 2.0, 1.0)[None, :, None]
        return units, jnp.argmax(null + scale * (given - null), -1)

      units, want = run(variables)
      np.testing.assert_array_equal(units, want)
      # Chains of drafts in a ragged cache.
      draw = lambda v, cond, system=system: GSD(system).generate(
        v, cond, KEYS, size=1, window=4, stop=9, **GREEDY
      )[0]
      drawn = jax.jit(draw)
      np.testing.assert_array_equal(drawn(variables, COND), units)
      other = {**COND, "source": COND["source"][::-1]}
      moved = (drawn(variables, other) != units).any(1)
      self.assertTrue(moved.any())


if __name__ == "__main__":
  absltest.main()
