"""VAR: next-scale prediction (arXiv 2404.02905).

Presets: default (digits), fashion, smoke, and the published models d16, d20,
d24, d30 (256 px) and d36 (512 px); paper is d16. They expect the published
tokenizer, converted, at runs/vae_ch160v4096z32, and ImageNet in TFDS.
"""

from configs import common, multiscale_vq

IMAGENET_IMAGES = 1_281_167

# depth, image side, batch, epochs, learning rate per 256 images, initial gain
# of the residual branches, last share of the rate, last weight decay.
PUBLISHED = {
  "d16": (16, 256, 768, 200, 1e-4, 1e-3, 0.1, 0.05),
  "d20": (20, 256, 768, 250, 1e-4, 1e-3, 0.1, 0.05),
  "d24": (24, 256, 768, 350, 8e-5, 1e-4, 0.01, 0.05),
  "d30": (30, 256, 1024, 350, 8e-5, 1e-5, 0.01, 0.08),
  "d36": (36, 512, 768, 350, 8e-5, 5e-6, 0.01, 0.08),
}


def get_config(preset: str = "default"):
  if preset == "paper":
    preset = "d16"
  if preset in PUBLISHED:
    return _published(*PUBLISHED[preset])
  makers = {"default": digits, "fashion": fashion, "smoke": smoke}
  if preset not in makers:
    known = ", ".join([*makers, "paper", *PUBLISHED])
    raise ValueError(f"configs/var.py:{preset}: the presets are {known}")
  return makers[preset]()
