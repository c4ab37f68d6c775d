"""The scale-wise family side by side.

  python -m experiments.comparisons.scale_family [FOLDER] [KIND...]
    [--steps=N] [--seeds=N] [--short]

VAR, FlexVAR, HMAR, M-VAR and NFIG with equal sizes, steps and batches on
Fashion-MNIST, or on the kinds that are named, of `scales.KINDS`: what they are
worth, what a draw takes and what an update takes. A kind of emoji is followed
by = and the folder of the npm package. One kind alone is recorded under its
name. A trial (--short) is of digits.

Nats per unit can be compared where the tokenizer is the same: FlexVAR and NFIG
have their own, and FlexVAR's lists hold more units. Memory is what XLA plans
for a program beside its arguments.
"""

from __future__ import annotations

import time

import numpy as np

from ar_jax import main
from configs import flexvar, hmar, m_var, nfig, var
from experiments.benchmarks import attention_share
from experiments.shared import pictures, record, scales
from experiments.shared.arms import Results
from experiments.shared.scales import Arm

# Another system of the family is one line.
FAMILY = (
  Arm("VAR", var),
  Arm("FlexVAR", flexvar),
  Arm("HMAR", hmar, "refinement"),
  Arm("M-VAR", m_var),
  Arm("NFIG", nfig),
)


def ratios(found: Results) -> list[dict]:
  """Each system over VAR, medians of the seeds' own ratios."""
  rows = []
  for name, own in found.runs.items():
    pairs = list(zip(found.runs["VAR"], own, strict=True))
    over = lambda key, pairs=pairs: float(
      np.median([a[key] / b[key] for a, b in pairs])
    )
    rows.append(
      {
        "system": name,
        "training, times as fast": over("update"),
        "sampling, times as fast": over("draw"),
        "training, times less memory": over("update MiB"),
        "sampling, times less memory": over("draw MiB"),
        "Frechet distance, times lower": over("frechet"),
      }
    )
  return rows


def run() -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  s = scales.settings("scales", several=True)
  tables, sheets, text = {}, {}, ""
  for word in s.words:
    kind = scales.kind_of(word)
    rows, found, dataset = scales.compare(FAMILY, word, s)
    sheets[kind] = scales.samples(found), dataset.class_names
    against = ratios(found)
    tables[f"{scales.KINDS[kind]}, mean ± deviation over seeds"] = rows
    tables[f"{scales.KINDS[kind]}, over VAR"] = against
    text += f"{kind}: " + ", ".join(
      f"{r['system']} {r['training, times as fast']:.2f}x in training and "
      f"{r['sampling, times as fast']:.2f}x in sampling"
      for r in against[1:]
    )
    text += "; "
  layer = attention_share.run(*(1, (256,)) if s.short else (5,))
  tables |= layer
  first = next(iter(sheets))
  over = tables[f"{scales.KINDS[first]}, over VAR"]
  fast = next(r for r in over if r["system"] == "HMAR")
  rows = next(iter(layer.values()))
  share = [r["with backward, over dense"] for r in rows if r["mask"] == "HMAR"]
  print(text, share, flush=True)
  if s.short:
    return
  shown = {
    k: pictures.save(f"scale_family_{k}", *own) for k, own in sheets.items()
  }
  end_to_end = (
    fast["training, times as fast"] > 2.5
    and fast["sampling, times as fast"] > 1.75
  )
  record.write(
    "scale_family" if len(sheets) > 1 else f"scale_family_{first}",
    claim="On equal budgets the kin of VAR train and draw faster than it does, "
    "in less memory, at no loss of quality.",
    paper="HMAR over VAR: more than 2.5x in training, 1.75x in sampling, 3x "
    "less memory; NFIG (d16) 1.25x over VAR-d20",
    baseline="VAR of equal sizes and steps",
    ours=text
    + "attention alone of HMAR over dense, forward and backward: "
    + ", ".join(f"{x:.2f}x" for x in share)
    + " at L = 680, 2240, 9451",
    holds=end_to_end
    or "not end to end at these lengths, where attention is a small part of an "
    "update; its share shows where the ratios come from",
    seeds=list(s.seeds),
    seconds=time.perf_counter() - begun,
    tables=tables,
    picture=shown[first],
  )


if __name__ == "__main__":
  run()
