"""A LlamaGen whose stack is cut draws what it draws in one piece, by every
sampler, none of which knows of the cut."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.core.system import build
from ar_jax.families.token.drafting import eagle_drafts, speculation
from ar_jax.nn.layers.norms import Identity
from ar_jax.nn.stacks.segments import Segments
from ar_jax.systems.gsd import GSD
from tests import filled

TOKENIZER = dict(name="patch_codes", vocab=16, patch=2, size=8, in_channels=3)
TARGET = dict(
  name="llamagen", tokenizer=TOKENIZER, depth=3, width=32, heads=2,
  multiple_of=32, text=dict(name="bytes", length=4, width=16, depth=1, heads=2),
)  # fmt: skip
KEYS = jax.random.split(jax.random.key(0), 8)
TEXT = jnp.asarray(
  np.tile(
    np.frombuffer(b"ab\0\0xyz\0wxyzq\0\0\0", np.uint8).reshape(4, 4), (2, 1)
  ),
  jnp.int32,
)
GREEDY = dict(guidance=2.0, temperature=0.0, stop=9)


def cut(system, params):
  """The system with its stack in two, and its parameters."""
  net, whole = system.net, params["backbone"]
  clone = functools.partial(net.backbone.clone, _deep_clone=True)
  parts = clone(depth=2, out_norm=Identity()), clone(depth=1)
  net = net.clone(backbone=Segments(parts))
  layers = lambda at: jax.tree.map(lambda p: p[at], whole["block"])
  last = {"block": layers(slice(2, None)), "out_norm": whole["out_norm"]}
  stack = {"parts_0": {"block": layers(slice(2))}, "parts_1": last}
  return dataclasses.replace(system, net=net), {**params, "backbone": stack}


class SegmentsTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    lantern = build("lantern", target=TARGET)
    variables = dict(filled.variables(lantern))
    cls.eagle = lantern.eagle
    cls.drafter = {"params": variables.pop("params")}
    params = variables.pop("target")
    system, own = cut(lantern.target, params)
    cls.pair = [
      (lantern.target, {**variables, "params": params}),
      (system, {**variables, "params": own}),
    ]
    cls.units = jnp.arange(8 * 16).reshape(8, 16) * 7 % 16
    cls.hidden = jnp.arange(8) % 3 == 0

  def both(self, call):
    return [
      jax.jit(functools.partial(call, system))(variables)
      for system, variables in self.pair
    ]

  def test_logits_and_drawing_units(self):
    def run(system, variables):
      logits = system.logits(variables, TEXT, self.units, self.hidden)
      drawn = system.generate(variables, {"text": TEXT}, KEYS, **GREEDY)
      return logits, drawn

    (want, plain), (got, units) = self.both(run)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(units, plain)
    # Jacobi: chains in a ragged cache.
    system, variables = self.pair[1]
    chains = lambda v: GSD(system).generate(
      v, {"text": TEXT}, KEYS, size=1, window=4, **GREEDY
    )
    units, stats = jax.jit(chains)(variables)
    np.testing.assert_array_equal(units, plain)
    self.assertLess(stats.forwards.mean(), 16)

  def test_trees_behind_a_prompt(self):
    known = jnp.arange(8) % 4
    prompt = self.units[:, :3]
    (target, variables), (system, own) = self.pair
    options = dict(guidance=2.0, top_k=12)
    plain = jax.jit(target.program(**options).complete)(
      target.net_variables(variables), {"text": TEXT}, prompt, known, KEYS
    )
    tree = eagle_drafts.Tree(3, 3, 9)
    source = eagle_drafts.source(self.eagle, self.drafter, k=0, tree=tree)
    verified = lambda v: speculation.generate(
      system.program(**options), system.net_variables(v), {"text": TEXT}, KEYS,
      source, mode="gumbel", prompt=prompt, known=known,
    )  # fmt: skip
    units, stats = jax.jit(verified)(own)
    np.testing.assert_array_equal(units, plain)
    self.assertGreater(stats.accepted.sum(), 0)

  def test_a_drafter_for_a_stack_that_is_cut(self):
    block = self.pair[1][0].net.backbone.block
    self.assertEqual(block.mixer, self.pair[0][0].net.backbone.block.mixer)
    self.assertEqual(self.pair[1][0].net.backbone.depth, 3)


if __name__ == "__main__":
  absltest.main()
