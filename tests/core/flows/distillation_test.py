"""Laws of codes made into generators, with laws that are known: two units of
four codes, of which the second is the first again.

One program trains guide and generator; what it is given says how.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest

from ar_jax.core.errors import UserError
from ar_jax.core.flows import distillation, flow, solvers
from ar_jax.core.flows.codes import Points
from ar_jax.nn.layers.norms import layer_norm
from tests import long

C, V, B, STEPS, GUIDES = 2, 4, 128, 1400, 2
ANGLE = 2 * np.pi * np.arange(V) / V
BOOK = jnp.asarray(1.5 * np.stack([np.cos(ANGLE), np.sin(ANGLE)], 1), "float32")
SPACING = 3 * np.sin(np.pi / V)
P = jnp.array([0.4, 0.1, 0.3, 0.2])


class Net(nn.Module):
  """A velocity f32[B, 2, C] of a unit, its time and what is known: a `TokenMLP`
  with few sinusoids, which are most of its time at this size."""

  @nn.compact
  def __call__(self, x, t, h):
    angle = t[..., None] * np.pi * jnp.array([0.5, 1, 2, 4])[None, None]
    y = jnp.concatenate([jnp.sin(angle), jnp.cos(angle), h], -1)
    y, x = nn.silu(nn.Dense(64)(y)), nn.Dense(64)(x)
    zero = nn.initializers.zeros
    made = lambda n: jnp.split(nn.Dense(n * 64, kernel_init=zero)(y), n, -1)
    for _ in range(2):
      scale, shift, gate = made(3)
      u = layer_norm(x) * (1 + scale) + shift
      x = x + gate * nn.Dense(64)(nn.silu(nn.Dense(64)(u)))
    scale, shift = made(2)
    return nn.Dense(C)(layer_norm(x) * (1 + scale) + shift)


NET = Net()


def before(vectors):
  """What the net knows of earlier units: the one before, and the place."""
  first = jnp.zeros_like(vectors[:, :1])
  place = jnp.broadcast_to(jnp.eye(2)[None], (len(vectors), 2, 2))
  return jnp.concatenate([first, vectors[:, :1]], 1), place


def velocity(params, vectors):
  h = jnp.concatenate(before(vectors), -1)
  return lambda x, t: NET.apply({"params": params}, x, t, h)


def law(vectors):
  """The teacher: the second unit is the code nearest to the first."""
  first = jnp.broadcast_to(jnp.log(P), (len(vectors), 1, V))
  gap = jnp.sum(jnp.square(vectors[:, :1, None] - BOOK[None, None]), -1)
  return Points(
    jnp.concatenate([first, jax.nn.log_softmax(-10 * gap, -1)], 1), BOOK
  )


def made(params, eps):
  return eps + velocity(params, eps)(eps, jnp.zeros(eps.shape[:2]))


def asked(key):
  """(noise, times) of a batch."""
  key, other = jax.random.split(key)
  shape = B, 2
  return jax.random.normal(key, (*shape, C)), distillation.times(other, shape)


def true(key, n=B):
  unit = jax.random.categorical(key, jnp.log(P), shape=(n, 1))
  return BOOK[jnp.concatenate([unit, unit], 1)]


def train(loss, params, steps, key):
  """(params, losses) after updates of loss(params, key)."""
  tx = optimiser(steps)

  def update(state, key):
    value, grad = jax.value_and_grad(loss)(state[0], key)
    change, opt = tx.update(grad, state[1])
    return (optax.apply_updates(state[0], change), opt), value

  keys = jax.random.split(key, steps)
  (params, _), losses = jax.lax.scan(update, (params, tx.init(params)), keys)
  return params, losses


def optimiser(steps):
  rate = optax.cosine_decay_schedule(2e-3, steps)
  return optax.chain(
    optax.clip_by_global_norm(1.0), optax.adam(rate, b1=0.9, b2=0.95)
  )


@long.jit
def scores(params, analytic):
  """The guide and its losses in the first stage, by the law or, where not
  `analytic`, by noise."""

  def loss(params, key):
    one, two = jax.random.split(key)
    q, at = true(one), asked(two)
    own = velocity(params, q)
    exact = distillation.analytic_error(own, law(q), q, *at)
    drawn = distillation.matching_error(own, q, *at)
    return jnp.mean(jnp.where(analytic, exact, drawn))

  found, _ = train(loss, params, 300, jax.random.key(1))
  keys = jax.random.split(jax.random.key(5), 20)
  error = lambda key: distillation.analytic_error(
    velocity(found, true(key)), law(true(key)), true(key), *asked(key)
  ).mean()
  return found, jnp.mean(jax.lax.map(error, keys))


@long.jit
def generator(params, moves):
  """The average of the generator after the second stage; a guide that does not
  move learns nothing of what is made."""
  slow, fast = optimiser(STEPS), optimiser(STEPS * GUIDES)
  step = lambda tx, grad, state: (
    lambda change, opt: (optax.apply_updates(state[0], change), opt)
  )(*tx.update(grad, state[1]))

  def learned(guide, made_by, key):
    one, two = jax.random.split(key)
    q = made(made_by, jax.random.normal(one, (B, 2, C)))
    still, at = jax.lax.stop_gradient(q), asked(two)
    loss = lambda params: distillation.matching_error(
      velocity(params, still), still, *at
    ).mean()
    return jax.grad(loss)(guide)

  def moved(params, guide, key):
    one, two = jax.random.split(key)
    eps, at = jax.random.normal(one, (B, 2, C)), asked(two)

    def loss(params):
      q = made(params, eps)
      still = jax.lax.stop_gradient(q)
      return distillation.score_error(
        velocity(guide, still), law(still), q, *at
      ).mean()

    return jax.grad(loss)(params)

  def update(state, key):
    guide, own, average = state
    keys = jax.random.split(key, GUIDES + 1)
    turn = lambda state, key: (
      step(fast, learned(state[0], own[0], key), state), None
    )  # fmt: skip
    every = lambda guide: jax.lax.scan(turn, guide, keys[1:])[0]
    guide = jax.lax.cond(moves, every, lambda guide: guide, guide)
    own = step(slow, moved(own[0], guide[0], keys[0]), own)
    mix = lambda a, b: 0.99 * a + 0.01 * b
    return (guide, own, jax.tree.map(mix, average, own[0])), None

  begun = (params, fast.init(params)), (params, slow.init(params)), params
  keys = jax.random.split(jax.random.key(2), STEPS)
  return jax.lax.scan(update, begun, keys)[0][2]


@functools.cache
def guides():
  """(params, error) of a guide by the law and of one by noise."""
  x = jnp.zeros((1, 2, C))
  h = jnp.concatenate(before(x), -1)
  fresh = NET.init(jax.random.key(0), x, jnp.zeros((1, 2)), h)["params"]
  return scores(fresh, True), scores(fresh, False)


@functools.cache
def samples(moves):
  params = generator(guides()[0][0], moves)
  eps = jax.random.normal(jax.random.key(9), (20_000, 2, C))
  return np.asarray(jax.jit(made)(params, eps))


def nearest(x):
  """The nearest codes i32[N, 2], and how far they are."""
  gap = np.linalg.norm(x[:, :, None] - np.asarray(BOOK), axis=-1)
  return gap.argmin(-1), gap.min(-1)


def variation(index):
  share = np.bincount(index, minlength=V) / len(index)
  return 0.5 * np.abs(share - np.asarray(P)).sum()


class ScoresTest(absltest.TestCase):
  def test_the_law_teaches_faster_than_noise(self):
    (_, exact), (_, drawn) = guides()
    self.assertLess(exact, 0.8 * drawn)

  def test_ten_steps_of_the_guide_draw_the_law(self):
    """One unit behind the other, by the flow of each."""
    params, _ = guides()[0]

    @jax.jit
    def draw(eps):
      first = solvers.integrate(
        lambda x, t: velocity(params, eps)(x, jnp.full(x.shape[:2], t)),
        eps, solvers.uniform_grid(10),
      )[:, :1]  # fmt: skip
      both = jnp.concatenate([first, first], 1)
      field = velocity(params, both)
      second = solvers.integrate(
        lambda x, t: field(x, jnp.full(x.shape[:2], t)),
        eps, solvers.uniform_grid(10),
      )[:, 1:]  # fmt: skip
      return jnp.concatenate([first, second], 1)

    eps = jax.random.normal(jax.random.key(4), (20_000, 2, C))
    index, _ = nearest(np.asarray(draw(eps)))
    self.assertLess(variation(index[:, 0]), 0.05)
    self.assertGreater(np.mean(index[:, 0] == index[:, 1]), 0.95)


class GeneratorTest(absltest.TestCase):
  def test_one_pass_draws_the_law(self):
    """Of the first unit, which knows of no other: a law of one unit."""
    index, far = nearest(samples(True))
    self.assertLess(variation(index[:, 0]), 0.1)
    self.assertLess(far[:, 0].mean(), 0.2 * SPACING)

  def test_the_second_unit_follows_the_first(self):
    index, _ = nearest(samples(True))
    self.assertGreater(np.mean(index[:, 0] == index[:, 1]), 0.9)
    self.assertLess(np.sum(np.square(P)), 0.31)  # of units drawn alone

  def test_a_guide_that_does_not_move_is_no_guide(self):
    index, _ = nearest(samples(False))
    self.assertGreater(variation(index[:, 0]), 0.2)


class RulesTest(absltest.TestCase):
  def test_both_rules_point_to_the_law(self):
    """Where the guide says what the law says, nothing moves; where it does not,
    the unit moves from the guide's mean to the law's."""
    q = jnp.array([[[0.3, -0.2]]])
    points = Points(jnp.log(P)[None, None], BOOK)
    noise, t = jnp.array([[[0.5, 0.1]]]), jnp.array([[0.4]])
    x = flow.LINEAR.noisy(q, noise, t)
    mean = distillation.of_law(x, points, t)
    field = lambda x, t: (
      flow.LINEAR.convert(
        "data", distillation.of_law(x, points, t), x, t
      ).velocity
    )
    shift = jnp.array([0.2, -0.1])
    of = lambda velocity, rule: jax.grad(
      lambda q: jnp.sum(
        distillation.score_error(velocity, points, q, noise, t, rule=rule)
      )
    )(q)
    for rule in distillation.RULES:
      np.testing.assert_allclose(of(field, rule), 0, atol=1e-5)
    # (1 - t) v moves the guide's mean by as much.
    other = lambda x, t: field(x, t) + shift[None, None] / (1 - t[..., None])
    weight = 1 / (jnp.mean(jnp.abs(q - mean)) + 1e-3)
    np.testing.assert_allclose(
      of(other, "dmd")[0, 0], weight * shift / 2, rtol=1e-4
    )
    toward = -shift[None, None]
    moved = -of(other, "sid")
    self.assertGreater(jnp.sum(moved * toward), 0)
    with self.assertRaisesRegex(UserError, "rule='kl'"):
      of(field, "kl")

  def test_the_error_of_the_law_itself_is_zero(self):
    q, at = true(jax.random.key(0)), asked(jax.random.key(1))
    points = law(q)
    field = lambda x, t: (
      flow.LINEAR.convert(
        "data", distillation.of_law(x, points, t), x, t
      ).velocity
    )
    error = distillation.analytic_error(field, points, q, *at)
    np.testing.assert_allclose(error, 0, atol=1e-6)
    self.assertGreater(distillation.matching_error(field, q, *at).mean(), 1e-2)


if __name__ == "__main__":
  absltest.main()
