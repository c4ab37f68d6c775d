"""Distilled Decoding 1: what slots see, passes, pairs, the teacher again."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.system import UserError, build
from tests import filled

TINY = dict(depth=1, width=16, heads=2, num_classes=3)
CODES = dict(name="patch_codes", vocab=8, patch=2, size=8)
TARGETS = {
  "llamagen": dict(name="llamagen", tokenizer=CODES, multiple_of=16, **TINY),
  "var": dict(
    name="var",
    tokenizer=dict(CODES, form="pyramid", patch=4, scales=(1, 2)),
    **TINY,
  ),
  "flexvar": dict(
    name="flexvar",
    tokenizer=dict(CODES, form="resized", patch=4, scales=(1, 2)),
    grid=4,
    **TINY,
  ),
}
STARTS = {"llamagen": (0, 6), "var": (0, 1), "flexvar": (0, 1)}
KEYS = jax.random.split(jax.random.key(3), 2)
LABEL = jnp.array([0, 2])


@functools.cache
def made(name):
  """DD1 over a teacher, and its variables."""
  system = build(
    "dd1",
    target=TARGETS[name],
    starts=STARTS[name],
    split=STARTS[name][1],
    pairs={"guidance": 1.5, "top_k": 4},
  )
  return system, filled.variables(system)


@functools.cache
def student(name):
  system, variables = made(name)
  params = {"params": variables["params"]}
  return jax.jit(functools.partial(system.student.apply, params))


class SlotsTest(parameterized.TestCase):
  @parameterized.parameters("llamagen", "var")
  def test_a_slot_sees_what_the_teacher_sees(self, name):
    system, _ = made(name)
    run, length = student(name), len(system.plan)
    eps, none = system.noise(KEYS), jnp.zeros(2, jnp.int32)
    before = run(LABEL, eps, none)
    step = system.plan.step_of()
    for i in range(length):
      after = run(LABEL, eps.at[:, i].add(1.0), none)
      moved = np.zeros(length, bool)
      for a, b in zip(before, after, strict=True):
        moved |= np.abs(a - b).max((0, 2)) > 0
      # Itself, and all of later steps; no mate of its own map.
      np.testing.assert_array_equal(moved, (step > step[i]) | (
        np.arange(length) == i))  # fmt: skip

  @parameterized.parameters("llamagen", "var")
  def test_known_slots_are_told(self, name):
    system, _ = made(name)
    run, eps = student(name), system.noise(KEYS)
    known = system.slots(STARTS[name][1])
    none = run(LABEL, eps, jnp.zeros(2, jnp.int32))[0]
    some = run(LABEL, eps, jnp.array([0, known]))[0]
    np.testing.assert_array_equal(some[0], none[0])
    self.assertGreater(np.abs(some[1] - none[1]).max(), 1e-3)


class PassesTest(parameterized.TestCase):
  def test_a_pass_leaves_what_is_known(self):
    name = "var"
    system, variables = made(name)
    eps, length = system.noise(KEYS), len(system.plan)
    book = system.codebook(variables)
    x = book[jax.random.randint(jax.random.key(1), (2, length), 0, 8)]
    split = system.slots(system.split)

    @functools.partial(jax.jit, static_argnums=1)
    def one(x, start):
      return system._pass(variables, LABEL, eps, split, x, start)

    # All of it is known: nothing changes.
    np.testing.assert_array_equal(one(x, system.plan.steps), x)
    known = system.slots(STARTS[name][1])
    some = one(x, STARTS[name][1])
    np.testing.assert_array_equal(some[:, :known], x[:, :known])
    # The rest comes from the original noise, whatever x holds there.
    again = one(x.at[:, known:].add(5.0), STARTS[name][1])
    np.testing.assert_array_equal(some, again)

  @parameterized.parameters("llamagen", "var")
  def test_two_passes(self, name):
    system, variables = made(name)

    @jax.jit
    def every(variables):
      draw = functools.partial(
        system.generate, variables, {"label": LABEL}, KEYS
      )
      one = draw()
      book = system.codebook(variables)
      return one, draw(passes=2), book, system.decoded(variables, one)

    one, two, book, image = jax.device_get(every(variables))
    known = system.slots(system.split)
    # The first units are codes, and those of the first pass.
    gap = np.abs(one[:, :known, None] - book[None, None]).sum(-1).min(-1)
    np.testing.assert_allclose(gap, 0, atol=1e-6)
    np.testing.assert_allclose(two[:, :known], one[:, :known], atol=1e-6)
    self.assertGreater(np.abs(two[:, known:] - one[:, known:]).max(), 1e-3)
    self.assertEqual((system.forwards(), system.forwards(passes=2)), (1, 2))
    self.assertEqual(image.shape, (2, 8, 8, 1))

  def test_vectors_that_are_codes_decode_as_codes_do(self):
    for name in TARGETS:
      system, variables = made(name)
      units = np.random.default_rng(0).integers(0, 8, (2, len(system.plan)))

      @jax.jit
      def both(variables, units, system=system):
        wanted = system.target.decode(system.of_target(variables), units)
        book = system.codebook(variables)
        return wanted, system.decoded(variables, book[units])

      wanted, got = both(variables, units)
      np.testing.assert_allclose(got, wanted, atol=1e-5)

  @parameterized.parameters("llamagen", "flexvar")  # of VAR see the golden run
  def test_the_teacher_again(self, name):
    system, variables = made(name)
    draw = lambda **options: jax.jit(
      functools.partial(system.generate, **options)
    )(variables, {"label": LABEL}, KEYS)
    whole = draw(teacher=0, temperature=0.0, guidance=1.0, top_k=0)
    greedy = dict(temperature=0.0, guidance=1.0)
    own = system.of_target(variables)
    wanted = jax.jit(functools.partial(system.target.generate, **greedy))(
      own, {"label": LABEL}, KEYS
    )
    wanted = wanted[0] if isinstance(wanted, tuple) else wanted
    known = system.slots(STARTS[name][1])
    book = system.codebook(variables)
    np.testing.assert_allclose(
      whole[:, :known], book[wanted[:, :known]], atol=1e-5
    )
    self.assertEqual(system.forwards(teacher=0), STARTS[name][1] + 1)


class PairsTest(parameterized.TestCase):
  @parameterized.parameters("llamagen", "var", "flexvar")
  def test_pairs_are_a_function_of_example_and_view(self, name):
    system, variables = made(name)
    encode = jax.jit(system.encode)
    batch = {
      "image": jnp.zeros((3, 8, 8, 1), jnp.uint8),
      "label": jnp.array([0, 1, 2]),
      "index": jnp.array([4, 5, 4]),
      "view": jnp.array([0, 0, 1]),
    }
    pairs = jax.device_get(encode(variables, batch))
    self.assertNotIn("image", pairs)
    noise = np.asarray(pairs["noise"])
    self.assertEqual(noise.shape[:2], (3, len(system.plan)))
    for i, j in ((0, 1), (0, 2), (1, 2)):
      self.assertGreater(np.abs(noise[i] - noise[j]).min((0, 1)), 0)
    turned = {k: np.asarray(v)[::-1] for k, v in batch.items()}
    again = jax.device_get(encode(variables, turned))
    np.testing.assert_array_equal(again["codes"][::-1], pairs["codes"])
    # What is a pair already is left alone.
    same = system.encode(variables, pairs)
    np.testing.assert_array_equal(same["codes"], pairs["codes"])
    # Each code is among the likeliest four that its teacher allows.
    own = system.of_target(variables)
    logits = jax.jit(system.target.logits)
    both = [
      np.asarray(logits(own, batch["label"], pairs["codes"], hidden))
      for hidden in (jnp.zeros(3, bool), jnp.ones(3, bool))
    ]
    scale = np.full(system.plan.steps, 1.5)
    if name == "var":
      scale = np.linspace(1, 1.5, system.plan.steps)
    if name == "flexvar":
      scale = np.array(system.target.rates("ramp", 1.5))
    scale = scale[system.plan.step_of()][None, :, None]
    logits = scale * both[0] + (1 - scale) * both[1]
    chosen = np.take_along_axis(logits, pairs["codes"][..., None], -1)
    self.assertTrue((chosen >= np.sort(logits, -1)[..., -4:-3] - 1e-4).all())

  def test_loss_counts_what_is_asked(self):
    system, variables = made("llamagen")
    batch = {
      "label": LABEL,
      "noise": system.noise(KEYS),
      "codes": jnp.zeros((2, 16), jnp.int32),
    }
    loss = jax.jit(functools.partial(system.loss, train=False))(
      variables, batch, jax.random.key(0)
    )
    np.testing.assert_allclose(
      loss.value, loss.metrics["ce"] + loss.metrics["mse"], rtol=1e-5
    )
    logits, vectors = student("llamagen")(
      LABEL, batch["noise"], jnp.zeros(2, jnp.int32)
    )
    true = system.codebook(variables)[batch["codes"]]
    np.testing.assert_allclose(
      loss.metrics["mse"], np.square(vectors - true).mean((1, 2)), rtol=1e-4
    )
    ce = -jax.nn.log_softmax(logits, -1)[..., 0].mean(1)
    np.testing.assert_allclose(loss.metrics["ce"], ce, rtol=1e-4)


class BuildTest(absltest.TestCase):
  def test_the_student_begins_as_its_teacher(self):
    for name in TARGETS:
      system, variables = made(name)
      ready = system.ready(variables)
      params, teacher = ready["params"], ready["target"]
      block = params["backbone"]["block"]
      for part, own in teacher["backbone"]["block"].items():
        for a, b in zip(
          jax.tree.leaves(block[part]), jax.tree.leaves(own), strict=True
        ):
          np.testing.assert_array_equal(a, b)
      if name == "var":
        slots = params["slots"]["step"]
        its = teacher["slots"]["step"]
        np.testing.assert_array_equal(slots[0], its[0])
        np.testing.assert_array_equal(slots[2:], its[1:])
        np.testing.assert_array_equal(
          slots[1], variables["params"]["slots"]["step"][1]
        )
      if name == "flexvar":  # one table that is resized to every map
        net = system.target.net.bind({"params": teacher})
        slots = params["slots"]
        np.testing.assert_allclose(slots["slot"][2:], net.places()[1:])
        np.testing.assert_array_equal(slots["step"][2:], 0)

  def test_bad_arguments(self):
    target = TARGETS["var"]
    for options, wrong in (
      (dict(starts=(1,)), "from 0 on"),
      (dict(starts=(0, 2)), "2 steps"),
      (dict(split=3), "2 steps"),
      (dict(target=dict(TARGETS["llamagen"], num_classes=0)), "no teacher"),
    ):
      with self.assertRaisesRegex(UserError, wrong):
        build("dd1", **{"target": target, **options})
    system, variables = made("var")
    draw = functools.partial(system.generate, variables, {"label": LABEL}, KEYS)
    for options, wrong in (
      (dict(passes=3), "passes=3"),
      (dict(teacher=1), "teacher=1"),
      (dict(top_k=3), "of a teacher alone"),
    ):
      with self.assertRaisesRegex(UserError, wrong):
        draw(**options)


if __name__ == "__main__":
  absltest.main()
