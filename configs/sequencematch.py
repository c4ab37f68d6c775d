"""SequenceMatch: text with a backspace, by imitation (arXiv 2306.05426).

Presets: default (words of the King James Bible, letter by letter: maximum
likelihood, then SequenceMatch), mle (the first of these alone, for texts of
your own), smoke, and paper, the published size, on a folder of texts; its
rates are ours, as the paper's are not known. images (digits) and smoke_images
do the same with the codes of images in place of letters, without classes.
"""

from ar_jax.systems.sequencematch import SIZES
from configs import common, vq
from configs.families.tokenizer import patch_codes

NAME = "sequencematch"


def model(vocab, length, **sizes):
  """The arguments of a system over so many symbols."""
  text = dict(name="given", form="tokens", vocab=vocab, length=length)
  return dict(tokenizer=text, dropout=0.0, **sizes)


def run(data, *sizes, **options):
  c = common.run(NAME, **model(*sizes, **options))
  c.data = data
  common.prompted(c)
  return trained(c)


def trained(c):
  """The run c, trained and drawn from as all of these."""
  c.optim.update(weight_decay=0.0, b2=0.999, clip=1.0)
  c.sample.options.update(
    temperature=1.0, top_k=0, top_p=1.0, backspace=True, errors=0.0
  )
  c.evals.likelihood = {}
  return c


def words(**options):
  """Words by their letters, as often as the text has them."""
  data = common.data("spelled", corpus="kjv", path="", least=3, most=9)
  sizes = dict(depth=2, width=64, heads=4, multiple_of=32)
  c = run(data, 27, 10, **sizes, **options)
  c.batch = 128
  c.sample.update(count=200, batch=100)
  return c


def mle():
  c = words(objective="mle")
  c.optim.update(lr=2e-3)
  c.train.update(steps=700, save_every=350)
  return c


def matched():
  replay = dict(size=1536, every=40, count=192, errors=0.02)
  c = words(ramp=200, replay=replay)
  c.optim.update(lr=1e-3)
  c.train.update(steps=400, save_every=200)
  c.weights.params = "mle"
  return c


def default():
  first, second = mle(), matched()
  second.data = first.data  # the very same: an override reaches both
  return common.stages(
    mle=first,
    matched=second,
    samples=common.stage("matched", "sample"),
    evaluation=common.stage("matched", "eval"),
  )


def paper():
  """Llama-2-7B, after maximum likelihood on the same texts (runs/
  sequencematch_mle), prompts of 256 tokens."""
  data = common.data(
    "text", path="texts", unit="words", length=512, vocab=32000
  )
  replay = dict(size=2048, every=100, count=64)
  c = run(
    data, 32000, 512, **SIZES["llama2_7b"], prompt=256, noise=0.1, actions=1024,
    ramp=1000, replay=replay, remat=common.remat(True), dtype="bfloat16",
  )  # fmt: skip
  c.weights.params = "runs/sequencematch_mle"
  c.batch = 64
  c.optim.update(lr=1e-5)
  c.train.update(steps=5000, save_every=500)
  return c


def smoke():
  """Seconds on two cores: a Markov chain, whose texts end now and then."""
  chain = common.data("markov_text", length=12, symbols=4, end=0.1, count=64)
  replay = dict(size=6, every=2, count=4, errors=0.1)
  sizes = dict(depth=1, width=32, heads=2, multiple_of=32)
  c = run(chain, 5, 12, **sizes, replay=replay)
  c.optim.lr = 1e-2
  c.batch = c.eval_batch = 4
  c.train.update(steps=2, log_every=1, save_every=1)
  c.sample.update(count=6, batch=4)
  return c


def coded(tokenizer, **options):
  """A run over the codes of the tokenizer of another config."""
  known = dict(dropout=0.0, multiple_of=32)
  return trained(common.over(tokenizer, NAME, **known | options))


def images():
  """scikit-learn's digits: tokenizer, maximum likelihood, SequenceMatch."""
  tokenizer, sizes = vq.get_config("digits"), dict(depth=4, width=128, heads=4)
  first = coded(tokenizer, objective="mle", **sizes)
  first.optim.lr = 2e-3
  first.train.update(steps=300, save_every=150, ema=0.98)
  replay = dict(size=512, every=40, count=64, errors=0.02)
  second = coded(tokenizer, ramp=80, replay=replay, **sizes)
  second.optim.lr = 1e-3
  second.train.update(steps=160, save_every=80, ema=0.98)
  second.weights.params = "mle"
  for c in (first, second):
    c.weights.tokenizer = "tokenizer"
    c.cache.views = 1
    c.sample.update(count=200, batch=100, columns=10)
    c.evals.frechet = {"features": "judge"}
  return common.stages(
    tokenizer=tokenizer,
    mle=first,
    matched=second,
    samples=common.stage("matched", "sample"),
    evaluation=common.stage("matched", "eval"),
  )


def smoke_images():
  """Seconds on two cores: codes of patches of fake images."""
  tokenizer = patch_codes()
  replay = dict(size=6, every=2, count=4, errors=0.1)
  c = coded(tokenizer, depth=1, width=32, heads=2, replay=replay)
  return common.seconds(c, tokenizer)


get_config = common.presets(
  __file__,
  default=default,
  mle=mle,
  images=images,
  smoke=smoke,
  smoke_images=smoke_images,
  paper=paper,
)
