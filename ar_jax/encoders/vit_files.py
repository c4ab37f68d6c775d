"""Published files of vision transformers, as parameters of `vit.Encoder`.

Five layouts are known by their keys: ViT and DINOv2 as transformers writes
them (up to version 4; 5 renames them), CLIP as transformers and as OpenAI and
OpenCLIP write it, and that of timm, which DINOv2's authors and the towers of
OpenCLIP (BioMedCLIP) share.

Shapes: D width, c channels, p side of a patch, G side of the table of places.
"""

from __future__ import annotations

import math
import re
from typing import Any

import jax
import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.encoders.vit import Encoder, encoder
from ar_jax.files import tables
from ar_jax.files.tables import (
  LINEAR,
  SAME,
  Layout,
  Params,
  Rule,
  State,
  affine,
  norm,
)


def _as_patches(kernel: np.ndarray) -> np.ndarray:
  """[p p c, D] of a convolution [D, c, p, p]."""
  return np.transpose(kernel, (2, 3, 1, 0)).reshape(-1, len(kernel))


def _as_convolution(kernel: np.ndarray) -> np.ndarray:
  side = math.isqrt(len(kernel) // 3)  # published ones read three channels
  kernel = kernel.reshape(side, side, 3, -1)
  return np.transpose(kernel, (3, 2, 0, 1))


AS_PATCHES = Layout(_as_patches, _as_convolution)
FIRST = Layout(lambda x: x[0], lambda x: x[None])
_ROWS = Layout(lambda x: x.reshape(-1, x.shape[-1]), lambda x: x[None])
_ROW = Layout(lambda x: x[None], lambda x: x[0])
_BLOCK = "stack/block"


def _attention(q: str, k: str, v: str, joint: str, out: str) -> tuple:
  """Rules of queries, keys and values, whose weights `fused` has joined."""
  biases = zip((q, k, v), "qkv", strict=True)
  return (
    Rule(f"{joint}.weight", f"{_BLOCK}/mixer/qkv/kernel", LINEAR),
    *(Rule(f"{b}.bias", f"{_BLOCK}/mixer/bias_{x}") for b, x in biases),
    *affine(out, f"{_BLOCK}/mixer/out", LINEAR),
  )


def _layer(start: str, names: dict[str, str]) -> tuple[Rule, ...]:
  """Rules of the MLP, the norms and, where there are any, the factors."""
  own = lambda name: f"{start}.{names[name]}"
  return (
    *affine(own("fc1"), f"{_BLOCK}/mlp/fc1", LINEAR),
    *affine(own("fc2"), f"{_BLOCK}/mlp/fc2", LINEAR),
    *norm(own("norm1"), f"{_BLOCK}/norm1"),
    *norm(own("norm2"), f"{_BLOCK}/norm2"),
    *(
      Rule(own(name), f"{_BLOCK}/scales_{i}/scale")
      for i, name in enumerate(("scale1", "scale2"))
      if name in names
    ),
  )


_HF = "encoder.layer.{i}"
_QKV = f"{_HF}.attention.attention"
_TRANSFORMERS = (
  Rule("embeddings.cls_token", "token", FIRST),
  Rule("embeddings.register_tokens", "others", FIRST),
  Rule("embeddings.position_embeddings", "places", FIRST),
  Rule(
    "embeddings.patch_embeddings.projection.weight", "embed/kernel", AS_PATCHES
  ),
  Rule("embeddings.patch_embeddings.projection.bias", "embed/bias"),
  *_attention(
    f"{_QKV}.query",
    f"{_QKV}.key",
    f"{_QKV}.value",
    f"{_QKV}.querykeyvalue",
    f"{_HF}.attention.output.dense",
  ),
  *norm("layernorm", "norm"),
)
_DINO = {
  "norm1": "norm1",
  "norm2": "norm2",
  "fc1": "mlp.fc1",
  "fc2": "mlp.fc2",
  "scale1": "layer_scale1.lambda1",
  "scale2": "layer_scale2.lambda1",
}
_VIT = {"norm1": "layernorm_before", "norm2": "layernorm_after"}
_VIT |= {"fc1": "intermediate.dense", "fc2": "output.dense"}
_TIMM = _DINO | {"scale1": "ls1.gamma", "scale2": "ls2.gamma"}
_CLIP = _DINO | {"norm1": "layer_norm1", "norm2": "layer_norm2"}
_CLIP = {k: v for k, v in _CLIP.items() if not k.startswith("scale")}
_OPEN = {"norm1": "ln_1", "norm2": "ln_2"}
_OPEN |= {"fc1": "mlp.c_fc", "fc2": "mlp.c_proj"}
_T, _C, _O = "blocks.{i}", "encoder.layers.{i}", "transformer.resblocks.{i}"
_SELF = f"{_C}.self_attn"

TABLES: dict[str, tuple[Rule, ...]] = {
  "dinov2": (*_TRANSFORMERS, *_layer(_HF, _DINO)),
  "vit": (*_TRANSFORMERS, *_layer(_HF, _VIT)),
  "timm": (
    Rule("cls_token", "token", FIRST),
    Rule("register_tokens", "others", FIRST),
    Rule("pos_embed", "places", _ROWS),
    Rule("patch_embed.proj.weight", "embed/kernel", AS_PATCHES),
    Rule("patch_embed.proj.bias", "embed/bias"),
    *_attention(
      *(f"{_T}.attn.{x}" for x in ("q", "k", "v", "qkv")), f"{_T}.attn.proj"
    ),
    *_layer(_T, _TIMM),
    *norm("norm", "norm"),
    Rule("head.proj.weight", "project/kernel", LINEAR),
  ),
  "clip": (
    Rule("embeddings.class_embedding", "token", _ROW),
    Rule("embeddings.position_embedding.weight", "places"),
    Rule("embeddings.patch_embedding.weight", "embed/kernel", AS_PATCHES),
    *norm("pre_layrnorm", "before"),  # spelled so
    *_attention(
      *(f"{_SELF}.{x}_proj" for x in "qkv"),
      f"{_SELF}.q_projk_projv_proj",
      f"{_SELF}.out_proj",
    ),
    *_layer(_C, _CLIP),
    *norm("post_layernorm", "norm"),
    Rule("visual_projection.weight", "project/kernel", LINEAR),
  ),
  "openai": (
    Rule("class_embedding", "token", _ROW),
    Rule("positional_embedding", "places"),
    Rule("conv1.weight", "embed/kernel", AS_PATCHES),
    *norm("ln_pre", "before"),
    *_attention(
      *(f"{_O}.attn.{x}" for x in ("q", "k", "v", "qkv")),
      f"{_O}.attn.out_proj",
    ),
    *_layer(_O, _OPEN),
    *norm("ln_post", "norm"),
    Rule("proj", "project/kernel", SAME),
  ),
}

# What tells a layout, and what of its files is not of the encoder.
_KNOWN_BY = {
  "embeddings.patch_embedding.weight": "clip",
  "conv1.weight": "openai",
  "patch_embed.proj.weight": "timm",
  "encoder.layer.0.layer_scale1.lambda1": "dinov2",
  "encoder.layer.0.layernorm_before.weight": "vit",
}
_STARTS = ("vision_model.", "visual.trunk.", "visual.", "dinov2.", "vit.")
_STARTS += ("model.",)
IGNORE = (
  "embeddings.mask_token",
  "embeddings.position_ids",
  "mask_token",
  "pooler.dense.weight",
  "pooler.dense.bias",
  "classifier.weight",
  "classifier.bias",
  "head.weight",
  "head.bias",
)
# Pixels that CLIP was trained to see as 0 and 1.
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_DINO_MEAN, _DINO_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SPACE = ("visual_projection.weight", "visual.head.proj.weight")

# Heads by width; no file tells. They are 64 wide but in CLIP's largest.
HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1152: 16, 1280: 16, 1408: 16}
HEADS |= {1536: 24, 1664: 16}


def read(
  state: State, heads: int | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
  """(arguments of `vit.encoder`, its parameters) from the state of a file.

  Args:
    state: official key -> array, of the whole file: a tower of texts beside
      it is left out.
    heads: of attention; the published number for that width if None.

  Raises:
    UserError: no layout of these is in the file, or it is not whole.
  """
  layout, state = of_layout(state)
  arguments = described(layout, state, heads)
  like = shapes(encoder(**arguments))
  found = fused(layout, state)
  params = tables.to_ours(TABLES[layout], found, like, ignore=IGNORE)
  return arguments, params


def of_layout(state: State) -> tuple[str, dict[str, np.ndarray]]:
  """(layout, the keys of the encoder alone, without what stands before all).

  Raises:
    UserError: no layout is known by these keys.
  """
  for start in ("", *_STARTS):
    for key, layout in _KNOWN_BY.items():
      if start + key in state:
        own = {
          k.removeprefix(start): x
          for k, x in state.items()
          if k.startswith(start)
        }
        own = {k: x for k, x in own.items() if not _of_texts(k, start)}
        for space in _SPACE:
          if space in state:
            own[space.removeprefix("visual.")] = state[space]
        return layout, own
  raise UserError(
    "not a vision transformer that is known: its keys are those of none of "
    + ", ".join(TABLES)
  )


def _of_texts(key: str, start: str) -> bool:
  """Whether a key without a start is of another tower."""
  names = ("text_model.", "text.", "text_projection", "logit_scale")
  return not start and key.startswith(names)


def described(
  layout: str, state: State, heads: int | None = None
) -> dict[str, Any]:
  """The arguments of `vit.encoder`, as far as shapes and the layout tell.

  Raises:
    UserError: the heads are not known.
  """
  hollow = {r.ours: r for r in TABLES[layout]}
  got = lambda ours: state.get(hollow[ours].theirs)
  kernel, places = (state[hollow[k].theirs] for k in ("embed/kernel", "places"))
  token, clip = got("token") is not None, layout in ("clip", "openai")
  width, channels, patch, _ = kernel.shape
  heads = heads or HEADS.get(width)
  if heads is None or width % heads:
    raise UserError(
      f"how many heads has it? No file tells, and width {width} is no "
      "published one: say it with --heads=N"
    )
  first = hollow[f"{_BLOCK}/norm1/scale"].theirs.replace("{i}", r"(\d+)")
  depth = sum(re.fullmatch(first, key) is not None for key in state)
  found = dict(
    patch=patch,
    depth=depth,
    width=width,
    heads=heads,
    side=math.isqrt(places.reshape(-1, width).shape[0] - token),
    in_channels=channels,
    class_token=token,
    hidden=len(state[hollow[f"{_BLOCK}/mlp/fc1/bias"].theirs.format(i=0)]),
  )
  scale = hollow.get(f"{_BLOCK}/scales_0/scale")
  if scale is not None and scale.theirs.format(i=0) in state:
    found.update(layer_scale=1.0, mean=_DINO_MEAN, std=_DINO_STD)
  if "others" in hollow and got("others") is not None:
    found["registers"] = got("others").shape[1]
  if layout == "vit":
    found["eps"] = 1e-12
  if clip:
    found.update(style="clip", act="quick_gelu", eps=1e-5)
    found.update(mean=_CLIP_MEAN, std=_CLIP_STD)
  if "project/kernel" in hollow and got("project/kernel") is not None:
    space = got("project/kernel")
    found["projection"] = space.shape[1 if layout == "openai" else 0]
    found.update(mean=_CLIP_MEAN, std=_CLIP_STD)
  return found


def written(params: Params) -> str:
  """The layout in which transformers writes our parameters."""
  if "before" in params:
    return "clip"
  return "dinov2" if "scales_0" in params["stack"]["block"] else "vit"


def to_official(layout: str, params: Params) -> dict[str, np.ndarray]:
  """The state of our parameters, with the keys of a layout."""
  state = tables.to_official(TABLES[layout], params)
  return split(layout, state)


def shapes(module: Encoder) -> Any:
  """Shapes of the parameters of an encoder."""
  shape = 1, module.patch, module.patch, module.in_channels
  image = jax.ShapeDtypeStruct(shape, np.float32)
  return jax.eval_shape(module.init, jax.random.key(0), image)["params"]


_PARTS = {
  "dinov2": ("query", "key", "value"),
  "vit": ("query", "key", "value"),
  "clip": ("q_proj", "k_proj", "v_proj"),
}


def fused(layout: str, state: State) -> dict[str, np.ndarray]:
  """Queries, keys and values as in our layers: one matrix, three biases."""
  if layout in _PARTS:
    weights = {k: x for k, x in state.items() if k.endswith(".weight")}
    rest = {k: x for k, x in state.items() if k not in weights}
    return rest | tables.fuse(weights, _PARTS[layout])
  state = {_renamed(k, "in_proj_", "qkv."): x for k, x in state.items()}
  return tables.split_biases(state)


def split(layout: str, state: State) -> dict[str, np.ndarray]:
  """Undoes `fused`."""
  if layout in _PARTS:
    weights = {k: x for k, x in state.items() if k.endswith(".weight")}
    rest = {k: x for k, x in state.items() if k not in weights}
    return rest | tables.split(weights, _PARTS[layout])
  state = tables.fuse(state)
  if layout != "openai":
    return state
  return {_renamed(k, "qkv.", "in_proj_"): x for k, x in state.items()}


def _renamed(key: str, old: str, new: str) -> str:
  """`attn.in_proj_weight` is `attn.qkv.weight` elsewhere."""
  return key.replace(f".attn.{old}", f".attn.{new}")
