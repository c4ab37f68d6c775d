"""GigaTok: an image as a line of codes (arXiv 2504.08736).

Presets: default (digits: a teacher, the tokenizer, LlamaGen over it), fashion,
smoke; the published tokenizers on ImageNet, s_s, s_b, b_l and xl_xxl, beside
DINOv2, converted, at runs/dinov2_b14 - paper is b_l; b_l_dino, whose
discriminator judges by DINO's ViT-S/16, converted, at runs/dino_s16; and probe,
GPT-B over b_l at runs/gigatok_b_l. LPIPS joins when its two files are named:
model.lpips_trunk, model.lpips_heads.
"""

from ar_jax.encoders import vit
from ar_jax.systems.llamagen import SIZES as LLAMAGEN
from ar_jax.tokenizers.gigatok import SIZES
from configs import classifier, common
from configs.families import tokenizer

DINO = dict(
  name="vit", size=224, patch=14, side=37, table="bicubic_tenth",
  layer_scale=1.0,
  mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), **vit.SIZES["b"],
)  # fmt: skip
CRITIC = dict(
  name="vit", size=224, patch=16, side=14,
  mean=DINO["mean"], std=DINO["std"], **vit.SIZES["s"],
)  # fmt: skip
# Images of a batch, epochs of 5000 updates of 256 of them.
TRAINING = {
  "s_s": (128, 100), "s_b": (128, 200), "b_l": (256, 200), "xl_xxl": (256, 300),
}  # fmt: skip


def net(**model):
  """Of small grey images, 8 x 8 places and 16 units."""
  sizes = dict(encoder=(64, 2, 4), decoder=(64, 3, 4), length=16, vocab=256)
  # Without the term all images soon have one code: nets as small as these say
  # so little of an image at first that all of it lies nearest to the same.
  codes = dict(quantizer=dict(spread=0.3, entropy=0.1, rotation=True))
  codes |= dict(align={"layer": 1})
  c = common.base("gigatok", **sizes | codes | dict(in_channels=1) | model)
  c.optim.update(lr=2e-3, weight_decay=1e-4, clip=10.0)
  c.train.update(steps=1500, ema=0.99, save_every=500)
  c.evals.reconstruction = {}
  return c


def over(codes, **model):
  """LlamaGen over the codes of a run, positions learned."""
  c = common.over(codes, "llamagen", positions="learned", **model)
  c.optim.update(weight_decay=0.05, schedule="wsd", warmup=0.05)
  c.sample.options.update(guidance=1.75, window=(0.18, 1.0))
  return c


def small(c, to, teacher):
  """The stages on a set: teacher, tokenizer, LlamaGen and what it draws."""
  seer = classifier.get_config(teacher)
  c.model.teacher = {"name": "classifier", "num_classes": 10}
  sizes = dict(depth=4, width=96, heads=4, multiple_of=32, num_classes=10)
  g = over(c, **sizes)
  g.optim.lr, g.train.steps, g.train.ema = 2e-3, 1500, 0.99
  c.weights.teacher = "teacher"
  stages = to(c, g)
  seer.data = c.data.copy_and_resolve_references()
  rest = {k: stages[k] for k in stages.stages}
  return common.stages(teacher=seer, **rest)


def digits():
  nets = dict(z=32, ch=16, mult=(1, 2), blocks=1)
  return small(net(nets=nets, size=16), common.on_digits, "digits")


def fashion():
  nets = dict(z=32, ch=16, mult=(1, 2, 4), blocks=1)
  c = tokenizer.fashion(net(nets=nets, size=32))
  return small(c, common.on_fashion, "fashion")


def published(name):
  """The recipe of the paper; S and B with its first stage."""
  c = tokenizer.imagenet("gigatok", batch=TRAINING[name][0], **SIZES[name])
  large = name == "xl_xxl"
  c.model.update(teacher=DINO, remat=large, dtype="bfloat16")
  c.model.update(gan_weight=0.5, gan_start=20_000, gan_norm="batch")
  c.model.quantizer = dict(rotation=True, entropy=0.005 if large else 0.0)
  c.model.direct_steps = 0 if large else 15_000
  c.weights.teacher = "runs/dinov2_b14"
  c.data.crop = "random"
  c.augment = ("flip",)
  c.optim.update(lr=1e-4, end=0.1, warmup=5000 if large else 0, clip=10.0)
  c.optim.weight_decay = 1e-4
  batch, epochs = TRAINING[name]
  c.train.update(steps=epochs * 5000 * 256 // batch, ema=0.9999)
  return c


def with_critic():
  """B-L with the discriminator that judges by features."""
  c = published("b_l")
  c.model.update(gan_critic=CRITIC, gan_start=80_000)
  c.weights.critic = "runs/dino_s16"
  return c


def probe():
  """GPT-B over B-L, 300 epochs."""
  c = over(published("b_l"), num_classes=1000, **LLAMAGEN["b"])
  c.weights.tokenizer = "runs/gigatok_b_l"
  c.batch = 256
  c.train.update(steps=300 * common.IMAGENET_IMAGES // 256, save_every=5000)
  c.optim.update(lr=1e-4, warmup=5000)
  return common.fid(c)


def smoke():
  """Seconds on two cores."""
  nets = dict(z=8, ch=8, mult=(1, 2), blocks=1)
  sizes = dict(encoder=(16, 1, 2), decoder=(16, 1, 2), vocab=16, channels=4)
  codes = dict(quantizer=dict(spread=0.3))  # an example is its own alone
  c = tokenizer.in_seconds(net(nets=nets, size=8, **sizes, **codes))
  c.model.teacher = {"name": "classifier", "num_classes": 3}
  return c


get_config = common.presets(
  __file__,
  default=digits,
  fashion=fashion,
  smoke=smoke,
  probe=probe,
  b_l_dino=with_critic,
  **common.published(published, SIZES, "b_l"),
)
