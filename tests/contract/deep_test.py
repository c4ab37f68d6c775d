"""What a run does with a system, on representatives of all that differs.

Files of all modes, exact resume, draws by the programs of the modes, and
tokenizers of convolutions: properties of the parts that systems share and of
pure functions, not of one paper; `light_test` has every config. So has this,
with AR_JAX_CONTRACT=deep in the environment.
"""

import json
import os
import pathlib
import tempfile

import chex
import jax
import ml_collections
import numpy as np
from absl.testing import absltest

from ar_jax import checkpoint, data, main, run_files, sample
from ar_jax.conditions import conditions
from ar_jax.core.system import build
from tests import smoke

# What is covered -> the config that covers it.
REPRESENTATIVES = {
  "a pixel a step, by convolutions": "pixelcnn",
  "a token a step, behind a class": "llamagen",
  "a token a step, behind a text": "llamagen_text",
  "steps of any order, continuous units with a diffusion head": "mar",
  "maps of residuals": "var",
  "lists of maps that are data": "flexvar",
  "fronts of a grid": "nar",
  "entities that are denoised among those drawn": "xar",
  "a flow for every map": "flowar",
  "another one is trained, in a way of its own": "sar",
  "another one is refined, which is frozen beside": "hmar",
  "another one is drafted for, which is frozen beside": "lantern",
  "a series, from its history": "ar_net",
  "a tokenizer of discrete units, with its adversary": "vq",
  "a tokenizer of continuous units": "kl_vae",
}
# These have the convolutional tokenizer of their kind: one of each.
REAL = ("llamagen", "var", "mar")
TIMES = ("/s", "wait")


def chosen() -> list[str]:
  if os.environ.get("AR_JAX_CONTRACT") == "deep":
    return smoke.slugs()
  return sorted(REPRESENTATIVES.values())


def config(slug: str) -> ml_collections.ConfigDict:
  preset = "smoke_real" if slug in REAL else "smoke"
  half = smoke.STEPS // 2
  return smoke.config(slug, preset, **{"train.save_every": half})


def rows(run: pathlib.Path) -> list[dict]:
  """What the run says of itself, but how fast it was."""
  lines = (run / "metrics.jsonl").read_text().splitlines()
  return [
    {k: v for k, v in row.items() if not k.endswith(TIMES)}
    for row in map(json.loads, lines)
  ]


def steps_saved(run: pathlib.Path) -> set[int]:
  return {int(p.name) for p in (run / "checkpoints").iterdir()}


class Contract:
  """The tests of one config."""

  slug: str

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.config = config(cls.slug)
    cls.folder = pathlib.Path(
      cls.enterClassContext(tempfile.TemporaryDirectory())
    )
    cls.run_dir = cls.folder / "run"
    main.run(cls.config, cls.run_dir)

  def test_resume_is_exact(self):
    half, run = smoke.STEPS // 2, self.run_dir
    whole = rows(run), checkpoint.load(run)[0]
    for at in steps_saved(run) - {half}:  # what came after it is lost
      (run / f"checkpoints/{at}").rename(self.folder / f"lost-{at}")
    main.run(self.config, run)
    self.assertIn(smoke.STEPS, steps_saved(run))
    self.assertEqual(rows(run), whole[0])
    chex.assert_trees_all_equal(checkpoint.load(run)[0], whole[1])

  def test_modes_write_their_files(self):
    main.run(self.config, self.run_dir, "sample")
    main.run(self.config, self.run_dir, "eval")
    for file in ("samples.png", "samples.npz", "samples.json", "eval.jsonl"):
      self.assertTrue((self.run_dir / file).exists(), file)
    system = build(self.config.system, **self.config.model.to_dict())
    known = run_files.Known(self.run_dir, self.config, system)
    with np.load(self.run_dir / "samples.npz") as samples:
      for i, name in enumerate(system.makes):
        found, form = samples[name if i else "arr_0"], known.forms.get(name)
        if form is not None:
          form.check(found, name)
          np.testing.assert_array_equal(found, form.stored(found))

  def test_draws_depend_on_key_and_number_alone(self):
    """By the options of the config: guided, by chance, in a batch."""
    c, key = self.config, jax.random.key(self.config.sample.seed)
    dataset = data.load(**c.data)
    system, variables, mesh, *_ = sample.load(self.run_dir, c)
    cond = conditions(system, dataset, 4)
    options = c.sample.options.to_dict()

    def draw(key, at=slice(None)):
      return sample.drawer(mesh)(
        system,
        variables,
        {k: v[at] for k, v in cond.items()},
        key,
        batch=4,
        start=at.start or 0,
        options=options,
      )

    whole = draw(key)
    chex.assert_tree_all_finite(whole)
    chex.assert_trees_all_equal(whole, draw(key))
    parts = [draw(key, slice(0, 2)), draw(key, slice(2, 4))]
    for name, x in whole.items():
      both = np.concatenate([part[name] for part in parts])
      np.testing.assert_allclose(x, both, atol=1e-4)
    other = draw(jax.random.key(1 + c.sample.seed))
    if self.slug not in smoke.EXCEPTIONS.no_chance:
      same = [np.array_equal(x, other[name]) for name, x in whole.items()]
      self.assertFalse(all(same))

  def test_training_loss_of_a_batch_is_that_of_its_parts(self):
    """Noise, and what is hidden, is each example's own."""
    c = self.config
    system = build(c.system, **c.model.to_dict())
    variables = checkpoint.load(self.run_dir)[0]
    batch = data.batch_at(data.load(**c.data).train, 0, batch=4, seed=0)
    loss = jax.jit(
      lambda variables, batch: (
        system.loss(variables, batch, smoke.KEY, train=True).value
      )
    )
    whole = loss(variables, batch)
    for half in ([0, 1], [2, 3]):
      at = np.array(half * 2)  # as many, so that nothing is compiled
      part = loss(variables, {k: v[at] for k, v in batch.items()})
      np.testing.assert_allclose(part, whole[at], rtol=2e-4, atol=1e-5)


class RepresentativesTest(absltest.TestCase):
  def test_they_are_configs(self):
    named = {*REPRESENTATIVES.values(), *REAL}
    self.assertContainsSubset(named, smoke.slugs())


# A class for each config, so that workers can share them out.
for config_slug in chosen():
  kind = f"{config_slug.title().replace('_', '')}Test"
  bases, of = (Contract, absltest.TestCase), {"slug": config_slug}
  globals()[kind] = type(kind, bases, of)


if __name__ == "__main__":
  absltest.main()
