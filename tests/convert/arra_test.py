"""Chameleon's layout: a plain reading of it says what ours says, and the way
back is exact."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.convert import arra as convert
from ar_jax.core.system import UserError, build

DEPTH, WIDTH, HEADS, HIDDEN, VOCAB = 2, 16, 2, 24, 65_536


def state(projector=True):
  """A small file of random numbers."""
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.normal(0, 0.3, shape).astype(np.float32)
  k = WIDTH // HEADS
  found = {
    "model.embed_tokens.weight": draw(VOCAB, WIDTH),
    "model.norm.weight": 1 + draw(WIDTH),
    "lm_head.weight": draw(VOCAB, WIDTH),
  }
  for i in range(DEPTH):
    at = f"model.layers.{i}"
    for name in "qkvo":
      found[f"{at}.self_attn.{name}_proj.weight"] = draw(WIDTH, WIDTH)
    for name in "qk":
      found[f"{at}.self_attn.{name}_norm.weight"] = 1 + draw(HEADS, k)
      found[f"{at}.self_attn.{name}_norm.bias"] = draw(HEADS, k)
    wide, narrow = (HIDDEN, WIDTH), (WIDTH, HIDDEN)
    for name, shape in (("gate", wide), ("up", wide), ("down", narrow)):
      found[f"{at}.mlp.{name}_proj.weight"] = draw(*shape)
    for name in ("input_layernorm", "post_attention_layernorm"):
      found[f"{at}.{name}.weight"] = 1 + draw(WIDTH)
  if projector:
    found |= {
      "adaptor.layers.0.weight": draw(6, WIDTH),
      "adaptor.layers.0.bias": draw(6),
      "adaptor.layers.2.weight": draw(6, 6),
      "adaptor.layers.2.bias": draw(6),
    }
  return found


def read(state, ids):
  """Logits of ids i[T] and hidden states behind each layer, in float64: norms
  of each head, then turns of halves, as transformers has them."""
  w = {k: np.float64(v) for k, v in state.items()}
  root = lambda x: np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-5)
  rms = lambda x, g: x / root(x) * g
  k, t = WIDTH // HEADS, len(ids)
  angle = np.arange(t)[:, None] * 1e4 ** (-np.arange(0, k, 2) / k)
  cos, sin = (np.tile(f(angle), (1, 2))[:, None] for f in (np.cos, np.sin))
  x, states = w["model.embed_tokens.weight"][ids], []

  def turn(y):
    half = np.concatenate([-y[..., k // 2 :], y[..., : k // 2]], -1)
    return y * cos + half * sin

  for i in range(DEPTH):
    of = lambda name, i=i: w[f"model.layers.{i}.{name}"]
    h = rms(x, of("input_layernorm.weight"))
    parts = {}
    for name in "qkv":
      y = (h @ of(f"self_attn.{name}_proj.weight").T).reshape(t, HEADS, k)
      if name != "v":
        y = y - y.mean(-1, keepdims=True)
        y = y / root(y) * of(f"self_attn.{name}_norm.weight")
        y = turn(y + of(f"self_attn.{name}_norm.bias"))
      parts[name] = y
    score = np.einsum("qhk,shk->hqs", parts["q"], parts["k"]) / np.sqrt(k)
    score = np.where(np.tril(np.ones((t, t), bool)), score, -np.inf)
    p = np.exp(score - score.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    out = np.einsum("hqs,shk->qhk", p, parts["v"]).reshape(t, WIDTH)
    x = x + out @ of("self_attn.o_proj.weight").T
    h = rms(x, of("post_attention_layernorm.weight"))
    gate = h @ of("mlp.gate_proj.weight").T
    h = gate / (1 + np.exp(-gate)) * (h @ of("mlp.up_proj.weight").T)
    x = x + h @ of("mlp.down_proj.weight").T
    states.append(x)
  return rms(x, w["model.norm.weight"]) @ w["lm_head.weight"].T, states


def system(state):
  config = convert.config(state)
  model = config["model"]
  model["tokenizer"] = dict(name="patch_codes", vocab=16, patch=2, size=8)
  model["text"]["length"] = 3
  return build(config["system"], **model)


class ChameleonTest(absltest.TestCase):
  def test_it_says_what_a_plain_reading_says(self):
    theirs = state()
    own = system(theirs)
    params = convert.to_ours(theirs)
    variables = {"params": jax.tree.map(jnp.asarray, params)}
    units = own.layout.units(jnp.arange(16)[None])
    text = jnp.array([[4000, 5, 60_000]])
    h, tapped = jax.jit(
      lambda v: own.tapped(v, {"text": text}, units, None, None)
    )(variables)
    logits = h @ variables["params"]["head"]["linear"]["kernel"]
    ids = [*np.asarray(text)[0], 8197, *np.asarray(units)[0, :-1]]
    want, states = read(theirs, ids)
    np.testing.assert_allclose(logits[0], want[3:], atol=1e-4)
    # Behind the first layer, not before it.
    np.testing.assert_allclose(tapped["hidden"][0], states[0][4:], atol=1e-4)
    w = {k: v for k, v in theirs.items() if "adaptor" in k}
    x = np.asarray(tapped["hidden"]) @ w["adaptor.layers.0.weight"].T
    x = x + w["adaptor.layers.0.bias"]
    x = np.asarray(jax.nn.gelu(x, approximate=False))
    x = x @ w["adaptor.layers.2.weight"].T + w["adaptor.layers.2.bias"]
    found = own.projector.apply(
      {"params": variables["params"]["projector"]}, tapped["hidden"]
    )
    np.testing.assert_allclose(found, x, atol=1e-4)

  def test_there_and_back(self):
    theirs = state()
    back = convert.to_official(convert.to_ours(theirs))
    self.assertEqual(back.keys(), theirs.keys())
    for key, x in theirs.items():
      np.testing.assert_array_equal(back[key], x, key)

  def test_a_file_without_a_projector_gets_one(self):
    theirs = state(projector=False)
    params = convert.to_ours(theirs)
    shapes = jax.eval_shape(
      lambda key: system(theirs).init(key, {}), jax.random.key(0)
    )["params"]
    shape = lambda tree: jax.tree.map(lambda x: x.shape, tree)
    self.assertEqual(shape(params), shape(shapes))
    self.assertEqual(params["projector"]["fc2"]["bias"].shape, (512,))

  def test_norms_for_all_heads(self):
    theirs, one = state(), {}
    for key, x in theirs.items():
      norm = "self_attn" in key and "norm" in key
      one[key] = x[:1] if norm else x
      theirs[key] = np.repeat(x[:1], HEADS, 0) if norm else x
    a, b = map(convert.to_ours, (one, theirs))
    jax.tree.map(np.testing.assert_array_equal, a, b)

  def test_other_files(self):
    with self.assertRaisesRegex(UserError, "not a Chameleon"):
      convert.config({"tok_embeddings.weight": np.zeros((2, 2))})
    theirs = state()
    theirs["model.embed_tokens.weight"] = np.zeros((100, WIDTH))
    with self.assertRaisesRegex(UserError, "vocabulary of 100"):
      convert.config(theirs)


if __name__ == "__main__":
  absltest.main()
