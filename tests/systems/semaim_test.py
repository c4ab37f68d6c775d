"""SemAIM: "It works when", line by line; goldens are in `tests/convert`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.plans import ranks
from ar_jax.core.system import UserError, build
from ar_jax.encoders.two_streams import similar
from ar_jax.nn.stacks.vit import vit
from tests import filled, smoke

B, SIDE, L = 4, 4, 16


def tiny(**more):
  """(system, variables without a zero in them) of the smoke preset's sizes."""
  model = smoke.config("semaim").model.to_dict() | more
  system = build("semaim", **model)
  batch = {"image": np.zeros((1, 8, 8, 1), np.uint8)}
  return system, filled.variables(system, batch=batch)


def images(n=B, seed=0):
  rng = np.random.default_rng(seed)
  return {"image": jnp.asarray(rng.integers(256, size=(n, 8, 8, 1)), jnp.uint8)}


def noise(n=B):
  rng = np.random.default_rng(1)
  return rng.random((n, L), np.float32), rng.random((n, 2), np.float32)


class OrdersTest(parameterized.TestCase):
  @parameterized.parameters(*ranks.ORDERS)
  def test_a_rank_induces_an_order(self, order):
    chance, place = noise()
    similarity = np.random.default_rng(2).random((B, L), np.float32)
    rank = ranks.ranks(order, SIDE, chance, place, similarity)
    self.assertEqual(rank.shape, (B, L))
    at = np.asarray(ranks.places(rank))
    np.testing.assert_array_equal(np.sort(at), np.tile(np.arange(L), (B, 1)))
    content, query = map(np.asarray, ranks.masks(rank))
    self.assertEqual(query[:, 1:, 1:].sum(), B * L * (L - 1) // 2)
    self.assertEqual(content[:, 1:, 1:].sum(), B * L * (L + 1) // 2)
    for sees in (content, query):
      self.assertTrue(sees[:, :, 0].all())
      self.assertFalse(sees[:, 0, 1:].any())
    if order == "similarity":
      np.testing.assert_array_equal(
        at.argsort(-1), (-similarity).argsort(-1, kind="stable")
      )

  def test_the_most_similar_patch_is_first(self):
    """And the distance from it never falls along the order."""
    chance, place = noise()
    similarity = np.random.default_rng(2).random((B, L), np.float32)
    rank = ranks.ranks("semantic", SIDE, chance, place, similarity)
    order = np.asarray(jnp.argsort(rank, -1))
    np.testing.assert_array_equal(order[:, 0], similarity.argmax(-1))
    row, col = order // SIDE, order % SIDE
    far = np.hypot(row - row[:, :1], col - col[:, :1])
    self.assertTrue((np.diff(far) > -1e-6).all())
    self.assertFalse(np.array_equal(order[0], order[1]))

  def test_of_equal_ranks_neither_sees_the_other(self):
    content, query = ranks.masks(jnp.array([[0.0, 1.0, 1.0]]))
    self.assertTrue(content[0, 2, 3] and content[0, 3, 2])
    self.assertFalse(query[0, 2, 3] or query[0, 3, 2])
    at = ranks.places(jnp.array([[2.0, 1.0, 1.0]]))
    np.testing.assert_array_equal(at, [[2, 0, 1]])


RANK = jnp.repeat(ranks.ranks("stochastic", SIDE, *noise())[:2], 2, 0)


@functools.cache
def found():
  """Of four images, two and two in one order: predictions of every patch as
  they are and with one patch changed, f32[1 + L, B, L, 4]; and the encoder's
  tokens beside those of a plain vision transformer with its weights."""
  system, variables = tiny()
  plain = vit(2, 16, 2, dropout=0.0)

  @jax.jit
  def every(params, batch, i):
    net, x = system.bound(params), system.normal(batch)
    one = jnp.zeros((1, SIDE, 2, SIDE, 2, 1))
    one = one.at[0, i // SIDE, :, i % SIDE].set(jnp.where(i < 0, 0.0, 1.0))
    x = x + one.reshape(1, 8, 8, 1)
    h = x.reshape(B, SIDE, 2, SIDE, 2, 1).swapaxes(2, 3).reshape(B, L, 4)
    token = jnp.broadcast_to(net.token[None], (B, 1, 16))
    h = jnp.concatenate([token, net.embed(h)], 1) + net.places()[None]
    stack = {"block": params["streams"]["block"], "out_norm": params["norm"]}
    return {
      "predicted": net(x, RANK)[:, 1:],
      "tokens": net.tokens(x),
      "plain": plain.apply({"params": stack}, h)[0],
    }

  # One program for all, so that equal numbers are equal to the bit.
  each = [every(variables["params"], images(), i) for i in range(-1, L)]
  predicted = np.stack([own["predicted"] for own in each])
  return {**jax.device_get(each[0]), "predicted": predicted}


class StreamsTest(absltest.TestCase):
  def test_what_a_prediction_depends_on(self):
    """Not on the patch itself nor on those after it, but on some before."""
    got, at = found()["predicted"], np.asarray(ranks.places(RANK))
    differs = np.abs(got[1:] - got[:1]).max(-1) > 0  # [changed, B, predicted]
    for b in range(B):
      earlier = at[b][:, None] < at[b][None]
      self.assertFalse(differs[:, b][~earlier].any())
      self.assertEqual(differs[:, b].any(0).sum(), L - 1)

  def test_the_first_patch_is_the_same_for_all_images(self):
    got, at = found()["predicted"][0], np.asarray(ranks.places(RANK))
    for b in (0, 2):
      first = at[b].argmin()
      np.testing.assert_allclose(got[b, first], got[b + 1, first], atol=1e-6)
      last = at[b].argmax()
      self.assertGreater(np.abs(got[b, last] - got[b + 1, last]).max(), 1e-3)

  def test_without_masks_it_is_a_vision_transformer(self):
    np.testing.assert_allclose(
      found()["tokens"], found()["plain"], atol=1e-6, rtol=1e-6
    )
    shares = similar(jnp.asarray(found()["tokens"])).sum(-1)
    np.testing.assert_allclose(shares, 1, rtol=1e-5)


class SystemTest(absltest.TestCase):
  def shapes(self, **more):
    system, _ = tiny(**more)
    teach = system.teacher is not None or system.average
    variables = jax.eval_shape(
      lambda key: system.init(key, images(1)), jax.random.key(0)
    )
    self.assertEqual("teacher" in variables, bool(teach))
    loss = jax.eval_shape(
      lambda v: system.loss(v, images(), jax.random.key(0), train=True),
      variables,
    )
    self.assertEqual(loss.value.shape, (B,))
    return system, variables, loss

  def test_teachers(self):
    small = dict(name="vit", depth=1, width=8, heads=2, patch=2, side=4)
    small |= dict(in_channels=1)
    for more in (dict(), dict(style="clip", projection=6)):
      system, _, loss = self.shapes(teacher=small | more, target="features")
      self.assertEqual(system.net.outputs, more.get("projection", 8))
      self.assertEqual(loss.updates, {})
    system, variables, loss = self.shapes(
      average=0.9, target="features", similarity="attention"
    )
    self.assertEqual(system.moving, {"teacher"})
    self.assertEqual(
      jax.tree.map(jnp.shape, loss.updates["teacher"]),
      jax.tree.map(jnp.shape, variables["params"]),
    )
    with self.assertRaisesRegex(UserError, "predicts features"):
      system.sample(tiny()[1], images(), jax.random.split(jax.random.key(0), B))

  def test_the_average_moves_by_its_share(self):
    system, variables = tiny(average=0.75)
    frozen = {"teacher": jax.tree.map(jnp.zeros_like, variables["params"])}
    loss = jax.jit(
      lambda v: system.loss(v, images(), jax.random.key(0), train=True)
    )({**variables, **frozen})
    got = loss.updates["teacher"]["token"]
    np.testing.assert_allclose(got, 0.25 * variables["params"]["token"])

  def test_shared_weights(self):
    """Half as many parameters in the layers, and as if they stood twice."""
    system, variables = tiny(shared=True, query_depth=2)
    self.assertNotIn("query", variables["params"]["streams"])
    block = variables["params"]["streams"]["block"]
    apart, _ = tiny(query_depth=2)
    query = system.net.streams.as_query(block)
    shapes = jax.eval_shape(lambda k: apart.init(k, {}), jax.random.key(0))
    want = jax.tree.map(jnp.shape, shapes["params"]["streams"]["query"])
    self.assertEqual(jax.tree.map(jnp.shape, query), want)
    found = jax.tree.map(
      jnp.shape, system.bound(variables["params"]).variables["params"]
    )
    self.assertEqual(found, jax.tree.map(jnp.shape, shapes["params"]))

  def test_filled_in_images(self):
    """What is given stays; what follows is predicted from all before it."""
    system, variables = tiny(centre=False, order="raster")
    keys = jax.random.split(jax.random.key(0), B)
    rank = ranks.ranks("raster", SIDE, *noise())

    @jax.jit
    def both(variables, batch):
      got = system.sample(variables, batch, keys, known=0.75)
      net = system.bound(variables["params"])
      return got, net((got - 0.5) / 0.5, rank)[:, 13]

    batch = images()
    got, first = map(np.asarray, both(variables, batch))
    shown = np.asarray(batch["image"]) / 255
    np.testing.assert_allclose(got[:, :6], shown[:, :6], atol=1e-6)
    first = (first * 0.5 + 0.5).clip(0, 1).reshape(B, 2, 2)
    np.testing.assert_allclose(got[:, 6:, :2, 0], first, atol=1e-5)
    self.assertGreater(np.abs(got - shown).max(), 0.1)

  def test_wrong_use(self):
    for more, message in (
      (dict(order="zigzag"), "order='zigzag': choose one of raster"),
      (dict(similarity="x"), "similarity='x'"),
      (dict(target="features"), "of what"),
      (dict(average=2.0), "average=2.0"),
      (dict(blur=(4, 1.0)), "an odd size"),
      (dict(query_depth=3), "query_depth=3: the 2 layers"),
      (dict(teacher=dict(name="vq"), average=0.9), "one teacher"),
      (dict(depth=1, similarity="attention"), "at least 2"),
    ):
      with self.assertRaisesRegex(UserError, message):
        build("semaim", **smoke.config("semaim").model.to_dict() | more)
    system, variables = tiny()
    wrong = {"image": jnp.zeros((1, 6, 6, 1), jnp.uint8)}
    with self.assertRaisesRegex(UserError, "images of .6, 6, 1."):
      system.features(variables, wrong)
    with self.assertRaisesRegex(UserError, "known=1.0"):
      system.sample(variables, images(), None, known=1.0)


if __name__ == "__main__":
  absltest.main()
