"""Janus and the layers of EAR: there and back, to the bit."""

import contextlib
import io
import pathlib
import tempfile

import jax
import numpy as np
from absl.testing import absltest
from safetensors.numpy import load_file, save_file

from ar_jax import checkpoint
from ar_jax.convert import __main__ as command
from ar_jax.convert import ear, janus
from ar_jax.core.system import UserError, build
from tests import golden_weights
from tests.systems import ear_models as models

HEADS = models.HEADS


def layers():
  """An official file of EAR, two layers of it."""
  shape = (SIDE := models.SIZES["hidden"], SIDE)
  return {
    key: {"weight": golden_weights.weight(f"ear.{key}", shape)}
    for key in models.SIZES["tuned_keys"]
  }


class JanusTest(absltest.TestCase):
  def test_there_and_back(self):
    state = models.official()
    _, variables = models.golden()
    back = janus.to_official(variables, heads=HEADS)
    self.assertEqual(set(state) - set(back), {"language_model.lm_head.weight"})
    for key, array in back.items():
      np.testing.assert_array_equal(array, state[key], key)

  def test_what_understands_images_is_left_out(self):
    more = {
      "vision_model.head.weight": np.zeros((2, 2)),
      "aligner.layers.0.weight": np.zeros((2, 2)),
    }
    found = janus.to_ours(models.official() | more, heads=HEADS)
    self.assertEqual(found.keys(), {"params"})

  def test_sizes(self):
    model = janus.config(models.official(), heads=HEADS)["model"]
    want = dict(depth=4, width=64, heads=4, hidden=96, channels=8)
    self.assertEqual({k: model[k] for k in want}, want)
    with self.assertRaisesRegex(UserError, "no lang|there is no"):
      janus.config({})


class EarTest(absltest.TestCase):
  def test_over_a_target_and_back(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    folder = pathlib.Path(folder.name)
    _, base = models.golden()
    spec = models.spec()
    config = {"system": spec.pop("name"), "model": spec}
    checkpoint.export(folder / "base", base, config)
    file = folder / "church.safetensors"
    state = ear.flat(layers())
    save_file(state, file)
    flags = ["--family=ear", f"--target={folder / 'base'}"]
    with contextlib.redirect_stdout(io.StringIO()):
      self.assertEqual(
        command.main([str(file), str(folder / "run"), *flags]), 0
      )
      back = folder / "back.safetensors"
      flags = ["--family=ear", "--reverse"]
      self.assertEqual(
        command.main([str(folder / "run"), str(back), *flags]), 0
      )
    found = load_file(back)
    self.assertEqual(found.keys(), state.keys())
    for key, array in state.items():
      np.testing.assert_array_equal(found[key], array, key)
    variables, meta = checkpoint.load(folder / "run")
    system = build("ear", **meta["config"]["model"])
    # The same as if the whole file of Janus had these matrices.
    whole = dict(models.official())
    for key, array in state.items():
      whole[f"language_model.model.{key}"] = array
    want = janus.to_ours(whole, heads=HEADS)["params"]
    got = system.of_target(variables)["params"]
    jax.tree.map(np.testing.assert_array_equal, got, want)

  def test_of_another_target(self):
    spec = models.spec()
    spec.pop("name")
    given = {"system": "janus", "model": {**spec, "width": 32}}
    state = ear.flat(layers())
    with self.assertRaisesRegex(UserError, "made for another one"):
      ear.join(state, {}, {}, given)
    with self.assertRaisesRegex(UserError, "those of a janus"):
      ear.join(state, {}, {}, {"system": "llamagen", "model": {}})
    with self.assertRaisesRegex(UserError, "no layers of EAR"):
      ear.config({})


if __name__ == "__main__":
  absltest.main()
