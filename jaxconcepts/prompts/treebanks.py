"""Readers of tagged corpora: CoNLL-U (Universal Dependencies) and text tagged as the Penn Treebank is.

What is decided where the two differ from "a word has one of six tags":
- Words are the syntactic ones: of a CoNLL-U multiword token (3-4 "don't") the parts are taken ("do n't"), each with its
  own tag, which is how the Penn Treebank writes English. Empty nodes (5.1) and Penn's traces (-NONE-) are no words.
- PROPN is a Noun and AUX a Verb, as Penn's NNP and MD are; PRON takes in possessives, as PRP$ does, and "who" and
  "there". Penn's IN is a Preposition even where it is a subordinating conjunction, which its tag does not tell apart;
  UD's SCONJ is none. Penn's TO and RP, and UD's PART, are none. Numerals and determiners are none.
- A sentence with a word whose tag is missing ("_"), or which has two that disagree ("JJ|NN"), is left out: who would
  say which word comes first? So is one with a word that holds a space, which nobody could tell from two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from jaxconcepts.prompts import text_files
from jaxconcepts.prompts.tagged import Sentence, Word

UPOS = {
    "NOUN": "Noun",
    "PROPN": "Noun",
    "PRON": "Pronoun",
    "VERB": "Verb",
    "AUX": "Verb",
    "ADV": "Adverb",
    "ADJ": "Adjective",
    "ADP": "Preposition",
    **dict.fromkeys(("CCONJ", "DET", "INTJ", "NUM", "PART", "PUNCT", "SCONJ", "SYM", "X"), ""),
}
PENN = {
    **dict.fromkeys(("NN", "NNS", "NNP", "NNPS"), "Noun"),
    **dict.fromkeys(("PRP", "PRP$", "WP", "WP$", "EX"), "Pronoun"),
    **dict.fromkeys(("VB", "VBD", "VBG", "VBN", "VBP", "VBZ", "MD"), "Verb"),
    **dict.fromkeys(("RB", "RBR", "RBS", "WRB"), "Adverb"),
    **dict.fromkeys(("JJ", "JJR", "JJS"), "Adjective"),
    "IN": "Preposition",
}
BRACKETS = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}
# Tags that may follow a full stop in the same sentence.
CLOSING = ("''", "-RRB-", ")", ".")


def read_conllu(path: str | Path, tags: Mapping[str, str] = UPOS) -> list[Sentence]:
    """The sentences of a CoNLL-U file (UTF-8), by the `conllu` library.

    tags: UPOS -> one of the six tags, or "".

    Raises ImportError without the library, and ValueError naming file and line for a line that has not ten columns,
    an id that is none or out of order, any other column that is malformed, or a UPOS that `tags` lacks.
    """
    try:
        from conllu.exceptions import ParseException
        from conllu.parser import DEFAULT_FIELDS, parse_line
    except ImportError as error:
        raise ImportError("CoNLL-U files are read by the conllu library: pip install 'jaxconcepts[prompts]'") from error
    sentences, words = [], []
    for number, line in enumerate([*text_files.read_lines(path), ""], 1):
        if not line.strip():
            sentences.append(words)
            words = []
        elif not line.startswith("#"):
            where = f"{path}, line {number}"
            if (found := len(line.split("\t"))) != len(DEFAULT_FIELDS):
                expected = f"{len(DEFAULT_FIELDS)} columns parted by tabs"
                raise ValueError(f"{where}: expected {expected}, found {found}: {text_files.shown(line)}")
            try:
                token = parse_line(line, DEFAULT_FIELDS)
            except (ParseException, ValueError, LookupError) as error:
                raise ValueError(f"{where}: {text_files.printable(str(error))} {text_files.shown(line)}") from error
            if isinstance(token["id"], tuple):  # A multiword token or an empty node.
                continue
            if token["id"] != len(words) + 1:
                found = text_files.shown(line.partition("\t")[0])
                raise ValueError(f"{where}: expected id {len(words) + 1}, found {found}")
            if token["upos"] != "_" and token["upos"] not in tags:
                raise ValueError(
                    f"{where}: UPOS must be one of {', '.join(tags)}; found {text_files.shown(token['upos'])}"
                )
            words.append((token["form"], tags.get(token["upos"])))
    return _known(sentences)


def read_penn(path: str | Path, tags: Mapping[str, str] = PENN) -> list[Sentence]:
    """The sentences of a file (UTF-8) tagged as the Penn Treebank is, in any of three forms.

    Parses: "(S (NP (DT The) (NN dog)) ...)", a tree a sentence, over as many lines as it takes. One sentence a line:
    "The/DT dog/NN barked/VBD ./.", a slash inside a word written "\\/". And the treebank's own .pos files, known by
    their lines of "=": words as above, noun phrases in "[ ]", a sentence up to its full stop.
    tags: Penn's tag -> one of the six tags; those that are not there have none.

    Raises ValueError naming file and line for a word without a tag and for brackets that do not match.
    """
    lines = text_files.read_lines(path)
    first = next((line.split()[0] for line in lines if line.strip()), "")
    read = _parses if first.startswith("(") and "/" not in first else _slashed
    return _known([[(word, _tag(tag, tags)) for word, tag in sentence] for sentence in read(path, lines)])


def _known(sentences) -> list[Sentence]:
    """Those without a word whose tag is not known (None) or that holds a space."""
    return [
        tuple(Word(text, tag) for text, tag in words)
        for words in sentences
        if words and all(tag is not None and len(text.split()) == 1 for text, tag in words)
    ]


def _tag(tag, tags):
    possible = {tags.get(one, "") for one in tag.split("|")}
    return possible.pop() if len(possible) == 1 else None


def _slashed(path, lines) -> Iterator[list[tuple[str, str]]]:
    rules = [bool(line.strip()) and not line.strip().strip("=") for line in lines]
    sentence, ended = [], False
    for number, (line, rule) in enumerate(zip(lines, rules, strict=True), 1):
        for token in () if rule else line.split():
            if token in ("[", "]"):
                continue
            word, slash, tag = token.rpartition("/")
            if not (word and slash and tag):
                raise ValueError(f"{path}, line {number}: expected word/TAG, found {text_files.shown(token)}")
            if ended and tag not in CLOSING:
                yield sentence
                sentence, ended = [], False
            sentence.append((BRACKETS.get(word, word.replace("\\/", "/")), tag))
            ended = ended or (any(rules) and tag == ".")
        if rule or not any(rules):
            yield sentence
            sentence, ended = [], False
    yield sentence


def _parses(path, lines) -> Iterator[list[tuple[str, str]]]:
    # Of each open bracket, the line that it stands in, and its words so far: a label, or a tag and a word.
    stack: list[tuple[int, list[str]]] = []
    sentence = []
    for number, line in enumerate(lines, 1):
        for token in re.findall(r"[()]|[^\s()]+", line):
            if token == "(":
                stack.append((number, []))
            elif not stack:
                raise ValueError(f"{path}, line {number}: expected an opening bracket, found {text_files.shown(token)}")
            elif token != ")":
                stack[-1][1].append(token)
            else:
                _, words = stack.pop()
                if len(words) > 2:
                    found = " ".join(words)[:80]
                    raise ValueError(f"{path}, line {number}: expected (TAG word), found ({found})")
                if len(words) == 2 and words[0] != "-NONE-":
                    sentence.append((BRACKETS.get(words[1], words[1].replace("\\/", "/")), words[0]))
                if not stack:
                    yield sentence
                    sentence = []
    if stack:
        raise ValueError(f"{path}, line {stack[0][0]}: this bracket is never closed")
