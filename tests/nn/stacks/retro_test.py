"""Chunked attention, against a loop over positions."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.nn.stacks import retro

M, K, D = 4, 2, 16


class Looped(retro.RetroStack):
  """Each position by itself: which chunk is the last that it may see?"""

  def _look(self, layer, h, kv, seen, c, first):
    b, found = len(h), []
    for p in range(h.shape[1]):
      chunk = (p - (first - 1)) // self.chunk
      if chunk < 0:
        found.append(jnp.zeros((b, 1, D)))
        continue
      rows = np.arange(b) * c + chunk
      own = tuple(x[rows] for x in kv)
      there = None if seen is None else seen[:, chunk]
      found.append(layer.look(h[:, p : p + 1], own, there))
    return jnp.concatenate(found, 1)


class RetroTest(absltest.TestCase):
  def test_short_first_chunks(self):
    stack = retro.decoder(1, D, 2, (1,), chunk=M, encoder_depth=1)
    names = ("runs", "layers", "encoder", "out_norm", "chunk")
    looped = Looped(**{name: getattr(stack, name) for name in names})
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
    e, x = draw(2, 3, K, 2 * M, D), draw(2, 1 + 3 * M, D)
    seen = np.array([[[1, 1], [1, 0], [0, 0]], [[0, 1], [1, 1], [1, 1]]], bool)
    shapes = jax.eval_shape(stack.init, jax.random.key(0), x, e)
    variables = jax.tree.map(lambda s: 0.3 * draw(*s.shape), shapes)
    for first in (1, 3, 4):
      # As the loop that goes on behind a prompt: its last chunk is complete.
      own = x[:, : 1 + first + 2 * M]
      run = lambda net, own=own, first=first: jax.jit(
        lambda v: net.apply(v, own, e, seen, lead=1, first=first)
      )(variables)
      np.testing.assert_allclose(run(stack), run(looped), atol=1e-5)

  def test_chunks(self):
    h = np.arange(1, 8, dtype=np.float32).reshape(1, 7, 1)
    found = retro.cut(jnp.asarray(h), 2, M, 3)[0, ..., 0]
    np.testing.assert_array_equal(found, [[1, 2, 3, 0], [4, 5, 6, 7]])
    self.assertEqual(retro.looking(12), (6, 9, 12))
    self.assertEqual(retro.looking(24), (9, 12, 15, 18, 21, 24))


if __name__ == "__main__":
  absltest.main()
