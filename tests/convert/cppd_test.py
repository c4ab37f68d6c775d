"""Published weights of CPPD: there and back, in both layouts, and the same
outputs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.convert import cppd as convert
from ar_jax.core.system import UserError, build
from ar_jax.files import tables
from ar_jax.nn.heads.categorical import cross_entropy
from ar_jax.nn.stacks.svtr import svtr
from tests import golden_weights

SVTR, TOKENS = golden_weights.load("cppd_svtr")
NODES, OUTPUTS = golden_weights.load("cppd_decoder")
TEXTS = ("aab", "x7", "mmmmmmm")
ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-5)


def system(**changes):
  """The system around the golden decoder: C = 37, 8 places, 12 tokens."""
  sizes = dict(
    size=(8, 48), in_channels=3, widths=(32, 64), depths=(1, 1), heads=(1, 2),
    convolutions=1, layers=2, node_heads=2,
  )  # fmt: skip
  tokens = dict(name="given", form="tokens", vocab=37, length=8)
  return build("cppd", tokenizer=tokens, **sizes | changes)


def ids(text: str) -> list[int]:
  found = [1 + ALPHABET.index(x) for x in text]
  return found + [0] * (8 - len(found))


@functools.cache
def decoder():
  """(decoder, its variables)."""
  state = convert.split_biases(golden_weights.weights(NODES))
  own = system().net.decoder
  like = jax.eval_shape(
    lambda key: own.init(key, jnp.zeros((1, 12, 64))), jax.random.key(0)
  )
  like = {"params": {"decoder": like["params"]}}
  found = tables.to_ours(convert.TABLE, state, like)
  return own, {"params": found["params"]["decoder"]}


@functools.cache
def read():
  own, variables = decoder()
  visual = golden_weights.tensor("visual0", (3, 12, 64))
  return jax.jit(own.apply)(variables, visual)


class SvtrTest(absltest.TestCase):
  def test_tokens_of_the_official_encoder(self):
    state = golden_weights.weights(SVTR)
    own = svtr(
      size=(32, 40), widths=(32, 48, 64), depths=(1, 2, 1), heads=(2, 3, 4),
      convolutions=2,
    )  # fmt: skip
    image = np.clip(golden_weights.tensor("image", (2, 3, 32, 40)), -1, 1)
    image = np.moveaxis(image, 1, -1)
    fresh = jax.eval_shape(own.init, jax.random.key(0), image)
    like = {"params": {"encoder": fresh["params"]}}
    params = tables.to_ours(convert.TABLE, convert.split_biases(state), like)[
      "params"
    ]["encoder"]
    still = {
      f"stem_norm{i}": {"mean": np.zeros(n), "var": np.ones(n)}
      for i, n in enumerate((16, 32))
    }
    variables = {"params": params, "batch_stats": still}
    tokens, seen = jax.jit(
      lambda v, x: own.apply(v, x, capture_intermediates=True, mutable=True)
    )(variables, image)
    close(tokens, TOKENS["tokens"])
    stem = seen["intermediates"]["stem_norm1"]["__call__"][0]
    stem = jax.nn.gelu(stem, approximate=False).reshape(2, 80, 32)
    close(stem[:, ::8], TOKENS["stem"])


class DecoderTest(absltest.TestCase):
  def test_outputs_of_the_official_decoder(self):
    own, variables = decoder()
    found = read()
    close(found.counts, OUTPUTS["count_logits"])
    at = np.arange(8)
    close(found.places[:, at, at], OUTPUTS["place_logits"])
    close(found.logits, OUTPUTS["char_logits"])
    visual = golden_weights.tensor("visual0", (3, 12, 64))
    alone = own.apply(variables, visual, counts=False)
    close(jax.nn.softmax(alone.logits), OUTPUTS["test_probs"])

  def test_targets_and_losses(self):
    units, found = np.array([ids(text) for text in TEXTS]), read()
    cppd = system()
    real = np.asarray(cppd.real(jnp.asarray(units)))
    counts = np.asarray(cppd.counts_of(jnp.asarray(units)))
    counted, places = np.split(OUTPUTS["label_node"], [37], 1)
    np.testing.assert_array_equal(counts, np.minimum(counted, 6))
    np.testing.assert_array_equal(real, places)
    np.testing.assert_array_equal(np.where(real, units, 100), OUTPUTS["label"])
    np.testing.assert_array_equal(found.logits.argmax(-1), OUTPUTS["char_ids"])
    for name, smoothing in (("smooth", 0.1 * 37 / 36), ("plain", 0.0)):
      each = cross_entropy(found.logits, units, smoothing=smoothing)
      edge = np.sum(each * real) / real.sum()
      close(edge, OUTPUTS[f"loss_edge_{name}"])
      close(edge + OUTPUTS["loss_node"], OUTPUTS[f"loss_{name}"])
    sides = cppd.sides(found, jnp.asarray(units), counts)
    close(sides["count"].mean(), OUTPUTS["loss_count"])
    close(sides["place"].mean(), OUTPUTS["loss_place"])
    left = system(place_target="left")
    left = left.sides(found, jnp.asarray(units), counts)["place"]
    per_place = float(jnp.sum(left * real.sum(1)) / real.sum())
    node = float(sides["count"].mean()) + per_place
    close(found.places, OUTPUTS["place_logits_pos_len"])
    close(node, OUTPUTS["loss_node_pos_len"])


class LayoutsTest(absltest.TestCase):
  def test_both_ways_and_paddle(self):
    model = dict(
      tokenizer=dict(name="given", form="tokens", vocab=37, length=8),
      size=(32, 40), in_channels=3, widths=(32, 32, 64), depths=(1, 1, 1),
      heads=(1, 1, 2), convolutions=1, layers=1, node_heads=2, edge_layers=1,
    )  # fmt: skip
    own = build("cppd", **model)
    like = jax.eval_shape(lambda key: own.init(key, {}), jax.random.key(0))
    rng = np.random.default_rng(0)
    like = {k: like[k] for k in ("params", "batch_stats")}
    filled = jax.tree.map(
      lambda x: rng.normal(size=x.shape).astype(np.float32), like
    )
    state = convert.to_official(filled)
    self.assertEqual(convert.config(state)["model"], model)
    back = convert.to_ours(state)
    self.assertEqual(back.pop("tokenizer"), {})
    jax.tree.map(np.testing.assert_array_equal, back, filled)
    theirs = paddle(state)
    theirs["head.pos_node_decoder.0.normkv.weight"] = np.ones(64)
    back = convert.to_ours(theirs)
    back.pop("tokenizer")
    jax.tree.map(np.testing.assert_array_equal, back, filled)

  def test_other_files(self):
    with self.assertRaisesRegex(UserError, "not a CPPD: there is no"):
      convert.config({"a": np.zeros(3)})


def paddle(state):
  """A state as PaddleOCR lays it out."""
  edge, found = "decoder.edge_decoder.0.", {}
  for key, array in state.items():
    array = array.T if array.ndim == 2 and "embedding" not in key else array
    key = key.replace("running_mean", "_mean")
    key = key.replace("running_var", "_variance")
    if key.startswith(f"{edge}mixer.kv."):
      leaf = key.rpartition(".")[2]
      for name, part in zip(("pv", "cv"), np.split(array, 2, -1), strict=True):
        found[f"head.edge_decoder.{name}.{leaf}"] = part
      continue
    key = key.replace(f"{edge}mixer.q.", "decoder.edge_decoder.p.")
    key = key.replace(f"{edge}mixer.proj.", "decoder.edge_decoder.p_proj.")
    key = key.replace(edge, "decoder.edge_decoder.")
    room, _, rest = key.partition(".")
    found[{"encoder": "backbone", "decoder": "head"}[room] + f".{rest}"] = array
  return found


if __name__ == "__main__":
  absltest.main()
