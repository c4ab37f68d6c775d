"""CrossNovo: what its sheet says of any model; the figures of trained ones are
in experiments/crossnovo.py."""

import functools
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl.testing import absltest

from ar_jax import evals
from ar_jax.core import forms as core_forms
from ar_jax.core.domains import peptides, spectra
from ar_jax.core.errors import UserError
from ar_jax.core.system import build
from ar_jax.data import load
from ar_jax.families.seq2seq.peptide_net import slot_loss
from ar_jax.families.seq2seq.residues import STOP
from ar_jax.families.seq2seq.spectra import Waves
from ar_jax.own import readings, written
from configs import crossnovo as config
from tests import smoke


@functools.cache
def case():
  """(system, variables, batch with its units) of the smoke run."""
  c = smoke.case("crossnovo")
  return (
    c.system,
    c.variables,
    jax.device_get(c.system.encode(c.variables, c.batch)),
  )


class CrossNovoTest(absltest.TestCase):
  def test_gradients_do_not_go_through_the_slots(self):
    """Neither into their parameters nor through them into the encoder."""
    system, variables, batch = case()
    net, params = system.net, variables["params"]
    cond = system.condition(batch)

    def residues(params, states=None):
      own = net.bind({"params": params})
      memory, there = own.read(cond)
      if states is None:
        states = own.slot_states(cond, memory, there)
      p = cond["precursor"]
      seen = own.looked_at(memory, there, states)
      units = batch["units"]
      h = own.residues.features(units[:, :-1], p[:, :2], p[:, 2], seen)
      law = jax.nn.log_softmax(own.residues.logits(h))
      return -jnp.take_along_axis(law, units[..., None], 2).sum(), states

    @jax.jit
    def both(params):
      (_, states), through = jax.value_and_grad(residues, has_aux=True)(params)
      fixed = jax.grad(lambda p: residues(p, states)[0])(params)
      return through, fixed

    through, fixed = jax.device_get(both(params))
    for x in jax.tree.leaves(through["slots"]):
      self.assertFalse(x.any())
    size = sum(np.abs(x).sum() for x in jax.tree.leaves(through["encoder"]))
    self.assertGreater(size, 0)
    self.assertTrue(through["kind"].any())
    for a, b in zip(*map(jax.tree.leaves, (through, fixed)), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)

  def test_impossible_targets_teach_nothing(self):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 4, 28)).astype(np.float32)
    units = np.asarray([[3, 3, 5, STOP, 0], [3, 3, 3, STOP, 0]], np.int32)
    value = lambda x: slot_loss(x, units)[0].sum()
    (loss, impossible), slope = jax.jit(
      lambda x: (slot_loss(x, units), jax.grad(value)(x))
    )(logits)
    np.testing.assert_array_equal(impossible, [0, 1])
    self.assertGreater(loss[0], 0)
    self.assertEqual(loss[1], 0)
    self.assertTrue(np.any(slope[0]) and not np.any(slope[1]))

  def test_who_sees_what(self):
    system, variables, batch = case()
    other = np.where(batch["units"] > 0, 7, 0)

    @jax.jit
    def run(units):
      return system.net.apply(variables, system.condition(batch), units)

    (slots, said), (slots2, said2) = run(batch["units"]), run(other)
    np.testing.assert_array_equal(slots, slots2)
    np.testing.assert_array_equal(said[:, 0], said2[:, 0])
    self.assertGreater(np.abs(np.asarray(said - said2)[:, 1:]).max(), 1e-3)

  def test_sequences_are_read_from_their_c_terminus(self):
    system, variables, batch = case()
    units = batch["units"]
    for row, ids in zip(units, smoke.case("crossnovo").batch["peptide"],
                        strict=True):  # fmt: skip
      ids = [x for x in np.asarray(ids).tolist() if x]
      self.assertEqual(row[: len(ids) + 1].tolist(), [*ids[::-1], STOP])
      self.assertFalse(row[len(ids) + 1 :].any())
    back = system.decode(variables, units)
    np.testing.assert_array_equal(
      back, smoke.case("crossnovo").batch["peptide"]
    )

  def test_stages(self):
    system, variables, batch = case()
    first, second = system.at(0), system.at(system.switch)
    self.assertIsNone(first.trains)
    self.assertEqual(second.trains, ("encoder", "residues", "kind"))

    def loss(system, step):
      own = {**batch, "step": jnp.full(smoke.BATCH, step)}
      return system.loss(variables, own, smoke.KEY, train=True)

    a, b, c = jax.jit(
      lambda: (loss(first, 0), loss(first, 1), loss(second, 2))
    )()
    np.testing.assert_allclose(a.value, a.metrics["slots"], rtol=1e-5)
    mixed = (b.metrics["slots"] + b.metrics["residues"]) / 2
    np.testing.assert_allclose(b.value, mixed, rtol=1e-5)
    np.testing.assert_allclose(c.value, c.metrics["residues"], rtol=1e-5)
    # In the first stage the residues do not see the slots.
    far = np.abs(np.asarray(a.metrics["residues"] - c.metrics["residues"]))
    self.assertGreater(far.max(), 1e-4)

  def test_searches_by_mass(self):
    system, variables, batch = case()
    keys = jax.random.split(smoke.KEY, smoke.BATCH)
    draw = lambda v, x: system.sample(v, batch, keys, search=x, beams=3)
    every = jax.jit(lambda v: [draw(v, x) for x in ("beam", "slots", "greedy")])
    for made in every(variables):
      mass = peptides.masses()[np.asarray(made["peptide"])].sum(1)
      true = batch["precursor"][:, :2].astype(np.float64).sum(-1)
      off = np.abs(mass + peptides.WATER - true)
      charge, mz = batch["precursor"][:, 2:].T
      off = np.minimum(off, np.abs(off - peptides.ISOTOPE))
      ppm = off / charge / mz * 1e6
      np.testing.assert_array_equal(made["fits"] > 0, ppm < 50)
      self.assertTrue((np.asarray(made["peptide"]).max(1) > 0).any())

  def test_phases(self):
    """In float64 on the host, whatever a float32 of the number knows."""
    waves = Waves(16)
    x = np.random.default_rng(0).uniform(50, 3000, 50)
    own = np.asarray(jax.jit(waves)(spectra.split(x)))
    angle = x[:, None] / waves.terms
    true = np.concatenate([np.sin(angle), np.cos(angle)], -1)
    np.testing.assert_allclose(own, true, atol=2e-3)
    plain = np.float32(x)[:, None] / np.float32(waves.terms)
    self.assertGreater(np.abs(np.sin(plain.astype(float)) - true[:, :8]).max(),
                       0.02)  # fmt: skip

  def test_each_decoder_alone(self):
    model = config.smoke().model.to_dict()
    _, _, batch = case()
    keys = jax.random.split(smoke.KEY, smoke.BATCH)
    for name, search, no in (
      ("residues", "draw", "slots"),
      ("slots", "slots", "beam"),
    ):
      system = build("crossnovo", **model | dict(decoders=name))
      self.assertIs(system.at(10**6), system)
      variables = jax.eval_shape(system.init, smoke.KEY, batch)
      self.assertCountEqual(variables["params"], ["encoder", name])
      made = jax.eval_shape(
        lambda v, s=system, x=search: s.sample(v, batch, keys, search=x),
        variables,
      )
      self.assertEqual(made["peptide"].shape, (smoke.BATCH, 8))
      with self.assertRaisesRegex(UserError, "has no such decoder"):
        system.sample(variables, batch, keys, search=no)

  def test_evaluator(self):
    c = smoke.case("crossnovo")
    found = load(**c.config.data)

    def draw(system, variables, cond, key, **options):
      del system, variables, key, options
      rows = []
      for mz in cond["mz"]:
        same = [x for x in map(found.test.__getitem__, range(len(found.test)))
                if np.array_equal(x["mz"], mz)]  # fmt: skip
        rows.append(same[0]["peptide"])
      return {"peptide": np.stack(rows)}

    score = evals.build("peptides", found, n=4, draw=draw)
    said = score(c.system, {}, (), None)
    for name in ("aa_precision", "aa_recall", "peptide_recall", "fits"):
      self.assertEqual(said[name], 1.0)
    with self.assertRaisesRegex(UserError, "have no peptide"):
      evals.build("peptides", load("markov_text"))

  def test_spectra_of_a_file(self):
    system = case()[0]
    block = (
      "BEGIN IONS\nPEPMASS=464.7347\nCHARGE=2+\n101.5 3\n140.25 4\nEND IONS\n"
    )
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder, "my.mgf")
      path.write_text(2 * block)
      settings = ml_collections.ConfigDict({"sample": {"read": folder}})
      called = readings.names(system, settings)
      self.assertEqual(called, ["my.mgf 0", "my.mgf 1"])
      cond = readings.asked(system, None, 2, settings)
      self.assertCountEqual(cond, system.needs)
      self.assertEqual(cond["peaks"].shape, (2, 12, 2))
      np.testing.assert_allclose(cond["peaks"][0, :2, 0], [101.5, 140.25])
      known = readings.facts(system)
      self.assertEqual(readings.fields(system, settings), set(system.needs))
      forms = {k: core_forms.made(v) for k, v in known["forms"].items()}
      ids = np.zeros((2, 8), np.int32)
      ids[0, :2] = peptides.parse("PK")
      out = written.write(called, {"peptide": ids}, forms, pathlib.Path(folder))
      self.assertEqual(out.read_text(), "my.mgf 0\tPK\nmy.mgf 1\t\n")
      path.write_text(block.replace("CHARGE=2+\n", ""))
      with self.assertRaisesRegex(UserError, "no CHARGE.*mend or remove it"):
        readings.check(system, settings)

  def test_mistakes(self):
    model = config.smoke().model.to_dict()
    for changes, message in (
      (dict(decoders="all"), "decoders='all': choose one of both"),
      (dict(width=18), "width=18 must be a multiple of 4"),
      (dict(front="x"), "front='x'"),
    ):
      with self.assertRaisesRegex(UserError, message):
        build("crossnovo", **model | changes)
    system, variables, batch = case()
    keys = jax.random.split(smoke.KEY, smoke.BATCH)
    with self.assertRaisesRegex(UserError, "search='x'"):
      system.sample(variables, batch, keys, search="x")
    with self.assertRaisesRegex(UserError, "beams=0"):
      system.sample(variables, batch, keys, beams=0)


if __name__ == "__main__":
  absltest.main()
