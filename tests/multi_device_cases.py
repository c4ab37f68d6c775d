"""Cases that need eight devices; `multi_device_test` runs them in a process
of their own, because the number of devices is fixed when JAX starts."""

import functools
import os
import sys
import types
from unittest import mock

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import chex  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from absl.testing import absltest  # noqa: E402
from jax.sharding import PartitionSpec as P  # noqa: E402

from ar_jax import ops, optim, parallel, step  # noqa: E402
from ar_jax.core import prng  # noqa: E402
from ar_jax.core.plans import makers  # noqa: E402
from ar_jax.core.system import UserError, build  # noqa: E402
from ar_jax.nn.heads.diffusion import Diffusion  # noqa: E402
from ar_jax.nn.heads.flow import Flow  # noqa: E402
from ar_jax.nn.heads.flow_nets import GroupTransformer, TokenMLP  # noqa: E402
from ar_jax.nn.heads.map_diffusion import MapDiffusion, MapDiT  # noqa: E402
from ar_jax.nn.stacks.dit import dit_zero  # noqa: E402
from ar_jax.nn.stacks.vit import vit  # noqa: E402
from ar_jax.planning.work import of_program  # noqa: E402
from configs import var  # noqa: E402
from pallas_kernels.sparse_attention import tpu  # noqa: E402

KEY = jax.random.key(0)
# Compiles in a tenth of the time; what is drawn does not matter here.
INIT = prng.key(0)
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


def train(mesh, options=None):
  system, tx, batches = smoke()
  options = options or step.Options(ema=0.9)
  init = lambda key, batch: step.init_state(system, tx, options, key, batch)
  placed = parallel.shardings(jax.eval_shape(init, INIT, batches[0]), mesh)
  state = jax.jit(init, out_shardings=placed)(INIT, batches[0])
  update = parallel.on(mesh, step.jit_step)
  losses = []
  for batch in batches:
    batch = parallel.put_batch(batch, mesh)
    state, metrics = update(system, tx, options, state, batch, KEY)
    losses.append(float(metrics["loss"]))
  return state, losses


def one_device():
  return jax.make_mesh(
    (1, 1, 1),
    parallel.AXES,
    axis_types=(jax.sharding.AxisType.Auto,) * 3,
    devices=jax.devices()[:1],
  )


class MultiDevice(absltest.TestCase):
  """What `multi_process_test` cannot look into; all meshes are there."""

  def test_sharded_is_single(self):
    # Small arrays are not worth gathering; here they stand for large ones.
    self.enterContext(mock.patch.object(parallel, "FSDP_MIN_SIZE", 64))
    single, want = train(one_device())
    options = step.Options(ema=0.9, accumulate=2)
    mesh = parallel.make_mesh(dict(data=2, fsdp=2, tensor=2))
    state, losses = train(mesh, options)
    np.testing.assert_allclose(losses, want, rtol=1e-5)
    # Adam divides by the root of its second moment, which magnifies rounding
    # where a gradient is nearly zero: hence absolute, in units of the rate.
    chex.assert_trees_all_close(state.ema, single.ema, atol=2e-4)
    for part in (state.variables["params"], state.ema, state.opt):
      leaves = [x for x in jax.tree.leaves(part) if x.size >= 64]
      split = [x.sharding.shard_shape(x.shape) != x.shape for x in leaves]
      self.assertGreater(np.mean(split), 0.5)
    jax.tree.map(
      lambda x, s: self.assertTrue(x.sharding.is_equivalent_to(s, x.ndim)),
      state,
      parallel.shardings(state, mesh),
    )

  def test_a_stack_with_a_memory(self):
    self.enterContext(mock.patch.object(parallel, "FSDP_MIN_SIZE", 64))
    net = vit(2, 32, 4, cross=True, dropout=0.0, remat=True)
    draw = np.random.default_rng(0)
    batch = {
      "x": draw.normal(size=(8, 5, 32)).astype(np.float32),
      "m": draw.normal(size=(8, 6, 24)).astype(np.float32),
      "seen": draw.random((8, 6)) < 0.7,
    }

    def call(net, batch):
      memory = net.remember(batch["m"], batch["seen"])
      return net(batch["x"], memory=memory)[0]

    def update(variables, batch):
      value = lambda v: (net.apply(v, batch, method=call) ** 2).mean()
      return jax.value_and_grad(value)(variables)

    init = lambda key: net.init(key, batch, method=call)
    variables = jax.jit(init)(INIT)
    want = jax.jit(update)(variables, batch)
    mesh = parallel.make_mesh(dict(data=2, fsdp=2, tensor=2))
    placed = parallel.shardings(variables, mesh)
    cross = placed["params"]["block"]["cross"]
    spec = {
      name: cross[name]["kernel"].spec for name in cross if "_" not in name
    }
    self.assertEqual(spec["query"], P(None, "fsdp", "tensor"))
    self.assertEqual(spec["out"], P(None, "tensor", "fsdp"))
    split = parallel.put_batch(batch, mesh)
    run = parallel.on(mesh, jax.jit(update, out_shardings=(None, placed)))
    got = run(jax.device_put(variables, placed), split)
    chex.assert_trees_all_close(got, want, atol=1e-5)
    # By pmap each device has an example.
    rows = jax.tree.map(lambda x: x[:, None], batch)
    mean = lambda v, batch: jax.lax.pmean(update(v, batch), "data")
    mapped = jax.pmap(mean, "data", in_axes=(None, 0), out_axes=None)
    chex.assert_trees_all_close(mapped(variables, rows), want, atol=1e-5)

  def test_heads_send_weights_and_no_activations(self):
    self.enterContext(mock.patch.object(parallel, "FSDP_MIN_SIZE", 64))
    mesh = parallel.make_mesh(dict(data=1, fsdp=8))
    rows = parallel.put_batch(
      {
        "h": np.ones((8, 256, 32), np.float32),
        "target": np.ones((8, 256, 4), np.float32),
        "hidden": np.ones((8, 256), np.float32),
      },
      mesh,
    )
    keys = jax.eval_shape(lambda: jax.random.split(KEY, 8))
    keys = parallel.spread({"keys": keys}, mesh)["keys"]
    for head, more in (
      (Diffusion(TokenMLP(4, 32, 2, 8), repeats=4), ()),
      (Flow(GroupTransformer(4, 32, 2, heads=2), repeats=2), ()),
      (MapDiffusion(MapDiT(4, 32, (16, 16), dit_zero(2, 32, 2))), ("hidden",)),
    ):
      call = lambda head, x, keys, more=more: head.loss(
        x["h"], x["target"], keys, *(x[k] for k in more)
      )
      init = lambda keys, head=head, call=call: head.init(
        KEY, rows, keys, method=call
      )
      variables = jax.eval_shape(init, keys)
      placed = parallel.shardings(variables, mesh)
      loss = lambda v, x, keys, head=head, call=call: head.apply(
        v, x, keys, method=call
      ).mean()
      update = jax.jit(jax.value_and_grad(loss), out_shardings=(None, placed))
      given = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        variables,
        placed,
      )
      lower = parallel.on(mesh, update.lower)
      text = lower(given, rows, keys).compile().as_text()
      work = of_program(text, devices=8)
      sent = sum(one.payload * n for one, n in work.collectives())
      size = 4 * sum(x.size for x in jax.tree.leaves(variables))
      self.assertGreater(sent, size / 2)  # gradients, at least
      self.assertLess(sent, 4 * size, type(head).__name__)

  def test_rows_of_a_process(self):
    mesh = parallel.make_mesh(dict(data=4, tensor=2))
    np.testing.assert_array_equal(parallel.rows(mesh, 8), np.arange(8))
    # As on a slice whose hosts are squares: ours are not side by side.
    with mock.patch.object(parallel, "_held", lambda mesh: [0, 2]):
      np.testing.assert_array_equal(parallel.rows(mesh, 8), [0, 1, 4, 5])

  def test_kernels_are_split_over_batch_and_heads(self):
    p = makers.scales((1, 2, 3))
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
