"""EAR: "It works when", line by line, and the published loop.

What is left out of a run (a window that is skipped changes neither params nor
moments) is followed through `step.train_step` itself.
"""

import dataclasses
import functools
import zlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest

from ar_jax import optim, step
from ar_jax.convert import ear as convert
from ar_jax.core.system import System, UserError, build
from ar_jax.families.token import alone
from tests import optimised
from tests.systems import ear_models as models
from tests.systems.ear_models import ARRAYS, SAFE, SIZES, TEXT

KEY = jax.random.key(0)
ADAM = dict(kind="adam", lr=1e-4, schedule="constant", b2=0.999)


@functools.partial(optimised.jit, static_argnums=0)
def errors(system, variables, batch):
  return system.errors(variables, batch)


@functools.partial(optimised.jit, static_argnums=0)
def goal(system, variables, unsafe, safe, units):
  return system.goal(variables, unsafe, safe, units)


def learned(system, variables, safe=None):
  """The batch of the golden draws."""
  if safe is None:
    safe = alone.fitted(system.target.net.prefix, SAFE, TEXT)
  units = np.concatenate([models.stream(i) for i in range(3)])
  return {
    "text": TEXT,
    "units": models.stream(0),
    "goal": goal(system, variables, TEXT, safe, units),
    "seen": np.ones((1, 9), bool),
    "kept": np.ones(1, bool),
  }


def moments(opt):
  found = []
  is_adam = lambda x: isinstance(x, optax.ScaleByAdamState)
  jax.tree.map(
    lambda x: found.append(x) if is_adam(x) else x, opt, is_leaf=is_adam
  )
  return found[0]


class ReleasedTest(absltest.TestCase):
  def test_loop(self):
    """Losses, sums, gate, gradient, and the losses after the updates."""
    system, variables = models.over(context="released", threshold=13.314)
    prefix = system.target.net.prefix
    safe = alone.fitted(prefix, SAFE, TEXT)
    np.testing.assert_array_equal(safe[0], ARRAYS["safe_padded_row0"])
    batch = learned(system, variables)
    tx, options = optim.make(ADAM, 16), step.Options()
    params = variables["params"]
    state = step.TrainState(jnp.int32(0), variables, None, tx.init(params))
    frozen = {k: v for k, v in variables.items() if k != "params"}
    losses, same = [], jax.tree.map(jnp.copy, frozen)
    for window in range(3):
      each = errors(system, state.variables, batch)[0]
      losses += list(each[3 * window : 3 * window + 3])
      before = jax.device_get((state.variables["params"], moments(state.opt)))
      turn = {**batch, "turn": np.int32([window])}
      state, metrics = step.jit_step(system, tx, options, state, turn, KEY)
      sums = ARRAYS["window_sums"][window]
      np.testing.assert_allclose(metrics["window"], sums, rtol=1e-4)
      updated = bool(ARRAYS["window_updated"][window])
      self.assertEqual(not metrics["skipped"], updated)
      after = jax.device_get((state.variables["params"], moments(state.opt)))
      if updated:  # every matrix has moved
        moved = jax.tree.map(lambda a, b: np.any(a != b), before[0], after[0])
        self.assertTrue(all(jax.tree.leaves(moved)))
      else:
        chex.assert_trees_all_equal(before, after)
      if window == 0:  # Adam's first mean is a tenth of the gradient
        mean = jax.tree.map(lambda x: 10 * x, after[1].mu)
        found = convert.to_official({"params": mean}, heads=models.HEADS)
        for name in ("q", "o"):
          for layer in (0, 1):
            key = f"layers.{layer}.self_attn.{name}_proj.weight"
            want = ARRAYS[f"grad_window_{key}"]
            scale = np.abs(want).max()
            np.testing.assert_allclose(
              found[key][::4, ::4], want, rtol=1e-3, atol=1e-4 * scale
            )
    losses += list(errors(system, state.variables, batch)[0][9:11])
    np.testing.assert_allclose(losses, ARRAYS["loss_per_step"], rtol=1e-4)
    rest = {k: v for k, v in state.variables.items() if k != "params"}
    chex.assert_trees_all_equal(rest, same)  # the 8 matrices alone differ

  def test_draws(self):
    """The golden draws are those of our laws, context and guidance alike."""
    system, variables = models.over(context="released")
    safe = alone.fitted(system.target.net.prefix, SAFE, TEXT)
    own = system.target.net_variables(system.frozen(variables))
    net = system.target.net
    for stream in range(3):
      text = TEXT if stream == 0 else safe
      units = models.stream(stream)
      h = system._states(net, own, {"text": text}, units)[:, :, 8:]
      self._follow(net, own, h, units[0, :11], "draw1011.", stream, 3)

  def _follow(self, net, own, h, units, name, first, stride):
    logits = net.bind(own).head.guided(h[:, 0], h[:, 1], 5.0)[0]
    mass = np.cumsum(jax.nn.softmax(logits, -1), -1)
    for i, unit in enumerate(units):
      key = zlib.crc32(f"{name}{first + stride * i}".encode())
      drawn = (mass[i] <= np.random.default_rng(key).random()).sum()
      self.assertEqual(drawn, unit, i)

  def test_cached_draws(self):
    system, variables = models.over()
    units = np.zeros((1, 16), np.int32)
    units[0, :10] = ARRAYS["sample_tokens"]
    net = system.target.net
    own = system.target.net_variables(system.frozen(variables))
    h = system._states(net, own, {"text": TEXT}, units)[:, :, 8:]
    self._follow(net, own, h, units[0, :10], "draw3.", 0, 1)


@dataclasses.dataclass(frozen=True)
class Bright(System):
  """Says class 1 of what is bright; in place of a judge."""

  def init(self, key, batch):
    raise NotImplementedError

  loss = init

  def sample(self, variables, cond, keys):
    raise NotImplementedError

  def logits(self, variables, batch):
    bright = jnp.mean(batch["image"].astype(jnp.float32), (1, 2, 3)) > 127
    return jax.nn.one_hot(bright.astype(jnp.int32), 2)


class EarTest(absltest.TestCase):
  def test_contexts_agree_on_the_prompt_alone(self):
    units = np.concatenate([models.stream(i) for i in range(3)])
    safe = np.where(SAFE < 0, SIZES["pad_id"], SAFE)
    one, other = (
      goal(*models.over(context=kind), TEXT, safe, units)
      for kind in ("cached", "released")
    )
    np.testing.assert_allclose(one[:, :, :9], other[:, :, :9], atol=1e-5)
    apart = np.abs(one - other)[:, :, 9:].max((0, 1, 3))
    self.assertGreater(apart.min(), 1e-2)

  def test_the_first_step_of_equal_prompts_is_no_error(self):
    system, variables = models.over(strength=0.0)
    each = errors(system, variables, learned(system, variables, TEXT))
    self.assertLess(each[0, 0], 1e-10)
    self.assertGreater(each[0, 1:11].min(), 1e-3)  # other draws, other states

  def test_the_gradient_of_a_window_is_the_sum_of_its_steps(self):
    system, variables = models.over()
    batch = learned(system, variables, np.where(SAFE < 0, 2, SAFE))
    rest = {k: v for k, v in variables.items() if k != "params"}

    def objective(own, params, turn):
      loss = own.loss(
        {"params": params, **rest}, {**batch, "turn": turn}, KEY, train=True
      )
      return loss.value[0]

    grad = optimised.jit(jax.grad(objective, 1), static_argnums=0)
    params = variables["params"]
    whole = grad(system, params, np.int32([1]))
    single = dataclasses.replace(system, window=1)
    parts = [grad(single, params, np.int32([i])) for i in (3, 4, 5)]
    total = jax.tree.map(lambda *x: sum(x), *parts)
    for a, b in zip(*map(jax.tree.leaves, (whole, total)), strict=True):
      np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())

  def test_what_is_not_above_the_threshold_is_skipped(self):
    system, variables = models.over(threshold=1e9)
    batch = learned(system, variables) | {"turn": np.int32([0])}
    loss = jax.jit(
      lambda system, batch: system.loss(variables, batch, KEY, train=True),
      static_argnums=0,
    )
    self.assertTrue(loss(system, batch).skip)
    system = dataclasses.replace(system, threshold=0.0)
    self.assertFalse(loss(system, batch).skip)
    self.assertTrue(loss(system, batch | {"kept": np.zeros(1, bool)}).skip)
    del batch["turn"]
    with self.assertRaisesRegex(UserError, "set data.turns=5"):
      system.loss(variables, batch, KEY, train=True)

  def test_draws_depend_on_example_and_view(self):
    system, variables = models.over(objective="tokens", guidance=2.0)
    rows = lambda x: np.repeat(x, 4, 0)
    batch = {"text": rows(TEXT), "safe_text": rows(SAFE)}
    batch |= {"index": np.int32([0, 0, 1, 0]), "view": np.int32([0, 1, 0, 0])}
    units = np.asarray(optimised.jit(system.encode)(variables, batch)["units"])
    np.testing.assert_array_equal(units[0], units[3])
    for i in (1, 2):
      self.assertTrue((units[0] != units[i]).any())

  def test_released_draws_end_where_the_text_does(self):
    system, variables = models.over(context="released", objective="tokens")
    batch = {"text": TEXT, "safe_text": SAFE, "index": np.int32([5])}
    found = optimised.jit(system.encode)(variables, batch)
    self.assertEqual(found["units"].shape, (1, 16))
    self.assertLess(found["units"].max(), SIZES["image_vocab"])
    self.assertTrue(found["kept"].all())

  def test_pairs_are_kept_by_what_a_judge_sees(self):
    system, variables = models.over()
    system = dataclasses.replace(system, judge=Bright())
    bright, dark = np.int32([[3] * 16]), np.int32([[7] * 16])
    codes = np.zeros((40, 4), np.float32)
    codes[3], codes[7] = 1.0, -1.0
    variables["tokenizer"] = {"quantizer": {"codebook": codes}}
    variables["judge"] = {}
    drawn = np.concatenate([bright, bright, dark])
    wanted = np.concatenate([dark, bright, dark])
    asked = {"concept": np.int32([1, 1, 1])}
    kept = system._kept(variables, asked, drawn, wanted)
    self.assertEqual(np.asarray(kept).tolist(), [True, False, False])
    with self.assertRaisesRegex(UserError, "data.concept"):
      system._kept(variables, {}, drawn, wanted)

  def test_drawing_costs_what_it_did(self):
    """The erased model is one of the target's kind: the same program."""
    system, variables = models.over()
    before, after = system.frozen(variables), system.of_target(variables)
    chex.assert_trees_all_equal(before, after)  # not trained yet
    moved = {
      **variables,
      "params": jax.tree.map(lambda x: x + 1, variables["params"]),
    }
    after = system.of_target(moved)
    chex.assert_trees_all_equal_shapes(before, after)
    differs = jax.tree.map(lambda a, b: np.any(a != b), before, after)
    count = sum(jax.tree.leaves(differs))
    self.assertEqual(count, 2)  # of the stacked q, k, v and outputs
    changed = after["params"]["backbone"]["block"]["mixer"]["qkv"]["kernel"]
    old = before["params"]["backbone"]["block"]["mixer"]["qkv"]["kernel"]
    np.testing.assert_array_equal(changed[2:], old[2:])

  def test_wrong_use(self):
    system, variables = models.over()
    with self.assertRaisesRegex(UserError, "data.name=prompt_pairs"):
      system.encode(variables, {"text": TEXT})
    for wrong in (dict(layers=4), dict(window=17), dict(context="none")):
      with self.assertRaisesRegex(UserError, "ear: "):
        models.over(**wrong)
    plain = dict(tokenizer=models.CODES, depth=2, width=32, heads=2)
    with self.assertRaisesRegex(UserError, "take janus"):
      build("ear", target=dict(name="llamagen", num_classes=3, **plain))


if __name__ == "__main__":
  absltest.main()
