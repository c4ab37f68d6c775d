"""Sampling speed of VAR-d16 at full size, tokenizer decode included.

  python -m experiments.benchmarks.sampling [batch] [repeats] [official]
    [official_decoder] [--short]

256 pixels, float32, guidance at every scale, top-k 900, top-p 0.96: the form
in which the official code is usually timed; and the tokenizer's decoder alone.
Beside it stands the bound that the arithmetic sets: all products of the stack
and all convolutions of the decoder at the rate of one large product.
`official`, `official_decoder`: images/s of the official code, timed by whoever
has it, in turns with this program.
"""

from __future__ import annotations

import statistics
import time

import jax
import numpy as np

from ar_jax import main, step
from experiments.shared import arms, full_size, record

OPTIONS = dict(guidance=2.5, top_k=900, top_p=0.96)


def run(
  batch: int = 2,
  repeats: int = 5,
  official: float = 0.11,
  official_decoder: float = 0.25,
) -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  system = full_size.var()
  variables = full_size.random_variables(system)
  labels = np.arange(batch, dtype=np.int32)
  traces = step.jit_draw._cache_size()
  key = jax.random.key(0)

  def sample():
    return step.draw(
      system, variables, {"label": labels}, key, batch=batch, options=OPTIONS
    )

  first, rest = full_size.timed(sample, repeats)
  rates = [batch / s for s in rest]
  median = statistics.median(rates)
  units = np.zeros((batch, full_size.LENGTH), np.int32)
  decode = jax.jit(system.decode)
  first_decoded, decoded = full_size.timed(
    lambda: decode(variables, units), repeats
  )
  decoder = batch / statistics.median(decoded)
  arithmetic = decode.lower(variables, units).cost_analysis()["flops"]
  flops = full_size.stack_flops(system, 2 * batch) + arithmetic
  bound = batch * full_size.matmul_rate() / flops
  record.write(
    "bench_sampling",
    claim="VAR-d16 samples 256-pixel images faster than the official PyTorch "
    "code on the same two cores (aim: 1.5x).",
    paper="not stated for CPUs",
    baseline=f"{official:.3f} images/s, its decoder {official_decoder:.3f} "
    "(PyTorch, float32, 2 threads)",
    ours=f"{median:.3f} images/s (median of {repeats}; {min(rates):.3f} to "
    f"{max(rates):.3f}), {median / official:.2f}x; its decoder "
    f"{decoder:.3f}, {decoder / official_decoder:.2f}x",
    holds=arms.said(
      {
        "faster": median > official,
        "its decoder faster": decoder > official_decoder,
        "1.5x": median >= 1.5 * official,
      },
      f"at the rate of one large product it would be {bound / official:.2f}x",
    ),
    seeds=[0],
    seconds=time.perf_counter() - begun,
    tables={
      "Sampling": [
        {
          "batch": batch,
          "images/s": median,
          "bound by arithmetic": bound,
          "TFLOP per batch": flops / 1e12,
          "seconds per batch": statistics.median(rest),
          "first call, s": first,
          "traces": step.jit_draw._cache_size() - traces,
          "peak memory, GiB": record.peak_memory(),
        }
      ],
      "Its decoder": [
        {
          "batch": batch,
          "images/s": decoder,
          "bound by arithmetic": batch * full_size.matmul_rate() / arithmetic,
          "TFLOP per batch": arithmetic / 1e12,
          "seconds per batch": statistics.median(decoded),
          "first call, s": first_decoded,
        }
      ],
    },
    options={k: str(v) for k, v in OPTIONS.items()},
  )


if __name__ == "__main__":
  run(*record.numbers(1, 1))
