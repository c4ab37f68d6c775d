"""CTF: "It works when" of its sheet; what trained models do is in
experiments/ctf.py."""

import functools
import importlib
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from scipy import stats
from sklearn.datasets import load_digits

from ar_jax.core.system import UserError, build
from ar_jax.nn.quantize import clusters
from ar_jax.tokenizers import patch_fitting
from tests import filled, smoke

CODES = dict(name="patch_codes", vocab=4, patch=2, size=4, in_channels=1)
TINY = dict(
  tokenizer=CODES, clusters=2, depth=1, width=16, heads=2, num_classes=2,
  multiple_of=16,
)  # fmt: skip
KEY = jax.random.key(0)


def with_clusters(system, **more):
  """Random variables, and clusters as before the fit."""
  found = filled.variables(system)
  vocab = system.tokenizer.vocab
  label = np.arange(vocab) * system.net.vocab // vocab
  return found | {"clusters": {"label": jnp.asarray(label, jnp.int32)}} | more


@functools.cache
def small():
  """The smoke system, its random variables, and a batch."""
  config = smoke.config("ctf")
  system = build(config.system, **config.model.to_dict())
  variables = with_clusters(system)
  codes = np.random.default_rng(0).integers(0, 16, (2, 16))
  units = system.paired(variables, jnp.asarray(codes))
  return system, variables, {"units": units, "label": jnp.array([0, 2])}


@functools.cache
def both():
  system, variables, batch = small()
  return jax.jit(lambda units: system.both(variables, batch, units))


class ClustersTest(absltest.TestCase):
  def test_every_code_has_one_and_none_is_empty(self):
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(60, 3))
    twins = np.repeat(codes[:5], 12, 0)  # fewer different ones than clusters
    for rows in (codes, twins):
      label = clusters.kmeans(rows, 8, seed=1)
      self.assertEqual((label.shape, label.dtype), ((60,), np.int32))
      sizes = np.bincount(label, minlength=8)
      self.assertEqual((len(sizes), sizes.sum()), (8, 60))
      self.assertGreater(sizes.min(), 0)
      np.testing.assert_array_equal(label, clusters.kmeans(rows, 8, seed=1))
    drawn = clusters.permuted(label, 0)
    np.testing.assert_array_equal(np.bincount(drawn), sizes)
    self.assertGreater((drawn != label).mean(), 0.5)
    with self.assertRaisesRegex(UserError, "1 to 60 clusters"):
      clusters.kmeans(codes, 61, 0)

  def test_codes_of_a_cluster_look_alike(self):
    """2 x 2 patches of digits: what it costs to swap codes in a cluster."""
    images = load_digits().images
    z = images.reshape(-1, 4, 2, 4, 2).swapaxes(2, 3).reshape(-1, 4)
    rng = np.random.default_rng(0)
    book = patch_fitting.codes(z, np.zeros((64, 4)), rng)
    own = np.square(z[:, None] - book).sum(-1).argmin(1)
    near = clusters.kmeans(book, 8, 0)

    def damage(label):
      inside = label[:, None] == label
      other = np.array([rng.choice(64, size=200, p=row / row.sum())
                        for row in inside])  # fmt: skip
      swapped = book[other[own, rng.integers(200, size=len(own))]]
      return np.square(swapped - z).mean()

    # 15.5 and 60.7 in the sheet, the codes themselves 1.44.
    kmeans, drawn = damage(near), damage(clusters.permuted(near, 0))
    self.assertBetween(kmeans, 8, 25)
    self.assertGreater(drawn, 2.5 * kmeans)

  def test_they_are_of_the_codes_as_decoded(self):
    """On the sphere the length of a code says nothing."""
    vq = smoke.config("vq").model.to_dict()
    vq = dict(name="vq", **vq)
    system = build("ctf", **TINY | dict(tokenizer=vq, clusters=4))
    variables = with_clusters(system)
    codes = variables["tokenizer"]["quantizer"]["codebook"]
    longer = np.random.default_rng(0).uniform(0.1, 9, (len(codes), 1))
    frozen = variables["tokenizer"]
    other = frozen | {"quantizer": {"codebook": codes * longer}}
    one = system.fitted(variables, None, 3)["clusters"]["label"]
    two = system.fitted(variables | {"tokenizer": other}, None, 3)
    np.testing.assert_array_equal(one, two["clusters"]["label"])
    self.assertLen(np.unique(one), 4)
    drawn = build("ctf", **TINY | dict(tokenizer=vq, clusters=4, kind="random"))
    drawn = drawn.fitted(variables, None, 3)["clusters"]["label"]
    np.testing.assert_array_equal(np.sort(drawn), np.sort(one))
    self.assertTrue((drawn != one).any())


class CTFTest(parameterized.TestCase):
  def test_nothing_is_left_for_codes_outside(self):
    system, variables, batch = small()
    coarse, codes = system.parted(batch["units"])
    label = variables["clusters"]["label"]
    np.testing.assert_array_equal(label[codes], coarse)
    p = np.asarray(jax.nn.softmax(both()(batch["units"])[1]))
    outside = np.asarray(label)[None, None] != np.asarray(coarse)[..., None]
    np.testing.assert_array_equal(p[outside], 0)
    self.assertTrue((p[~outside] > 0).all())
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-5)

  def test_codes_see_all_clusters_and_no_code(self):
    units = small()[2]["units"]
    law = lambda units: np.asarray(jax.nn.log_softmax(both()(units)[1]))
    before = law(units)
    np.testing.assert_array_equal(law(units.at[:, 16:].set(3)), before)
    for at in (0, 15):
      after = law(units.at[:, at].set((units[:, at] + 1) % 4))
      others = np.delete(np.arange(16), at)
      seen = np.isfinite(before[:, others])
      moved = np.abs(after[:, others][seen] - before[:, others][seen])
      moved = moved.reshape(2, 15, -1).max((0, 2))
      self.assertGreater(moved.min(), 1e-5)

  def test_without_the_restriction_codes_may_be_anywhere(self):
    system, variables, batch = small()
    free = system.__class__(
      system.net, system.refiner, system.tokenizer, restrict=False
    )
    logits = jax.jit(free.both)(variables, batch, batch["units"])[1]
    inside = both()(batch["units"])[1]
    self.assertTrue(np.isfinite(logits).all())
    seen = np.isfinite(inside)
    np.testing.assert_allclose(logits[seen], inside[seen], atol=1e-4)

  def test_the_loss_is_of_both(self):
    system, variables, batch = small()
    run = functools.partial(system.loss, train=False)
    loss = jax.jit(run)(variables, batch, KEY)
    laws = map(jax.nn.log_softmax, both()(batch["units"]))
    nll = [
      -np.take_along_axis(np.asarray(p), np.asarray(x)[..., None], -1)[..., 0]
      for p, x in zip(laws, system.parted(batch["units"]), strict=True)
    ]
    np.testing.assert_allclose(loss.nll, np.concatenate(nll, 1), atol=1e-4)
    np.testing.assert_allclose(
      loss.value, nll[0].mean(1) + nll[1].mean(1), rtol=1e-5
    )
    self.assertEqual(system.forwards(), 17)

  def test_it_is_a_law_and_draws_from_it(self):
    """Four codes of four, two clusters: all 256 images."""
    system = build("ctf", **TINY)
    variables = with_clusters(system)
    every = jnp.asarray(list(itertools.product(range(4), repeat=4)))
    units = system.paired(variables, every)
    batch = {"units": units, "label": jnp.ones(256, jnp.int32)}
    find = jax.jit(lambda b: system.loss(variables, b, KEY, train=False).nll)
    p = np.exp(-np.asarray(find(batch), np.float64).sum(1))
    self.assertAlmostEqual(p.sum(), 1, places=5)
    n = 20_000
    label = {"label": jnp.ones(n, jnp.int32)}
    draw = jax.jit(functools.partial(system.generate, variables, label))
    coarse, codes = system.parted(draw(jax.random.split(KEY, n)))
    own = variables["clusters"]["label"][codes]
    np.testing.assert_array_equal(own, coarse)
    number = np.asarray(codes) @ 4 ** np.arange(4)[::-1]
    found, rare = np.bincount(number, minlength=256), p * n < 5
    join = lambda x: np.append(x[~rare], x[rare].sum())
    result = stats.chisquare(join(found), join(p / p.sum() * n))
    self.assertGreater(result.pvalue, 0.01)

  def test_codes_are_guided_only_if_asked(self):
    system, variables, batch = small()
    cond, keys = {"label": batch["label"]}, jax.random.split(KEY, 2)
    law = dict(temperature=0.0, guidance=5.0, fine_temperature=0.0)
    draw = jax.jit(functools.partial(system.generate, **law))
    coarse, codes = system.parted(draw(variables, cond, keys))
    best = np.argmax(system.fine(variables, cond, coarse), -1)
    np.testing.assert_array_equal(codes, best)

  @parameterized.parameters(("b", 86.5), ("l", 310.4), ("xl", 734.1))
  def test_published_sizes(self, preset, millions):
    config = importlib.import_module("configs.ctf").get_config(preset)
    system = build(config.system, **config.model.to_dict())
    shapes = jax.eval_shape(lambda key: system.init(key, {}), KEY)["params"]
    count = lambda tree: sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
    self.assertAlmostEqual(
      count(shapes["coarse"]) / 1e6 / millions, 1, delta=2e-3
    )
    # L of LlamaGen, 342.9, whose table has M rows in place of V.
    fine = 342_910_976 - (16384 - 512) * 1024
    self.assertEqual(count(shapes["fine"]), fine)
    self.assertEqual(system.forwards(), 257)
    system.program(
      **{k: v for k, v in config.sample.options.items() if "fine" not in k}
    )

  @parameterized.parameters(
    (dict(clusters=5), "1 to 4 clusters"),
    (dict(kind="ward"), "one of kmeans, random"),
    (dict(fine={"layers": 2}), "fine: takes depth, width, heads"),
    (dict(tokenizer=dict(name="patches", patch=2, size=8)), "no codebook"),
  )
  def test_wrong_values(self, values, message):
    with self.assertRaisesRegex(UserError, message):
      build("ctf", **{**TINY, **values})


if __name__ == "__main__":
  absltest.main()
