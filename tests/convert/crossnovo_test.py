"""The parents of CrossNovo: there and back, and the same outputs."""

import functools

import jax
import numpy as np
from absl.testing import absltest

from ar_jax.convert import crossnovo as convert
from ar_jax.core.domains import spectra
from ar_jax.core.system import UserError, build
from ar_jax.families.seq2seq import peptide_draw
from ar_jax.families.seq2seq.peptide_net import slot_loss
from ar_jax.families.seq2seq.residues import STOP, split_masses
from tests import golden_weights

SLOTS, SLOT_OUT = golden_weights.load("crossnovo_nar")
RESIDUES, OUT = golden_weights.load("crossnovo_ar")
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)


def state(said):
  found = golden_weights.weights(said)
  for key in ("decoder.aa_encoder.weight", "decoder.final_aa_Encoder.weight"):
    if said is RESIDUES:
      found[key][0] = 0
  # Buffers of a whole file; those of places are of another formula.
  out = OUT if said is RESIDUES else SLOT_OUT
  for key, x in out.items():
    if key.endswith("sin_term"):
      found[f"encoder.{key}"] = x
  return found


def cond(out):
  mass, charge, mz = out["precursors"].astype(np.float64).T
  columns = [*spectra.split(mass).T, charge, mz]
  return {
    "peaks": out["spectra"],
    "mz": spectra.split(out["spectra"][..., 0].astype(np.float64)),
    "precursor": np.stack(columns, -1).astype(np.float32),
  }


class CrossNovoConvertTest(absltest.TestCase):
  def test_slots(self):
    own = state(SLOTS)
    params = convert.to_ours(own, heads=4)
    model = convert.config(own, heads=4)["model"] | dict(slots=10, length=10)
    net = build("crossnovo", **model).net.bind({"params": params})
    given = cond(SLOT_OUT)

    @jax.jit
    def run(given):
      memory, there = net.read(given)
      z = net.slot_states(given, memory, there)
      p = given["precursor"]
      first = net.slots.precursor(p[:, :2], p[:, 2])
      return memory, there, first, z, net.slots.logits(z)

    memory, there, first, z, logits = jax.device_get(run(given))
    np.testing.assert_array_equal(~there, SLOT_OUT["memory_padding"] > 0)
    close(np.where(there[..., None], memory, 0), SLOT_OUT["memory"])
    close(first[:, None], SLOT_OUT["precursor"])
    close(z, SLOT_OUT["latent"])
    close(logits, SLOT_OUT["logits"])
    # Their targets are from the C-terminus, as ours, and end with -1.
    units = np.zeros((3, 9), np.int32)
    for row, ids in zip(units, SLOT_OUT["targets"], strict=True):
      ids = ids[ids >= 0] + 1
      row[: len(ids)], row[len(ids)] = ids, STOP
    loss, impossible = jax.jit(slot_loss)(logits, units)
    close(np.mean(loss), SLOT_OUT["ctc_loss"])
    each = SLOT_OUT["ctc_per_sample"]
    np.testing.assert_array_equal(impossible > 0, each < 0)
    count = ((units > 0) & (units != STOP)).sum(1)
    close(loss * count, np.maximum(each, 0))
    ids = np.asarray(peptide_draw.greedy(logits, 10)) - 1
    np.testing.assert_array_equal(ids, SLOT_OUT["greedy_tokens"])

  def test_residues(self):
    own = state(RESIDUES)
    params = convert.to_ours(own)
    model = convert.config(own)["model"] | dict(length=9)
    net = build("crossnovo", **model).net.bind({"params": params})
    given, ids = cond(OUT), OUT["tokens"].astype(np.int32)
    split = lambda k: spectra.split(OUT[k].astype(np.float64))

    @jax.jit
    def run(given):
      memory, there = net.read(given)
      seen = net.looked_at(memory, there, None)
      p = given["precursor"]
      known = ids, p[:, :2], p[:, 2], seen
      h = net.residues.features(
        *known, (split("prefix_mass"), split("suffix_mass"))
      )
      sums = net.residues.sums(ids, p[:, :2])
      first, cache = net.residues.begin(p[:, :2], p[:, 2], seen)
      return memory, there, net.residues.logits(h), sums, first

    memory, there, logits, sums, first = jax.device_get(run(given))
    np.testing.assert_array_equal(~there, OUT["memory_padding"] > 0)
    close(np.where(there[..., None], memory, 0)[..., ::8], OUT["memory"])
    for x, name in zip(sums, ("prefix_mass", "suffix_mass"), strict=True):
      np.testing.assert_allclose(x.sum(-1), OUT[name], atol=2e-4)
    close(logits, OUT["logits"])
    close(first[:, None], OUT["first_logits"])
    close(logits[:, :4], OUT["prefix3_logits"])
    law = jax.nn.log_softmax(jax.nn.softmax(logits[:, :-1]))
    each = -np.take_along_axis(np.asarray(law), ids[..., None], 2)[..., 0]
    close(each[ids > 0].mean(), OUT["loss"])
    masses = split_masses(True).sum(-1)[:STOP]
    np.testing.assert_allclose(
      masses[1:], OUT["residue_masses"][1:28], atol=1e-4
    )

  def test_there_and_back(self):
    for said, heads in ((SLOTS, 4), (RESIDUES, 8)):
      own = state(said)
      back = convert.to_official(convert.to_ours(own, heads=heads))
      unread = own.keys() - back.keys()
      unread = {k for k in unread if not k.endswith("sin_term")}
      self.assertTrue(all(k.startswith(convert._UNREAD) for k in unread))
      extra = back.keys() - own.keys()
      self.assertLessEqual(extra, {"decoder.logit_scale"})
      for key in back.keys() & own.keys():
        np.testing.assert_array_equal(back[key], own[key])

  def test_mistakes(self):
    own = state(SLOTS)
    with self.assertRaisesRegex(UserError, "width 32 is no published one"):
      convert.config(own)
    with self.assertRaisesRegex(UserError, "not a file of PrimeNovo"):
      convert.config({"a": own["decoder.final.bias"]})
    del own["decoder.final.bias"]
    with self.assertRaisesRegex(UserError, "missing: decoder.final.bias"):
      convert.to_ours(own, heads=4)


if __name__ == "__main__":
  absltest.main()
