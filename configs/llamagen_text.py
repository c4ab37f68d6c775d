"""LlamaGen from texts (arXiv 2406.06525).

Presets: default (the names of pictograms, read by a small encoder of bytes),
folder (your own pictures with texts), smoke, and the published model of 775M
parameters on the features of a T5-XL: paper (stage 1, 256 px) and stage2 (512
px). These expect the published tokenizer, converted, at runs/vq_ds16_t2i,
image-text pairs as the user has them (`data.name`, `data.path`) and features at
`data.text_features`.
"""

from configs import common, vq
from configs.families import token
from configs.families.tokenizer import patch_codes


def emoji(length=32):
  """Pictograms at 32 pixels by their names, of so many bytes."""
  encoder = dict(name="bytes", length=length, width=96, depth=2, heads=4)
  c = token.emoji(text=encoder)
  common.prompted(c.generator).sample.columns = 8  # "rocket"
  return c


def folder():
  """Your own pictures at 32 pixels and their texts, in 128 bytes:
  --config.tokenizer.data.path=DIR, of a.jpg with a.txt, or with captions.tsv.
  """
  c = emoji(128)
  c.tokenizer.data.name = "folder"
  return c


def published(size, images):
  tokenizer = vq.get_config("paper")
  tokenizer.model.size = size
  c = token.over(
    tokenizer,
    depth=36,
    width=1280,
    heads=20,
    text=dict(name="features", length=120, width=2048),
    remat=common.remat(True),
    dtype="bfloat16",
  )
  c.weights.tokenizer = "runs/vq_ds16_t2i"
  c.data = common.base("llamagen").data  # images of the user's own
  c.data.update(name="folder", size=size, channels=3)
  c.data.text_features = "runs/t5_xl_features"
  c.batch = 256
  c.train.update(steps=images // c.batch, log_every=100, save_every=5000)
  c.optim.lr = 1e-4
  # As in the demonstration of the paper.
  c.sample.options.update(guidance=7.5, top_k=1000)
  c.evals.likelihood = {}
  return c


def smoke():
  """Seconds on two cores: the names of the classes of fake data."""
  tokenizer = patch_codes()
  tokenizer.data.text = 8
  c = token.over(
    tokenizer,
    depth=2,
    width=32,
    heads=2,
    multiple_of=32,
    text=dict(name="bytes", length=8, width=16, depth=1, heads=2),
  )
  return common.seconds(c, tokenizer)


get_config = common.presets(
  __file__,
  default=emoji,
  folder=folder,
  smoke=smoke,
  paper=lambda: published(256, 50_000_000),
  stage2=lambda: published(512, 10_000_000),
)
