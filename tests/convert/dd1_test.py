"""Published students of DD1: there and back, and the same outputs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.convert import dd1 as convert
from ar_jax.convert import llamagen, var
from ar_jax.core.system import UserError, build
from tests import golden_weights, optimised

LABELS = {"label": jnp.array([3, 7])}
KEYS = jax.random.split(jax.random.key(0), 2)


def _teachers(description):
  """The teacher's state; its names are hashed with `teacher.` before them."""
  shapes = description["teacher_state_dict"]
  return {
    key: golden_weights.weight(f"teacher.{key}", tuple(shape))
    for key, shape in shapes.items()
  }


@functools.cache
def golden(kind):
  """(config, arrays, state, system, variables)."""
  description, arrays = golden_weights.load(f"dd1_{kind}")
  own, state = description["config"], golden_weights.weights(description)
  its = _teachers(description)
  if kind == "var":
    scales, heads = tuple(own["patch_nums"]), own["num_heads"]
    model = var.config(its, scales, heads)["model"]
    model["tokenizer"] |= dict(ch=32, mult=(1, 1), blocks=1)
    codes = golden_weights.weights(description, "vae_state_dict")
    phi = "quantize.quant_resi.qresi_ls"
    kernels = [codes[f"{phi}.{i}.weight"] for i in range(4)]
    quantizer = {
      "codebook": codes["quantize.embedding.weight"],
      "phi_kernel": np.transpose(np.stack(kernels), (0, 3, 4, 2, 1)),
      "phi_bias": np.stack([codes[f"{phi}.{i}.bias"] for i in range(4)]),
    }
    params = var.to_ours(its, scales, heads)
    target = dict(name="var", **model)
    options = dict(scales=scales, heads=heads)
  else:
    heads = own["n_head"]
    model = llamagen.config(its, heads=heads)["model"]
    side = round(own["block_size"] ** 0.5)
    model["tokenizer"] |= dict(
      size=2 * side, channels=own["codebook_dim"], mult=(1, 1), ch=8, blocks=1
    )
    params = llamagen.to_ours(its, heads=heads)["params"]
    book = golden_weights.weight("quantize.embedding.weight", (48, 8))
    quantizer = {"codebook": book}
    target = dict(name="llamagen", **model)
    options = dict(heads=heads)
  system = build("dd1", target=target, starts=own["t_list"], split=own["split"])
  variables = {
    "params": convert.student(state, **options),
    "target": params,
    "tokenizer": {"quantizer": quantizer},
  }
  return own, arrays, state, system, variables


def _data(kind):
  name = "noise" if kind == "var" else "noise2"
  shape = (2, 30, 8) if kind == "var" else (2, 16, 8)
  noise = jnp.asarray(golden_weights.tensor(name, shape))
  return noise, jnp.asarray(golden_weights.tensor("data", shape))


class GoldenTest(parameterized.TestCase):
  @parameterized.parameters("var", "llamagen")
  def test_round_trip_is_exact(self, kind):
    _, _, state, _, variables = golden(kind)
    back = convert.to_official(variables)
    self.assertEqual(set(back), set(state))
    for key, array in state.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)

  @parameterized.parameters("var", "llamagen")
  def test_both_heads(self, kind):
    own, arrays, _, system, variables = golden(kind)
    noise, data = _data(kind)
    params = {"params": variables["params"]}
    run = jax.jit(functools.partial(system.student.apply, params))
    known = jnp.array([system.slots(own["t_list"][1]), 0])
    slot = jnp.arange(noise.shape[1])[None, :, None]
    mixed = jnp.where(slot < known[:, None, None], data, noise)
    for x, at, name in (
      (noise, jnp.zeros(2, jnp.int32), "t0"), (mixed, known, "mixed")
    ):  # fmt: skip
      logits, vectors = run(LABELS["label"], x, at)
      for got, what in ((logits, "logits"), (vectors, "tokens")):
        np.testing.assert_allclose(
          got, arrays[f"{what}_{name}"], rtol=1e-3, atol=1e-4, err_msg=name
        )

  @parameterized.parameters("var", "llamagen")
  def test_sampling_in_two_passes(self, kind):
    _, arrays, _, system, variables = golden(kind)
    noise, _ = _data(kind)

    @optimised.jit
    def every(variables):
      given = variables, LABELS, KEYS
      one, two = (
        system.generate(*given, noise=noise, passes=passes) for passes in (1, 2)
      )
      if kind != "var":
        return one, two, None
      codec = system.target.codec(variables)
      latent = codec.start(2)
      for s in range(system.plan.steps):
        part = two[:, system.plan.span(s)]
        latent, _ = codec.advance_soft(latent, s, part)
      return one, two, jnp.moveaxis(latent, -1, 1)

    one, two, latent = every(variables)
    for x, name in ((one, "x_step1"), (two, "x_step2")):
      np.testing.assert_allclose(x, arrays[name], rtol=1e-3, atol=2e-4)
    if kind == "var":
      np.testing.assert_allclose(latent, arrays["fhat"], rtol=1e-3, atol=5e-4)

  @parameterized.parameters("var", "llamagen")
  def test_the_teacher_goes_on(self, kind):
    own, arrays, _, system, variables = golden(kind)
    x = jnp.asarray(arrays["x_step1"])
    greedy = dict(temperature=0.0, guidance=own["teacher_cfg"])
    # VAR's guidance rises from none to one more than the published number.
    if kind == "var":
      greedy["guidance"] += 1
      cases = ((1, "teacher_indices"), (0, "teacher_indices_from0"))
      stop = own["teacher_range"][1]
    else:
      cases, stop = (
        ((own["teacher_start"], "teacher_tokens"),),
        own["t_list"][1],
      )
    released = kind == "var"
    for start, name in cases:
      new = optimised.jit(
        lambda variables, x, start=start: system.by_teacher(
          variables, LABELS, KEYS, x, start, stop, released, **greedy
        )
      )(variables, x)
      book = np.asarray(system.codebook(variables))
      part = np.asarray(new)[:, : arrays[name].shape[1]]
      gap = np.abs(part[:, :, None] - book[None, None]).sum(-1)
      first = system.slots(start)
      np.testing.assert_array_equal(
        gap.argmin(-1)[:, first:], arrays[name][:, first:]
      )
      self.assertLess(gap.min(-1)[:, first:].max(), 1e-5)

  def test_other_files(self):
    _, _, state, _, variables = golden("var")
    with self.assertRaisesRegex(UserError, "no n_d_embed.weight"):
      convert.config({})
    with self.assertRaisesRegex(UserError, "student of a var"):
      convert.join(state, variables, {"params": {}}, {"system": "llamagen"})
    less = {k: v for k, v in state.items() if k != "pos_start"}
    with self.assertRaisesRegex(UserError, "missing: pos_start"):
      convert.to_ours(less, scales=(1, 2, 3, 4), heads=2)
    target = {"params": variables["target"], "tokenizer": {}}
    model = {"depth": 3}
    both, config = convert.join(
      state, variables, target, {"system": "var", "model": model}
    )
    self.assertEqual(config["model"]["target"], {"name": "var", "depth": 3})
    self.assertEqual(set(both), {"params", "target", "tokenizer"})


if __name__ == "__main__":
  absltest.main()
