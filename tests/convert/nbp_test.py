"""NBP's transformers against the official ones, and back."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.convert import nbp as convert
from ar_jax.core.decoding import pick
from ar_jax.core.system import UserError, build
from ar_jax.families.block.shifted_program import NextBlockProgram
from tests import golden_weights

GREEDY = (("temperature", 0.0),)
# Videos of 24 units as 6 frames of 1 x 4; of 20 as 5 of them.
CODES = dict(name="patch_codes", patch=2, size=4)
NAMES = ("nbp_frame", "nbp_hybrid", "nbp_hybrid_text")


@functools.cache
def model(name):
  """(system, variables, state, outputs) of one file, whose codes lie on frames
  of 2 x 2, each a block."""
  description, outputs = golden_weights.load(name)
  config = description["config"]
  state = (
    golden_weights.weights(description) if "state_dict" in description else 0
  )
  inner = CODES | dict(vocab=config["video_vocab"])
  count = config["video_tokens"] // 4
  made = dict(
    tokenizer=dict(name="given", form="frames", frames=count, tokenizer=inner),
    depth=2, width=32, heads=4, block=(1, 2, 2),
    positions=config["block_size"],
  )  # fmt: skip
  if name == "nbp_frame":
    made |= dict(mode="frames", context=2)
  elif name == "nbp_hybrid":
    made |= dict(num_classes=config["text_vocab"])
  else:
    made |= dict(text=dict(length=5, words=config["text_vocab"], pad=2))
  return build("nbp", **made), convert.of_model(state, made), state, outputs


class NbpTest(parameterized.TestCase):
  @parameterized.parameters(*NAMES)
  def test_outputs_of_the_official_model(self, name):
    system, variables, state, outputs = model(name)
    net, first = system.net, system.net.first
    bound = net.bind(system.net_variables(variables))
    codes = jnp.asarray(outputs["video_codes"], jnp.int32)
    cond = {}
    if "condition" in outputs:
      field = net.prefix.field
      cond = {field: jnp.asarray(outputs["condition"], jnp.int32)}
    logits = jax.jit(bound.logits)(cond, codes + first)
    close = dict(rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(logits, outputs["logits"], **close)
    read = bound.read(codes + first)
    want = outputs["input_ids"][:, net.prefix.length :]
    np.testing.assert_array_equal(read[:, : want.shape[1]], want)
    seen = outputs["attn_mask"].astype(bool)
    np.testing.assert_array_equal(net.mask.mask(), seen[0])
    target = np.asarray(codes + first)[:, -net.said :]
    np.testing.assert_array_equal(target, outputs["targets"])
    loss = system.loss(variables, {**cond, "units": codes},
                       jax.random.key(0), train=False)  # fmt: skip
    np.testing.assert_allclose(loss.value.mean(), outputs["loss"], rtol=1e-5)
    program = NextBlockProgram(net, law=GREEDY, merged=True)
    known = None
    if name == "nbp_frame":
      known = codes[:, :8]
    keys = jax.random.split(jax.random.key(0), 2)
    drawn = jax.jit(program.run)(
      system.net_variables(variables), cond, keys, known
    )
    count = outputs["greedy_ids"].shape[1]
    np.testing.assert_array_equal(drawn[:, -count:], outputs["greedy_ids"])
    back = convert.to_official(variables)
    self.assertEqual(back.keys(), state.keys())
    for key, array in state.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)

  def test_filters(self):
    outputs = golden_weights.load("nbp_frame")[1]
    logits = 2 * golden_weights.tensor("filter_logits", (3, 30))
    for name, law in {
      "topk": dict(top_k=7),
      "topp": dict(top_p=0.6),
      "both": dict(top_k=9, top_p=0.8),
    }.items():
      kept = np.isfinite(pick.law(logits, **law))
      np.testing.assert_array_equal(kept, outputs[f"filtered_{name}"] > 0)

  def test_configs(self):
    rows = lambda n, p: {
      "transformer.tok_emb.weight": np.zeros((n, 1536)),
      "transformer.pos_emb": np.zeros((1, 5120, 1536)),
      **({"transformer.uncond_embedding": np.zeros((p, 1536))} if p else {}),
    }
    made = convert.config(rows(64_000, 0))["model"]
    self.assertEqual((made["mode"], made["heads"]), ("frames", 16))
    made = convert.config(rows(96_016, 8))["model"]
    self.assertEqual(made["text"], dict(length=8, words=32_000))
    with self.assertRaisesRegex(UserError, "not a transformer of NBP"):
      convert.config({})
    with self.assertRaisesRegex(UserError, "give its heads"):
      convert.config({k: v[..., :7] for k, v in rows(64_000, 0).items()})


if __name__ == "__main__":
  absltest.main()
