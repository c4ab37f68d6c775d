"""Mode eval: averaged weights -> every evaluator of the config -> one line."""

from __future__ import annotations

import pathlib
import time

import jax
import ml_collections

from ar_jax import data, evals, metrics, parallel, sample
from ar_jax.core import json_text, processes
from ar_jax.core.system import System, Vars

Config = ml_collections.ConfigDict


def evaluators(
  config: Config, dataset: data.Dataset, mesh: jax.sharding.Mesh
) -> dict:
  """name -> evaluator, as `config.evals` names them with their options.

  What draws samples draws them on all devices, and as `config.sample.options`
  says, unless the evaluator has options of its own.
  """
  built, draw = {}, sample.drawer(mesh)
  for name, options in config.evals.items():
    given = options.to_dict()
    kind = given.pop("kind", name)  # two entries may be of one kind
    sampling = config.sample.options.to_dict()
    built[name] = evals.build(
      kind, dataset, sampling=sampling, draw=draw, **given
    )
  return built


def evaluate(
  config: Config,
  built: dict,
  system: System,
  variables: Vars,
  dataset: data.Dataset,
  mesh: jax.sharding.Mesh,
) -> dict:
  """Runs the evaluators; a key is prefixed only where two would clash."""
  key = jax.random.key(config.seed)
  batch = parallel.rounded(mesh, config.eval_batch)
  rows = parallel.rows(mesh, batch)
  results: dict = {}
  for name, evaluator in built.items():
    batches = (
      parallel.put_batch(b, mesh)
      for b in data.epoch(dataset.test, batch=batch, rows=rows)
    )
    on_mesh = parallel.on(mesh, evaluator)
    for k, v in on_mesh(system, variables, batches, key).items():
      results[k if k not in results else f"{name}/{k}"] = v
  return results


def run(
  config: Config,
  workdir: str | pathlib.Path,
  out: str | pathlib.Path | None = None,
) -> dict:
  """Evaluates the run in `workdir`; appends one line to `eval.jsonl` in `out`.

  Returns:
    The line: the results with their protocol, the step and the seconds.
  """
  workdir = pathlib.Path(workdir)
  dataset = data.load(**config.data)
  system, variables, mesh, meta, _ = sample.load(workdir, config)
  out = metrics.make_folder(out or workdir)
  start = time.perf_counter()
  results = evaluate(
    config,
    evaluators(config, dataset, mesh),
    system,
    variables,
    dataset,
    mesh,
  )
  line = {
    "step": meta["step"],
    "weights": str(workdir),
    **results,
    "seconds": round(time.perf_counter() - start, 3),
  }
  if processes.leads():
    with (out / "eval.jsonl").open("a") as f:
      f.write(json_text.dumps(line) + "\n")
    print(json_text.dumps(line))
  return line
