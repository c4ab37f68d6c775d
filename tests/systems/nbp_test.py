"""NBP: what its sheet says of any model; figures of trained ones are in
experiments/nbp.py, official numbers in tests/convert/nbp_test.py."""

import functools
import pathlib
import tempfile
import types

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.plans import clips as plans
from ar_jax.core.plans import makers
from ar_jax.core.system import UserError, build
from ar_jax.families.block.shifted import NextBlock
from ar_jax.families.block.shifted_program import NextBlockProgram
from ar_jax.families.token.placed import Placed
from ar_jax.families.token.prefix import Nothing, Start
from ar_jax.families.token.readers import Embed
from ar_jax.nn.heads.categorical import Categorical
from configs import nbp as config
from tests import filled

KEY = jax.random.key(0)
GREEDY = (("temperature", 0.0),)


def video_codes(frames, side=2, vocab=5):
  body = dict(name="patch_codes", patch=1, size=side, vocab=vocab)
  return dict(name="given", form="frames", frames=frames, tokenizer=body)


@functools.cache
def small(**model):
  """(system, variables) of 4 frames of 2 x 2 units."""
  sizes = dict(depth=2, width=16, heads=2, block=model.pop("block", ()))
  system = build("nbp", tokenizer=video_codes(4), **sizes, **model)
  return system, filled.variables(system)


class Oracle:
  """In place of a net: knows one sequence, says the units that its own reading
  of what it is fed leads to, and counts."""

  def __init__(self, plan, block, hybrid, ids):
    net = NextBlock(plan, block, hybrid, block * hybrid, Embed(8, 4), 4,
                    Nothing(4), None, None)  # fmt: skip
    self.plan, self.block, self.hybrid = plan, block, hybrid
    self.first, self.prefix, self.middle = net.first, net.prefix, net.middle
    self.whole, self.count = np.asarray(net.read(ids)), 0
    self.target = np.asarray(ids)[:, -net.said :]
    self.read, self.vocab = net.read, int(ids.max()) + 1
    self.head = types.SimpleNamespace(logits=lambda h: h)

  def bind(self, variables):
    return self

  def ready(self, variables, rows):
    return variables

  def _said(self, ids, at):
    self.count += 1
    count = ids.shape[1]
    np.testing.assert_array_equal(ids, self.whole[:, at : at + count])
    return 9 * jax.nn.one_hot(self.target[:, at : at + count], self.vocab)

  def begin(self, cond, ids, hidden):
    read = self.read(ids)
    said = self._said(read, 0)
    return said[:, -self.block if ids.shape[1] else -1 :], read.shape[1]

  def step(self, ids, cache, valid):
    return self._said(ids, cache), cache + ids.shape[1]


class NbpTest(parameterized.TestCase):
  @parameterized.parameters(
    (True, (1, 1, 4), 0, 4 + 5),
    (True, (1, 1, 4), 8, 4),
    (False, (1, 1, 4), 8, 4),
    (False, (1, 2, 4), 8, 2),
  )
  def test_an_oracle_says_the_sequence(self, hybrid, shape, known, forwards):
    """In as many forwards as the plan has steps behind what is known."""
    plan = plans.cells((3, 2, 4), shape, single=hybrid)
    size = int(np.prod(shape))
    first = size * hybrid
    ids = np.random.default_rng(0).integers(first, first + 4, (1, 24))
    net = Oracle(plan, size, hybrid, jnp.asarray(ids, jnp.int32))
    program = NextBlockProgram(net, law=GREEDY)
    given = jnp.asarray(ids[:, :known], jnp.int32) if known else None
    with jax.disable_jit():
      found = program.run({}, {}, jax.random.split(KEY, 1), given)
    np.testing.assert_array_equal(found, ids)
    self.assertEqual(net.count, forwards)

  def test_forwards_of_the_published_models(self):
    for preset, forwards, single in (("base", 95, 1280), ("k600", 48, 768)):
      model = config.get_config(preset).model.to_dict()
      for block, count in (((), forwards), ((1, 1, 1), single)):
        system = build("nbp", **model | dict(block=block))
        self.assertEqual(system.forwards(), count)
        self.assertLen(system.plan, 1280)

  @parameterized.parameters(((1, 1, 2),), ((2, 1, 2),), ((1, 2, 1),))
  def test_who_sees_whom(self, shape):
    """A block is said by those before it, all of each; a first one that is
    drawn by its own earlier units."""
    system, variables = small(block=shape, num_classes=3)
    cond = {"label": jnp.array([1])}
    units = np.random.default_rng(1).integers(0, 5, (1, 16))
    logits = jax.jit(lambda u: system.logits(variables, cond, u))
    before, step = logits(units), system.plan.step_of()
    for at in (0, 1, 5, 10):
      other = units.copy()
      other[:, at] = (other[:, at] + 1) % 5
      moved = np.abs(logits(other) - before).max((0, 2)) > 1e-6
      np.testing.assert_array_equal(moved, step > step[at])

  def test_cells(self):
    """All units of a cell, then the next one."""
    plan = plans.cells((4, 2, 4), (2, 1, 2))
    self.assertEqual(plan.sizes, (4,) * 8)
    np.testing.assert_array_equal(plan["frame"][:8], [0, 0, 1, 1] * 2)
    np.testing.assert_array_equal(plan["col"][:8], [0, 1, 0, 1, 2, 3, 2, 3])
    np.testing.assert_array_equal(plan["row"][:16], [0] * 8 + [1] * 8)
    with self.assertRaisesRegex(UserError, "do not divide"):
      plans.cells((4, 2, 4), (3, 1, 2))

  def test_cached_is_uncached(self):
    """Where single units become blocks, too: the states of every step."""
    system, variables = small(block=(1, 1, 2), num_classes=3)
    own = system.net_variables(variables)
    net = system.net.bind(own)
    cond = {"label": jnp.array([0, 2])}
    ids = 2 + 3 + jnp.asarray(np.random.default_rng(2).integers(0, 5, (2, 16)))

    @jax.jit
    def both():
      want = net(cond, ids)
      read = net.read(ids)[:, : net.rows - 1]
      h, cache = net.begin(cond, ids[:, :0])
      found = [h]
      for at in (1, *range(2, 16, 2)):
        h, cache = net.step(read[:, at : at + 1 + (at > 1)], cache)
        found.append(h)
      return want, jnp.concatenate(found, 1)

    want, found = both()
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)

  def test_one_unit_a_block_is_a_gpt(self):
    system, variables = small(block=(1, 1, 1), num_classes=0)
    params = variables["params"]
    plain = Placed(
      makers.blocks(16, 1), Embed(5, 16), 16, Start(16),
      system.net.backbone.clone(), Categorical(5, bias=False),
    )  # fmt: skip
    table, head = (
      params["units"]["embedding"], params["head"]["linear"]["kernel"]
    )  # fmt: skip
    ours = {
      "units": {"embedding": table[1:]},
      "prefix": {"start": table[:1]},
      "places": params["places"],
      "backbone": params["backbone"],
      "head": {"linear": {"kernel": head[:, 1:]}},
    }
    units = jnp.asarray(np.random.default_rng(3).integers(0, 5, (2, 16)))

    @jax.jit
    def both():
      want = plain.apply({"params": ours}, {}, units, method="logits")
      return want, system.logits(variables, {}, units)

    want, found = both()
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)

  def test_goes_on_with_a_clip(self):
    """A given frame stays; what follows is what the model says greedily."""
    system, variables = small(block=(1, 2, 2), mode="frames", context=1)
    rng = np.random.default_rng(4)
    video = rng.integers(0, 256, (2, 4, 2, 2, 1), np.uint8)
    keys = jax.random.split(KEY, 2)

    @jax.jit
    def run(video, clip):
      own = system.generate(variables, {"video": video}, keys, temperature=0.0)
      more = system.generate(
        variables, {"video": video, "clip": clip}, keys, temperature=0.0
      )
      units = system.encode(variables, {"video": video})["units"]
      return own, more, units, system.logits(variables, {}, own)

    own, more, units, logits = run(video, video[:, :3])
    np.testing.assert_array_equal(own[:, :4], units[:, :4])
    np.testing.assert_array_equal(own[:, 4:], np.argmax(logits, -1)[:, 4:])
    np.testing.assert_array_equal(more[:, :12], units[:, :12])
    self.assertEqual(system.clip_lengths(), (1, 2, 3))
    self.assertEqual([system.forwards(k) for k in (0, 1, 3)], [3, 3, 1])
    batch = {"units": units}
    loss = system.loss(variables, batch, KEY, train=False)
    np.testing.assert_array_equal(loss.nll[:, :4], 0)
    mean = loss.nll.sum(1) / loss.units
    np.testing.assert_allclose(loss.value, mean, rtol=1e-6)

  def test_texts(self):
    """Padding is read as published, or hidden; a name for every class."""
    text = dict(length=3, words=6, pad=5)
    with tempfile.TemporaryDirectory() as folder:
      path = str(pathlib.Path(folder, "names.npy"))
      np.save(path, [[1, 2, 5], [3, 5, 5]])
      named = build("nbp", tokenizer=video_codes(2), depth=1, width=16, heads=2,
                    text=dict(text, names=path))  # fmt: skip
      with self.assertRaisesRegex(UserError, "a row of 4 ids"):
        build("nbp", tokenizer=video_codes(2), depth=1, width=16, heads=2,
              text=dict(text, length=4, names=path))  # fmt: skip
    self.assertEqual((named.classes, named.needs), (2, ("label",)))
    variables = filled.variables(named)
    hides = build("nbp", tokenizer=video_codes(2), depth=1, width=16, heads=2,
                  text=dict(text, sees_padding=False))  # fmt: skip
    reads = build("nbp", tokenizer=video_codes(2), depth=1, width=16, heads=2,
                  text=text)  # fmt: skip
    units = jnp.zeros((1, 8), jnp.int32)

    @jax.jit
    def logits(ids):
      of = lambda system, cond: system.logits(variables, cond, units)
      return (
        of(reads, {"text": ids}),
        of(hides, {"text": ids}),
        of(named, {"label": jnp.array([0])}),
      )

    first = logits(jnp.array([[1, 2, 5]]))
    np.testing.assert_allclose(first[0], first[2], rtol=1e-5, atol=1e-5)
    # What stands at the place of hidden padding says nothing.
    params = variables["params"]
    table = params["units"]["embedding"].at[2 + 5].multiply(-2)
    changed = {**variables, "params": {**params, "units": {"embedding": table}}}
    ids = jnp.array([[1, 2, 5]])
    ask = jax.jit(
      lambda v: [s.logits(v, {"text": ids}, units) for s in (reads, hides)]
    )
    moves = [
      float(jnp.abs(a - b).max())
      for a, b in zip(ask(changed), ask(variables), strict=True)
    ]
    self.assertGreater(moves[0], 1e-4)
    self.assertLess(moves[1], 1e-6)

  @parameterized.parameters(
    (dict(mode="both"), "choose one of hybrid, frames"),
    (dict(mode="frames"), "reads `context` >= 1 frames"),
    (dict(mode="frames", context=4), "no more, and one block"),
    (dict(mode="frames", context=1, block=(2, 2, 2)), "ends within a block"),
    (dict(context=1), "is of mode='frames'"),
    (dict(block=(1, 1, 3)), "do not divide"),
    (dict(num_classes=2, text=dict(length=1, words=2)), "either num_classes"),
    (dict(text=dict(words=2)), "has length and words"),
    (dict(positions=3), "this model reads 16"),
    (dict(tokenizer=dict(name="patch_codes")), "no codes of videos"),
  )
  def test_one_line_of_what_is_wrong(self, model, message):
    sizes = dict(tokenizer=video_codes(4), depth=1, width=16, heads=2)
    with self.assertRaisesRegex(UserError, message):
      build("nbp", **sizes | model)


if __name__ == "__main__":
  absltest.main()
