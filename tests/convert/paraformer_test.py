"""Published weights of Paraformer: there and back, and the same outputs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.convert import paraformer as convert
from ar_jax.core.system import UserError, build
from ar_jax.families.seq2seq import decoders, speech
from ar_jax.files import tables
from ar_jax.nn.heads import ctc
from ar_jax.nn.heads.categorical import smoothed_divergence
from ar_jax.nn.layers import cif
from ar_jax.nn.stacks.vit import vit
from tests import golden_weights

CIF, FIRED = golden_weights.load("paraformer_cif")
SANM, OUTPUTS = golden_weights.load("paraformer_sanm")
SAN, PLAIN = golden_weights.load("paraformer_san_decoder")
STATE = golden_weights.weights(SANM)
tensor = golden_weights.tensor
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=3e-5)


@functools.cache
def model():
  """(net, params) of the golden sizes, which reads padding as the release
  does."""
  config = convert.config(STATE)["model"]
  config |= dict(bands=24, stack=1, samples=4000, released=True)
  config["tokenizer"]["length"] = 7
  net = build("paraformer", **config).net
  return net, convert.to_ours(STATE)["params"]


class PredictorTest(absltest.TestCase):
  def test_both_versions(self):
    hidden = jnp.asarray(tensor("hidden", (3, 20, 16)) / 2)
    lengths = FIRED["lengths"]
    there = jnp.arange(20)[None] < jnp.asarray(lengths)[:, None]
    state = golden_weights.weights(CIF)
    for name, depthwise in (("v1", True), ("v2", False)):
      own = {
        k.replace(f"_{name}.", "."): v
        for k, v in state.items() if k.startswith(f"predictor_{name}")
      }  # fmt: skip
      predictor = cif.Predictor(16, depthwise, released=True)
      shapes = jax.eval_shape(predictor.init, jax.random.key(0), hidden, there)
      like = {"params": {"predictor": shapes["params"]}}
      params = tables.to_ours(convert.TABLE, own, like)["params"]["predictor"]
      alphas = predictor.apply({"params": params}, hidden, there)
      close(alphas.sum(1), FIRED[f"{name}_train_token_num"])
      target = np.array(CIF["config"]["targets"][name])
      off = np.abs(target - alphas.sum(1))
      close(off.mean(), FIRED[f"{name}_length_loss"])
      close(off.sum() / target.sum(), FIRED[f"{name}_length_loss_normalized"])
      sums = cif.scaled(alphas, jnp.asarray(target), there)
      given = np.diff(sums, axis=1, prepend=0.0)
      close(given, FIRED[f"{name}_train_alphas"])
      want = FIRED[f"{name}_train_embeds"]
      found = cif.fire(hidden, sums, want.shape[1])
      for i, count in enumerate(FIRED[f"{name}_train_fired"]):
        close(found[i, :count], want[i, :count])
      longer, sums, count = cif.tailed(hidden, alphas, there)
      np.testing.assert_array_equal(count, FIRED[f"{name}_infer_token_num"])
      close(np.diff(sums, axis=1, prepend=0.0), FIRED[f"{name}_infer_alphas"])
      want = FIRED[f"{name}_infer_embeds"]
      found = cif.fire(longer, sums, want.shape[1])
      for i, n in enumerate(count):
        close(found[i, :n], want[i, :n])

  def test_given_weights(self):
    hidden = jnp.asarray(tensor("hidden", (3, 20, 16)) / 2)
    alphas = jax.nn.sigmoid(jnp.asarray(tensor("alphas", (3, 20))))
    found = cif.fire(hidden, jnp.cumsum(alphas, 1), 10)
    for i, n in enumerate(FIRED["given_token_num"]):
      close(found[i, :n], FIRED["given_loop_embeds"][i, :n])
      close(found[i, :n], FIRED["given_prefix_embeds"][i, :n])


class ModelTest(absltest.TestCase):
  def test_round_trip_is_exact(self):
    params = convert.to_ours(STATE)
    self.assertEqual(params["tokenizer"], {})
    back = convert.to_official(params)
    self.assertEqual(set(back), set(STATE))
    for key, array in STATE.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)

  def test_other_files(self):
    with self.assertRaisesRegex(UserError, "not a Paraformer of SAN-M"):
      convert.config({"a": np.zeros(3)})

  def test_training_and_reading(self):
    net, params = model()
    frames = jnp.asarray(tensor("speech1", (2, 18, 24)) / 8)
    lengths = jnp.array(SANM["config"]["lengths"])
    units = jnp.asarray(np.maximum(OUTPUTS["targets_with_eos"], 0))
    real = jnp.asarray(OUTPUTS["targets_with_eos"] >= 0)
    rank = np.full((2, 7), 9)
    for i, name in enumerate(("perm0", "perm1")):
      rank[i, OUTPUTS[name]] = np.arange(len(OUTPUTS[name]))

    @jax.jit
    def run(params):
      own = net.bind({"params": params})
      there = jnp.arange(18)[None] < lengths[:, None]
      mask = there[:, None, None]
      found = {"encoder_layer0": own.encoder.first(frames, mask)}
      heard = own.hear(frames, lengths)
      found["encoder_out"] = heard.hidden
      x = own.given(heard, real.sum(1), 7)
      found["train_acoustic"] = x
      first = own.decoder(x, heard.memory, real)
      found["train_first_logits"] = first
      wrong = jnp.sum((jnp.argmax(first, -1) != units) & real, 1)
      found["wrong_in_first_pass"] = wrong
      replaced = jnp.floor(0.75 * wrong).astype(jnp.int32)
      found["replaced"] = replaced
      x = speech.glanced(x, own.symbols(units), jnp.asarray(rank), replaced)
      x = x * real[..., None]
      found["train_semantic"] = x
      logits = own.decoder(x, heard.memory, real)
      found["train_logits"] = logits
      each = real * smoothed_divergence(logits, units, 0.1)
      att = each.sum() / 2
      found["loss_att"] = att
      found["loss_att_normalized"] = each.sum() / real.sum()
      text = jnp.asarray(np.maximum(SANM["config"]["text"], 0))
      inner = jnp.asarray(np.array(SANM["config"]["text"]) >= 0)
      own_ctc = ctc.loss(own.said_by_ctc(heard), there, text, inner).mean()
      found["loss_ctc"] = own_ctc
      length = jnp.abs(real.sum(1) - heard.alphas.sum(1)).mean()
      found["loss_length"] = length
      found["loss"] = 0.3 * own_ctc + 0.7 * att + length
      x, count = own.counted(heard, 7)
      found["infer_token_num"], found["infer_acoustic"] = count, x
      places = jnp.arange(7)[None] < count[:, None]
      law = jax.nn.log_softmax(own.decoder(x, heard.memory, places))
      found["infer_log_probs"] = law
      return found, jnp.where(places, jnp.argmax(law, -1), -1)

    found, tokens = run(params)
    counts = {"train": real.sum(1), "infer": found["infer_token_num"]}
    for name, got in found.items():
      want, got = OUTPUTS[name], np.asarray(got)
      kind = counts.get(name.partition("_")[0])
      if got.ndim == 3 and kind is not None:
        for i, n in enumerate(kind):
          close(got[i, :n], want[i, :n], err_msg=name)
      else:
        close(got, want, err_msg=name)
    np.testing.assert_array_equal(tokens, OUTPUTS["infer_tokens"])


class PlainDecoderTest(absltest.TestCase):
  def test_logits_of_the_official_decoder(self):
    stack = vit(
      2, 32, 4, cross=True, hidden=48, act="relu", eps=1e-12, dropout=0.0
    )
    own = decoders.Parallel(stack, 11)
    x = jnp.asarray(tensor("acoustic", (2, 6, 32)))
    memory = jnp.asarray(tensor("encoder_out", (2, 15, 32)))
    seen = jnp.arange(15)[None] < jnp.array([15, 9])[:, None]
    there = jnp.arange(6)[None] < jnp.array([6, 4])[:, None]
    read = lambda net: net(x, net.remember(memory, seen), there)
    init = lambda key: own.init(key, method=read)
    shapes = jax.eval_shape(init, jax.random.key(0))
    state = golden_weights.weights(SAN)
    state.pop("decoder.embed.0.weight")
    like = {"params": {"decoder": shapes["params"]}}
    params = tables.to_ours(convert.PLAIN, convert.plain(state), like)
    logits = own.apply({"params": params["params"]["decoder"]}, method=read)
    close(logits[0], PLAIN["logits"][0])
    close(logits[1, :4], PLAIN["logits"][1, :4])


if __name__ == "__main__":
  absltest.main()
