"""What AR-Net claims and two cores can check (arXiv 1911.12436).

  python -m experiments.ar_net [FOLDER] [--steps=EPOCHS] [--seeds=N] [--short]

An autoregressive model, fitted by gradients under a penalty of its weights:

(a) finds the lags that matter among many: a process of the lags 1, 3 and 10,
    10,000 values, 100 lags read; the error of the coefficients (sTPE) is 6 at
    most where least squares has about 30, and test errors are no larger; the
    same for 1,000 values and 20 lags, as the paper has it;
(b) forecasts real series better than least squares of the same order (the
    sunspots of each year, at least 5 % below it) or as well with few of the
    lags (the weekly carbon dioxide: at most 1 % above it with under 60 % of
    them, the year among the largest). Least squares of an order that was chosen
    on the test, AR(9), stands beside it;
(c) costs in proportion to the order, where least squares by its normal
    equations grows with the square.
"""

from __future__ import annotations

import functools
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax import data, main, step
from ar_jax.core.system import build
from ar_jax.data.series import processes
from ar_jax.evals.series import errors
from experiments.shared import arms, measures, record, series

LAGS = (1, 3, 10)
LARGE = dict(count=10_000, history=100)
SMALL = dict(count=1000, history=20)
# Arm -> arguments of the model; density is the true one of the process.
PENALTY = dict(factor=0.03, c1=2.0, c2=2.0)
SMALL_ARMS = {
  "AR-Net, c = 0.1": dict(factor=0.1, c1=2.0, c2=2.0),
  "AR-Net, c = 0.01 (paper)": dict(factor=0.01, c1=2.0, c2=2.0),
  "AR-Net, no penalty": dict(factor=0.0),
}
# Name -> order, share of lags, epochs, batch, rate, orders of least squares.
REAL = {
  "sunspots": (40, 3 / 40, 800, 32, 2e-3, (2, 9, 40)),
  "co2": (120, 6 / 120, 200, 64, 2e-3, (2, 9, 120)),
}
ORDERS, TURNS = (100, 400, 1600), 15


def whole(rows) -> np.ndarray:
  return np.concatenate([rows["history"], rows["series"]], 1)


def trained(rows, seed: int, *, epochs: int, size: int, rate: float, **model):
  """(system, variables)."""
  order = rows["history"].shape[1]
  system = build("ar_net", order=order, **model)
  tx = _adam(rate, series.updates(rows, size, epochs))
  found = series.fit(system, tx, rows, size=size, epochs=epochs, seed=seed)
  return system, found


_adam = functools.cache(series.adam)


def mean_square(found, rows) -> float:
  return float(np.square(np.asarray(found, float) - rows["series"]).mean())


def recovery(options: dict, own: dict[str, dict], s: arms.Settings, epochs):
  """name -> figures of each seed, and the coefficients of the first."""
  found, first = {}, {}
  for seed in s.seeds:
    dataset = data.load("ar_process", lags=LAGS, seed=seed, **options)
    rows, test = series.rows(dataset.train), series.rows(dataset.test)
    true = rows["coefficients"][0]
    base = errors.LeastSquares(whole(rows), options["history"], 1)
    forecasts = {
      "true coefficients": (
        true,
        test["history"][:, ::-1][:, : len(true), 0] @ true,
      ),
      "least squares": (
        base.coefficients,
        base.one_step(whole(test), 1)[:, 0, 0],
      ),
    }
    for name, model in own.items():
      density = len(LAGS) / options["history"]
      system, variables = trained(
        rows, seed, epochs=epochs, size=128, rate=5e-3, density=density, **model
      )
      forecasts[name] = (
        np.asarray(system.coefficients(variables)),
        np.asarray(system.predict(variables, test))[:, 0, 0],
      )
    for name, (weights, forecast) in forecasts.items():
      run = {
        "stpe": errors.stpe(weights, true),
        "lags": float((np.abs(weights) > 0.01).sum()),
        "mse": mean_square(forecast[:, None, None], test),
      }
      found.setdefault(name, []).append(run)
      first.setdefault(name, weights)
      print(seed, name, run, flush=True)
  return arms.Results(found, {}), first


def real(name: str, s: arms.Settings):
  """The same for a measured series; only the network differs by the seed."""
  order, density, epochs, size, rate, orders = REAL[name]
  dataset = data.load(name, history=order, length=1)
  rows, test = series.rows(dataset.train), series.rows(dataset.test)
  fixed = {"persistence": {"mse": mean_square(test["history"][:, -1:], test)}}
  for p in orders:
    # All values of the training part that have p before them.
    base = errors.least_squares(data.load(name, history=p, length=1), p)
    mse = mean_square(base.one_step(whole(test), 1), test)
    fixed[f"least squares, AR({p})"] = {"mse": mse}
  found = {k: [v] * len(s.seeds) for k, v in fixed.items()}
  weights = []
  for seed in s.seeds:
    system, variables = trained(
      rows, seed, epochs=s.fewer(epochs, 2), size=size, rate=rate,
      density=density, factor=0.02,
    )  # fmt: skip
    w = np.asarray(system.coefficients(variables))
    top = np.argsort(-np.abs(w))[:6] + 1
    run = {
      "mse": mean_square(system.predict(variables, test), test),
      "lags": float((np.abs(w) > 0.02).sum()),
      "top": [int(x) for x in top],
    }
    found.setdefault(f"AR-Net, p = {order}", []).append(run)
    weights.append(w)
    print(name, seed, run, flush=True)
  return arms.Results(found, {}), weights[0]


@jax.jit
def normal_equations(x, y):
  return jnp.linalg.solve(x.T @ x, x.T @ y)


@functools.partial(jax.jit, static_argnums=(0, 1, 5))
def epoch(system, tx, state, values, key, count: int):
  """The state after one pass over so many windows, cut out of the series
  f32[count + p] as they are read: the update of mode train, in a loop."""
  cut = lambda i: jax.lax.dynamic_slice(values, (i,), (system.order + 1,))

  def update(state, at):
    part = jax.vmap(cut)(at)[..., None]
    part = {"history": part[:, :-1], "series": part[:, -1:]}
    return step.train_step(system, tx, series.OPTIONS, state, part, key)[
      0
    ], None

  order = jax.random.permutation(key, count)[: count // 128 * 128]
  return jax.lax.scan(update, state, order.reshape(-1, 128))[0]


def speeds(s: arms.Settings) -> list[dict]:
  """Seconds of an epoch and of least squares, the least of several, taken in
  turns."""
  calls, count = {}, s.fewer(8000, 800)
  for order in ORDERS:
    rng = np.random.default_rng(0)
    weights = processes.placed((0.2, 0.3, -0.5), LAGS)
    values = processes.simulated(weights, count + order, 1.0, rng)
    values = jnp.asarray(values, jnp.float32)
    system, tx = build("ar_net", order=order), _adam(1e-3, 1000)
    example = {"history": jnp.zeros((1, order, 1))}
    state = step.init_state(
      system, tx, series.OPTIONS, jax.random.key(0), example
    )
    calls[order, "AR-Net"] = functools.partial(
      epoch, system, tx, state, values, jax.random.key(0), count
    )
    x = values[np.arange(count)[:, None] + np.arange(order)]
    calls[order, "least squares"] = functools.partial(
      normal_equations, x, values[order:]
    )
  times = measures.in_turns(calls, s.fewer(TURNS, 2))
  best = {k: min(v) for k, v in times.items()}
  return [
    {
      "p": order,
      "AR-Net, an epoch": best[order, "AR-Net"],
      "least squares": best[order, "least squares"],
    }
    for order in ORDERS
  ]


def exponent(rows: list[dict], key: str, few: int = 1, many: int = 2) -> float:
  """Of the growth of the seconds with p, between two rows."""
  ratio = rows[many][key] / rows[few][key]
  return float(np.log(ratio) / np.log(rows[many]["p"] / rows[few]["p"]))


def plot(first: dict, reals: dict, times: list, path: pathlib.Path) -> None:
  import matplotlib

  matplotlib.use("Agg")
  import matplotlib.pyplot as plt

  figure, axes = plt.subplots(2, 2, figsize=(10, 7), constrained_layout=True)
  axes = axes.ravel()
  for name, mark in (
    ("least squares", "x"), ("AR-Net", "o"), ("true coefficients", "_")
  ):  # fmt: skip
    w = first[name]
    axes[0].plot(np.arange(1, len(w) + 1), w, mark, label=name, alpha=0.8)
  axes[0].set(title="process of lags 1, 3, 10; 100 read", xlabel="lag")
  axes[0].legend()
  for panel, (name, w) in zip(axes[1:3], reals.items(), strict=True):
    panel.stem(np.arange(1, len(w) + 1), w, basefmt=" ", markerfmt=".")
    panel.set(title=f"AR-Net on {name}", xlabel="lag", ylabel="weight")
  for name in ("AR-Net, an epoch", "least squares"):
    axes[3].plot([r["p"] for r in times], [r[name] for r in times], "o-",
                 label=name)  # fmt: skip
  axes[3].set(xscale="log", yscale="log", xlabel="p", ylabel="seconds")
  axes[3].legend()
  figure.savefig(path, dpi=110)


def run() -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  s = arms.settings("ar_net", steps=40)
  large, first = recovery(
    LARGE, {"AR-Net": PENALTY, "AR-Net, no penalty": dict(factor=0.0)}, s,
    s.steps,
  )  # fmt: skip
  small, _ = recovery(SMALL, SMALL_ARMS, s, s.fewer(300, 2))
  measured = {name: real(name, s) for name in REAL}
  times = speeds(s)
  sun, sun_base = measured["sunspots"][0], "least squares, AR(40)"
  co2, co2_base = measured["co2"][0], "least squares, AR(120)"
  sun_own, co2_own = "AR-Net, p = 40", "AR-Net, p = 120"
  gain = 1 - sun.mean(sun_own, "mse") / sun.mean(sun_base, "mse")
  close = co2.mean(co2_own, "mse") / co2.mean(co2_base, "mse")
  year = [
    any(50 <= lag <= 56 for lag in top) for top in co2.every(co2_own, "top")
  ]
  linear = times[2]["AR-Net, an epoch"] / times[0]["AR-Net, an epoch"]
  slopes = [
    exponent(times, key) for key in ("AR-Net, an epoch", "least squares")
  ]
  held = {
    "(a) sTPE at most 6 among 100 lags": max(large.every("AR-Net", "stpe"))
    <= 6,
    "(a) test errors no larger": large.mean("AR-Net", "mse")
    <= large.mean("least squares", "mse"),
    "(a) sTPE at most 10 of 1,000 values": small.mean("AR-Net, c = 0.1", "stpe")
    <= 10,
    "(b) sunspots, 5 % below least squares": gain >= 0.05,
    "(b) carbon dioxide, within 1 % with few lags": close <= 1.01
    and max(co2.every(co2_own, "lags")) < 0.6 * 120
    and all(year),
    "(c) linear in p": linear <= 16 * 1.3
    and slopes[0] <= 1.2
    and slopes[1] >= 1.6,
  }
  ours = (
    f"(a) sTPE {arms.mean_spread(large.every('AR-Net', 'stpe'))} against "
    f"{arms.mean_spread(large.every('least squares', 'stpe'))}, test errors "
    f"{large.mean('AR-Net', 'mse'):.4f} against "
    f"{large.mean('least squares', 'mse'):.4f}; of 1,000 values "
    f"{arms.mean_spread(small.every('AR-Net, c = 0.1', 'stpe'))} against "
    f"{arms.mean_spread(small.every('least squares', 'stpe'))}; (b) sunspots "
    f"{100 * gain:.1f} % below AR(40), AR(9) is better still "
    f"({sun.mean('least squares, AR(9)', 'mse'):.3f} against "
    f"{sun.mean(sun_own, 'mse'):.3f}); carbon dioxide {close:.3f} times "
    f"AR(120), with {co2.mean(co2_own, 'lags'):.0f} of 120 lags; (c) seconds "
    f"grow as p^{slopes[0]:.2f} against p^{slopes[1]:.2f}"
  )
  print(ours, held, flush=True)
  if s.short:
    return
  plot(
    first,
    {name: w for name, (_, w) in measured.items()},
    times,
    record.RESULTS / "ar_net.png",
  )
  columns = {"sTPE": ("stpe", 1), "weights above 0.01": ("lags", 1)}
  columns["test error"] = "mse", 4
  tops = {
    name: {k: r[0].get("top", "") for k, r in found.runs.items()}
    for name, (found, _) in measured.items()
  }
  record.write(
    "ar_net",
    claim="(a) The penalty finds the few lags that matter among many; (b) real "
    "series are forecast better than by least squares of the same order, or as "
    "well with few lags; (c) the cost is linear in the order.",
    paper="sTPE 3.2 against 18.3 of least squares (1,000 values, 20 lags), "
    "equal test errors; time linear in p, against quadratic",
    baseline="least squares with an intercept; of real series persistence and "
    "least squares of small orders, too",
    ours=ours,
    holds=arms.said(held),
    seeds=list(s.seeds),
    seconds=time.perf_counter() - begun,
    tables={
      "Lags 1, 3, 10 of a process, 10,000 values, 100 lags read, "
      f"{s.steps} epochs, mean ± deviation over seeds": large.table(columns),
      "The same process, 1,000 values, 20 lags read, 300 epochs": small.table(
        columns
      ),
      **{
        f"{name}: test error of one step, standardised": found.table(
          {"test error": ("mse", 3)},
          "forecast by",
          **{"largest lags": tops[name]},
        )
        for name, (found, _) in measured.items()
      },
      f"Seconds, the least of {TURNS}, 8,000 windows": times,
    },
    picture="ar_net.png",
    note="Of the paper's 3.2 for 1,000 values nothing was reproduced with its "
    "own strength (c = 0.01). Who knows that AR(9) suits the sunspots does "
    "better with it; AR-Net was not told.",
  )


if __name__ == "__main__":
  run()
