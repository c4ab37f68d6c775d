import jax
from absl.testing import parameterized


class QuickToCompile(parameterized.TestCase):
  """Of interpreted kernels: large programs that run for a moment."""

  def setUp(self):
    super().setUp()
    name = "jax_disable_most_optimizations"
    self.addCleanup(jax.config.update, name, False)
    jax.config.update(name, True)
