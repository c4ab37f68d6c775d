"""Published weights of SDAR: there and back, and the numbers of its official
code: the block-causal pass, cached blocks, the doubled pass, decoding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.convert import sdar as convert
from ar_jax.core.plans import makers
from ar_jax.core.system import UserError, build
from tests import golden_weights


@functools.cache
def golden():
  """(arrays, official state)."""
  description, arrays = golden_weights.load("sdar_model")
  return arrays, golden_weights.weights(description)


@functools.cache
def made(length):
  """(system, its variables) of so many units."""
  state = golden()[1]
  system = build("sdar", **convert.config(state, size=length)["model"])
  return system, convert.to_ours(state, size=length)


def ids(name):
  return jnp.asarray(golden()[0][name], jnp.int32)


class SdarTest(parameterized.TestCase):
  def test_round_trip_is_exact(self):
    state = golden()[1]
    back = convert.to_official(made(16)[1])
    self.assertEqual(set(back), set(state))
    for key, array in state.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)

  def test_config_from_shapes(self):
    model = convert.config(golden()[1])["model"]
    sizes = dict(depth=2, width=64, heads=4, kv_heads=2, features=24, hidden=96)
    self.assertEqual({k: model[k] for k in sizes}, sizes)
    self.assertEqual(model["mask_id"], 39)

  def test_a_head_that_is_the_table(self):
    state = dict(golden()[1])
    del state["lm_head.weight"]
    params = convert.to_ours(state, size=16)["params"]
    table, head = params["units"]["embedding"], params["head"]["linear"]
    np.testing.assert_array_equal(head["kernel"], table.T)

  def test_another_file(self):
    with self.assertRaisesRegex(UserError, "no model.embed_tokens.weight"):
      convert.config({})
    state = dict(golden()[1])
    del state["model.layers.0.mlp.gate_proj.weight"]
    with self.assertRaisesRegex(UserError, "experts are not supported"):
      convert.config(state)

  def test_blocks_with_a_cache(self):
    arrays, (system, variables) = golden()[0], made(16)

    @jax.jit
    def run(units, noisy):
      net = system.net.bind(system.net_variables(variables))
      h, _ = net.begin({}, units)
      whole = net.head.logits(h)
      _, cache = net.begin({}, units[:, :8], spare=4)

      def block(cache, at, units, hide):
        index = jnp.full(1, at, jnp.int32)
        cache = type(cache)(cache.k, cache.v, index)
        place = at + jnp.arange(4)[None]
        sees = jnp.ones((1, 4, 4), bool)
        h, cache = net.step(units, hide, place, sees, cache)
        return net.head.logits(h)[0], cache

      masked = noisy == 39
      found = {}
      found["logits_noisy_block2"], cache = block(cache, 8, noisy, masked)
      clean = units[:, 8:12]
      found["logits_clean_block2"], cache = block(cache, 8, clean, ~masked & 0)
      hidden = jnp.ones((1, 4), bool)
      found["logits_masked_block3"], cache = block(cache, 12, clean, hidden)
      return whole[0], found, cache.k[0][0, :, :12]

    whole, found, key = run(ids("ids"), ids("noisy_block2")[None])
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    close(whole, arrays["logits_block_causal"])
    for name, logits in found.items():
      close(logits, arrays[name], err_msg=name)
    theirs = np.argsort(np.arange(24).reshape(2, -1).T.reshape(-1))
    close(key[..., theirs], arrays["cache_key_layer0"])

  def test_the_doubled_pass_and_its_loss(self):
    """Two samples that are packed into a row there."""
    arrays, total, count = golden()[0], 0.0, 0
    for sample, (start, length) in enumerate(((0, 12), (12, 8))):
      system, variables = made(length)
      at = slice(start, start + length)
      units = ids("train_ids")[None, at]
      hide = jnp.asarray(arrays["train_masked"])[None, at]

      @jax.jit
      def run(units, hide, system=system, variables=variables):
        net = system.net.bind(system.net_variables(variables))
        return net.head.logits(net.features({}, units, hide[:, None]))

      logits = run(units, hide)
      want = arrays["train_logits"][2 * start : 2 * (start + length)]
      np.testing.assert_allclose(logits[0], want, rtol=1e-4, atol=1e-4)
      counted = jnp.asarray(arrays["train_labels"])[None, at] != -100
      p = jnp.full((1, length), arrays["train_p_mask"][2 * sample])
      noisy = logits[:, :length]
      value = system.bound(noisy, units, hide, p, counted)[0]
      total += float(value) * int(counted.sum())
      count += int(counted.sum())
    np.testing.assert_allclose(total / count, arrays["train_loss"], rtol=1e-4)

  @parameterized.parameters((6, 4), (8, 2), (7, 3))
  def test_masks(self, length, size):
    mask = makers.noisy_clean(makers.blocks(length, size)).mask()
    np.testing.assert_array_equal(mask, golden()[0][f"mask_{length}_{size}"])

  @parameterized.parameters(
    ("static", dict()),
    ("dynamic", dict(strategy="threshold", threshold=0.16)),
    ("sequential", dict(strategy="sequential")),
  )
  def test_greedy_decoding(self, name, options):
    arrays = golden_weights.load("sdar_decode")[1]
    system, variables = made(20)
    prompt = jnp.asarray(arrays["model_prompt"], jnp.int32)[None]
    cond = {"prompt": prompt, "known": jnp.array([6])}
    draw = jax.jit(
      functools.partial(
        system.generate, fused=False, temperature=0.0, steps=4, **options
      )
    )
    units, counts = draw(
      variables, cond, jax.random.split(jax.random.key(0), 1)
    )
    np.testing.assert_array_equal(units[0], arrays[f"model_{name}_tokens"])
    filled, stored = arrays[f"model_{name}_forwards"]
    self.assertEqual(int(counts.forwards[0]), filled + stored)
    self.assertEqual(int(counts.stores[0]), stored - 1)  # they count the prompt
    self.assertEqual(int(counts.units[0]), 14)


if __name__ == "__main__":
  absltest.main()
