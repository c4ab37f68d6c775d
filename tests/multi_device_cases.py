"""Cases that need eight devices; `multi_device_test` runs them in a process
of their own, because the number of devices is fixed when JAX starts."""

import functools
import os
import sys
import tempfile
import types
from unittest import mock

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import chex  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from absl.testing import absltest, parameterized  # noqa: E402

from ar_jax import checkpoint, ops, optim, parallel, step  # noqa: E402
from ar_jax.core import plan  # noqa: E402
from ar_jax.core.system import UserError, build  # noqa: E402
from configs import var  # noqa: E402
from pallas_kernels.sparse_attention import tpu  # noqa: E402

KEY = jax.random.key(0)
# Compiles in a tenth of the time; what is drawn does not matter here.
INIT = jax.random.key(0, impl="rbg")
STEPS = 3


def smoke():
  """VAR on units, so that no encoder is compiled for every mesh."""
  config = var.get_config("smoke")
  system = build(config.system, **config.model.to_dict())
  shape = (8, len(system.plan))
  rng = np.random.default_rng(0)
  batches = [
    {
      "units": rng.integers(0, 16, shape).astype(np.int32),
      "label": rng.integers(0, 3, 8).astype(np.int32),
      "index": np.arange(8, dtype=np.int32) + 8 * i,
    }
    for i in range(STEPS)
  ]
  return system, optim.make(config.optim.to_dict(), STEPS), batches


def train(mesh, options=None, pmapped=False, batches=None):
  system, tx, own = smoke()
  batches = batches or own
  options = options or step.Options(ema=0.9)
  init = lambda key, batch: step.init_state(system, tx, options, key, batch)
  placed = parallel.shardings(jax.eval_shape(init, INIT, batches[0]), mesh)
  state = jax.jit(init, out_shardings=placed)(INIT, batches[0])
  if pmapped:
    options = step.Options(options.ema, options.accumulate, parallel.PMAP_AXIS)
    update = parallel.pmap_step(step.train_step, system, tx, options)
  else:
    update = lambda *a: step.jit_step(system, tx, options, *a)
  losses = []
  for batch in batches:
    state, metrics = update(state, parallel.put_batch(batch, mesh), KEY)
    losses.append(float(metrics["loss"]))
  return state, losses


def one_device():
  return jax.make_mesh(
    (1, 1, 1),
    parallel.AXES,
    axis_types=(jax.sharding.AxisType.Auto,) * 3,
    devices=jax.devices()[:1],
  )


class MultiDevice(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    # Small arrays are not worth gathering; here they stand for large ones.
    parallel.FSDP_MIN_SIZE = 64
    cls.single, cls.losses = train(one_device())

  @parameterized.parameters(
    (dict(data=8), 1),
    (dict(data=1, fsdp=8), 1),
    (dict(data=2, fsdp=2, tensor=2), 2),
  )
  def test_sharded_is_single(self, sizes, accumulate):
    options = step.Options(ema=0.9, accumulate=accumulate)
    state, losses = train(parallel.make_mesh(sizes), options)
    np.testing.assert_allclose(losses, self.losses, rtol=1e-5)
    # Adam divides by the root of its second moment, which magnifies rounding
    # where a gradient is nearly zero: hence absolute, in units of the rate.
    chex.assert_trees_all_close(state.ema, self.single.ema, atol=2e-4)
    if sizes.get("fsdp", 1) > 1:
      split = [
        x.sharding.shard_shape(x.shape) != x.shape
        for tree in (state.variables["params"], state.ema, state.opt)
        for x in jax.tree.leaves(tree)
        if x.size >= 64
      ]
      self.assertGreater(np.mean(split), 0.5)

  def test_kernels_are_split_over_batch_and_heads(self):
    p = plan.scales((1, 2, 3))
    shapes = (4, 14, 4, 8), (4, 14, 2, 8), (4, 14, 2, 8)
    args = [jax.random.normal(KEY, shape) for shape in shapes]
    calls = []

    def kernel(q, k, v, pattern, *, scale):
      calls.append((q.shape, k.shape))
      return tpu.attention(q, k, v, pattern, scale=scale, interpret=True)

    @functools.partial(jax.jit, static_argnums=0)
    def both(impl, *args):
      attend = lambda *x: ops.attention(*x, p, impl=impl)
      out, back = jax.vjp(attend, *args)
      return out, *back(out)

    want = both("xla", *args)
    mesh = parallel.make_mesh(dict(data=2, fsdp=2, tensor=2))
    fake = types.SimpleNamespace(attention=kernel)
    with jax.set_mesh(mesh), mock.patch.object(ops, "_module", lambda _: fake):
      got = both("pallas_tpu", *args)
    self.assertEqual(set(calls), {((1, 14, 2, 8), (1, 14, 1, 8))})
    for a, b in zip(got, want, strict=True):
      np.testing.assert_allclose(a, b, atol=1e-5)

  def test_pmap_is_jit(self):
    state, losses = train(parallel.make_mesh(), pmapped=True)
    np.testing.assert_allclose(losses, self.losses, rtol=1e-5)
    chex.assert_trees_all_close(state.ema, self.single.ema, atol=2e-4)

  def test_samples_do_not_depend_on_the_layout(self):
    system, _, _ = smoke()
    variables = self.single.averaged()
    cond = {"label": np.arange(8, dtype=np.int32) % 3}
    alone = step.draw(system, variables, cond, KEY, batch=8)
    mesh = parallel.make_mesh(dict(data=4, fsdp=2))
    placed = jax.device_put(variables, parallel.shardings(variables, mesh))
    spread = step.draw(
      system,
      placed,
      cond,
      KEY,
      batch=8,
      put=lambda b: parallel.put_batch(b, mesh),
    )
    np.testing.assert_allclose(alone, spread, atol=1e-4)

  def test_eight_to_one_restore(self):
    mesh = parallel.make_mesh(dict(data=2, fsdp=4))
    state, _ = train(mesh)
    with tempfile.TemporaryDirectory() as folder:
      checkpoints = checkpoint.Checkpoints(folder)
      checkpoints.save(STEPS, state.items(), {"config": {}})
      placed = parallel.shardings(state, one_device())
      abstract = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        state,
        placed,
      )
      checkpoints.wait()
      items, meta = checkpoints.restore(abstract.items())
      checkpoints.close()
    restored = step.TrainState.from_items(items)
    chex.assert_trees_all_equal(jax.device_get(restored), jax.device_get(state))
    self.assertEqual(meta["step"], STEPS)
    for leaf in jax.tree.leaves(restored):
      self.assertLen(leaf.sharding.device_set, 1)

  def test_a_batch_that_does_not_divide(self):
    mesh = parallel.make_mesh()
    with self.assertRaisesRegex(UserError, "multiple of 8"):
      parallel.put_batch({"label": np.zeros(6)}, mesh)

  def test_a_mesh_that_does_not_divide(self):
    with self.assertRaisesRegex(UserError, "8 devices"):
      parallel.make_mesh(dict(data=3))
    with self.assertRaisesRegex(UserError, "axes are"):
      parallel.make_mesh(dict(model=2))


if __name__ == "__main__":
  assert jnp.zeros(()).devices() and jax.device_count() == 8, sys.argv
  absltest.main()
