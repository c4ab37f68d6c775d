"""Peptides, their spectra, and those of a person's own files."""

import pathlib
import tempfile

import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import data
from ar_jax.core.domains import peptides as rules
from ar_jax.core.domains import spectra
from ar_jax.core.errors import UserError
from ar_jax.data.science import peptides
from tests import golden_weights

FASTA = """>a first OS=Homo sapiens OX=9606
MPEPTIDEKAAAGGGLLRPSSSSK
>b second OS=Candida albicans OX=1
PEPTLDEKWWWWYYYYFFFFR
>c OS=Homo sapiens
GGGGAAAALLLLKTTTTTTTTTR
"""
MGF = """BEGIN IONS
PEPMASS=464.7347 1000
CHARGE=2+
SEQ=PEPTIDEK
147.113 10
464.8 99
800.4 40
END IONS
BEGIN IONS
PEPMASS=300.2
CHARGE=1+
SEQ=GALR
101.1 5
203.5 1e1
END IONS
"""


class PeptidesTest(parameterized.TestCase):
  def test_spectra_by_rule(self):
    found = data.load("peptides", proteins=20, missing=2, noise=4, jitter=5.0)
    train, test = (x.sequences for x in (found.train, found.test))
    self.assertFalse(set(train) & set(test))
    self.assertNotIn("I", "".join(train + test))
    for i in range(5):
      x = found.train[i]
      n = int((x["peptide"] > 0).sum())
      self.assertEqual(found.forms["peptide"].read(x["peptide"]),
                       train[i].replace("C", "C+57.021"))  # fmt: skip
      at = x["mz"].astype(np.float64).sum(-1)
      np.testing.assert_allclose(at, x["peaks"][:, 0], rtol=1e-6)
      np.testing.assert_allclose(
        np.square(x["peaks"][:, 1]).sum(), 1, rtol=1e-5
      )
      ids = x["peptide"][:n]
      mass = x["precursor"][:2].astype(np.float64).sum()
      self.assertAlmostEqual(mass, rules.neutral(ids), places=5)
      b, y = rules.ions(ids)
      near = lambda ions, at=at: (
        np.abs(at[:, None] / ions[None] - 1).min(0) < 3e-5
      )
      own = near(b), near(y)[::-1]
      # A run of cleavages without an ion; and most of the others with one.
      either = own[0] | own[1]
      self.assertGreater(either.sum(), 0.4 * len(b))
      self.assertFalse(either.all())
      np.testing.assert_array_equal(found.train[i]["peaks"], x["peaks"])

  def test_trypsin(self):
    self.assertEqual(peptides.digest("AAKPBKGGRPILKR", 2, 9), ["GGRPLLK"])
    self.assertEqual(peptides.digest("AAKCCR", 1, 9), ["AAK", "CCR"])

  def test_a_file_of_proteins(self):
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder, "a.fasta")
      path.write_text(FASTA)
      known = dict(path=str(path), shortest=7, longest=14)
      found = data.load("peptides", organism="candida", **known)
      # What is in both is held out.
      self.assertCountEqual(found.test.sequences, ["PEPTLDEK", "WWWWYYYYFFFFR"])
      self.assertCountEqual(
        found.train.sequences,
        ["MPEPTLDEK", "GGGGAAAALLLLK", "TTTTTTTTTR"],
      )
      with self.assertRaisesRegex(UserError, "there are Homo sapiens, Candida"):
        data.load("peptides", organism="Mus", **known)
      with self.assertRaisesRegex(UserError, "take more proteins"):
        data.load("peptides", path=str(path), shortest=2, longest=2, missing=0)
      path.write_text("nothing")
      with self.assertRaisesRegex(UserError, "no protein; a FASTA file"):
        data.load("peptides", **known)

  def test_spectra_of_a_file(self):
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder, "a.mgf")
      path.write_text(MGF)
      found = data.load(
        "mgf", path=str(path), longest=8, peaks=5, test_fraction=0.5
      )
      self.assertEqual((len(found.train), len(found.test)), (1, 1))
      rows = sorted(
        (found.train[0], found.test[0]), key=lambda x: -x["precursor"][2]
      )
      x = rows[0]
      self.assertEqual(rules.spell(x["peptide"]), "PEPTLDEK")
      # The peak of the precursor is gone; what is left has norm 1.
      np.testing.assert_allclose(x["peaks"][:2, 0], [147.113, 800.4], rtol=1e-6)
      np.testing.assert_allclose(
        x["peaks"][:2, 1], np.sqrt([0.2, 0.8]), rtol=1e-5
      )
      self.assertFalse(x["peaks"][2:].any())
      np.testing.assert_allclose(x["precursor"][2:], [2, 464.7347], rtol=1e-6)
      path.write_text(MGF.replace("SEQ=GALR\n", ""))
      found = data.load("mgf", path=str(path))
      self.assertNotIn("peptide", found.train[0])
      self.assertLen(found.test, 2)
      bad = MGF.replace("CHARGE=1+", "CHARGE=x")
      path.write_text(bad)
      with self.assertRaisesRegex(UserError, r"a.mgf spectrum 1 \(CHARGE=x"):
        data.load("mgf", path=folder)
      self.assertLen(data.load("mgf", path=folder, skip_bad=True).test, 1)
      path.write_text(MGF.replace("PEPMASS=300.2\n", ""))
      with self.assertRaisesRegex(UserError, "no PEPMASS"):
        data.load("mgf", path=folder)
      with self.assertRaisesRegex(UserError, "a peptide of 8 symbols"):
        path.write_text(MGF)
        data.load("mgf", path=folder, longest=5)
      path.write_text("x")
      with self.assertRaisesRegex(UserError, "no spectrum in it"):
        data.load("mgf", path=folder)

  @parameterized.parameters(
    ("CHARGE=1+", "CHARGE=2+ and 3+", r"CHARGE=2\+ and 3\+: must be one"),
    ("CHARGE=1+", "CHARGE=2-", "CHARGE=2-: must be one"),
    ("\nEND IONS\n", "", "spectrum 1 .no END IONS"),
  )
  def test_a_spectrum_that_says_less(self, old, new, message):
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder, "a.mgf")
      self.assertIn(old, MGF)
      path.write_text(new.join(MGF.rsplit(old, 1)))
      with self.assertRaisesRegex(UserError, message):
        data.load("mgf", path=folder)
      path.write_text(MGF)
      with self.assertRaisesRegex(UserError, "no peak is left between 4000"):
        data.load("mgf", path=folder, low=4000.0)

  def test_official_clean_up(self):
    said, out = golden_weights.load("crossnovo_decoding")
    mz, charge = (
      said["config"][k] for k in ("precursor_mz", "precursor_charge")
    )
    for name, most, low, high, least, near in (
      ("nar", 800, 1, 6500, 0, 1),
      ("ar", 300, 50.5, 4500, 0, 2),
      ("small", 20, 140, 2500, 0.01, 2),
    ):
      own = spectra.cleaned(
        out["raw_mz"], out["raw_intensity"], mz, charge, most=most, low=low,
        high=high, near=near, least=least,
      )  # fmt: skip
      np.testing.assert_allclose(
        own, out[f"peaks_{name}"], rtol=1e-5, atol=1e-6
      )

  @parameterized.parameters(
    (dict(organism="x"), "proteins by rule are of none"),
    (dict(path="/no/such"), "no such file; name a FASTA file"),
    (dict(shortest=1), "shortest=1: must be from 2"),
    (dict(charge=0), "charge=0: must be from 1 to 10"),
    (dict(size=8), "size: no option of 'peptides'"),
  )
  def test_mistakes(self, options, message):
    with self.assertRaisesRegex(UserError, message):
      data.load("peptides", **options)

  def test_no_files(self):
    with self.assertRaisesRegex(UserError, "no folder with .mgf files"):
      data.load("mgf", path="/no/such")


if __name__ == "__main__":
  absltest.main()
