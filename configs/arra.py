"""ARRA: hidden states aligned with a frozen encoder (arXiv 2503.07334).

Presets: default (digits), fashion, smoke; paper, ARRA-Adapt of 7B at 512 px on
images and ids of texts of one's own (`data.text_features`), beside features of
BioMedCLIP (`data.image_features`), from converted weights at runs/lumina_512;
arra, which begins with a language model at runs/chameleon_7b; and ARRA-Base on
ImageNet: b, l and 3b, LlamaGens. The last four see CLIP-L/14, converted, at
runs/clip_l14.
"""

import functools

from ar_jax.encoders import vit
from ar_jax.systems.arra import SIZES
from ar_jax.systems.llamagen import SIZES as LLAMAGEN
from configs import classifier, common
from configs.families import token

CLIP = dict(
  name="vit", size=224, patch=14, side=16, style="clip", projection=768,
  act="quick_gelu", eps=1e-5, mean=(0.48145466, 0.4578275, 0.40821073),
  std=(0.26862954, 0.26130258, 0.27577711), **vit.SIZES["l"],
)  # fmt: skip
CODES = dict(name="vq", vocab=8192, channels=256, sphere=False, size=512)


def with_teacher(make, teacher):
  """The stages of a system behind those of its teacher, a classifier of half
  of the images."""
  seer = classifier.get_config(teacher)
  model = {"name": "classifier", "num_classes": 10}
  c = make("arra", teacher=model, symbols="rows", z_loss=1e-5)
  c.generator.model.align = {"weight": 1.0, "layer": 2}
  c.generator.weights.teacher = "teacher"
  c.generator.evals.probe = {}
  seer.data = c.tokenizer.data.copy_and_resolve_references()
  seer.data.update(share=0.5)
  rest = {k: c[k] for k in c.stages if k != "tokenizer"}
  return common.stages(tokenizer=c.tokenizer, teacher=seer, **rest)


def base(name):
  """ARRA-Base: a LlamaGen from nothing on ImageNet."""
  c = token.published(*LLAMAGEN[name].values(), system="arra", teacher=CLIP)
  c.model.align = {"weight": 1.0, "layer": 1}
  c.weights.teacher = "runs/clip_l14"
  return c


def large(start, **model):
  """7B at 512 px, fine-tuned in 10 epochs of 96 images a step."""
  ids = dict(text={"name": "ids", "length": 512}, symbols="chameleon")
  sizes = dict(head_norm="chameleon", dropout=0.05, token_dropout=0.0)
  c = common.base("arra", tokenizer=CODES, **SIZES["7b"], **ids, **sizes)
  c.model.update(z_loss=1e-5, remat=common.remat(True), dtype="bfloat16")
  c.model.update(model)
  c.weights.update(params=start, tokenizer="runs/chameleon_vq")
  c.data.update(name="folder", size=512, channels=3)
  c.data.update(text_features="runs/ids")
  c.batch = 96
  c.train.update(steps=10 * 250_000 // c.batch, log_every=10, save_every=1000)
  c.optim.update(lr=2e-5, schedule="constant", warmup=1e-3, clip=4.0)
  c.sample.options.update(guidance=4.0, top_k=2000, temperature=1.0)
  c.evals.likelihood = {}
  return c


def adapt():
  align = {"weight": 1.0, "layer": 1, "features": 512}
  c = large("runs/lumina_512", align=align)
  c.data.update(image_features="runs/biomedclip")
  return c


def arra():
  """From a language model: what it knows of codes is forgotten."""
  c = large("runs/chameleon_7b", teacher=CLIP, zero_rows=True)
  c.model.align = {"weight": 1.0, "layer": 1}
  c.weights.teacher = "runs/clip_l14"
  return c


def smoke():
  """Seconds on two cores: fake data, a teacher that knows nothing."""
  teacher = {"name": "classifier", "num_classes": 3}
  more = dict(head_norm="layer", symbols="rows", z_loss=1e-5)
  c = token.smoke("arra", teacher=teacher, **more)
  c.model.align = {"weight": 1.0, "layer": 1}
  return c


get_config = common.presets(
  __file__,
  default=functools.partial(with_teacher, token.digits, "digits"),
  fashion=functools.partial(with_teacher, token.fashion, "fashion"),
  smoke=smoke,
  paper=adapt,
  arra=arra,
  **{name: functools.partial(base, name) for name in ("b", "l", "3b")},
)
