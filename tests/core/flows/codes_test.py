"""The flow to the codes of a codebook: its forms, its law, its solvers."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.errors import UserError
from ar_jax.core.flows import codes, flow
from tests import golden_weights, laws

N = 100_000


def law(vocab, channels, seed=0):
  """Random codes and probabilities."""
  rng = np.random.default_rng(seed)
  logits = 1.5 * rng.normal(size=vocab).astype(np.float32)
  points = rng.normal(size=(vocab, channels)).astype(np.float32)
  return codes.Points(jax.nn.log_softmax(jnp.asarray(logits)), points)


def arrived(points, noise, **solver):
  run = jax.jit(lambda noise: codes.travel(noise, points, **solver).index)
  return np.asarray(run(noise))


class LawTest(parameterized.TestCase):
  @parameterized.parameters((5, 2), (32, 4))
  def test_noise_arrives_with_the_probabilities_of_the_codes(self, v, c):
    points = law(v, c)
    noise = jax.random.normal(jax.random.key(0), (N, c))
    index = arrived(points, noise)
    wanted = np.exp(points.logp)
    p = lambda index: laws.chi_square(index[:, None], wanted, v)
    self.assertGreater(p(index), 1e-3)
    np.testing.assert_array_equal(index, arrived(points, noise))
    poor = arrived(points, noise, steps=4, method="euler")
    self.assertLess(p(poor), 1e-6)

  def test_units_one_after_the_other_have_their_joint_law(self):
    """The second law depends on where the first noise has arrived."""
    first, second = law(4, 2), [law(4, 2, seed) for seed in range(1, 5)]
    noise = jax.random.normal(jax.random.key(1), (2, 40_000, 2))
    one = arrived(first, noise[0])
    table = jnp.stack([own.logp for own in second])
    two = arrived(codes.Points(table[one], first.codes), noise[1])
    joint = np.exp(np.asarray(first.logp)[:, None] + np.asarray(table))
    both = np.stack([one, two], 1)
    self.assertGreater(laws.chi_square(both, joint.reshape(-1), 4), 1e-4)
    alone = np.exp(np.asarray(first.logp)[:, None] + np.asarray(table[0]))
    self.assertLess(laws.chi_square(both, alone.reshape(-1), 4), 1e-6)

  def test_codes_that_are_ruled_out_are_not_reached(self):
    points = law(8, 3)
    logp = jnp.where(points.logp < jnp.sort(points.logp)[-3], -jnp.inf,
                     points.logp)  # fmt: skip
    logp = jax.nn.log_softmax(logp)
    noise = jax.random.normal(jax.random.key(2), (2000, 3))
    index = arrived(codes.Points(logp, points.codes), noise)
    self.assertLen(np.unique(index), 3)
    rows = jnp.broadcast_to(logp, (2000, 8))
    few = jax.jit(lambda x: codes.draw(rows, points.codes, x, keep=3))(noise)
    self.assertLess(np.mean(few != index), 2e-3)

  def test_too_few_steps(self):
    with self.assertRaisesRegex(UserError, "1 steps"):
      codes.travel(jnp.zeros(2), law(4, 2), steps=1)


class FormsTest(absltest.TestCase):
  def test_velocity_and_score_follow_from_the_density(self):
    """By derivatives of the log density of x_t, on another path."""
    points, path, t = law(6, 3), flow.COSINE, 0.6
    a, s, da, ds = (float(c) for c in path.coefficients(jnp.float32(t)))

    def log_density(x):
      gap = jnp.sum(jnp.square(x[None] - a * points.codes), -1)
      return jax.nn.logsumexp(points.logp - gap / (2 * s**2))

    x = jnp.asarray(np.random.default_rng(3).normal(size=(5, 3)), jnp.float32)
    form = codes.predict(x, points, t, path)
    score = jax.vmap(jax.grad(log_density))(x)
    np.testing.assert_allclose(form.score, score, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
      form.velocity, da * form.data + ds * form.noise, rtol=1e-5, atol=1e-5
    )

  def test_golden(self):
    """Own computation in float64, not an official one. There 1 is noise."""
    _, arrays = golden_weights.load("dd_flow")
    book = jnp.asarray(golden_weights.tensor("codebook", (16, 4)))
    logits = golden_weights.tensor("logits", (32, 16)) * np.float32(1.5)
    noise = golden_weights.tensor("noise", (32, 4))
    full = jax.nn.log_softmax(jnp.asarray(logits), -1)
    for i, t in enumerate((1.0, 0.7, 0.3, 0.1)):
      x = (1 - t) * book[np.arange(32) % 16] + t * noise
      form = codes.predict(x, codes.Points(full, book), 1 - t)
      for name, ours in (
        ("mean", form.data),
        ("velocity", -form.velocity),
        ("score", form.score),
      ):
        np.testing.assert_allclose(
          ours, arrays[name][i], rtol=2e-4, atol=2e-4, err_msg=f"{name} {t}"
        )
    fifth = np.sort(logits, -1)[:, -5:-4]
    five = jax.nn.log_softmax(jnp.where(logits < fifth, -jnp.inf, logits), -1)
    for logp, end in ((full, ""), (five, "_top5")):
      points = codes.Points(logp, book)
      found = jax.jit(lambda points=points: codes.travel(noise, points))()
      np.testing.assert_allclose(
        found.mean, arrays[f"heun20{end}"], rtol=1e-3, atol=1e-3
      )
      stable = arrays[f"stable{end}"] == 1
      self.assertGreater(stable.sum(), 15)
      np.testing.assert_array_equal(
        found.index[stable], arrays[f"index{end}"][stable]
      )


if __name__ == "__main__":
  absltest.main()
