"""VAR against the official model and its own mathematics."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.convert import multiscale_vq as convert_tokenizer
from ar_jax.convert import var as convert
from ar_jax.core.system import UserError, build
from ar_jax.systems import var
from ar_jax.tokenizers import multiscale_vq
from tests import golden_weights

SCALES = (1, 2, 3, 4)


@functools.cache
def golden(name):
  """The system, its variables and what the official model computed."""
  description, expected = golden_weights.load(name)
  state = golden_weights.weights(description)
  config = convert.config(state, SCALES, heads=2)["model"]
  tokenizer = golden_weights.weights(golden_weights.load("var_tokenizer")[0])
  config["tokenizer"] |= convert_tokenizer.config(tokenizer)["model"]
  config["tokenizer"]["scales"] = SCALES
  variables = {
    "params": convert.to_ours(state, SCALES, heads=2),
    "tokenizer": convert_tokenizer.to_ours(tokenizer),
  }
  label = jnp.array(description["config"]["labels"])
  return build("var", **config), variables, label, expected


@functools.partial(jax.jit, static_argnums=(0, 1))
def _generate(system, options, variables, label, keys):
  return system.generate(variables, {"label": label}, keys, **dict(options))


def generate(system, variables, label, keys, **options):
  """(units, latent); compiled once per set of options."""
  options = tuple(sorted(options.items()))
  return _generate(system, options, variables, label, keys)


@functools.partial(jax.jit, static_argnums=0, static_argnames="train")
def loss(system, variables, batch, train=False):
  return system.loss(variables, batch, jax.random.key(0), train=train)


class GoldenTest(parameterized.TestCase):
  @parameterized.parameters(
    "var_transformer", "var_transformer_no_qknorm", "var_transformer_shared_aln"
  )
  def test_equals_the_official_model(self, name):
    system, variables, label, expected = golden(name)
    # The official code prepares the input; ours does from the same units.
    tokenizer = golden_weights.load("var_tokenizer")[1]
    units = jnp.asarray(tokenizer["indices"], jnp.int32)
    logits = jax.jit(system.logits)(variables, label, units)
    np.testing.assert_allclose(logits, expected["logits"], rtol=1e-4, atol=1e-4)
    # The official run took the best of the guided logits by top_k=1.
    keys = jax.random.split(jax.random.key(0), 2)
    units, fhat = generate(
      system, variables, label, keys, guidance=2.5, temperature=0.0
    )
    np.testing.assert_array_equal(units, expected["greedy_tokens"])
    image = jax.jit(system.decode_latent)(variables, fhat)
    want = np.moveaxis(expected["greedy_image"], 1, -1)
    np.testing.assert_allclose(image, want, atol=1e-4)


class VARTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.system, cls.variables, cls.label, _ = golden("var_transformer")
    cls.keys = jax.random.split(jax.random.key(0), 4)
    shape = (2, len(cls.system.net.plan))
    cls.units = jax.random.randint(jax.random.key(1), shape, 0, 64)
    cls.logits = staticmethod(jax.jit(cls.system.logits))

  def generate(self, label, keys, **options):
    return generate(self.system, self.variables, label, keys, **options)

  def test_later_units_do_not_leak(self):
    plan = self.system.net.plan
    before = self.logits(self.variables, self.label, self.units)
    for s in range(plan.steps - 1):
      changed = self.units.at[:, plan.span(s)].add(1) % 64
      after = self.logits(self.variables, self.label, changed)
      moved = np.abs(before - after).max((0, 2)) > 0
      stop = plan.span(s).stop
      self.assertFalse(moved[:stop].any())
      self.assertTrue(moved[stop:].any())

  def test_steps_equal_one_pass(self):
    system = self.system

    @jax.jit
    def stepwise(variables, label, units):
      net = system.bound(variables)
      embedding = system.codec(variables).embed(units)
      x, cond = net.begin(label)
      cache, parts = net.cache(len(label)), []
      for s in range(system.net.plan.steps):
        if s:
          x = net.latent(embedding[:, system.net.plan.span(s)])
        h, cache = net.step(s, x, cond, cache)
        parts.append(net.head.logits(h))
      return jnp.concatenate(parts, 1)

    args = self.variables, self.label, self.units
    np.testing.assert_allclose(
      stepwise(*args), self.logits(*args), rtol=1e-5, atol=1e-5
    )

  def test_smooth_sampling_tends_to_hard_sampling(self):
    greedy = dict(temperature=0.0, guidance=2.5)
    args = self.label, self.keys[:2]
    hard, fhat = self.generate(*args, **greedy)
    soft, latent = self.generate(*args, smooth=True, **greedy)
    np.testing.assert_array_equal(soft, hard)
    np.testing.assert_allclose(latent, fhat, atol=1e-4)
    _, latent = self.generate(*args, smooth=True)
    self.assertTrue(np.isfinite(latent).all())

  def test_bad_options(self):
    for kwargs in (
      dict(top_k=65), dict(top_p=0.0), dict(schedule="steep"),
      dict(guidance=-1.0),
    ):  # fmt: skip
      with self.assertRaises(UserError):
        self.generate(self.label, self.keys[:2], **kwargs)

  def test_no_null_class_no_guidance(self):
    system = tiny(label_dropout=0.0)
    self.assertEqual(system.net.labels, 10)
    with self.assertRaisesRegex(UserError, "no null class"):
      jax.eval_shape(
        lambda v, k: system.sample(
          v, {"label": jnp.zeros(2, jnp.int32)}, k, guidance=2.0
        ),
        jax.eval_shape(system.init, jax.random.key(0), {}),
        self.keys[:2],
      )


def tiny(**kwargs) -> var.VAR:
  tokenizer = dict(vocab=64, channels=8, ch=32, mult=(1, 2), blocks=1)
  tokenizer |= dict(name="multiscale_vq", scales=(1, 2, 4))
  sizes = dict(depth=2, width=32, heads=2, num_classes=10)
  return build("var", **(sizes | dict(tokenizer=tokenizer) | kwargs))


class LossTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.system, cls.variables, cls.label, _ = golden("var_transformer")
    units = jax.random.randint(jax.random.key(1), (2, 30), 0, 64)
    cls.batch = {"units": units, "label": cls.label}

  def loss(self, system, batch, train=False):
    return loss(system, self.variables, batch, train=train)

  def test_is_the_mean_over_all_units(self):
    got, units = self.loss(self.system, self.batch), self.batch["units"]
    logits = jax.jit(self.system.logits)(self.variables, self.label, units)
    logp = np.asarray(jax.nn.log_softmax(logits))
    nll = -np.take_along_axis(logp, np.asarray(units)[..., None], -1)
    np.testing.assert_allclose(got.value, nll[..., 0].mean(1), rtol=1e-5)
    last = got.metrics["ce/scale_4"]
    np.testing.assert_allclose(last, nll[:, 14:, 0].mean(1), rtol=1e-5)
    hits = logp.argmax(-1) == units
    np.testing.assert_allclose(got.metrics["accuracy"], hits.mean(1))

  def test_encodes_images(self):
    image = golden_weights.tensor("image", (2, 3, 64, 64)).clip(-1, 1)
    image = np.round((np.moveaxis(image, 1, -1) + 1) * 127.5)
    batch = {"image": jnp.asarray(image, jnp.uint8), "label": self.label}
    batch = jax.jit(self.system.encode)(self.variables, batch)
    self.assertEqual(set(batch), {"units", "label"})
    # Rounding to 256 levels may move a code; most stay.
    want = golden_weights.load("var_tokenizer")[1]["indices"]
    self.assertGreater(np.mean(batch["units"] == want), 0.9)
    same = self.system.encode(self.variables, batch)
    self.assertIs(same["units"], batch["units"])

  def test_scale_weights_and_smoothing(self):
    plain = self.loss(self.system, self.batch)
    first = dataclasses.replace(self.system, scale_weights=(1.0, 0, 0, 0))
    np.testing.assert_allclose(
      self.loss(first, self.batch).value, plain.metrics["ce/scale_1"], rtol=1e-5
    )
    smooth = dataclasses.replace(self.system, smoothing=1.0)
    value = self.loss(smooth, self.batch).value
    self.assertTrue((value > math.log(64)).all())

  def test_training_hides_labels_by_example(self):
    system = dataclasses.replace(self.system, label_dropout=1.0)
    net = system.net.clone(backbone=system.net.backbone.clone(drop=0.0))
    system = dataclasses.replace(system, net=net)
    null = self.batch | {"label": jnp.array([10, 10])}
    np.testing.assert_allclose(
      self.loss(system, self.batch, train=True).value,
      self.loss(system, null).value,
      rtol=1e-5,
    )


class SizesTest(parameterized.TestCase):
  @parameterized.parameters(
    ("d16", 310.3e6, 256),
    ("d20", 600.9e6, 256),
    ("d24", 1033e6, 256),
    ("d30", 2010e6, 256),
    ("d36-s", 2354e6, 512),
  )
  def test_published_parameter_counts(self, name, count, size):
    tokenizer = {"name": "multiscale_vq", "scales": multiscale_vq.SCALES[size]}
    system = build(
      "var", tokenizer=tokenizer, num_classes=1000, **var.SIZES[name]
    )
    self.assertEqual(hash(system), hash(system))
    variables = jax.eval_shape(system.init, jax.random.key(0), {})
    sizes = [math.prod(x.shape) for x in jax.tree.leaves(variables["params"])]
    self.assertLess(abs(sum(sizes) / count - 1), 1e-3)
    self.assertEqual(system.net.plan.steps, 10)

  def test_published_initial_values(self):
    system = tiny(width=96, depth=6, gate_init=1e-3)
    init = lambda key: system.init(key, {})["params"]
    params = jax.jit(init)(jax.random.key(0))
    stddev = math.sqrt(1 / (3 * 96))
    block, ada = params["backbone"]["block"], params["backbone"]["ada"]
    gates, scales = jnp.split(ada["kernel"], [2 * 96], -1)
    for array, want in (
      (block["mixer"]["qkv"]["kernel"], stddev),
      (block["mixer"]["out"]["kernel"], stddev / math.sqrt(12)),
      (block["mlp"]["fc1"]["kernel"], stddev),
      (block["mlp"]["fc2"]["kernel"], stddev / math.sqrt(12)),
      (gates, 1e-3 * stddev),
      (scales, 0.5 * stddev),
      (params["backbone"]["out_ada"]["kernel"], 0.5 * stddev),
      (params["head"]["linear"]["kernel"], 0.02 * stddev),
      (params["label"]["embedding"], stddev),
    ):
      self.assertAlmostEqual(float(array.std()) / want, 1, delta=0.06)
    self.assertEqual(float(jnp.abs(ada["bias"]).max()), 0)


if __name__ == "__main__":
  absltest.main()
