"""The largest batch and the best mesh, on machines made by rule."""

from unittest import mock

from absl.testing import absltest, parameterized

from ar_jax.core.system import UserError
from ar_jax.planning import figures, machines, search, show

STATE, MEMORY = 1000.0, 16000.0


def machine(each, fixed=0.0, found=True):
  """(compile_at, batches it was asked for): needs fixed + each * batch."""
  asked = []

  def compile_at(batch):
    asked.append(batch)
    needed = STATE + fixed + each * batch
    fits = needed <= MEMORY
    row = {"batch": batch, "fits": fits, "memory": MEMORY}
    row["state bytes"] = STATE
    if fits or found:
      row["needed"] = needed
    return row

  return compile_at, asked


class LargestTest(parameterized.TestCase):
  @parameterized.parameters(
    (10.0, 0.0, 8, 64),
    (10.0, 0.0, 8, 8192),
    (10.0, 3000.0, 8, 64),
    (0.37, 500.0, 256, 1024),
    (120.0, 0.0, 8, 8),
  )
  def test_close_in_few_compilations(self, each, fixed, unit, start):
    for found in (True, False):
      compile_at, asked = machine(each, fixed, found)
      found = search.largest(compile_at, compile_at(start), unit)
      true = int((MEMORY - STATE - fixed) // each)
      self.assertLessEqual(found["batch"], true)
      self.assertGreater(found["too large"], true)
      gap = found["too large"] - found["batch"]
      self.assertLessEqual(gap, max(unit, found["batch"] // 8))
      self.assertLessEqual(len(asked), 1 + search.COMPILES)
      self.assertTrue(all(batch % unit == 0 for batch in asked))
      self.assertLen(set(asked), len(asked))

  def test_nothing_fits(self):
    compile_at, asked = machine(20000.0)
    found = search.largest(compile_at, compile_at(8), 8)
    self.assertEqual((found["batch"], found["too large"]), (0, 8))
    self.assertLen(asked, 1)

  def test_few_compilations_tell_a_bracket(self):
    compile_at, _ = machine(10.0, found=False)
    found = search.largest(compile_at, compile_at(2**20), 8, compiles=2)
    self.assertEqual(found["batch"], 0)
    self.assertLess(found["too large"], 2**20)


class SweepTest(absltest.TestCase):
  def test_the_best_first(self):
    asked = []

    def compile_on(sizes, batch):
      if batch % sizes["data"]:
        raise UserError("does not divide")
      asked.append((sizes["data"], batch))
      fits = batch // sizes["data"] <= 4
      row = {"batch": batch, "fits": fits, "mesh": {}, "memory": 1.0}
      row["needed"] = 1.0
      return row | ({"examples/s": batch + sizes["data"]} if fits else {})

    rows = search.sweep(
      compile_on, [{"data": 8}, {"data": 2}, {"data": 3}], [32, 8, 64]
    )
    self.assertEqual(rows[0]["mesh"], {"data": 8})
    self.assertEqual(rows[0]["batch"], 32)
    # 16 a device do not fit, so that 32 are not tried.
    self.assertNotIn((2, 64), asked)
    self.assertEqual([r["fits"] for r in rows], [True] * 3 + [False] * 2)
    self.assertIn(
      "best: --config.batch=32 --config.mesh.data=8", show.sweep_table(rows)
    )

  def test_nothing_fits(self):
    row = {"batch": 1, "mesh": {"data": 1}, "fits": False, "note": "no"}
    self.assertIn("nothing fits", show.sweep_table([row]))


class MachinesTest(parameterized.TestCase):
  def test_the_table(self):
    for name, m in machines.MACHINES.items():
      with self.subTest(name):
        self.assertEqual(set(m.rates), {"bf16", "f32", "f32 in full"})
        self.assertGreaterEqual(m.rates["bf16"], m.rates["f32 in full"])
        self.assertGreater(m.memory, 2**30)
        self.assertGreater(m.memory_rate, m.link)
        self.assertGreaterEqual(m.link, m.node_link)
        self.assertNotEmpty(m.source)

  @parameterized.parameters(
    ("v7:4x4", "say KIND:SHAPE"),
    ("v5e", "say KIND:SHAPE"),
    ("h100:0", "say KIND:SHAPE"),
    ("v5e:4", "v5e has 2 sides, as in v5e:4x4"),
    ("v5p:4x4", "v5p has 3 sides, as in v5p:4x4x4"),
    ("h100:2x8", "h100 has 1 number, as in h100:8"),
  )
  def test_unknown(self, topology, message):
    with self.assertRaisesRegex(UserError, message) as caught:
      machines.devices(topology)
    self.assertNotIn("\n", str(caught.exception))

  def test_too_few_cpus(self):
    with self.assertRaisesRegex(UserError, "JAX_NUM_CPU_DEVICES=4096"):
      machines.devices("cpu:4096")

  @parameterized.parameters("v5e:4x4", "h100:8", "h200:16")
  def test_what_is_not_installed_is_said(self, topology):
    with (
      mock.patch.object(machines.aot, "missing", lambda _: "no libtpu: pip"),
      mock.patch.object(machines.aot_cuda, "missing", lambda: "no plugin: pip"),
      self.assertRaisesRegex(UserError, f"{topology}: no .*pip.*extra"),
    ):
      machines.devices(topology)


class RefusalTest(parameterized.TestCase):
  @parameterized.parameters(
    (
      "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, "
      "the total memory required for HLO temporaries (192.00G) exceeds "
      "available HBM (15.75G). HLO module: jit_f.\nSee more.",
      192.0,
    ),
    (
      "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 24.50G "
      "of 15.75G hbm. Exceeded hbm capacity by 8.75G.\n\nTotal hbm usage >= ",
      24.5,
    ),
  )
  def test_figures_of_a_refusal(self, message, used):
    found = figures._exhausted(message)
    self.assertEqual(found["needed"], used * 2**30)
    self.assertEqual(found["memory"], 15.75 * 2**30)
    self.assertNotIn("\n", found["note"])
    row = {"fits": False, **found}
    self.assertEqual(show.fits(row), f"NO: {used:.2f} GiB of 15.75 GiB")

  def test_a_refusal_without_figures(self):
    found = figures._exhausted("RESOURCE_EXHAUSTED: too much")
    self.assertNotIn("needed", found)
    self.assertIn("too much", show.fits({"fits": False, **found}))


if __name__ == "__main__":
  absltest.main()
