"""Masses, ions, and which residues agree."""

import numpy as np
from absl.testing import absltest

from ar_jax.core.domains import peptides
from ar_jax.core.errors import UserError
from tests import golden_weights


class PeptidesTest(absltest.TestCase):
  def test_ions(self):
    for text in ("PEPTLDEK", "+42.011GALRQ", "M+15.995AC+57.021K"):
      ids = peptides.parse(text)
      self.assertEqual(peptides.spell(ids), text)
      b, y = peptides.ions(ids)
      whole = peptides.neutral(ids) + 2 * peptides.PROTON
      np.testing.assert_allclose(b + y[::-1], whole, atol=1e-6)
      residues = len(ids) - (ids[0] > 23)
      self.assertLen(b, residues - 1)

  def test_alphabet(self):
    self.assertLen(peptides.SYMBOLS, 27)
    np.testing.assert_array_equal(
      peptides.parse("PICK"), peptides.parse("PLC+57.021K")
    )
    for text in peptides.SYMBOLS:
      if text != "I":
        self.assertEqual(peptides.spell(peptides.parse(text)), text)
    with self.assertRaisesRegex(UserError, "'B' is none of the symbols"):
      peptides.parse("PEBK")
    with self.assertRaisesRegex(UserError, "'z' is none"):
      peptides.parse("PEz")
    charge = 3
    mass = peptides.neutral(peptides.parse("PEPTLDEK"))
    own = peptides.mz(mass, charge)
    self.assertAlmostEqual((own - peptides.PROTON) * charge, mass, places=6)

  def test_the_two_published_masses_differ_by_a_thousandth(self):
    own, other = (peptides.masses(x) for x in (False, True))
    np.testing.assert_allclose(np.abs(own - other).max(), 1e-3, atol=1e-9)
    self.assertEqual((own != other).sum(), 1)
    parts = own[peptides.IDS["+43.006"]] + own[peptides.IDS["-17.027"]]
    np.testing.assert_allclose(own[-1], parts, atol=1e-9)

  def test_official_agreement(self):
    said, out = golden_weights.load("crossnovo_decoding")
    pairs = [
      tuple(map(peptides.parse, p)) for p in said["config"]["match_pairs"]
    ]
    for (a, b), flags in zip(pairs, out["match_flags"], strict=True):
      own = peptides.agreement(a, b)
      np.testing.assert_array_equal(own, flags[flags >= 0])
    first, second = zip(*pairs, strict=True)
    found = peptides.scores(first, second)
    # The release names its arguments (true, predicted).
    np.testing.assert_allclose(
      [found["aa_precision"], found["aa_recall"], found["peptide_recall"]],
      out["match_metrics"][[0, 1, 2]],
      atol=1e-6,
    )

  def test_unit_cases(self):
    case = lambda a, b: peptides.scores(
      [peptides.parse(a)], [peptides.parse(b)]
    )
    self.assertEqual(set(case("PEPTLDEK", "PEPTLDEK").values()), {1.0})
    swapped = case("PEPGAK", "PEPAGK")
    self.assertAlmostEqual(swapped["aa_recall"], 4 / 6)
    self.assertEqual(swapped["peptide_recall"], 0)
    shorter = case("LNK", "LGGK")
    self.assertAlmostEqual(shorter["aa_recall"], 2 / 3)
    self.assertAlmostEqual(shorter["aa_precision"], 2 / 4)
    self.assertEqual(case("K", "")["peptide_recall"], 0)
    # The same mass is the same residue.
    self.assertEqual(case("N+0.984K", "DK")["peptide_recall"], 1)


if __name__ == "__main__":
  absltest.main()
