"""Speed on a device: the kernels beside other forms, and whole programs.

The share of the roofline is that of `ar_jax.planning`: the time in which the
products, or the bytes that the compiled program moves, could be done at the
rates of the data sheet, whichever is longer, over the time that was taken.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax import optim, step
from ar_jax.core.system import System
from ar_jax.planning import flops, machines, work
from experiments.shared import full_size
from experiments.shared.device_checks import Here
from experiments.shared.device_draws import on_device, small
from experiments.shared.device_run import Item, Refused, Row
from pallas_kernels.nearest_code import bench as code_bench
from pallas_kernels.nearest_code import shapes as code_shapes
from pallas_kernels.sparse_attention import bench as attention_bench
from pallas_kernels.sparse_attention import shapes as attention_shapes
from pallas_kernels.spec_verify import bench as verify_bench
from pallas_kernels.spec_verify import shapes as verify_shapes

# Which come first; what else is named follows while there is time.
FIRST = {
  "attention": ("var_256", "hmar_256", "xar_b", "decode_scale", "wide_512",
                "sdar_4b", "var_1024", "decode_tree"),
  "verify": ("llamagen", "point", "gumbel", "var", "chameleon"),
  "nearest": ("var_last_scale", "llamagen", "odd"),
}  # fmt: skip

# Names of devices begin like this -> of `machines.MACHINES`.
KINDS = {
  "NVIDIA H100": "h100",
  "NVIDIA H200": "h200",
  "TPU v5 lite": "v5e",
  "TPU v5": "v5p",
  "TPU v6 lite": "v6e",
  "cpu": "cpu",
}


def _in_order(first: tuple[str, ...], names) -> list[str]:
  return [*(n for n in first if n in names),
          *(n for n in names if n not in first)]  # fmt: skip


def _rows(part: str, names, row: Callable[[str], Row]) -> list[Item]:
  build_of = lambda name: lambda: functools.partial(row, name)
  return [Item(part, name, build_of(name)) for name in names]


def kernels(here: Here) -> dict[str, list[Item]]:
  """Part -> its items; interpreted kernels are not timed."""
  names = {
    "attention": list(attention_shapes.cases(here.kernels)),
    "verify": list(verify_shapes.SHAPES),
    "nearest": list(code_shapes.SHAPES),
  }
  row = {
    "attention": lambda name: attention_bench.row(
      name, attention_shapes.shapes()[name], 7
    ),
    "verify": verify_bench.row,
    "nearest": code_bench.row,
  }
  found = {}
  for part, all_names in names.items():
    ordered = _in_order(FIRST[part], all_names)
    one = _refused if here.interpret else row[part]
    ordered = ordered[:1] if here.interpret else ordered
    found[part] = _rows(f"{part} speed", ordered, one)
  return found


def _refused(name: str) -> Row:
  raise Refused("an interpreted kernel has no speed")


def roofline(traced, compiled, seconds: float) -> Row:
  """Columns: what a program does, and the share of the roofline reached."""
  kind = jax.devices()[0].device_kind
  name = next((m for k, m in KINDS.items() if kind.startswith(k)), None)
  asked = flops.count(traced.jaxpr)
  row = {"TFLOP": asked.flops / 1e12, "TFLOP/s": asked.flops / seconds / 1e12}
  empty = dict.fromkeys(("share of peak", "bound, ms", "bound by",
                         "share of the roofline"))  # fmt: skip
  if name is None:
    return row | empty
  machine = machines.MACHINES[name]
  done = work.of_program(compiled.as_text(), kernels=asked.kernels)
  least = {
    "products": sum(n / machine.rates[k] for k, n in done.products.items()),
    "memory": done.bytes / machine.memory_rate,
  }
  by = max(least, key=least.get)
  return row | {
    "share of peak": asked.flops / seconds / machine.rates["bf16"],
    "bound, ms": 1e3 * least[by],
    "bound by": by,
    "share of the roofline": least[by] / seconds,
  }


def _report(traced, run: Callable, batch: int, repeats: int, **more) -> Row:
  compiled = traced.lower().compile()
  _, seconds = full_size.timed(functools.partial(run, compiled), repeats)
  median = statistics.median(seconds)
  return {
    "batch": batch,
    "ms": 1e3 * median,
    "fastest, ms": 1e3 * min(seconds),
    "slowest, ms": 1e3 * max(seconds),
    "images/s": batch / median,
    **more,
    **roofline(traced, compiled, median),
  }


def _system(here: Here, name: str, impl: str | None = None) -> System:
  if here.interpret:
    return small(name)
  if name == "var":
    return full_size.var(dtype="bfloat16", impl=impl)
  return full_size.llamagen(dtype="bfloat16")


def _sampling(here: Here, name: str, batch: int, **options) -> Row:
  system = _system(here, name)
  batch = 1 if here.interpret else batch
  variables = on_device(system)
  label = {"label": np.arange(batch, dtype=np.int32)}
  keys = jax.random.split(jax.random.key(0), batch)
  static = tuple(sorted(options.items()))
  traced = step.jit_draw.trace(system, variables, label, keys, static)
  run = lambda compiled: compiled(variables, label, keys)
  units = len(system.plan)
  return _report(traced, run, batch, 1 if here.interpret else 5, units=units)


def _training(here: Here, batch: int, impl: str | None) -> Row:
  system = _system(here, "var", impl)
  batch = 1 if here.interpret else batch
  variables = on_device(system)
  tx = optim.make({"lr": 1e-4, "weight_decay": 0.05, "clip": 2.0}, 100)
  zero = jnp.zeros((), jnp.int32)
  state = [step.TrainState(zero, variables, None, tx.init(variables["params"]))]
  length, rng = len(system.plan), np.random.default_rng(0)
  units = rng.integers(0, system.tokenizer.vocab, (batch, length), np.int32)
  given = {
    "units": units,
    "label": np.arange(batch, dtype=np.int32) % 10,
    "index": np.arange(batch, dtype=np.int32),
  }
  key = jax.random.key(0)
  traced = step.jit_step.trace(system, tx, step.Options(), state[0], given, key)

  def run(compiled):
    state[0], metrics = compiled(state[0], given, key)
    return metrics

  repeats = 1 if here.interpret else 5
  return _report(traced, run, batch, repeats, units=length)


def programs(here: Here) -> list[Item]:
  """Sampling and training in bfloat16, as a person runs them."""
  var, llamagen = "VAR-d16", "LlamaGen-B"
  if here.interpret:
    var, llamagen = "VAR, smoke", "LlamaGen, smoke"
  cut = {} if here.interpret else {"top_k": 900, "top_p": 0.96}
  cases = {
    f"{llamagen}, sampling": lambda: _sampling(
      here, "llamagen", 32, guidance=2.0, **({"top_k": 2000} if cut else {})
    ),
    f"{var}, sampling": lambda: _sampling(here, "var", 32, guidance=2.5, **cut),
    f"{var}, an update": lambda: _training(here, 32, None),
  }
  if not here.interpret:
    cases[f"{var}, an update, with the kernel"] = lambda: _training(
      here, 32, "pallas"
    )
  return [
    Item("programs", name, functools.partial(lambda f: f, run), patience=300)
    for name, run in cases.items()
  ]
