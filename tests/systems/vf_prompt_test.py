"""VF-prompt: "It works when", line by line."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.system import UserError, build
from ar_jax.data.wrap import peers
from tests import filled
from tests.systems.llamagen_models import KEYS, TOKENIZER, generate, golden
from tests.systems.llamagen_models import logits as logits_of

TINY = dict(
  tokenizer=TOKENIZER, depth=2, width=32, heads=2, multiple_of=32, num_classes=3
)
LABEL = jnp.array([0, 2])
UNITS = jax.random.randint(jax.random.key(1), (2, 16), 0, 64)
SEEN = jax.random.randint(jax.random.key(2), (2, 5), 0, 64)


@functools.cache
def model(kind="class", **more):
  system = build("vf_prompt", **(TINY | dict(kind=kind, count=5) | more))
  return system, filled.variables(system)


class PromptTest(parameterized.TestCase):
  def test_without_a_prompt_it_is_llamagen_to_the_bit(self):
    plain, variables, label, _ = golden()
    net, codes = plain.net, plain.net.backbone
    sizes = dict(depth=codes.depth, width=net.width, multiple_of=32)
    heads = net.width // codes.head_width(net.width)
    sizes |= dict(heads=heads, num_classes=plain.classes, tokenizer=TOKENIZER)
    want = logits_of(plain, variables, label, UNITS)
    for kind in ("none", "class"):
      own = build("vf_prompt", **sizes, kind=kind, count=0)
      got = logits_of(own, variables, label, UNITS)
      np.testing.assert_array_equal(got, want)
    # And its weights load unchanged where there is a prompt.
    for kind in ("class", "universal"):
      own = build("vf_prompt", **sizes, kind=kind, segments=False)
      fresh = jax.eval_shape(lambda key, s=own: s.init(key, {}), KEYS[0])
      shapes = lambda tree: jax.tree.map(jnp.shape, tree)
      self.assertEqual(shapes(fresh["params"]), shapes(variables["params"]))

  def test_logits_see_the_prompt_and_nothing_later(self):
    system, variables = model()
    cond = {"label": LABEL, "prompt_units": SEEN}
    before = logits_of(system, variables, cond, UNITS)
    last = {**cond, "prompt_units": SEEN.at[:, -1].add(1) % 64}
    moved = np.abs(logits_of(system, variables, last, UNITS) - before)
    self.assertTrue((moved.max((0, 2)) > 0).all())  # row k predicts x_0
    for at in (0, 9):
      after = logits_of(system, variables, cond, UNITS.at[:, at].add(1) % 64)
      moved = np.abs(after - before).max((0, 2)) > 0
      self.assertFalse(moved[: at + 1].any())
      self.assertTrue(moved[at + 1 :].all())

  def test_the_prompt_is_not_in_the_loss(self):
    system, variables = model()
    batch = {"label": LABEL, "units": UNITS, "prompt_units": SEEN}
    of = lambda system: jax.jit(functools.partial(system.loss, train=False))(
      variables, batch, KEYS[0]
    )
    loss = of(system)
    self.assertEqual(loss.nll.shape, (2, 16))
    np.testing.assert_allclose(loss.value, loss.nll.mean(1), rtol=1e-6)
    other, _ = model(prompt_loss=0.5)
    more = of(other)
    np.testing.assert_allclose(more.nll, loss.nll, rtol=1e-5, atol=1e-5)
    own = more.metrics["prompt_loss"]
    np.testing.assert_allclose(more.value, loss.value + own / 2, rtol=1e-5)

  def test_class_prompts_are_others_of_the_class(self):
    rows = [
      {"units": np.int32([i]), "label": np.int32(i % 3)} for i in range(9)
    ]
    source, rng = peers.Peers(rows, 1), np.random.default_rng(0)
    for n in range(10_000):
      peer = source.draw(n % 9, rng)["peer_units"][0, 0]
      self.assertTrue(peer % 3 == n % 3 and peer != n % 9)

  def test_universal_prompts_are_uniform(self):
    system, _ = model("universal")
    keys = jax.random.split(jax.random.key(3), 4000)
    cond = system.prompted({"label": jnp.zeros(4000, int)}, keys)
    count = np.bincount(np.ravel(cond["prompt_units"]), minlength=64)
    want = 20_000 / 64
    self.assertLess(np.sum((count - want) ** 2 / want), 103.4)  # p = 0.001

  @parameterized.parameters("class", "universal", "pause")
  def test_cached_steps_are_the_full_pass(self, kind):
    """In as many passes as LlamaGen takes."""
    system, variables = model(kind)
    self.assertEqual(system.forwards(), 16)
    cond = {"label": LABEL, "prompt_units": SEEN}
    want = logits_of(system, variables, cond, UNITS)
    net = system.net.bind(system.net_variables(variables))
    h, cache = net.begin(system.condition(cond), UNITS[:, :0])
    parts = [h]
    for at in range(3):
      h, cache = net.step(UNITS[:, at : at + 1], cache)
      parts.append(h)
    got = net.head.logits(jnp.concatenate(parts, 1))
    np.testing.assert_allclose(got, want[:, :4], rtol=1e-5, atol=1e-5)

  def test_where_the_class_is_hidden_so_is_its_prompt(self):
    system, variables = model()
    cond = {"label": LABEL, "prompt_units": SEEN, "null_units": SEEN[::-1]}
    other = {**cond, "label": LABEL[::-1], "prompt_units": SEEN + 1}
    a, b = (
      logits_of(system, variables, c, UNITS, jnp.array([True, True]))
      for c in (cond, other)
    )
    np.testing.assert_array_equal(a, b)

  def test_an_image_of_ones_own_is_a_prompt(self):
    system, variables = model()
    image = np.zeros((2, 8, 8, 3), np.uint8)
    cond = {"label": LABEL, "peer_image": image}
    options = dict(temperature=0.0, guidance=2.0)
    one = generate(system, variables, cond, KEYS[:2], **options)
    cond["peer_image"] = image[:, None]
    same = generate(system, variables, cond, KEYS[:2], **options)
    np.testing.assert_array_equal(one, same)

  def test_wrong_use(self):
    system, variables = model()
    with self.assertRaisesRegex(UserError, "data.peers=1"):
      system.condition({"label": LABEL})
    with self.assertRaisesRegex(UserError, "reads 5 codes"):
      system.condition({"label": LABEL, "prompt_units": SEEN[:, :3]})
    with self.assertRaisesRegex(UserError, "choose one of none"):
      build("vf_prompt", **TINY, kind="klass")


if __name__ == "__main__":
  absltest.main()
