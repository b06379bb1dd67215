"""Knowledge: made-up people, their biographies and questions about them (arXiv 2309.14316, 2309.14402, 2404.05405).

A model that has read the biographies knows the facts word by word. The questions test whether it can extract them, and
whether it can use them without saying them first. Nothing here needs an accelerator.
"""

from __future__ import annotations

from jaxconcepts.tasks.biographies_people import ATTRIBUTES, FORMS, People, people
from jaxconcepts.tasks.biographies_questions import KINDS, Question, ask, questions
from jaxconcepts.tasks.biographies_text import Biography, Variant, biography, compose, parse_variant
from jaxconcepts.tasks.biographies_values import Cardinalities, largest_city_share, value_bits

__all__ = [
    "ATTRIBUTES",
    "FORMS",
    "KINDS",
    "Biography",
    "Cardinalities",
    "People",
    "Question",
    "Variant",
    "ask",
    "biography",
    "compose",
    "largest_city_share",
    "parse_variant",
    "people",
    "questions",
    "value_bits",
]
