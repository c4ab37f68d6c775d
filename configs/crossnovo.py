"""CrossNovo (arXiv 2510.08169): peptides from their mass spectra.

Presets: default (peptides of proteins by rule, with spectra by rule), fasta (of
a FASTA file, whose organism is held out), minutes (shorter peptides), paper
(your own spectra; the sizes of its parent of slots, for its own are not
published), residues and slots (each decoder alone), smoke. Your own spectra are
read by a trained model with --mode=sample --config.sample.read=my.mgf.
"""

from configs import common


def run(data, **model):
  model |= dict(length=data.longest, peaks=data.peaks)
  c = common.run("crossnovo", **model)
  c.data = data
  c.optim.update(weight_decay=8e-5, b2=0.999)
  c.sample.update(count=16, batch=16, columns=4, read="")
  c.sample.options.update(beams=5, ppm=50.0)
  c.evals.likelihood = {}
  c.evals.peptides = {"n": 500}
  return c


def made(**options):
  known = dict(path="", longest=15, peaks=64, proteins=4000, count=30_000)
  return common.data("peptides", **known | options)


def small(decoders="both", **options):
  """The sizes of the small setting; two fifths of the updates are the second
  stage."""
  c = run(
    made(**options),
    slots=20,
    width=96,
    heads=4,
    hidden=192,
    encoder_layers=3,
    slot_layers=3,
    residue_layers=3,
    order="pre",
    least=0.01,
    switch=1800,
    bins=3000,
    decoders=decoders,
  )
  c.batch = 64
  c.optim.update(lr=1e-3, warmup=200 / 3000)
  c.train.update(steps=3000, ema=0.99)
  return c


def fasta():
  """20,000 proteins of UniProt, in the Debian package mmseqs2-examples."""
  path = "/usr/share/doc/mmseqs2/example-data/DB.fasta.gz"
  return small(path=path, organism="Candida albicans")


def minutes():
  """Short peptides, in the sizes of the experiment: what the notebook
  trains."""
  short = dict(shortest=7, longest=9, peaks=24, missing=1, noise=4, jitter=5.0)
  c = run(
    made(**short), slots=14, width=64, heads=4, hidden=128, encoder_layers=2,
    slot_layers=2, residue_layers=2, order="pre", least=1.0, bins=1800,
    switch=300,
  )  # fmt: skip
  c.batch = 32
  c.optim.lr = 4e-3
  c.train.update(steps=500, save_every=250, ema=0.98)
  return c


def paper():
  """9 layers of 400 each; the optimiser of the parent of slots."""
  data = common.data("mgf", path="spectra", longest=30, peaks=800, low=1.0,
                     high=6500.0, near=1.0)  # fmt: skip
  c = run(data, slots=40, width=400, heads=8, hidden=1024, switch=300_000,
          encoder_layers=9, slot_layers=9, residue_layers=9,
          remat="weights")  # fmt: skip
  c.batch = 2048
  c.optim.update(lr=3.5e-4, warmup=0.01, clip=2.5)
  c.train.update(steps=500_000, log_every=100, save_every=5000)
  return c


def smoke():
  """Seconds on two cores."""
  c = run(
    made(proteins=8, longest=8, shortest=5, peaks=12, noise=2, missing=0),
    slots=10, width=16, heads=2, hidden=16, encoder_layers=1, slot_layers=1,
    residue_layers=1, order="pre", least=1.0, switch=2, bins=1300,
  )  # fmt: skip
  c.optim.lr = 1e-2
  c.batch = c.eval_batch = 4
  c.train.update(steps=4, ema=0.0, log_every=1, save_every=2)
  c.sample.update(count=6, batch=4, columns=2)
  c.sample.options.update(beams=2, search="draw")
  c.evals.peptides.n = 4
  return c


get_config = common.presets(
  __file__,
  default=small,
  residues=lambda: small("residues"),
  slots=lambda: small("slots"),
  fasta=fasta,
  minutes=minutes,
  paper=paper,
  smoke=smoke,
)
