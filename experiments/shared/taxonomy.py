"""`docs/taxonomy.md`: the classes of "Autoregressive Models in Vision: A
Survey" (arXiv 2411.05902), filled with the library's own systems.

What a system is, is said of its family, and of systems that differ from their
family by name; what was reached at equal budget comes from the record of
`experiments.comparisons.taxonomy`. Nothing here needs JAX.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from experiments.shared.markdown import table

HEAD = """# The survey's taxonomy

"Autoregressive Models in Vision: A Survey" (arXiv
[2411.05902](https://arxiv.org/abs/2411.05902)) says what a visual
autoregressive model is by two things: how an image becomes a sequence, and
what models the sequence. All classes are one factorisation here, p(x | c) =
product over steps t of p(x of group t | x of groups before t, c): the *plan* of
a system says the groups and their order, its *head* the law of a unit, and the
units of a group are independent of each other, given all earlier ones. Where
groups are of one unit that is exact; where they are larger, it is the model's
assumption.

Every system is trained, sampled and evaluated by the same command,

    python -m ar_jax.main --config=NAME --workdir=DIR --mode=MODE

L is the number of units of an image, H W that of its pixels.
"""
MEASURED = """
## At equal budget

A member of every class on the same images, with as many updates of as many of
them, by `python -m experiments.comparisons.taxonomy`; all of it is on
[its page](results/taxonomy.md). Bits of a pixel count all of an image for
models of pixels alone. Nats of a unit of two tokenizers do not compare, with
each other or with those, for a tokenizer has lost something before, and the
loss of a diffusion is no likelihood. The distance of samples compares all.
"""
CLASSES = {
  "pixel-based": "PixelRNN, PixelCNN, Gated PixelCNN, PixelCNN++, PixelSNAIL, "
  "Image Transformer, iGPT",
  "token-based, discrete": "VQ-VAE, VQGAN, RQ-Transformer, DALL·E, Parti, "
  "LlamaGen, RAR, RandAR",
  "token-based, continuous": "GIVT, MAR, Fluid, xAR",
  "scale-based": "VAR, FlowAR, FlexVAR, M-VAR, Infinity, STAR, HART",
  "between: masks, sets, diffusion": "MaskGIT and the random sets of MAR, "
  "D-AR, fractal models, frequency order",
}
PIXEL, CODES, VECTORS, SCALES, BETWEEN = CLASSES


class Kind(NamedTuple):
  """What a row says of a system, or of a family.

  Attributes:
    of: the class.
    units: the representation.
    order: of the groups.
    law: of a unit, given those of earlier groups.
    forwards: of the network for a sample.
  """

  of: str
  units: str
  order: str
  law: str
  forwards: str


ONE = "raster, one a step"
FAMILIES = {
  "pixel": Kind(
    PIXEL,
    "levels of the channels of a pixel",
    ONE + "; red, green, blue",
    "categorical, or a mixture of discretised logistics (plus)",
    "H W for each channel; H W (plus)",
  ),
  "token": Kind(CODES, "codes of one map", ONE, "categorical", "L"),
  "speculation": Kind(
    CODES, "as its target", "as its target", "as its target, or relaxed", "< L"
  ),
  "scale": Kind(
    SCALES, "maps of residual codes", "coarse to fine", "categorical", "maps"
  ),
  "masked": Kind(
    BETWEEN, "vectors", "random sets", "diffusion or flow", "steps, < L"
  ),
  "block": Kind(
    BETWEEN,
    "codes of one map",
    "blocks, inside by confidence",
    "categorical",
    "steps, < L",
  ),  # fmt: skip
  "entity": Kind(
    VECTORS, "cells of vectors", "cells in raster order", "flow", "cells, steps"
  ),
  "flow": Kind(
    BETWEEN, "all vectors at once", "times of noise", "flow", "times"
  ),
}
SYSTEMS = {
  "lumos_1": Kind(
    BETWEEN,
    "codes of a video",
    "frames, inside by confidence",
    "categorical",
    "1 + (steps + 1) a frame",
  ),  # fmt: skip
  "nbp": Kind(
    BETWEEN,
    "codes of a video",
    "units of the first block, then blocks at once",
    "categorical",
    "N + L / N - 1 of blocks of N",
  ),  # fmt: skip
  "igpt": Kind(PIXEL, "palette colours of pixels", ONE, "categorical", "H W"),
  "cspd": Kind(
    VECTORS,
    "vectors of patches",
    ONE,
    "mixture of normal laws, or diffusion",
    "L; < L with a drafter",
  ),  # fmt: skip
  "mar": Kind(
    BETWEEN,
    "vectors",
    "random sets",
    "diffusion",
    "steps, <= L, each with those of the head",
  ),  # fmt: skip
  "elm": Kind(
    CODES, "codes as groups of bits", ONE, "categorical by part", "L"
  ),
  "token_shuffle": Kind(
    CODES, "windows of k codes", ONE, "k categorical laws", "L / k"
  ),
  "nar": Kind(
    CODES, "codes of one map", "fronts of a grid", "categorical", "2 side - 1"
  ),
  "dd1": Kind(
    CODES,
    "codes of one map",
    "all at once, by distillation",
    "categorical",
    "1 or 2",
  ),  # fmt: skip
  "flowar": Kind(SCALES, "maps of vectors", "coarse to fine", "flow", "maps"),
  "flexvar": Kind(
    SCALES,
    "maps of codes, no residuals",
    "coarse to fine",
    "categorical",
    "maps",
  ),  # fmt: skip
  "nfig": Kind(
    SCALES,
    "bands of frequencies as codes",
    "low to high",
    "categorical",
    "bands",
  ),  # fmt: skip
  "speakervid": Kind(
    BETWEEN,
    "vectors of frames, and codes of speech",
    "chunks; speech at once, then sets of a frame",
    "categorical; diffusion",
    "1 + passes a chunk",
  ),  # fmt: skip
  "arflow": Kind(
    BETWEEN,
    "a whole image",
    "images of a chain, times of noise",
    "flow",
    "times",
  ),  # fmt: skip
  "transition_matching": Kind(
    BETWEEN,
    "states of a process",
    "states; raster inside (ARTM, FHTM)",
    "flow",
    "transitions, of L units each (ARTM, FHTM)",
  ),  # fmt: skip
}
# Of texts or sounds and no images, although of these families.
TEXTS = ("mtp_gated_lora", "retro", "sequencematch", "clear")


def kind(name: str, family: str) -> Kind | None:
  """Of a system; None of one that makes no images of its own."""
  return None if name in TEXTS else SYSTEMS.get(name, FAMILIES.get(family))


def page(
  found: dict[str, list[dict[str, str]]], record: dict[str, Any] | None
) -> str:
  """The page.

  Args:
    found: family -> rows of its systems, see `catalog.rows`.
    record: of `experiments.comparisons.taxonomy`; None before there is one.
  """
  rows = {name: [] for name in CLASSES}
  for family, own in found.items():
    for row in own:
      name = row["system"].split("`")[1]
      if entry := kind(name, family):
        rows[entry.of].append(
          {
            "system": row["system"],
            "representation": entry.units,
            "order": entry.order,
            "law of a unit": entry.law,
            "forwards": entry.forwards,
          }
        )
  parts = [HEAD]
  for name, members in CLASSES.items():
    parts.append(f"## {name[0].upper()}{name[1:]}\n\nIn the survey: {members}.")
    parts.append(table(rows[name]))
  if record:
    parts.append(MEASURED.strip())
    parts += [table(rows) for rows in record["tables"].values()]
    parts.append(record["ours"][0].upper() + record["ours"][1:] + ".")
  return "\n\n".join(part.strip("\n") for part in parts) + "\n"
