"""CSpD: a drafter that is the target, blocks of a MAR, the released loop."""

import functools
import math
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.convert import mar as convert
from ar_jax.core.decoding import densities, place_keys
from ar_jax.core.flows import solvers
from ar_jax.core.plans import makers
from ar_jax.core.system import UserError, build
from ar_jax.families.masked import speculation
from ar_jax.systems import mar
from tests import filled, golden_weights

PATCHES = dict(name="patches", size=8, patch=2)
TINY = dict(tokenizer=PATCHES, depth=1, width=16, heads=2, num_classes=3)
HEAD = dict(head_depth=1, head_width=16, levels=20, repeats=1)
TARGETS = {
  "mixture": dict(name="cspd", multiple_of=16, components=2, **TINY),
  "diffusion": dict(
    name="cspd", multiple_of=16, head="diffusion", **TINY, **HEAD
  ),
  "mar": dict(name="mar", prefix=2, **TINY, **HEAD),
}
LENGTH, DRAFTS = 16, 4
KEYS = jax.random.split(jax.random.key(3), 2)
LABEL = {"label": jnp.array([0, 2])}


@functools.cache
def twins(name):
  """CSpD whose drafter is its target, and its variables."""
  system = build("cspd", target=TARGETS[name], drafter={})
  variables = filled.variables(system)
  return system, {**variables, "params": variables["target"]}


def run(name, **options):
  system, variables = twins(name)
  draw = functools.partial(system.generate, **options)
  return jax.device_get(jax.jit(draw)(variables, LABEL, KEYS))


@functools.cache
def alone(name, **options):
  """What the target of the twins draws without a drafter."""
  system, variables = twins(name)
  plain = jax.jit(functools.partial(system.target.generate, **options))
  return jax.device_get(plain(system.of_target(variables), LABEL, KEYS))


class TwinsTest(parameterized.TestCase):
  @parameterized.parameters(
    ("mixture", "exact", 1.5), ("diffusion", "surrogate", 1.0)
  )
  def test_all_drafts_stand_and_are_what_the_target_draws(
    self, name, mode, guidance
  ):
    steps = {} if name == "mixture" else {"denoise": 3}
    law = dict(guidance=guidance, temperature=0.9)
    units, took = run(
      name, mode=mode, drafts=DRAFTS, prefill=0.1, **law, **steps
    )
    np.testing.assert_array_equal(took.accepted, took.trials)
    np.testing.assert_allclose(took.chance, took.trials, rtol=1e-2)
    prefill = math.ceil(0.1 * LENGTH)
    rounds = math.ceil((LENGTH - prefill) / (DRAFTS + 1))
    np.testing.assert_array_equal(took.forwards, prefill + rounds)
    self.assertEqual(took.proposals.sum(), 0)
    wanted = alone(name, **law, **({"steps": 3} if steps else {}))
    # Chains of random weights make large units.
    np.testing.assert_allclose(units, wanted, rtol=1e-4, atol=1e-2)

  def test_no_drafts_are_the_target_alone(self):
    law = dict(guidance=1.5, temperature=0.9)
    units, took = run("mixture", drafts=0, **law)
    np.testing.assert_array_equal(took.forwards, LENGTH)
    np.testing.assert_array_equal(took.trials, 0)
    wanted = alone("mixture", **law)
    # Chains of random weights make large units.
    np.testing.assert_allclose(units, wanted, rtol=1e-4, atol=1e-2)

  def test_blocks_of_one_step_of_a_mar(self):
    law = dict(mode="official", denoise=2, steps=2, guidance=1.5)
    units, took = run("mar", drafts=1, **law)
    alone, plain = run("mar", drafts=0, **law)
    np.testing.assert_allclose(units, alone, rtol=1e-4, atol=1e-1)
    np.testing.assert_array_equal(took.accepted, took.trials)
    np.testing.assert_array_equal(took.forwards, 2)
    np.testing.assert_array_equal(plain.forwards, 2)
    self.assertEqual(plain.trials.sum(), 0)


class BlocksTest(absltest.TestCase):
  def test_blocks(self):
    sizes = makers.cosine(16, 8)
    self.assertEqual(speculation.blocks(sizes, 2, 3), [[2, 3], [4, 5, 6], [7]])
    self.assertEqual(speculation.blocks(sizes, 8, 3), [])
    self.assertEqual(speculation.blocks((1,) * 4, 0, 1), [[0], [1], [2], [3]])

  def test_bad_arguments(self):
    system, variables = twins("mixture")
    draw = lambda **options: system.generate(variables, LABEL, KEYS, **options)
    for options, wrong in (
      (dict(mode="fast"), "mode='fast'"),
      (dict(mode="surrogate"), "take 'exact'"),
      (dict(inner=2.0), "inner=2.0"),
      (dict(prefill=2.0), "prefill=2.0"),
      (dict(drafts=-1), "drafts=-1"),
      (dict(temperature=0.0), "temperature=0"),
    ):
      with self.assertRaisesRegex(UserError, wrong):
        draw(**options)
    with self.assertRaisesRegex(UserError, "no law of vectors"):
      build("cspd", target=dict(TARGETS["mar"], head="flow"), drafter={})
    with self.assertRaisesRegex(UserError, "of one kind"):
      build("cspd", target=TARGETS["mixture"], drafter={"head": "diffusion"})
    with self.assertRaisesRegex(UserError, "same tokenizer"):
      build("cspd", target=TARGETS["mixture"], drafter={"num_classes": 4})
    codes = dict(TARGETS["mixture"], tokenizer={"name": "patch_codes"})
    with self.assertRaisesRegex(UserError, "units are codes"):
      build("cspd", target=codes, drafter={})


def golden():
  """(config, arrays, CSpD over two MARs, its variables) of the release."""
  description, arrays = golden_weights.load("cspd")
  config, state = description["config"], golden_weights.weights(description)
  params, models = {}, {}
  for name, sizes in config["dims"].items():
    own = {
      key.removeprefix(f"{name}."): golden_weights.weight(
        key, tuple(description["state_dict"][key])
      )
      for key in state
      if key.startswith(f"{name}.")
    }
    heads = sizes["heads"]
    models[name] = convert.config(own, heads=heads)["model"] | {"eps": 1e-5}
    params[name] = convert.to_ours(own, heads=heads)
  target = dict(name="mar", **models["target"])
  system = build("cspd", target=target, drafter=models["draft"])
  return config, arrays, system, {
    "params": params["draft"], "target": params["target"]
  }  # fmt: skip


class GoldenTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.config, cls.arrays, cls.system, cls.variables = golden()

  def test_denoising_by_shared_noise(self):
    bank = golden_weights.tensor("bank", (6, 5, 4))
    start = golden_weights.tensor("x_T", (5, 4))

    def given(keys, shape, level=0):
      del keys, shape
      every = jnp.concatenate([jnp.asarray(bank), start[None]])
      return every[level]

    for name, one in (("draft", "drafter"), ("target", "target")):
      net = getattr(self.system, one).net
      params = self.variables["params" if name == "draft" else "target"]
      z, zu = (
        golden_weights.tensor(f"{kind}_{name}", (5, net.width))
        for kind in ("z", "zu")
      )
      for guided in (False, True):
        more = dict(h_null=jnp.asarray(zu), scale=3.0) if guided else {}
        law = net.bind({"params": params}).head.law(
          jnp.asarray(z), steps=6, temperature=0.9, **more
        )
        with mock.patch.object(solvers, "noise", given):
          walk = jax.jit(lambda law=law: law.walk(None, last=False))()
        of = lambda what, guided=guided, name=name: self.arrays[
          f"{name}_{'cfg_' if guided else ''}{what}"
        ]
        mean = walk.mean[:, -1]
        most = np.abs(of("mean")).max()
        np.testing.assert_allclose(
          mean, of("mean"), rtol=1e-3, atol=1e-4 * most
        )
        std = np.exp(walk.log_std[:, -1])
        np.testing.assert_allclose(std, of("std"), rtol=1e-4)
        # Ours has the temperature in it.
        total = walk.log_std[:, :-1].sum(1) - 5 * np.log(0.9)
        np.testing.assert_allclose(total, of("sumlog"), rtol=1e-3, atol=1e-3)
        np.testing.assert_array_equal(walk.states[:, -1], mean)

  def test_a_run_with_given_numbers(self):
    """The whole loop of mode `official`; every place has its own numbers, in
    the order of the image where they belong to a verification."""
    run, arrays = self.config["run"], self.arrays
    order = arrays["orders"][:, ::-1]  # theirs hides the first
    tensor = golden_weights.tensor
    start = tensor("randn0", (2, 16, 4))
    bank = tensor("randn1", (2, 16, 6, 4))
    # Which verification judges each place, and where in it.
    sizes = makers.cosine(16, run["num_iter"])
    step = np.repeat(np.arange(run["num_iter"]), sizes)
    of_step = np.searchsorted([3, 6, 7], step)
    judge = np.zeros((2, 16), int)
    np.put_along_axis(judge, order, np.tile(of_step, (2, 1)), 1)
    first = np.zeros((2, 16), bool)
    np.put_along_axis(first, order, np.tile(step <= 1, (2, 1)), 1)
    accept, again = (np.zeros((2, 16), np.float32) for _ in range(2))
    proposal = np.zeros((2, 16, 4), np.float32)
    names = [
      ("rand0", "randn2", "rand1"),
      ("rand2", "randn3", "rand3"),
      ("rand4", "randn4", "rand5"),
    ]
    for check, (one, two, three) in enumerate(names):
      at = (judge == check) & ~first
      n = at.sum()
      accept[at] = golden_weights.uniform(one, (n,))
      proposal[at] = tensor(two, (n, 4))
      again[at] = golden_weights.uniform(three, (n,))

    # A key is the number of a place; its use is in the thousands.
    def keys_at(keys, at, use=None):
      del keys
      use = {None: 0, place_keys.ACCEPT: 1, place_keys.RESAMPLE: 2}[use]
      row = jnp.arange(2)[:, None]
      return 1000 * use + row * 16 + jnp.minimum(at, 15)

    def fold(keys, number):
      del number
      return keys

    def noise(keys, shape, level=0):
      del shape
      every = jnp.concatenate(
        [jnp.moveaxis(jnp.asarray(bank), 2, 0), start[None]]
      )
      return every[level].reshape(32, 4)[keys % 1000]

    def uniform(keys):
      table = jnp.where(
        (keys >= 2000), again.reshape(-1)[keys % 1000],
        accept.reshape(-1)[keys % 1000],
      )  # fmt: skip
      return table

    normal = lambda keys, shape: proposal.reshape(32, 4)[keys % 1000]
    options = dict(
      mode="official",
      drafts=run["num_draft"],
      prefill=run["ratio"],
      steps=run["num_iter"],
      waste=3.0,
      denoise=6,
      guidance=run["cfg"],
      schedule=run["cfg_schedule"],
      temperature=run["temperature"],
      inner=run["inner_temperature"],
    )
    proposal = jnp.asarray(proposal)
    accept, again = jnp.asarray(accept), jnp.asarray(again)
    with (
      mock.patch.object(mar.MAR, "orders", lambda s, keys: jnp.asarray(order)),
      mock.patch.object(place_keys, "keys_at", keys_at),
      mock.patch.object(solvers, "noise", noise),
      mock.patch.object(densities, "uniform", uniform),
      mock.patch.object(densities, "normal", normal),
      mock.patch.object(densities, "fold", fold),
    ):
      units, took = jax.jit(
        lambda variables: self.system.generate(
          variables,
          {"label": jnp.array(run["labels"])},
          jax.random.split(jax.random.key(0), 2),
          **options,
        )
      )(self.variables)
    wanted = np.moveaxis(arrays["tokens"], 1, -1).reshape(2, 16, 4)
    np.testing.assert_allclose(
      units, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max()
    )
    stood = sum(
      (arrays[f"ratio_check{i}"] > golden_weights.uniform(name[0], (
        len(arrays[f"ratio_check{i}"]),))).sum()
      for i, name in enumerate(names)
    )  # fmt: skip
    self.assertEqual(took.accepted.sum(), stood)
    np.testing.assert_array_equal(took.forwards, 2 + 3)


if __name__ == "__main__":
  absltest.main()
