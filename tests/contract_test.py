"""What every system keeps, checked on the smoke preset of every config.

A new config is found by itself; nothing here names a system.
"""

import functools
import importlib
import json
import pathlib
import tempfile

import chex
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax import data, main, optim, parallel, sample, step, train
from ar_jax.core.system import build

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = sorted(
  p.stem
  for p in (ROOT / "configs").glob("*.py")
  if p.stem not in ("__init__", "common", "quickstart")
)
KEY = jax.random.key(0)
STEPS = 30


def smoke(name, **changes):
  config = importlib.import_module(f"configs.{name}").get_config("smoke")
  config.update_from_flattened_dict({"train.steps": STEPS, **changes})
  return config


class Case:
  """One smoke config: its system, a batch, its programs.

  The programs are those of `main.run`, of the same types and placed alike, so
  that none is compiled twice.
  """

  def __init__(self, name):
    c = self.config = smoke(name)
    self.system = build(c.system, **c.model.to_dict())
    mesh = parallel.make_mesh(c.mesh)
    dataset = data.load(**c.data)
    at = functools.partial(data.batch_at, dataset.train, 0)
    self.batch = parallel.put_batch(at(batch=4, seed=0), mesh)
    tx = optim.make(c.optim.to_dict(), STEPS)
    options = step.Options(c.train.ema, c.train.accumulate)
    _, fresh = train.initial_state(
      c, self.system, tx, options, at(batch=1, seed=c.seed), mesh
    )
    self.state = fresh()
    update = functools.partial(step.jit_step, self.system, tx, options)
    self.update = parallel.on(mesh, update)
    self.draw = sample.drawer(mesh)
    self.loss = jax.jit(
      lambda variables, batch: self.system.loss(
        variables, batch, KEY, train=True
      )
    )

  def updated(self, n):
    state = jax.tree.map(jnp.copy, self.state)  # the step donates it
    losses = []
    for _ in range(n):
      state, metrics = self.update(state, self.batch, KEY)
      losses.append(float(metrics["loss"]))
    return state, losses

  def sample(self, rows=slice(None), **options):
    """Rows of four samples; what is left of a batch is filled."""
    cond = {k: np.asarray(self.batch[k][rows]) for k in self.system.needs}
    return self.draw(
      self.system,
      self.state.variables,
      cond,
      KEY,
      batch=4,
      start=rows.start or 0,
      options={**self.config.sample.options.to_dict(), **options},
    )


case = functools.cache(Case)


class Contract:
  """The tests of one config."""

  name: str

  def test_loss_is_finite_and_per_example(self):
    c = case(self.name)
    loss = c.loss(c.state.variables, c.batch)
    for value in (loss.value, *loss.metrics.values()):
      chex.assert_shape(value, (4,))
      chex.assert_tree_all_finite(value)

  def test_loss_of_a_batch_is_that_of_its_parts(self):
    c = case(self.name)
    whole = c.loss(c.state.variables, c.batch)
    for half in ([0, 1], [2, 3]):
      rows = np.array(half * 2)  # as many, so that nothing is compiled
      part = c.loss(c.state.variables, {k: v[rows] for k, v in c.batch.items()})
      np.testing.assert_allclose(
        part.value, whole.value[rows], rtol=2e-4, atol=1e-5
      )

  def test_every_parameter_moves(self):
    c = case(self.name)
    # Four, for flow heads: their output and their gates begin at zero, as
    # published, and each zero keeps what is behind it still for one update.
    state, _ = c.updated(4)
    before = jax.tree_util.tree_leaves_with_path(c.state.variables["params"])
    after = jax.tree.leaves(state.variables["params"])
    still = [
      jax.tree_util.keystr(path)
      for (path, a), b in zip(before, after, strict=True)
      if np.array_equal(a, b)
    ]
    self.assertEmpty(still)

  def test_frozen_collections_stay(self):
    c = case(self.name)
    state, _ = c.updated(2)
    for collection in c.state.variables.keys() - {"params"}:
      chex.assert_trees_all_equal(
        c.state.variables[collection], state.variables[collection]
      )

  def test_one_batch_can_be_overfitted(self):
    _, losses = case(self.name).updated(30)
    self.assertLess(np.mean(losses[-3:]), 0.9 * losses[0])

  def test_one_trace(self):
    c = case(self.name)
    before = step.jit_step._cache_size(), step.jit_draw._cache_size()
    c.updated(3)
    c.sample(), c.sample()
    after = step.jit_step._cache_size(), step.jit_draw._cache_size()
    self.assertLessEqual(after[0] - before[0], 1)
    self.assertLessEqual(after[1] - before[1], 1)

  def test_samples(self):
    c = case(self.name)
    whole = c.sample()
    self.assertEqual(whole.shape[0], 4)
    self.assertTrue(np.isfinite(whole).all())
    self.assertGreaterEqual(whole.min(), 0.0)
    self.assertLessEqual(whole.max(), 1.0)
    np.testing.assert_array_equal(whole, c.sample())
    parts = [c.sample(slice(0, 2)), c.sample(slice(2, 4))]
    np.testing.assert_allclose(whole, np.concatenate(parts), atol=1e-4)

  def test_guidance_of_one_is_none(self):
    c = case(self.name)
    if "guidance" in c.config.sample.options:
      np.testing.assert_allclose(
        c.sample(guidance=1.0), c.sample(guidance=None), atol=1e-4
      )

  def test_steps_do_not_leak(self):
    c = case(self.name)
    batch = jax.jit(c.system.encode)(c.state.variables, c.batch)
    plan = c.system.plan
    if plan is None:  # a tokenizer, or an order of each example's own
      return

    @jax.jit
    def unit_losses(variables, batch):
      loss = c.system.loss(variables, batch, KEY, train=False)
      return loss.errors if loss.nll is None else loss.nll

    units = batch["units"]
    before = unit_losses(c.state.variables, batch)
    if before is None:  # the units of a step are made of those of others
      return
    chex.assert_shape(before, units.shape[:2])
    for s in range(len(plan.sizes)):
      at = plan.span(s)
      other = units.at[:, at].set(jnp.roll(units[:, at], 1, 0))
      if not bool(jnp.any(other != units)):
        continue
      after = unit_losses(c.state.variables, {**batch, "units": other})
      np.testing.assert_array_equal(before[:, : at.start], after[:, : at.start])

  def test_modes_write_their_files_and_resume_is_exact(self):
    with tempfile.TemporaryDirectory() as folder:
      folder = pathlib.Path(folder)
      run = folder / "run"
      half = STEPS // 2
      config = smoke(self.name, **{"train.save_every": half})
      saved = lambda: {int(p.name) for p in (run / "checkpoints").iterdir()}
      rows = lambda: [
        {k: v for k, v in row.items() if not k.endswith(("/s", "wait"))}
        for row in map(
          json.loads, (run / "metrics.jsonl").read_text().splitlines()
        )
      ]
      main.run(config, run)
      whole = rows()
      for at in saved() - {half}:  # what came after it is lost
        (run / f"checkpoints/{at}").rename(folder / f"lost-{at}")
      main.run(config, run)
      self.assertIn(STEPS, saved())
      self.assertEqual(rows(), whole)
      main.run(config, run, "sample")
      main.run(config, run, "eval")
      for file in ("samples.png", "samples.npz", "samples.json", "eval.jsonl"):
        self.assertTrue((run / file).exists(), file)
      with np.load(run / "samples.npz") as samples:
        self.assertEqual(samples["arr_0"].dtype, np.uint8)
        self.assertEqual(samples["arr_0"].ndim, 4)


# A class for each config, so that workers can share them out.
for config_name in CONFIGS:
  kind = f"{config_name.title().replace('_', '')}Test"
  bases, of = (Contract, absltest.TestCase), {"name": config_name}
  globals()[kind] = type(kind, bases, of)


if __name__ == "__main__":
  absltest.main()
