"""Which weights are taken of a file, whatever a script put around them."""

import collections

import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.convert import wrappers
from ar_jax.core.errors import UserError


def state(x=1.0, front=""):
  names = ("blocks.0.weight", "blocks.0.bias", "head.weight")
  return {front + name: np.full(2, x, np.float32) for name in names}


EMA, RAW = state(2.0), state(1.0)
OPTIMIZER = {"state": {0: {"exp_avg": np.ones(2)}}, "param_groups": [{"lr": 1}]}
REST = {
  "optimizer": OPTIMIZER,
  "epoch": 3,
  "args": object(),
  "step": np.ones(()),
}

# A file, the number that its weights should have, the path that is said.
TABLE = {
  "published": (RAW, 1, ""),
  "published, with a counter": ({**RAW, "n_averaged": np.ones(())}, 1, ""),
  "an ordered dict": (collections.OrderedDict(RAW), 1, ""),
  "LlamaGen": ({"model": RAW, "ema": EMA, **REST}, 2, "ema"),
  "LlamaGen, no average": ({"model": RAW, **REST}, 1, "model"),
  "MAR": ({"model": RAW, "model_ema": EMA, **REST}, 2, "model_ema"),
  "no average yet": ({"model": RAW, "ema": None, **REST}, 1, "model"),
  "an empty average": ({"model": RAW, "ema": {}, **REST}, 1, "model"),
  "Lightning": ({"state_dict": RAW, "callbacks": {}}, 1, "state_dict"),
  "a tutorial": (
    {"model_state_dict": RAW, "optimizer_state_dict": OPTIMIZER, "loss": 1.0},
    1,
    "model_state_dict",
  ),
  "DeepSpeed": ({"module": RAW, **REST}, 1, "module"),
  "two wrappers": ({"model": {"state_dict": RAW}}, 1, "model.state_dict"),
  "VAR": (
    {"trainer": {"var_wo_ddp": RAW, "vae_local": EMA, "config": {}}, "iter": 0},
    1,
    "trainer.var_wo_ddp",
  ),
  "a name of its own": ({"gpt": RAW, "epoch": 3}, 1, "gpt"),
  "several devices": (state(1.0, "module."), 1, ""),
  "compiled": (state(1.0, "_orig_mod."), 1, ""),
  "both": ({"model": state(1.0, "module._orig_mod."), **REST}, 1, "model"),
  "the other way round": (state(1.0, "_orig_mod.module."), 1, ""),
  "averaged": ({**state(2.0, "module."), "n_averaged": np.ones(())}, 2, ""),
  "compiled inside": (
    {k.replace("0.", "0._orig_mod."): v for k, v in RAW.items()},
    1,
    "",
  ),
  "sharded": (state(1.0, "_fsdp_wrapped_module."), 1, ""),
}


class WrappersTest(parameterized.TestCase):
  @parameterized.named_parameters((k, *v) for k, v in TABLE.items())
  def test_what_is_taken(self, content, number, path):
    found, said = wrappers.unwrap(content)
    self.assertEqual(found.keys(), RAW.keys())
    self.assertEqual(found["head.weight"][0], number)
    self.assertStartsWith(said, f"weights: {path}" if path else "")
    self.assertLen(said.splitlines(), bool(path))

  def test_says_what_else_there_is_and_takes_it_when_asked(self):
    content = {"model": RAW, "ema": EMA, **REST}
    self.assertIn(
      "the file also has model (--set=model", wrappers.unwrap(content)[1]
    )
    for only in ("model", "ema"):
      found, said = wrappers.unwrap(content, only)
      self.assertEqual(found["head.weight"][0], 1 + (only == "ema"))
      self.assertIn(f"weights: {only};", said)
    nested = {"trainer": {"var_wo_ddp": RAW, "vae_local": EMA}}
    for only in ("var_wo_ddp", "trainer.var_wo_ddp"):
      self.assertEqual(wrappers.unwrap(nested, only)[0]["head.weight"][0], 1)

  def test_the_tokenizer_in_a_training_checkpoint(self):
    nested = {"trainer": {"var_wo_ddp": RAW, "vae_local": EMA}}
    self.assertEqual(wrappers.tokenizer_of(nested)["head.weight"][0], 2)
    found, said = wrappers.unwrap(nested, tokenizer=True)
    self.assertEqual(found["head.weight"][0], 2)
    self.assertIn("trainer.vae_local", said)
    self.assertIsNone(wrappers.tokenizer_of({"model": RAW}))
    # A file of a tokenizer alone.
    found, _ = wrappers.unwrap({"model": RAW}, tokenizer=True)
    self.assertEqual(found["head.weight"][0], 1)

  @parameterized.parameters(
    ([RAW], {}, "holds a list"),
    (np.ones(3), {}, "holds a ndarray"),
    (3, {}, "holds a int"),
    ({}, {}, "no weights; it has: nothing"),
    ({"epoch": 3, "lr": 0.1}, {}, "no weights; it has: epoch, lr"),
    ({"model": RAW}, {"only": "ema"}, "no weights named 'ema'; it has: model"),
    ({"gpt": RAW, "critic": EMA}, {}, "holds gpt, critic: say which"),
    ({"a" * 10_000: 1}, {}, "aaa"),
  )
  def test_one_line_for_what_cannot_be_taken(self, content, options, message):
    with self.assertRaisesRegex(UserError, message) as caught:
      wrappers.unwrap(content, **options)
    said = str(caught.exception)
    self.assertLen(said.splitlines(), 1)
    self.assertLess(len(said), 300)


if __name__ == "__main__":
  absltest.main()
