"""ASVR: residual codes, the head over depths, what it adds to a model that
answers questions, and what it leaves alone."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from scipy import special

from ar_jax import data
from ar_jax.convert import depth_head
from ar_jax.core.errors import UserError
from ar_jax.core.system import build
from ar_jax.data.wrap import questions
from ar_jax.nn.heads.depth import DepthHead
from ar_jax.nn.quantize.stacked import Stacked, residuals
from ar_jax.tokenizers import patch_fitting
from tests import filled, smoke

D, V, C, W, H = 8, 5, 6, 8, 7  # depths, codes, numbers, widths of head and h
HEAD = DepthHead(D, V, width=W, layers=2, heads=2)


def grown(tree, stddev=0.4):
  draw = np.random.default_rng(0)
  fill = lambda x: jnp.asarray(stddev * draw.normal(size=x.shape), x.dtype)
  return jax.tree.map(fill, tree)


def head_params():
  h, sums = jnp.zeros((1, H)), jnp.zeros((1, D - 1, C))
  return grown(
    jax.eval_shape(lambda k: HEAD.init(k, h, sums), jax.random.key(0))["params"]
  )


def reference(state, h, sums):
  """Logits f64[N, D, V] by the released layout, an MLP for each depth by
  itself."""
  w = {
    k.removeprefix(depth_head.PREFIX): np.float64(v) for k, v in state.items()
  }
  gelu = lambda x: x * (1 + special.erf(x / np.sqrt(2))) / 2
  rms = lambda x, g: x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * g
  at = lambda name, x: x @ w[f"{name}.weight"].T + w[f"{name}.bias"]
  first = at("projector.2", gelu(at("projector.0", h)))
  x = np.concatenate([first[:, None], at("in_mlp_1", sums)], 1)
  for i in range(2):
    own = lambda name, i=i: w[f"head_transformer.{i}.{name}"]
    y = rms(x, own("layernorm1.weight"))
    qkv = y @ own("self_attention.in_proj_weight").T
    qkv = qkv + own("self_attention.in_proj_bias")
    split = lambda z: z.reshape(-1, D, 2, W // 2).swapaxes(1, 2)
    q, k, v = map(split, np.split(qkv, 3, -1))
    score = q @ k.swapaxes(-1, -2) / np.sqrt(W // 2)
    score = np.exp(np.where(np.tri(D, dtype=bool), score, -np.inf))
    y = score / score.sum(-1, keepdims=True) @ v
    y = (
      y.swapaxes(1, 2).reshape(x.shape)
      @ own("self_attention.out_proj.weight").T
    )
    x = rms(
      x + y + own("self_attention.out_proj.bias"), own("layernorm2.weight")
    )
    fc1 = own("linear1.weight").reshape(-1, D, W)
    fc2 = own("linear2.weight").reshape(W, D, -1)
    each = [gelu(x[:, d] @ fc1[:, d].T) @ fc2[:, d].T for d in range(D)]
    x = x + np.stack(each, 1)
  x = rms(x, w["headnorm.weight"])
  return np.stack([at(f"heads.{d}", x[:, d]) for d in range(D)], 1)


class HeadTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.params, rng = head_params(), np.random.default_rng(1)
    cls.h, cls.sums = rng.normal(size=(3, H)), rng.normal(size=(3, D - 1, C))
    call = jax.jit(lambda h, s: HEAD.apply({"params": cls.params}, h, s))
    cls.call = staticmethod(
      lambda h, s: np.asarray(call(jnp.float32(h), jnp.float32(s)))
    )
    cls.logits = cls.call(cls.h, cls.sums)

  def test_released_layout(self):
    state = depth_head.to_theirs(self.params)
    wanted = reference(state, self.h, self.sums)
    np.testing.assert_allclose(self.logits, wanted, rtol=1e-4, atol=1e-5)
    self.assertEqual(
      state[f"{depth_head.PREFIX}head_transformer.0.linear2.weight"].shape,
      (W, D * 2 * W),
    )
    back = depth_head.to_ours(state)
    jax.tree.map(np.testing.assert_array_equal, back, self.params)
    del state[f"{depth_head.PREFIX}headnorm.weight"]
    with self.assertRaisesRegex(UserError, "no headnorm.weight"):
      depth_head.to_ours(state)

  def test_a_code_changes_what_is_below_it_alone(self):
    """The vectors behind code 4 of position 1: depths from 5 on."""
    sums = self.sums.copy()
    sums[1, 4:] += 0.7
    changed = (self.call(self.h, sums) != self.logits).any(-1)
    self.assertFalse(changed[[0, 2]].any())
    np.testing.assert_array_equal(changed[1], np.arange(D) >= 5)

  def test_published_size(self):
    """151.0 million a layer, two maps of what is read, 8 classifiers."""
    head = DepthHead(8, 16_384)
    h, sums = jnp.zeros((1, 4096)), jnp.zeros((1, 7, 1152))
    shapes = jax.eval_shape(
      lambda k: head.init(k, h, sums)["params"], jax.random.key(0)
    )
    size = lambda tree: sum(x.size for x in jax.tree.leaves(tree)) / 1e6
    self.assertAlmostEqual(size(shapes["layer_0"]), 151.0, delta=0.1)
    self.assertAlmostEqual(size(shapes["code"]), 2.4, delta=0.05)
    tables = size([shapes["kernel"], shapes["bias"]])
    self.assertAlmostEqual(tables, 8 * 2049 * 16_384 / 1e6, places=6)


class CodesTest(absltest.TestCase):
  def test_what_codes_leave_is_less_with_every_depth(self):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(600, C)).astype(np.float32) @ rng.normal(size=(C, C))
    z = z.astype(np.float32)
    rest, books, left = z, [], []
    for _ in range(3):
      books.append(patch_fitting.codes(rest, np.zeros((16, C)), rng))
      rest = residuals(rest, books[-1])
      left.append(np.square(rest).sum(-1).mean())
    self.assertTrue(np.all(np.diff([np.square(z).sum(-1).mean(), *left]) < 0))
    stacked = Stacked(3, 16, C)
    own = {"params": {"codebooks": jnp.asarray(np.stack(books))}}
    codes, last = stacked.apply(own, z)
    np.testing.assert_allclose(last, rest, atol=1e-5)
    sums = stacked.apply(own, codes, method="sums")
    np.testing.assert_allclose(sums[:, -1] + last, z, atol=1e-5)
    np.testing.assert_allclose(sums[:, 0], books[0][codes[:, 0]], atol=1e-6)


class SystemTest(absltest.TestCase):
  """On the smoke system; the contract has its programs."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    c = smoke.config("asvr")
    cls.model = {"name": c.system, **c.model.to_dict()}
    cls.data = c.data.to_dict()
    cls.system = cls.made()
    cls.variables = filled.variables(cls.system)
    source = data.load(**cls.data).train
    cls.batch = data.batch_at(source, 0, batch=4, seed=0)

  @classmethod
  def made(cls, **changes):
    model = cls.model | changes
    return build(model.pop("name"), **model)

  def test_the_answer_does_not_know_of_the_codes(self):
    """Weight 0 is the plain model: the same loss, and the same gradients."""
    found = {}
    for name, changes in (
      ("plain", dict(codes_of="none")),
      ("zero", dict(weight=0.0)),
      ("ours", {}),
    ):
      system = self.made(**changes)
      rest = dict(self.variables)
      if name == "plain":
        rest["params"] = {
          k: v for k, v in rest["params"].items() if k != "depth"
        }
        rest.pop("codes")

      def loss(params, system=system, rest=rest):
        every = {**rest, "params": params}
        value = system.loss(every, self.batch, jax.random.key(0), train=True)
        return value.value.mean()

      value, grad = jax.jit(jax.value_and_grad(loss))(rest["params"])
      grad.pop("depth", None)
      found[name] = value, grad
    plain, zero, ours = found.values()
    self.assertEqual(plain[0], zero[0])
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7),
      plain[1], zero[1],
    )  # fmt: skip
    self.assertGreater(ours[0], plain[0] + 0.1)
    norm = lambda tree: float(jnp.linalg.norm(tree["prefix"]["fc1"]["kernel"]))
    self.assertNotAlmostEqual(norm(ours[1]), norm(plain[1]), places=4)

  def test_which_state_says_which_codes(self):
    """Unshifted, of its own place; shifted, of the next one."""
    encoded = self.system.encode(self.variables, self.batch)
    count = self.system.net.prefix.count
    self.assertEqual(encoded["codes"].shape, (4, count, 3))
    h = np.random.default_rng(0).normal(size=(4, count, 16)).astype(np.float32)
    other = h.copy()
    other[:, 2] += 1.0
    for shift in (0, 1):
      system = self.made(shift=shift)
      say = lambda h, s=system: s.reconstruction(
        self.variables, encoded["codes"], h
      )
      changed = np.asarray(say(h) != say(other)).any((0, 2))
      self.assertLen(changed, count - shift)
      place = shift + np.flatnonzero(changed)  # whose codes are said
      np.testing.assert_array_equal(place, [2 + shift])

  def test_targets(self):
    semantic, other = self.system, self.made(codes_of="appearance")
    variables = filled.variables(other)
    images = jnp.asarray(
      np.concatenate(
        [self.batch["image"][:, None], self.batch["peer_image"]], 1
      )
    )
    features, pixels = other.see(variables, images)
    np.testing.assert_array_equal(
      features, semantic.see({**variables}, images)[0]
    )
    side = round((features.shape[1] // 2) ** 0.5)
    self.assertEqual(pixels.shape[-1], (4 // side) ** 2)
    self.assertEqual(other.codes.channels, pixels.shape[-1])
    with self.assertRaisesRegex(UserError, "looks at 2 of 4x4"):
      semantic.see(variables, images[:, :1])
    align = self.made(stage="align")
    self.assertEqual(align.trains, ("prefix", "depth"))
    for wrong in (dict(codes_of="x"), dict(shift=2), dict(images=3)):
      with self.assertRaisesRegex(UserError, "choose one of"):
        self.made(**wrong)
    with self.assertRaisesRegex(UserError, "sees places"):
      self.made(encoder=dict(name="patches"))

  def test_published_model_builds(self):
    module = importlib.import_module("configs.asvr")
    for preset, of in (("paper", None), ("align", ("prefix", "depth"))):
      config = module.get_config(preset)
      system = build(config.system, **config.model.to_dict())
      self.assertEqual(system.trains, of)
      self.assertEqual(system.net.prefix.count, 729)
      self.assertEqual(system.codes.channels, 1152)


class QuestionsTest(absltest.TestCase):
  def test_answers_are_true(self):
    options = dict(size=8, channels=1, path="", peers=1, same_class=False)
    found = data.load("digits", derive={"questions": {}}, **options)
    form, seen = found.forms["text"], set()
    for i in range(60):
      row = found.train[i]
      a, b = int(row["label"]), int(row["peer_label"][0])
      asked, answer = form.read(row["question"]), form.read(row["text"])
      kind = {text: name for name, (text, _) in questions.KINDS.items()}[asked]
      wanted = {
        "sum": a + b, "larger": max(a, b), "difference": abs(a - b),
        "equal": "yes" if a == b else "no",
      }  # fmt: skip
      self.assertEqual(answer, str(wanted[kind]))
      seen.add(kind)
    self.assertEqual(seen, {*questions.KINDS})
    again = data.load("digits", derive={"questions": {}}, **options)
    for name in ("question", "text", "peer_image"):
      np.testing.assert_array_equal(again.train[7][name], found.train[7][name])

  def test_what_cannot_be_asked(self):
    load = lambda peers=1, **options: data.load(
      "digits", size=8, channels=1, path="", peers=peers, same_class=False,
      derive={"questions": options},
    )  # fmt: skip
    for options, message in (
      (dict(kinds=("product",)), "choose among sum"),
      (dict(classes=11), "1 to 10"),
      (dict(peers=0), "set data.peers=1"),
      (dict(classes=2), "has the class"),
    ):
      with self.assertRaisesRegex(UserError, message):
        found = load(**options).train
        for i in range(20):
          found[i]


if __name__ == "__main__":
  absltest.main()
