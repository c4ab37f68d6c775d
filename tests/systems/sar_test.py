"""SAR's two passes against their definition."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.system import UserError, build
from ar_jax.nn.heads.categorical import cross_entropy
from ar_jax.systems import sar
from tests.systems import scale_models

KEY = jax.random.key(3)


@functools.cache
def model(name):
  return getattr(scale_models, name)()


@functools.partial(jax.jit, static_argnums=0)
def gradients(system, variables, batch):
  total = lambda params: system.loss(
    {**variables, "params": params}, batch, KEY, train=True
  ).value.sum()
  return jax.value_and_grad(total)(variables["params"])


@functools.partial(jax.jit, static_argnums=0)
def student_pass(system, variables, targets, drawn):
  """What the second pass reads, and its logits."""
  inputs = system.student_inputs(variables, targets, drawn)
  return inputs, system.predict(variables, targets, inputs)


class SARTest(parameterized.TestCase):
  def targets(self, name):
    system, variables = model(name)
    return system.targets(
      variables, scale_models.units(system), KEY, train=False
    )

  def test_without_weight_it_is_the_step_of_the_target(self):
    target, variables = model("flexvar")
    batch = scale_models.units(target)
    want, theirs = gradients(target, variables, batch)
    got, ours = gradients(sar.SAR(target, sigma=0.0), variables, batch)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    for a, b in zip(
      jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True
    ):
      np.testing.assert_allclose(a, b, atol=1e-6)

  def test_no_gradient_through_the_draw(self):
    target, variables = model("flexvar")
    targets = self.targets("flexvar")
    system = sar.SAR(target, draws="sample", guidance=2.0, law=(("top_k", 4),))
    shape = (*targets.units.shape, 16)
    logits = jax.random.normal(KEY, shape)

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1))
    def grads(logits, params):
      own = {**variables, "params": params}
      drawn = system.drawn(own, targets, logits, jax.random.split(KEY, 2))
      nll = cross_entropy(logits, targets.units)
      return system.second(own, targets, drawn, nll)[0].sum()

    of_logits, of_params = grads(logits, variables["params"])
    self.assertEqual(float(jnp.abs(of_logits).max()), 0)
    norms = [float(jnp.abs(x).max()) for x in jax.tree.leaves(of_params)]
    self.assertGreater(min(norms), 0)

  @parameterized.parameters("flexvar", "var")
  def test_a_model_that_draws_the_truth_reads_what_it_read(self, name):
    target, variables = model(name)
    targets = self.targets(name)
    inputs, logits = student_pass(target, variables, targets, targets.units)
    np.testing.assert_allclose(
      inputs, jax.jit(target.teacher_inputs)(variables, targets), atol=1e-5
    )
    if name == "var":
      return
    # Sure of the truth: the draw is the truth, and so is what is compared.
    sure = 9.0 * jax.nn.one_hot(targets.units, 16)
    system = sar.SAR(target)
    drawn = system.drawn(variables, targets, sure, jax.random.split(KEY, 2))
    np.testing.assert_array_equal(drawn, targets.units)
    nll = cross_entropy(logits, targets.units)
    value, metrics = jax.jit(system.second)(variables, targets, drawn, nll)
    np.testing.assert_allclose(value, nll[:, 1:].mean(1), rtol=1e-4)
    np.testing.assert_allclose(metrics["gap"], 0, atol=1e-4)

  @parameterized.parameters("flexvar", "var")
  def test_a_map_reads_only_draws_before_it(self, name):
    target, variables = model(name)
    targets, p = self.targets(name), target.plan
    inputs, before = student_pass(target, variables, targets, targets.units)
    for s in range(p.steps - 1):
      other = targets.units.at[:, p.span(s)].add(1) % 16
      seen, after = student_pass(target, variables, targets, other)
      moved = np.abs(before - after).max((0, 2)) > 0
      self.assertFalse(moved[: p.span(s).stop].any())
      self.assertTrue(moved[p.span(s + 1)].all())
      # One step stale: only the next map reads it.
      changed = np.abs(inputs - seen).max((0, 2)) > 0
      self.assertTrue(changed[p.span(s + 1)].any())
      changed[p.span(s + 1)] = False
      self.assertFalse(changed.any())

  @parameterized.parameters("flexvar", "var")
  def test_the_last_map_alone(self, name):
    target, variables = model(name)
    targets, p = self.targets(name), target.plan
    system = sar.SAR(target, sf_scales="last", against="truth")
    drawn = targets.units.at[:, p.span(1)].add(1) % 16
    nll = jnp.zeros(drawn.shape)
    value, _ = jax.jit(system.second)(variables, targets, drawn, nll)

    @jax.jit
    def want(drawn):  # slot by slot, with no other map in sight
      net = target.bound(variables)
      inputs = target.student_inputs(variables, targets, drawn)[:, p.span(2)]
      cond = net.label(targets.label)
      x = jnp.concatenate([cond[:, None], net.latent(inputs)], axis=1)
      at = np.r_[0, np.arange(p.span(2).start, len(p))]
      x = x + net.places()[at][None]
      level = np.minimum(np.arange(len(at)), 1)
      mask = (level[:, None] >= level)[None, None]
      h, _ = net.backbone(x, mask, cond=net.backbone.condition(cond))
      logits = net.head.logits(h[:, 1:])
      return cross_entropy(logits, targets.units[:, p.span(2)]).mean(1)

    np.testing.assert_allclose(value, want(drawn), rtol=1e-4)
    further = drawn.at[:, :1].add(1) % 16
    if name == "flexvar":
      np.testing.assert_allclose(value, want(further), rtol=1e-6)

  @parameterized.parameters(
    (dict(), 2), (dict(draws="sample", guidance=2.0, law=()), 3)
  )
  def test_forward_passes(self, options, passes):
    target, variables = model("flexvar")
    system = sar.SAR(target, **options)
    batch = scale_models.units(target)
    program = jax.make_jaxpr(
      lambda v: system.loss(v, batch, KEY, train=True).value
    )(variables)
    found = list(_equations(program.jaxpr))
    self.assertNotIn("while", [e.primitive.name for e in found])
    loops = [e.params["length"] for e in found if e.primitive.name == "scan"]
    self.assertEqual(loops, [2] * passes)  # of the two layers

  def test_over_maps_of_bits(self):
    """Both passes of an Infinity, the second by inputs that are put together
    map by map."""
    target, variables = model("infinity")
    p, rng = target.plan, np.random.default_rng(0)
    given = jax.tree.map(jnp.zeros_like, target.net.example())
    batch = {
      "units": jnp.asarray(rng.integers(0, 2, (2, len(p), 3)), jnp.int32),
      "text": jnp.concatenate([given["text"]] * 2),
      "index": jnp.arange(2),
    }
    system = sar.SAR(target, sigma=0.3)

    @jax.jit
    def both(variables):
      found = system.loss(variables, batch, KEY, train=False)
      first = target.logits(variables, batch, batch["units"])
      drawn = jnp.argmax(first, -1)
      codec, inputs = target.codec(variables), []
      for s in range(p.steps):
        mixed = batch["units"]
        if s:
          mixed = mixed.at[:, p.span(s - 1)].set(drawn[:, p.span(s - 1)])
        inputs.append(codec.embed(mixed)[:, p.span(s)])
      stale = jnp.concatenate(inputs, 1)
      second = target.of_inputs(variables, batch, stale)
      own = target.loss(variables, batch, KEY, train=False)
      return found, own, second, drawn

    found, own, second, drawn = both(variables)
    nll = np.asarray(cross_entropy(second, drawn))[:, 1:]  # not the first map
    np.testing.assert_allclose(
      found.metrics["ce/second"], nll.mean((1, 2)), rtol=1e-4
    )
    np.testing.assert_allclose(
      found.value, own.value + 0.3 * nll.mean((1, 2)), rtol=1e-4
    )
    np.testing.assert_allclose(found.nll, own.nll, rtol=1e-5)

  @parameterized.parameters(
    (dict(correction={}), {}, "leave correction out"),
    ({}, dict(sf_scales="last"), "sf_scales='all'"),
  )
  def test_maps_of_bits_that_cannot_be(self, of_target, own, why):
    codes = dict(name="patch_bits", bits=3, patch=2, scales=(1, 2, 4))
    text = dict(name="words", length=2, width=8)
    target = dict(name="infinity", depth=1, width=32, heads=2, text=text)
    target |= dict(tokenizer=codes, **of_target)
    with self.assertRaisesRegex(UserError, why):
      build("sar", target=target, **own)

  def test_options(self):
    target = dict(name="llamagen")
    with self.assertRaisesRegex(UserError, "choose one of all, last"):
      build("sar", target=target, sf_scales="first")
    self.assertEqual(sar.SAR(model("var")[0]).plan, model("var")[0].plan)
    frozen = dataclasses.replace(model("var")[0], label_dropout=0.0)
    with self.assertRaisesRegex(UserError, "no null class"):
      frozen.scale(2.2)


def _equations(jaxpr):
  for equation in jaxpr.eqns:
    yield equation
    for value in equation.params.values():
      for inner in value if isinstance(value, (list, tuple)) else (value,):
        inner = getattr(inner, "jaxpr", inner)
        if hasattr(inner, "eqns"):
          yield from _equations(inner)


if __name__ == "__main__":
  absltest.main()
