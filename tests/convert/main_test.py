"""python -m ar_jax.convert: a file to a checkpoint and back."""

import contextlib
import io
import pathlib
import tempfile
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest
from safetensors.numpy import load_file, save_file

from ar_jax import checkpoint
from ar_jax.convert import __main__ as convert
from ar_jax.convert import llamagen
from ar_jax.core.system import UserError, build
from ar_jax.files import torch_file
from tests import golden_weights
from tests.files import hostile

VAR = golden_weights.load("var_transformer")


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

  def run_main(self, source, target, *flags, family="multiscale_vq"):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
      code = convert.main(
        [str(source), str(target), f"--family={family}", *flags]
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
    with self.assertRaisesRegex(UserError, "gpt.*how many heads has it"):
      convert.forward(file, run, "llamagen", codes)
    made = convert.forward(file, run, "llamagen", codes, heads=2, size=16)
    self.assertEqual(made["model"]["heads"], 2)
    self.assertEqual(made["model"]["tokenizer"]["size"], 16)
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
    bad = self.folder / "bad.safetensors"
    key = "quantize.embedding.weight"
    save_file({**self.state, key: np.full_like(self.state[key], np.inf)}, bad)
    whole = self.folder / "list.pth"
    whole.write_bytes(hostile.packed(b"\x80\x02]."))
    for source, flags, message in (
      (bad, (), r"not finite: \d+ numbers of quantize.embedding"),
      (whole, (), "list.pth: the file holds a list"),
      (self.file, ("--set=ema",), "no weights named 'ema'"),
      (self.file, ("--heads=3",), "--heads means nothing for the family"),
      (self.file, ("--tokenizer=x",), "--tokenizer means nothing"),
      (other, (), "not a tokenizer of VAR"),
      (self.folder / "nowhere.pth", (), "nowhere.pth"),
      (self.folder, ("--reverse",), ".safetensors"),
    ):
      code, _, err = self.run_main(source, self.folder / "new", *flags)
      self.assertEqual(code, 1)
      self.assertRegex(err, f"^error: .*{message}.*\n$")

  def test_families(self):
    self.assertIn("multiscale_vq", convert.families())
    self.assertContainsSubset(("nar", "lantern"), convert.families())
    self.assertNoCommonElements(("wrappers", "heads"), convert.families())

  def test_the_file_of_a_generator_settles_its_scales(self):
    """Not that of its tokenizer, which serves every list."""
    codes, run = self.folder / "codes_256", self.folder / "var"
    self.assertEqual(self.run_main(self.file, codes)[0], 0)
    file = self.folder / "var.safetensors"
    save_file(golden_weights.weights(VAR[0]), file)
    asked = f"--tokenizer={codes}", "--scales=1,2,3,4"
    code, out, err = self.run_main(file, run, *asked, family="var")
    self.assertEqual((code, err), (0, ""))
    self.assertNotIn("heads:", out)  # the file tells by its temperatures
    model = checkpoint.read_meta(run)["config"]["model"]
    self.assertEqual(model["tokenizer"]["scales"], [1, 2, 3, 4])
    self.assertEqual(model["tokenizer"]["ch"], 32)
    other = golden_weights.weights(golden_weights.load("var_256")[0])
    save_file(other, file)
    message = self.run_main(
      file, self.folder / "no", asked[0], family="var")[2]  # fmt: skip
    self.assertRegex(
      message, "^error: .*tokenizer has vocab=64, .* needs 24\n$"
    )

  def test_a_training_checkpoint_brings_its_tokenizer(self):
    own = golden_weights.weights(VAR[0])
    content = {
      "epoch": 3,
      "trainer": {"var_wo_ddp": own, "vae_local": self.state, "config": {}},
    }
    run = self.folder / "trained"
    with mock.patch.object(torch_file, "read", lambda path: content):
      code, out, err = self.run_main(
        "x.pth", run, "--scales=1,2,3,4", family="var")  # fmt: skip
      self.assertEqual((code, err), (0, ""))
      self.assertIn("weights: trainer.var_wo_ddp; the file also has", out)
      self.assertIn("tokenizer: the one in the file\n", out)
      alone = self.folder / "its_tokenizer"
      self.assertEqual(self.run_main("x.pth", alone)[0], 0)
    config = checkpoint.read_meta(run)["config"]
    system = build(config["system"], **config["model"])
    expected = jax.eval_shape(
      lambda key: system.init(key, {}), jax.random.key(0)
    )
    shapes = lambda tree: jax.tree.map(np.shape, tree)
    self.assertEqual(shapes(checkpoint.load(run)[0]), shapes(expected))

  def test_what_is_taken_from_tables_is_said(self):
    state = golden_weights.weights(golden_weights.load("llamagen_gpt")[0])
    content = {"model": state, "ema": state, "epoch": 3}
    heads = mock.patch.dict(llamagen.HEADS, {128: 4})
    read = mock.patch.object(torch_file, "read", lambda path: content)
    with heads, read, mock.patch.object(checkpoint, "export"):
      code, out, err = self.run_main("x.pt", "run", family="llamagen")
      self.assertEqual((code, err), (0, ""))
      self.assertEqual(
        out.splitlines()[:2],
        [
          "weights: ema; the file also has model (--set=model to take it)",
          "heads: 4, as published for width 128; the file does not tell "
          "(--heads=N for another number)",
        ],
      )
      out = self.run_main(
        "x.pt", "run", "--set=model", "--heads=2", family="llamagen"
      )[1]
      self.assertIn("weights: model; ", out)
      self.assertNotIn("as published", out)
      self.assertIn("'heads': 2", out)


if __name__ == "__main__":
  absltest.main()
