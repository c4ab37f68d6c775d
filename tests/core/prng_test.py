import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from scipy import stats

from ar_jax.core import prng

N = 1 << 16


def mix(x):
  x %= 1 << 32
  x = (x ^ x >> 16) * 0x7FEB352D % (1 << 32)
  x = (x ^ x >> 15) * 0x846CA68B % (1 << 32)
  return x ^ x >> 16


def keys_of(key):
  return np.asarray(jax.random.key_data(key)).reshape(-1, 2)


class PrngTest(parameterized.TestCase):
  @parameterized.parameters(8, 16, 32)
  def test_bytes_are_uniform(self, width):
    words = jax.random.bits(prng.key(3), (N,), f"uint{width}")
    octets = np.asarray(words).view(np.uint8).reshape(N, -1)
    for octet in octets.T:
      _, p = stats.chisquare(np.bincount(octet, minlength=256))
      self.assertGreater(p, 1e-4)

  def test_words_of_64_bits_are_two_draws(self):
    with jax.enable_x64(True):
      words = np.asarray(jax.random.bits(prng.key(3), (N,), "uint64"))
    halves = words.view(np.uint32).reshape(N, 2) / 2.0**32
    self.assertLess(abs(np.corrcoef(halves.T)[0, 1]), 5 / N**0.5)

  def test_draws_are_normal_in_every_direction(self):
    x = np.asarray(jax.random.normal(prng.key(0), (N // 64, 64)))
    self.assertGreater(stats.kstest(x.ravel(), "norm").pvalue, 1e-4)
    # The eigenvalues of white noise; structure along an axis would leave them.
    edge = (1 + (64 / len(x)) ** 0.5) ** 2
    spectrum = np.linalg.eigvalsh(x.T @ x / len(x))
    self.assertBetween(spectrum.max(), 0.9 * edge, 1.15 * edge)

  def test_neighbours_are_strangers(self):
    root = prng.key(0)
    near = [
      root,
      prng.key(1),
      *jax.random.split(root),
      *(jax.random.fold_in(root, i) for i in range(3)),
      jax.random.fold_in(jax.random.fold_in(root, 1), 0),
    ]
    draws = np.stack([jax.random.normal(k, (N,)) for k in near])
    off = np.corrcoef(draws) - np.eye(len(near))
    self.assertLess(np.abs(off).max(), 5 / N**0.5)

  def test_no_two_keys_are_alike(self):
    root = prng.key(0)
    made = [
      keys_of(root),
      keys_of(jax.random.split(root, (64, 128))),
      keys_of(jax.vmap(lambda i: jax.random.fold_in(root, i))(jnp.arange(N))),
      keys_of(jax.vmap(prng.key)(jnp.arange(1, N))),
    ]
    made = np.concatenate(made)
    self.assertLen(np.unique(made, axis=0), len(made))

  def test_a_draw_depends_on_key_and_index_alone(self):
    key = prng.key(7)
    flat = jax.random.bits(key, (24,))
    np.testing.assert_array_equal(jax.random.bits(key, (2, 3, 4)).ravel(), flat)
    both = jax.vmap(lambda k: jax.random.bits(k, (24,)))(jnp.stack([key, key]))
    np.testing.assert_array_equal(both[1], flat)
    # With Python's integers.
    k0, k1 = (mix(mix(2 * 7 + word)) for word in range(2))
    want = [mix(mix(i ^ k0) + k1) for i in range(24)]
    np.testing.assert_array_equal(flat, want)


if __name__ == "__main__":
  absltest.main()
