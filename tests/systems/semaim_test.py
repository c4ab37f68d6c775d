"""SemAIM: "It works when", line by line; goldens are in `tests/convert`."""

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


class StreamsTest(absltest.TestCase):
  def test_what_a_prediction_depends_on(self):
    """Not on the patch itself nor on those after it; the first on nothing."""
    system, variables = tiny()
    rank = ranks.ranks("stochastic", SIDE, *noise())
    at = np.asarray(ranks.places(rank))
    x = system.normal(images())

    @jax.jit
    def moved(variables, x):
      net = system.bound(variables["params"])
      # [L, B]: patch i of every image is another.
      one = jnp.zeros((SIDE, 2, SIDE, 2, 1)).at[0, :, 0, :].set(1.0)
      every = [
        jnp.roll(one, (i // SIDE, i % SIDE), (0, 2)).reshape(8, 8, 1)
        for i in range(L)
      ]
      changed = x[None] + jnp.stack(every)[:, None]
      both = jnp.concatenate([x, changed.reshape(-1, 8, 8, 1)])
      got = net(both, jnp.tile(rank, (L + 1, 1)))[:, 1:]
      return got.reshape(L + 1, B, L, -1)

    got = np.asarray(moved(variables, x))
    differs = np.abs(got[1:] - got[:1]).max(-1) > 0  # [changed, B, predicted]
    for b in range(B):
      earlier = at[b][:, None] < at[b][None]
      self.assertFalse(differs[:, b][~earlier].any())
      # One that it sees, at least, of any but the first.
      self.assertEqual(differs[:, b].any(0).sum(), L - 1)
    first = [got[0, b, at[b].argmin()] for b in range(B)]
    place = at.argmin(-1)
    same = [b for b in range(B) if place[b] == place[0]]
    for b in same:
      np.testing.assert_array_equal(first[b], first[0])

  def test_the_first_patch_is_the_same_for_all_images(self):
    system, variables = tiny()
    rank = jnp.tile(ranks.ranks("stochastic", SIDE, *noise())[:1], (B, 1))
    at = int(np.asarray(ranks.places(rank))[0].argmin())

    @jax.jit
    def predicted(variables, batch):
      return system.bound(variables["params"])(system.normal(batch), rank)

    got = predicted(variables, images())[:, 1 + at]
    np.testing.assert_allclose(got, jnp.tile(got[:1], (B, 1)), atol=1e-6)

  def test_without_masks_it_is_a_vision_transformer(self):
    system, variables = tiny()
    params, x = variables["params"], system.normal(images())
    plain = vit(2, 16, 2, dropout=0.0)
    stack = {"block": params["streams"]["block"], "out_norm": params["norm"]}

    @jax.jit
    def both(params, x):
      net = system.bound(params)
      h = net.embed(
        x.reshape(B, SIDE, 2, SIDE, 2, 1).swapaxes(2, 3).reshape(B, L, 4)
      )
      token = jnp.broadcast_to(net.token[None], (B, 1, 16))
      h = jnp.concatenate([token, h], 1) + net.places()[None]
      return net.tokens(x), plain.apply({"params": stack}, h)[0]

    got, want = both(params, x)
    np.testing.assert_allclose(got, want, atol=1e-6)
    self.assertAlmostEqual(float(similar(got).sum()), B, places=4)


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
    call = lambda v, batch: system.sample(v, batch, keys, known=0.75)
    batch = images()
    got = np.asarray(jax.jit(call)(variables, batch))
    shown = np.asarray(batch["image"]) / 255
    np.testing.assert_allclose(got[:, :6], shown[:, :6], atol=1e-6)

    @jax.jit
    def again(variables, image):
      x = (image - 0.5) / 0.5
      rank = ranks.ranks("raster", SIDE, *noise())
      return system.bound(variables["params"])(x, rank)[:, 13:]

    # Where nothing was clipped, of its own predictions these are the best.
    want = np.asarray(again(variables, got)) * 0.5 + 0.5
    first = want[:, 0].clip(0, 1).reshape(B, 2, 2)
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
