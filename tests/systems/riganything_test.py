"""RigAnything: what its sheet says of any model; the figures of trained ones
are in experiments/riganything.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest

from ar_jax.core.decoding import pick
from ar_jax.core.decoding.steps import fold
from ar_jax.core.domains import skeletons
from ar_jax.core.system import UserError, build
from ar_jax.nn.heads import pointer
from ar_jax.nn.heads.diffusion import Diffusion
from ar_jax.nn.heads.flow_nets import TokenMLP
from configs import riganything as config
from tests import smoke

KEY = jax.random.key(0)
BATCH = smoke.BATCH


def bound(variables):
  return smoke.case("riganything").system.net.bind(
    {"params": variables["params"]}
  )


@jax.jit
def read(variables, points, joints, parent, count):
  """What a tree says at once: (z, logits of parents, skin)."""
  net = bound(variables)
  z, tokens, context = net(points, joints, parent)
  pad = lambda x: jnp.pad(x, ((0, 0), (0, 1), (0, 0)))
  logits = net.parents(z, pad(joints), pad(tokens))
  surface, own = jnp.split(context, [net.points], 1)
  return z, logits, net.weights(surface, own, count)


@jax.jit
def positions(variables, z, keys):
  """What the position head draws after each of z [N, 1, D]."""
  return bound(variables).position.draw(z, keys, steps=4)


@functools.cache
def case():
  """(variables, batch) of the smoke system, none of which is zero."""
  c = smoke.case("riganything")
  rng = np.random.default_rng(0)
  noisy = lambda x: x + 0.3 * rng.normal(size=x.shape).astype(x.dtype)
  key = jax.random.key(1)
  shapes = jax.eval_shape(c.system.init, key, c.batch)
  zero = lambda x: np.zeros(x.shape, x.dtype)
  batch = {k: np.asarray(v) for k, v in c.batch.items()}
  return jax.tree.map(lambda x: noisy(zero(x)), shapes), batch


@functools.cache
def drawn():
  """(rigs, keys) of the batch, whose parents are drawn, too."""
  system = smoke.case("riganything").system
  variables, batch = case()
  keys = jax.random.split(KEY, BATCH)
  draw = lambda v, p, q, k: system.sample(
    v, {"points": p, "query": q}, k, steps=4, parents="drawn"
  )
  points = batch["points"]
  other = np.concatenate([points, points[:, ::-1], points[:, :3]], 1)
  return jax.device_get(jax.jit(draw)(variables, points, other, keys)), keys


def seen(**changes):
  variables, batch = case()
  given = batch | changes
  names = "points", "joints", "parent", "count"
  return jax.device_get(read(variables, *(given[k] for k in names)))


class RigAnythingTest(absltest.TestCase):
  def test_what_is_drawn_is_drawn_from_the_whole(self):
    """Cached = uncached: the same keys draw the same joints and parents from
    one pass over the tree, and every tree has one step more than joints."""
    made, keys = drawn()
    variables, batch = case()
    count = made["count"]
    self.assertGreater(len(set(count.tolist())), 1)
    z, logits, skin = seen(
      **{k: made[k] for k in ("joints", "parent", "count")}
    )
    n = z.shape[1]
    each = [jax.vmap(jax.random.split)(fold(keys, s)) for s in range(n)]
    each = jnp.stack(each, 1)
    flat = lambda x: x.reshape(-1, *x.shape[2:])
    again = positions(variables, flat(z)[:, None], flat(each[..., 0]))
    again = np.clip(again[:, 0].reshape(BATCH, n, 3), -1.2, 1.2)
    self.assertLess(np.mean(np.abs(again) == np.float32(1.2)), 0.7)
    picked = pick.draw(flat(jnp.asarray(logits)), flat(each[..., 1]))
    picked = np.asarray(picked).reshape(BATCH, n)
    for i, k in enumerate(count.tolist()):
      np.testing.assert_allclose(again[i, :k], made["joints"][i, :k], atol=1e-4)
      np.testing.assert_array_equal(picked[i, :k], made["parent"][i, :k])
      # Nothing but the root is its own parent, and what lies behind is 0.
      own = made["parent"][i, :k] == np.arange(k)
      np.testing.assert_array_equal(own, np.arange(k) == 0)
      self.assertFalse(
        made["joints"][i, k:].any() or made["skin"][i, :, k:].any()
      )
    # The skin of the surface, of the same points again, and in any number.
    p = batch["points"].shape[1]
    own = made["skin"]
    np.testing.assert_allclose(own.sum(-1), 1, atol=1e-5)
    self.assertEqual(own.shape[1], 2 * p + 3)
    np.testing.assert_allclose(
      own[:, :p], own[:, p : 2 * p][:, ::-1], atol=1e-5
    )
    # Further points see themselves beside the surface: near to its own.
    self.assertLess(np.abs(own[:, :p] - np.exp(skin)).max(), 0.2)

  def test_who_sees_whom(self):
    """The surface sees no joint; a joint none behind it, and no point's
    place in the list."""
    variables, batch = case()
    z, logits, skin = seen()
    rng = np.random.default_rng(0)
    other = np.roll(batch["joints"], 1, 0)
    other[:, :4] = batch["joints"][:, :4]
    behind = seen(joints=other)
    np.testing.assert_array_equal(behind[0][:, :5], z[:, :5])
    self.assertGreater(np.abs(behind[0][:, 5:] - z[:, 5:]).max(), 1e-3)
    context = jax.jit(lambda v, *x: bound(v)(*x)[2])
    p = batch["points"].shape[1]
    surfaces = [
      context(variables, batch["points"], joints, batch["parent"])[:, :p]
      for joints in (batch["joints"], 0 * other)
    ]
    np.testing.assert_array_equal(*surfaces)
    order = rng.permutation(p)
    mixed = seen(points=batch["points"][:, order])
    np.testing.assert_allclose(mixed[0], z, atol=1e-5)
    np.testing.assert_allclose(mixed[1], logits, atol=1e-4)
    np.testing.assert_allclose(mixed[2], skin[:, order], atol=1e-5)

  def test_laws_are_laws(self):
    variables, batch = case()
    _, logits, skin = seen()
    q = jax.nn.softmax(logits)
    np.testing.assert_allclose(q.sum(-1), 1, atol=1e-6)
    later = np.triu(np.ones(q.shape[1:], bool), 1)
    self.assertEqual(np.abs(np.asarray(q)[:, later]).max(), 0)
    self.assertGreater(np.asarray(q)[:, ~later].min(), 0)
    np.testing.assert_allclose(np.exp(skin).sum(-1), 1, atol=1e-5)
    for i, n in enumerate(batch["count"]):
      self.assertEqual(np.exp(skin)[i, :, n:].max(initial=0), 0)

  def test_products_of_pairs(self):
    """Piece by piece and one by one are the same score."""
    net = pointer.PairScore(8)
    a, b = jax.random.normal(KEY, (2, 3, 20, 4))
    variables = net.init(KEY, a, b)
    whole = net.apply(variables, a, b)
    for shift in (0, 3):
      own = net.apply(variables, a, jnp.roll(b, shift, 1), method="each")
      np.testing.assert_allclose(
        own,
        jnp.diagonal(jnp.roll(whole, shift, 2), axis1=1, axis2=2),
        atol=1e-5,
      )

  def test_place_and_unit_of_a_shape(self):
    """A shape that is moved and enlarged has its skeleton moved likewise."""
    system = smoke.case("riganything").system
    variables, batch = case()
    keys = jax.random.split(KEY, BATCH)
    draw = jax.jit(lambda v, p, k: system.sample(v, {"points": p}, k, steps=4))
    points = batch["points"]
    moved = np.concatenate([8 * points[..., :3] + 16, points[..., 3:]], -1)
    small, large = (draw(variables, p, keys) for p in (points, moved))
    n = np.asarray(small["count"])
    np.testing.assert_array_equal(n, large["count"])
    there = (np.arange(12)[None] < n[:, None])[..., None]
    wanted = np.where(there, 8 * np.asarray(small["joints"]) + 16, 0)
    np.testing.assert_allclose(large["joints"], wanted, atol=1e-3)
    np.testing.assert_allclose(large["skin"], small["skin"], atol=1e-4)

  def test_wrong_options(self):
    system = smoke.case("riganything").system
    for options in ({"parents": "all"}, {"most": 99}, {"most": 0}):
      with self.assertRaises(UserError):
        system.sample({}, {}, jax.random.split(KEY, 1), **options)
    for change in ({"stop": "x"}, {"position": "x"}, {"joints": 0}):
      with self.assertRaises(UserError):
        build("riganything", **change)

  def test_published_size(self):
    """The layers, about 151M; the rest is not published."""
    system = build("riganything", **config.get_config("paper").model)
    made = jax.eval_shape(system.init, KEY, {})["params"]
    size = lambda x: sum(leaf.size for leaf in jax.tree.leaves(x))
    self.assertEqual(
      size(made["stack"]), 12 * (12 * 1024**2 + 13 * 1024) + 2048
    )
    self.assertEqual(size(made), 191316483)


class TreesTest(absltest.TestCase):
  def test_round_trip(self):
    """tree -> breadth-first, siblings in any order -> tree."""
    rng = np.random.default_rng(0)
    for n in (1, 2, 9, 30):
      above = np.array([0, *(rng.integers(i) for i in range(1, n))])
      mixed = rng.permutation(n)
      parent = skeletons.reordered(above, mixed)
      orders = [skeletons.breadth_first(parent, rng) for _ in range(5)]
      orders.append(skeletons.breadth_first(parent))
      for order in orders:
        made = skeletons.reordered(parent, order)
        self.assertEqual(made[0], 0)
        self.assertTrue((made[1:] < np.arange(1, n)).all())
        self.assertTrue((np.diff(made) >= 0).all())  # layer by layer
        back = np.empty(n, int)
        back[order] = order[made]
        np.testing.assert_array_equal(back, parent)

  def test_poses_keep_bones(self):
    rng = np.random.default_rng(0)
    joints = rng.normal(size=(6, 3))
    parent = np.array([0, 0, 1, 1, 2, 4])
    points = rng.normal(size=(20, 6))
    owner = rng.integers(6, size=20)
    posed = skeletons.posed(joints, parent, points, np.eye(6)[owner], rng, 1.0)
    bones = lambda x: np.linalg.norm(x - x[parent], axis=1)
    np.testing.assert_allclose(bones(posed[0]), bones(joints), atol=1e-9)
    # A point that follows one joint keeps its distance to it.
    far = lambda j, p: np.linalg.norm(p[:, :3] - j[owner], axis=1)
    np.testing.assert_allclose(far(*posed), far(joints, points), atol=1e-9)
    self.assertGreater(np.abs(posed[0][1:] - joints[1:]).max(), 0.1)


class SiblingsTest(absltest.TestCase):
  def test_two_siblings_are_two_clusters(self):
    """Of two siblings that may come next, half of the draws are of each, near
    to it; the mean, which the squared error finds, is of neither."""
    both = jnp.array([[0.4, 0.2, -0.1], [-0.4, 0.2, -0.1]])
    head = Diffusion(TokenMLP(3, 32, 1, 3), learned=False, box=1.2)
    h = jnp.zeros((64, 1, 4))
    keys = jax.random.split(KEY, 64)
    rate = optax.cosine_decay_schedule(1e-2, 400)
    tx = optax.adam(rate)

    @jax.jit
    def fit(key):
      variables = head.init(key, h, jnp.zeros((64, 1, 3)), keys, method="loss")

      def update(state, i):
        variables, moments, mean = state
        own = fold(keys, i)
        which = jax.vmap(jax.random.bernoulli)(fold(own, 1)).astype(int)
        target = both[which][:, None]
        loss = lambda v: head.apply(v, h, target, own, method="loss").mean()
        change, moments = tx.update(jax.grad(loss)(variables), moments)
        variables = optax.apply_updates(variables, change)
        mean += 0.01 * (target.mean((0, 1)) - mean)
        return (variables, moments, mean), None

      state = variables, tx.init(variables), jnp.zeros(3)
      variables, _, mean = jax.lax.scan(update, state, jnp.arange(400))[0]
      chance = jax.random.split(jax.random.fold_in(key, 1), 1000)
      many = jnp.zeros((1000, 1, 4))
      made = head.apply(variables, many, chance, steps=50, method="draw")
      return made[:, 0], mean

    made, mean, both = jax.device_get((*fit(KEY), both))
    far = np.linalg.norm(made[:, None] - both[None], axis=-1)
    share = (far[:, 0] < far[:, 1]).mean()
    self.assertBetween(share, 0.4, 0.6)
    self.assertLess(np.mean(far.min(1)), 0.05)
    apart = np.linalg.norm(both[0] - both[1])
    self.assertGreater(np.linalg.norm(mean - both, axis=1).min(), 0.4 * apart)


if __name__ == "__main__":
  absltest.main()
