"""SemAIM's release: its encoder, orders, masks, predictions, targets, losses
and files."""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.convert import semaim as convert
from ar_jax.core.plans import ranks
from ar_jax.core.signals.blur import blurred
from ar_jax.core.system import UserError, build
from ar_jax.encoders.two_streams import similar, unit
from tests import golden_weights, optimised

HEADS, SIDE, PATCHES = 3, 14, 196
# The release's name of each order, and how it draws: shapes and first number.
ORDERS = {
  "zigzag": ("raster", 0),
  "raster": ("snake", 0),
  "stochastic": ("stochastic", 0),
  "stochastic_center": ("stochastic_rings", 0),
  "center2out": ("rings", 0),
  "attention": ("similarity", 0),
  "attention_guided": ("semantic_rings", 0),
  "attention_center": ("semantic", 497),
}


def built(state, **more):
  found = convert.config(state, heads=HEADS, size=28)
  model = found["model"] | {"normal": (0.5, 0.5)} | more
  system = build(found["system"], **model)
  params = convert.to_ours(state, heads=HEADS, size=28)
  return system, jax.tree.map(jnp.asarray, params)


@functools.cache
def golden():
  description, arrays = golden_weights.load("semaim")
  state = golden_weights.weights(description)
  # Normal pixels, as the model itself reads them.
  image = golden_weights.tensor("image0", (1, 3, 28, 28))
  x = jnp.asarray(np.moveaxis(image, 1, -1))
  return description, arrays, state, x


def jitter(name, shape):
  return golden_weights.uniform(name, shape).astype(np.float32)


def close(got, want):
  np.testing.assert_allclose(got, want, atol=1e-4, rtol=1e-4)


class SemAIMTest(absltest.TestCase):
  def test_round_trip_is_exact(self):
    _, _, state, _ = golden()
    _, params = built(state)
    back = convert.to_official(params)
    self.assertEqual(set(back), set(state))
    for key, array in state.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)
    extra = state | {"pos_embed": np.zeros((1, 197, 48), np.float32)}
    found = convert.config(extra, heads=HEADS)["model"]
    self.assertEqual(
      (found["side"], found["patch"], found["query_depth"]), (14, 2, 2)
    )
    with self.assertRaisesRegex(UserError, "how many heads"):
      convert.config(state)
    with self.assertRaisesRegex(UserError, "no query_blocks"):
      convert.config({})

  def test_the_encoder_the_order_and_the_prediction(self):
    _, arrays, state, x = golden()
    system, params = built(state)
    net, noise = system.net, jitter("jitter9", (1, PATCHES))

    @optimised.jit
    def every(params, x):
      bound = net.bind({"params": params})
      tokens = bound.tokens(x)
      found = {k: similar(tokens, k) for k in ("class", "mean")}
      rank = ranks.ranks("semantic", SIDE, noise, noise[:, :2], found["class"])
      got = bound(x, rank)
      return {
        "encoder_tokens_strided": tokens[:, ::4],
        "cls_attention": found["class"],
        "gap_attention": found["mean"],
        "self_attention": bound.attention(x),
        "permutation": rank,
        "prediction_strided": got[:, ::3],
        "loss_per_patch": jnp.mean(
          jnp.square(got[:, 1:] - system.pixels(x)), -1
        ),
        "blurred": jnp.moveaxis(blurred(x, 9, 1.0), -1, 1),
        "target_strided": system.pixels(x)[:, ::5],
        "pos_embed": bound.places()[::13],
      }

    found = every(params, x)
    for name, got in found.items():
      close(got, arrays[name])
    close(np.mean(found["loss_per_patch"]), arrays["loss"])
    rank = jnp.asarray(arrays["permutation"])
    np.testing.assert_array_equal(ranks.places(rank), arrays["rank"])
    content, query = ranks.masks(rank)
    np.testing.assert_array_equal(content[0], arrays["mask_content"])
    np.testing.assert_array_equal(query[0], arrays["mask_query"])

  def test_features_as_targets(self):
    _, arrays, _, _ = golden()
    feature = golden_weights.tensor("feature", (1, 197, 12))[:, 1:]
    got = golden_weights.tensor("pred_feature", (1, 197, 12))[:, 1:]
    error = jnp.sum(jnp.square(unit(got) - unit(feature)), -1)
    close(jnp.mean(error), arrays["feature_loss"])

  def test_orders(self):
    _, arrays, _, _ = golden()
    maps = [
      np.random.default_rng(zlib.crc32(f"attention_map{b}".encode()))
      for b in range(2)
    ]
    attention = [(1 + m.permutation(PATCHES)) / 19306 for m in maps]
    attention = jnp.asarray(np.stack(attention), jnp.float32)
    for theirs, (ours, number) in ORDERS.items():
      start = f"jitter_{theirs}_{number}"
      noise = jitter(f"{start}_0", (2, PATCHES))
      place = [jitter(f"{start}_{k}", (2,)) for k in (1, 2)]
      rank = ranks.ranks(
        ours, SIDE, jnp.asarray(noise), jnp.stack(place, -1), attention
      )
      order = jnp.argsort(rank, axis=-1, stable=True)
      np.testing.assert_array_equal(
        order, arrays[f"order_{theirs}"], err_msg=theirs
      )

  def test_another_head_and_a_query_after_every_layer(self):
    description, arrays, state, x = golden()
    more = description["config"]["linear_head_keys"]
    state = {k: v for k, v in state.items() if "prediction_head" not in k}
    state |= golden_weights.of_shapes(more)
    system, params = built(state)
    rank = jnp.asarray(arrays["permutation"])
    got = optimised.jit(lambda p, x: system.net.apply({"params": p}, x, rank))(
      params, x
    )
    close(got[:, ::7], arrays["prediction_linear_head_strided"])
    back = convert.to_official(params)
    self.assertEqual(set(back), set(state))


if __name__ == "__main__":
  absltest.main()
