"""Every prefix: what is drawn behind it with a cache is what a whole pass
says, nothing leaks, and what is hidden does not show."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.decoding import pick
from ar_jax.core.system import UserError, build
from ar_jax.families.token import prefix as prefixes
from ar_jax.families.token.readers import Embed
from tests import filled

B, L, V, D = 3, 6, 8, 16
KEYS = jax.random.split(jax.random.key(0), B)
TABLE = Embed(V, D)
MODULES = {
  "start": lambda: prefixes.Start(D),
  "units": lambda: prefixes.Units(4, 2, TABLE, D),
  "words": lambda: prefixes.Words(3, D, TABLE, field="question", causal=True),
  "own_words": lambda: prefixes.Words(3, D, Embed(5, D)),
  "given": lambda: prefixes.Given("voice", 3, 2, D, padded=True),
}
CONDS = {
  "start": {},
  "units": {
    "label": jnp.array([0, 1, 2]),
    "peer_units": jnp.array([[1, 2], [3, 4], [5, 6]]),
  },
  "words": {"question": jnp.array([[7, 0], [3, 2], [1, 1]])},
  "own_words": {"text": jnp.array([[4, 0, 0], [3, 2, 1], [1, 2, 0]])},
  "given": {"voice": jnp.arange(18.0).reshape(3, 3, 2).at[0, 2].set(0)},
}
UNITS = jnp.asarray(np.random.default_rng(0).integers(1, V, (B, L)))


@functools.cache
def made(name):
  """A LlamaGen over a line of codes behind this prefix."""
  tokenizer = dict(name="given", vocab=V, length=L, stop=None)
  system = build(
    "llamagen", tokenizer=tokenizer, depth=2, width=D, heads=2, multiple_of=16,
    num_classes=3, prefix_rope="identity",
  )  # fmt: skip
  net = system.net.clone(units=TABLE, prefix=MODULES[name]())
  system = dataclasses.replace(system, net=net)
  return system, filled.variables(system)


@functools.cache
def program(name):
  system, variables = made(name)

  @jax.jit
  def every(cond, units, hidden):
    """Logits and hidden states; logits with a cache; greedy draws, and the
    guided logits of a whole pass over them."""
    own = system.net_variables(variables)
    net = system.net.bind(own)
    whole = net.features(cond, units, hidden)
    h, cache = net.begin(cond, units[:, :2], hidden)
    parts, valid = [h], net.prefix.valid(cond)
    for at in range(2, L - 1):
      h, cache = net.step(units[:, at : at + 1], cache, valid)
      parts.append(h)
    cached = net.head.logits(jnp.concatenate(parts, 1))
    drawn = system.generate(variables, cond, KEYS, guidance=2.0, temperature=0)
    both = [
      system.logits(variables, cond, drawn, jnp.full(B, hidden))
      for hidden in (False, True)
    ]
    logits = net.head.logits(whole[:, net.prefix.length - 1 :])
    return logits, whole, cached, drawn, pick.guide(*both, 2.0)

  def run(cond=CONDS[name], units=UNITS, hidden=None):
    hidden = np.zeros(len(units), bool) if hidden is None else hidden
    return every(cond, units, hidden)

  return run


class PrefixTest(parameterized.TestCase):
  @parameterized.parameters(*MODULES)
  def test_with_a_cache_as_in_one_pass(self, name):
    logits, _, cached, drawn, guided = program(name)()
    np.testing.assert_allclose(cached, logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(drawn, jnp.argmax(guided, -1))

  @parameterized.parameters(*MODULES)
  def test_units_do_not_leak(self, name):
    before = program(name)()[0]
    for at in (0, 3):
      after = program(name)(units=UNITS.at[:, at].add(1) % V)[0]
      moved = np.abs(after - before).max((0, 2)) > 0
      self.assertFalse(moved[: at + 1].any())
      self.assertTrue(moved[at + 1 :].all())

  @parameterized.parameters(*sorted(set(MODULES) - {"start"}))
  def test_a_hidden_condition_does_not_show(self, name):
    # Another condition of the same shape: of the same padding, too.
    cond = {
      k: jnp.where(v == 0, v, (v + 1) % 4 if k == "text" else v + 1)
      for k, v in CONDS[name].items()
      if k != "label"
    }
    cond = {**CONDS[name], **cond}
    if name == "own_words":
      cond["text"] = jnp.where(CONDS[name]["text"] > 0, 3, 0)
    hidden = np.array([True, False, True])
    logits, other = (
      program(name)(given, UNITS, hidden)[0] for given in (CONDS[name], cond)
    )
    shown = np.abs(logits - other).max((1, 2)) > 1e-4
    np.testing.assert_array_equal(shown, ~hidden)

  @parameterized.parameters("words", "own_words", "given")
  def test_what_positions_of_a_prefix_see(self, name):
    system, _ = made(name)
    field, given = next(iter(CONDS[name].items()))
    last = given.shape[1] - 1
    other = {field: given.at[1:, last].add(1)}
    moved = np.abs(
      program(name)(other)[1] - program(name)()[1]
    ).max(2)[1] > 0  # fmt: skip
    self.assertEqual(moved[0], not system.net.prefix.causal)
    self.assertTrue(moved[last:].all())

  def test_padding_is_not_seen(self):
    # A shorter array is the same text.
    short = {"text": CONDS["own_words"]["text"][:1, :1]}
    system, variables = made("own_words")
    alone = jax.jit(lambda v: system.logits(v, short, UNITS[:1]))(variables)
    np.testing.assert_allclose(
      alone, program("own_words")()[0][:1], rtol=1e-5, atol=1e-5
    )
    # In a sequence of three vectors the last of example 0 is padding: its
    # place is all that is left of it, and units do not see that.
    valid = made("given")[0].net.prefix.valid(CONDS["given"])
    np.testing.assert_array_equal(
      valid, [[True, True, False], [True] * 3, [True] * 3]
    )

  def test_needs_are_fields_and_a_table_is_shared(self):
    for name in MODULES:
      system, variables = made(name)
      self.assertEqual(system.needs, tuple(CONDS[name]))
      tables = jax.tree.leaves(
        {k: v for k, v in variables["params"]["prefix"].items()
         if k in ("reader", "table")}
      )  # fmt: skip
      self.assertLen(tables, int(name == "own_words"))

  def test_given_units_lie_at_the_places_of_units(self):
    system, _ = made("units")
    table = np.asarray(system.net.rotations())
    np.testing.assert_array_equal(table[1:3], table[3:5])
    self.assertFalse(np.array_equal(table[1], table[2]))

  def test_mistakes(self):
    for name, cond, message in (
      ("units", {"peer_units": UNITS[:, :3]}, "room for 2 units"),
      ("words", {"question": UNITS}, "at most 3 ids"),
      ("given", {"voice": jnp.zeros((B, 2, 2))}, "3 vectors of 2 numbers"),
    ):
      with self.assertRaisesRegex(UserError, message):
        program(name)({**CONDS[name], **cond})


if __name__ == "__main__":
  absltest.main()
