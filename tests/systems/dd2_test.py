"""Distilled Decoding 2: what units see, whose gradients go where, phases, the
teacher on vectors, the teacher again."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.system import UserError, build
from ar_jax.core.system import part as system_of
from ar_jax.families import vector_net
from tests import filled

TINY = dict(depth=1, width=16, heads=2, num_classes=3)
CODES = dict(name="patch_codes", vocab=8, patch=4, size=8)
TARGETS = {
  "llamagen": dict(
    name="llamagen", tokenizer=CODES, multiple_of=16, reader="codes", **TINY
  ),
  "var": dict(
    name="var",
    tokenizer=dict(CODES, form="pyramid", scales=(1, 2)),
    **TINY,
  ),
}
KEYS = jax.random.split(jax.random.key(3), 2)
LABEL = jnp.array([0, 2])
KINDS = ("llamagen", "var")


@functools.cache
def made(name, **options):
  """DD2 over a teacher, and its variables."""
  pairs = {"guidance": 1.5, "top_k": 4}
  more = dict(depth=1, repeats=2, pairs=pairs) | options
  system = build("dd2", target=TARGETS[name], **more)
  return system, filled.variables(system)


@functools.cache
def program(name):
  """(what is made of noise, the error and its gradient, the laws): of variables
  and noise, one program for all tests."""
  system, _ = made(name)

  def run(variables, noise):
    q = system.made(variables, LABEL, noise)
    points = system.law(variables, LABEL, q)
    t = jnp.full((2, *q.shape[:2]), 0.6)
    at = jnp.ones((2, *q.shape)), t

    def error(q, mask):
      each = system.moving_error(variables, LABEL, q, points, *at)
      return jnp.sum(each * mask[None, None])

    each = jnp.eye(q.shape[1])
    return q, jax.vmap(jax.grad(error), (None, 0))(q, each), points

  return jax.jit(run)


def far(x, system, variables):
  """How far vectors are from the nearest codes."""
  book = np.asarray(system.codebook(variables))
  return np.abs(np.asarray(x)[:, :, None] - book).sum(-1).min(-1)


class UnitsTest(parameterized.TestCase):
  @parameterized.parameters(*KINDS)
  def test_a_unit_sees_the_noise_of_earlier_steps_and_its_own(self, name):
    system, variables = made(name)
    step, noise = system.plan.step_of(), system.noise(KEYS)
    before = program(name)(variables, noise)[0]
    for i in range(len(step)):
      after = program(name)(variables, noise.at[:, i].add(1.0))[0]
      moved = np.abs(after - before).max((0, 2)) > 0
      own = np.arange(len(step)) == i
      np.testing.assert_array_equal(moved, (step > step[i]) | own)
    self.assertEqual(system.forwards(), 1)

  @parameterized.parameters(*KINDS)
  def test_the_error_of_a_unit_moves_that_unit_alone(self, name):
    """All before it is given, in the law and in the guide: exactly."""
    system, variables = made(name)
    grads = program(name)(variables, system.noise(KEYS))[1]
    length = len(system.plan)
    for i in range(length):
      others = np.arange(length) != i
      self.assertGreater(np.abs(grads[i, :, i]).min(), 0)
      np.testing.assert_array_equal(grads[i][:, others], 0)

  @parameterized.parameters(*KINDS)
  def test_of_codes_the_laws_are_those_of_the_teacher(self, name):
    system, variables = made(name)
    own, units = system.of_target(variables), jnp.array(
      [[1, 5, 2, 7, 3], [0, 4, 4, 6, 1]])[:, : len(system.plan)]  # fmt: skip
    q = system.codebook(variables)[units]
    points = jax.jit(system.law)(variables, LABEL, q)
    both = [
      system.target.logits(own, label, units, hidden)
      for label, hidden in (
        (LABEL, None),
        (LABEL, jnp.ones(2, bool)),
      )
    ]
    scale = np.full(system.plan.steps, 1.5)
    if name == "var":
      scale = np.linspace(1, 1.5, system.plan.steps)
    scale = scale[system.plan.step_of()][None, :, None]
    logits = np.asarray(scale * both[0] + (1 - scale) * both[1])
    best = np.sort(logits, -1)[..., ::-1][..., :4]
    wanted = best - np.log(np.exp(best).sum(-1, keepdims=True))
    # Sums of products in another order, and at guidance: 1e-4.
    np.testing.assert_allclose(points.logp, wanted, atol=2e-4)
    book = np.asarray(system.codebook(variables))
    index = np.argsort(-logits, -1)[..., :4]
    np.testing.assert_allclose(points.codes, book[index], atol=1e-6)


class StagesTest(parameterized.TestCase):
  def test_gradients_of_both_and_phases(self):
    """The guide learns of its own error, the generator of the other; at each
    step one of them moves."""
    system, variables = made("llamagen")
    batch = {"label": LABEL, "index": jnp.arange(2)}

    def grads(phase):
      own = dataclasses.replace(system, phase=phase)
      value = lambda params: jnp.sum(
        own.loss(
          {**variables, "params": params}, batch, KEYS[0], train=True
        ).value
      )
      return jax.jit(jax.grad(value))(variables["params"])

    norm = lambda tree: sum(np.abs(x).sum() for x in jax.tree.leaves(tree))
    for phase, other in (("guide", "generator"), ("generator", "guide")):
      found = grads(phase)
      self.assertEqual(norm(found[other]), 0)
      self.assertGreater(norm(found[phase]), 0)
    own = dataclasses.replace(system, guides=2, alone=1)
    turns = [own.at(i).trains[0] for i in range(7)]
    self.assertEqual(turns, ["guide", *(["guide", "guide", "generator"] * 2)])
    self.assertIsNone(system.trains)

  def test_sequences_of_the_teacher(self):
    system, variables = made("llamagen", stage="scores")
    batch = {
      "image": jnp.zeros((3, 8, 8, 1), jnp.uint8),
      "label": jnp.array([0, 1, 2]),
      "index": jnp.array([4, 5, 4]),
      "view": jnp.array([0, 0, 1]),
    }
    found = jax.jit(system.encode)(variables, batch)
    self.assertNotIn("image", found)
    codes = np.asarray(found["codes"])
    self.assertEqual(codes.shape, (3, len(system.plan)))
    self.assertTrue(
      (codes[0] != codes[1]).any() or (codes[0] != codes[2]).any()
    )
    same = system.encode(variables, found)  # of codes there is nothing to do
    np.testing.assert_array_equal(same["codes"], codes)
    second, _ = made("llamagen")
    self.assertEqual(set(second.encode(variables, batch)), {*batch} - {"image"})
    drawn = jax.jit(system.generate)(variables, {"label": LABEL}, KEYS)
    np.testing.assert_allclose(far(drawn, system, variables), 0, atol=1e-6)
    self.assertEqual(system.forwards(), system.plan.steps)

  @parameterized.parameters(*KINDS)
  def test_where_both_begin(self, name):
    """The guide as its teacher, and both of the second stage as the guide."""
    system, variables = made(name, stage="scores")
    self.assertIs(system.at(3), system)
    ready = system.ready(variables)
    net, its = ready["params"]["guide"]["net"], ready["target"]
    self.assertEqual(set(ready["params"]), {"guide"})
    same = lambda a, b: jax.tree.map(np.testing.assert_array_equal, a, b)
    same(net, {part: its[part] for part in net})
    self.assertNotIn("head", net)
    second, _ = made(name)
    params = second.adopt("params", ready["params"])
    same(params["guide"], params["generator"])
    self.assertIs(second.adopt("target", its), its)
    again = second.adopt("params", variables["params"] | {"generator": its})
    self.assertIs(again["generator"], its)


class TeacherTest(parameterized.TestCase):
  def test_the_teacher_again(self):
    """From a step on to the end, behind what is made."""
    system, variables = made("llamagen")
    noise = system.noise(KEYS)
    one = program("llamagen")(variables, noise)[0]
    draw = jax.jit(functools.partial(system.generate, teacher=2))
    found = draw(variables, {"label": LABEL}, KEYS)
    np.testing.assert_allclose(found[:, :2], one[:, :2], atol=1e-5)
    gap = far(found[:, 2:], system, variables)
    np.testing.assert_allclose(gap, 0, atol=1e-6)
    self.assertEqual(system.forwards(teacher=2), 3)

  def test_bad_arguments(self):
    target = TARGETS["llamagen"]
    for options, wrong in (
      (dict(target=dict(target, reader="table")), "reader='codes'"),
      (dict(target=dict(target, num_classes=0)), "no teacher"),
      (dict(stage="all"), "stage='all'"),
      (dict(rule="kl"), "rule='kl'"),
      (dict(guides=0), "guides=0"),
    ):
      with self.assertRaisesRegex(UserError, wrong):
        build("dd2", **{"target": target, **options})
    with self.assertRaisesRegex(UserError, "reader='rows'"):
      system_of({**target, "reader": "rows"})
    system, variables = made("llamagen")
    draw = functools.partial(system.generate, variables, {"label": LABEL}, KEYS)
    for options, wrong in (
      (dict(teacher=4), "teacher=4"),
      (dict(top_k=3), "of a teacher alone"),
    ):
      with self.assertRaisesRegex(UserError, wrong):
        draw(**options)
    system, variables = made("llamagen", stage="scores")
    with self.assertRaisesRegex(UserError, "after a generator"):
      system.generate(variables, {"label": LABEL}, KEYS, teacher=1)


class ReaderTest(absltest.TestCase):
  def test_vectors_that_are_codes_are_read_as_codes(self):
    system, variables = made("llamagen")
    own = system.of_target(variables)
    net = system.target.net.bind(system.target.net_variables(own))
    units = jnp.array([[1, 5, 2, 7], [0, 4, 4, 6]])
    vectors = vector_net.reading_vectors(system.target).bind(
      system.target.net_variables(own)
    )
    a = net.units(units)
    b = vectors.units(system.codebook(variables)[units])
    np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_allclose(net.units.embedding[units], a, atol=1e-6)
    self.assertNotIn("codebook", variables)

  def test_a_published_table_is_left_behind(self):
    """Training goes on with all else; the reader of codes is new."""
    system, variables = made("llamagen")
    params = variables["target"]
    table = {**params, "units": {"embedding": jnp.zeros((8, 16))}}
    found = system.target.adopt("params", table)
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)
    self.assertEqual(shapes(found), shapes(params))
    self.assertIs(found["head"], params["head"])
    self.assertIs(system.target.adopt("params", params), params)


if __name__ == "__main__":
  absltest.main()
