"""python -m ar_jax.convert: a file to a checkpoint and back."""

import contextlib
import io
import pathlib
import tempfile

import jax
import numpy as np
from absl.testing import absltest
from safetensors.numpy import load_file, save_file

from ar_jax import checkpoint
from ar_jax.convert import __main__ as convert
from ar_jax.core.system import build
from tests import golden_weights


class MainTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = tempfile.TemporaryDirectory()
    cls.addClassCleanup(folder.cleanup)
    cls.folder = pathlib.Path(folder.name)
    description, _ = golden_weights.load("var_tokenizer")
    cls.state = golden_weights.weights(description)
    cls.file = cls.folder / "official.safetensors"
    save_file(cls.state, cls.file)

  def run_main(self, source, target, *flags):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
      code = convert.main(
        [str(source), str(target), "--family=multiscale_vq", *flags]
      )
    return code, out.getvalue(), err.getvalue()

  def test_there_and_back(self):
    workdir, back = self.folder / "run", self.folder / "back.safetensors"
    code, out, err = self.run_main(self.file, workdir)
    self.assertEqual((code, err), (0, ""))
    self.assertIn("multiscale_vq", out)

    # What was written is what the system of the stored config starts with.
    config = checkpoint.read_meta(workdir)["config"]
    system = build(config["system"], **config["model"])
    image = {"image": jax.ShapeDtypeStruct((1, 256, 256, 3), np.uint8)}
    expected = jax.eval_shape(system.init, jax.random.key(0), image)
    variables = checkpoint.load(workdir)[0]
    self.assertEqual(
      jax.tree.map(np.shape, variables), jax.tree.map(np.shape, expected)
    )

    self.assertEqual(self.run_main(workdir, back, "--reverse")[0], 0)
    returned = load_file(back)
    self.assertEqual(returned.keys(), self.state.keys())
    for key, value in self.state.items():
      np.testing.assert_array_equal(returned[key], value, err_msg=key)

  def test_a_generator_with_its_tokenizer(self):
    description, _ = golden_weights.load("llamagen_gpt")
    # Heads of 64 features, as published, of which no shape tells.
    shapes = description["state_dict"]
    state = {k: golden_weights.weight(k, tuple(s)) for k, s in shapes.items()}
    file, codes = self.folder / "gpt.safetensors", self.folder / "codes"
    save_file(state, file)
    tokenizer = dict(vocab=64, channels=4, z=8, ch=8, mult=(1, 2), blocks=1)
    like = build("vq", **tokenizer).tokenizer
    image = jax.ShapeDtypeStruct((1, 8, 8, 3), np.float32)
    hollow = jax.eval_shape(like.init, jax.random.key(0), image)["params"]
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), hollow)
    config = {"system": "vq", "model": tokenizer}
    checkpoint.export(codes, {"params": {"tokenizer": params}}, config)
    run, back = self.folder / "gpt", self.folder / "gpt_back.safetensors"
    made = convert.forward(file, run, "llamagen", codes)
    self.assertEqual(made["model"]["heads"], 2)
    self.assertEqual(made["model"]["tokenizer"]["ch"], 8)
    variables = checkpoint.load(run)[0]
    self.assertEqual(variables.keys(), {"params", "tokenizer"})
    convert.reverse(run, back, "llamagen")
    returned = load_file(back)
    self.assertEqual(returned.keys(), state.keys())
    for key, value in state.items():
      np.testing.assert_array_equal(returned[key], value, err_msg=key)

  def test_one_line_for_what_cannot_be_done(self):
    other = self.folder / "other.safetensors"
    save_file({"x": np.zeros(2, np.float32)}, other)
    for source, flags, message in (
      (other, (), "not a tokenizer of VAR"),
      (self.folder / "nowhere.pth", (), "nowhere.pth"),
      (self.folder, ("--reverse",), ".safetensors"),
    ):
      code, _, err = self.run_main(source, self.folder / "new", *flags)
      self.assertEqual(code, 1)
      self.assertRegex(err, f"^error: .*{message}.*\n$")

  def test_families(self):
    self.assertIn("multiscale_vq", convert.families())
    self.assertNotIn("torch_file", convert.families())

  def test_state_inside_a_wrapper(self):
    state = {"x": np.zeros(1)}
    self.assertIs(convert.state_of({"model": state}), state)
    self.assertIs(convert.state_of(state), state)


if __name__ == "__main__":
  absltest.main()
