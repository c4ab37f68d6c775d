"""Fields that are made of the other fields of an example, by rule.

  derive = {"edges": {"kind": "canny"}}

adds to each example what the rule `edges` makes of it: a condition, a degraded
version, a prompt. A rule runs on the example as the source gives it, fitted to
its final size, and before augmentation, which moves all pixels of an example
alike. It draws from a generator of its own, so what one rule makes does not
depend on which others there are, and neither does the augmentation.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.core.forms import Form
from ar_jax.data import digests
from ar_jax.data.dataset import Around, Dataset, Example, Source, draw

# Where each rule is made: module of this package, function. The function takes
# the options of the rule and returns it.
RULES = {
  "degrade": ("wrap.degrade", "degrade"),
  "edges": ("wrap.edges", "edges"),
  "edits": ("wrap.edits", "edits"),
  "prompts": ("wrap.prompts", "prompts"),
  "questions": ("wrap.questions", "questions"),
}
# Those that read others beside an example, see `peers.py`.
BESIDE = ("questions",)


class Rule(NamedTuple):
  """What a rule is, its options settled.

  Attributes:
    make: (example, rng) -> the new fields, a pure function of both.
    forms: of the new fields, as far as they have one.
    version: whoever changes what is made of the same example changes it, so
      that nothing made before is taken for what is made now.
  """

  make: Callable[[Example, np.random.Generator], Example]
  forms: Mapping[str, Form]
  version: int = 1


def add(dataset: Dataset, derive: Mapping[str, Mapping[str, Any]]) -> Dataset:
  """The data set with the fields that the rules make.

  Args:
    dataset: any.
    derive: name of a rule -> its options; None is as good as not given.

  Raises:
    UserError: there is no such rule or option, or the examples lack what a
      rule reads.
  """
  given = {
    name: {k: v for k, v in derive[name].items() if v is not None}
    for name in sorted(derive)
  }
  rules = {name: rule(name, options) for name, options in given.items()}
  made = list(rules.values())
  parts = {
    "train": Derived(dataset.train, made),
    "test": Derived(dataset.test, made),
  }
  if len(dataset.train):
    parts["train"][0]  # whatever does not fit is said now
  forms = dict(dataset.forms)
  for one in made:
    forms |= one.forms
  spec = {n: [r.version, given[n]] for n, r in rules.items()}
  own = digests.fingerprint(dataset.digest, spec) if dataset.digest else ""
  return dataclasses.replace(dataset, **parts, forms=forms, digest=own)


def rule(name: str, options: Mapping[str, Any]) -> Rule:
  """The rule of this name with these options.

  Raises:
    UserError: there is no such rule, or it takes no such option.
  """
  known = maker(name)
  if known is None:
    close = difflib.get_close_matches(name, RULES, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    raise UserError(
      f"data.derive.{name}: no such rule; {meant}there are {', '.join(RULES)}"
    )
  takes = inspect.signature(known).parameters
  for option in options:
    if option not in takes:
      close = difflib.get_close_matches(option, takes, n=1)
      meant = f"did you mean {close[0]}? " if close else ""
      raise UserError(
        f"data.derive.{name}.{option}: no option of this rule; {meant}there "
        f"are {', '.join(takes)}"
      )
  return known(**options)


def maker(name: str) -> Callable[..., Rule] | None:
  """The function that makes a rule; None if there is no such rule."""
  if name not in RULES:
    return None
  module, function = RULES[name]
  return getattr(importlib.import_module(f"ar_jax.data.{module}"), function)


class Derived(Around):
  """A source with the fields that rules make."""

  def __init__(self, source: Source, rules: Sequence[Rule]):
    super().__init__(source)
    self._rules = tuple(rules)

  def __getitem__(self, i: int) -> Example:
    return self._with(self.source[i], np.random.default_rng((len(self), i)))

  def draw(self, i: int, rng: np.random.Generator) -> Example:
    return self._with(draw(self.source, i, rng), rng)

  def _with(self, example: Example, rng: np.random.Generator) -> Example:
    made = dict(example)
    for rule, own in zip(self._rules, rng.spawn(len(self._rules)), strict=True):
      made |= rule.make(example, own)
    return made


def field_of(example: Example, name: str, rule: str) -> np.ndarray:
  """A field that a rule reads.

  Raises:
    UserError: the examples have none of this name.
  """
  if name not in example:
    raise UserError(
      f"data.derive.{rule}: reads {name!r}, these examples have "
      f"{', '.join(sorted(example))}"
    )
  return example[name]
