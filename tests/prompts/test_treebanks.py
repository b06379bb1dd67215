"""Readers of CoNLL-U and of Penn-tagged text, on sentences of our own."""

import sys
from pathlib import Path

import pytest

from jaxconcepts.prompts import pos, render, treebanks

SAMPLE = Path(__file__).parent / "sample.conllu"


def texts(sentences):
    return [" ".join(word.text for word in sentence) for sentence in sentences]


def tagged(sentence):
    return " ".join(f"{word.text}/{word.tag}" if word.tag else word.text for word in sentence)


def test_conllu_words_and_tags():
    read = pos.read_conllu(SAMPLE)
    # Left out: a word that holds a space ("10 000"), and one without a tag ("foo").
    assert [tagged(sentence) for sentence in read] == [
        "Yesterday/Adverb the old/Adjective captain/Noun quietly/Adverb gave/Verb us/Pronoun a map/Noun of/Preposition "
        "the island/Noun .",
        # A multiword token is its parts; AUX is a verb, PART none.
        "She/Pronoun does/Verb n't often/Adverb walk/Verb to/Preposition the small/Adjective bakery/Noun .",
        # PROPN is a noun.
        "Under/Preposition a grey/Adjective sky/Noun , Marta/Noun slowly/Adverb painted/Verb it/Pronoun .",
        # An empty node is no word.
        "They/Pronoun were/Verb happy/Adjective , and Tom/Noun never/Adverb in/Preposition the garden/Noun .",
        "Rain/Noun fell/Verb .",
        # SCONJ is none.
        "Brave/Adjective sailors/Noun rarely/Adverb fear/Verb her/Pronoun because of/Preposition storms/Noun .",
    ]


def test_a_treebank_is_a_family():
    made = pos.family(pos.read_conllu(SAMPLE), needed=5)
    assert sum(len(pool["Noun"]) for pool in (made.train, made.test)) == 5
    known = made.answers("Under a grey sky , Marta slowly painted it .")
    assert list(known.values()) == ["sky", "it", "painted", "slowly", "grey", "Under"]
    (prompt,) = render.prompts(made, "Verb", 4, 1, seed=0, variant="rule")
    assert prompt.text.startswith("Find the first verb in the sentence.\n\nInput: ")
    with pytest.raises(ValueError, match="10 different sentences .* are needed; found 5 among 6 sentences"):
        pos.family(pos.read_conllu(SAMPLE))


def test_which_tag_means_what_is_a_setting():
    tags = {**dict.fromkeys(treebanks.UPOS, ""), "PROPN": "Noun", "ADP": "Preposition"}
    read = pos.read_conllu(SAMPLE, tags=tags)
    assert tagged(read[2]) == "Under/Preposition a grey sky , Marta/Noun slowly painted it ."


GOOD = "1\tRain\train\tNOUN\tNN\tNumber=Sing\t2\tnsubj\t_\t_"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2\tfell\tfall\tVERB", "line 4: expected 10 columns parted by tabs, found 4: '2.tfell"),
        ("2 fell fall VERB _ _ _ _ _ _", "line 4: expected 10 columns parted by tabs, found 1"),
        ("two\tfell\tfall\tVERB\t_\t_\t0\troot\t_\t_", "line 4: .*'two' is not a valid ID"),
        ("3\tfell\tfall\tVERB\t_\t_\t0\troot\t_\t_", "line 4: expected id 2, found '3'"),
        ("_\tfell\tfall\tVERB\t_\t_\t0\troot\t_\t_", "line 4: expected id 2, found '_'"),
        ("2\tfell\tfall\tVBD\t_\t_\t0\troot\t_\t_", "line 4: UPOS must be one of NOUN, .*; found 'VBD'"),
        ("2\tfell\tfall\tVERB\t_\t_\tzero\troot\t_\t_", "line 4: .*'zero'"),
    ],
)
def test_a_malformed_conllu_line_is_named(tmp_path, line, message):
    path = tmp_path / "bad.conllu"
    path.write_text("\n".join(["", "# text = Rain fell", GOOD, line, ""]))
    with pytest.raises(ValueError, match=f"bad.conllu, {message}"):
        pos.read_conllu(path)


def test_a_conllu_file_may_end_without_a_line_break_and_start_with_a_mark(tmp_path):
    path = tmp_path / "end.conllu"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode() + b"\r\n\r\n\r\n" + GOOD.encode())
    assert texts(pos.read_conllu(path)) == ["Rain", "Rain"]
    path.write_bytes(GOOD.encode().replace(b"Rain", b"R\xe9"))
    with pytest.raises(ValueError, match="end.conllu is not UTF-8"):
        pos.read_conllu(path)


def written(folder, text):
    path = folder / "text.mrg"
    path.write_text(text)
    return path


EXPECTED = (
    "There/Pronoun quietly/Adverb stood/Verb his/Pronoun tall/Adjective ships/Noun in/Preposition 1/2 harbours/Noun ."
)


def test_penn_words_one_sentence_a_line(tmp_path):
    first = "There/EX quietly/RB stood/VBD his/PRP$ tall/JJ ships/NNS in/IN 1\\/2/CD harbours/NNS ./."
    text = f"{first}\n\n-LRB-/-LRB- We/PRP\n"
    assert [tagged(sentence) for sentence in pos.read_penn(written(tmp_path, text))] == [EXPECTED, "( We/Pronoun"]


def test_penn_s_own_layout(tmp_path):
    text = """
=====================

There/EX quietly/RB stood/VBD
[ his/PRP$ tall/JJ ships/NNS ]
in/IN
[ 1\\/2/CD harbours/NNS ]
./. ''/''
[ We/PRP ]
came/VBD ./.
=====================
[ An/DT end/NN ]
"""
    read = pos.read_penn(written(tmp_path, text))
    assert [tagged(sentence) for sentence in read] == [EXPECTED + " ''", "We/Pronoun came/Verb .", "An end/Noun"]


def test_penn_parses(tmp_path):
    text = """
( (S (NP-SBJ (EX There)) (ADVP (RB quietly))
     (VP (VBD stood) (NP (-NONE- *T*-1))
         (NP (PRP$ his) (JJ tall) (NNS ships))
         (PP (IN in) (NP (CD 1\\/2) (NNS harbours))))
     (. .)) )
(S (NP (-LRB- -LRB-) (PRP We)))
"""
    assert [tagged(sentence) for sentence in pos.read_penn(written(tmp_path, text))] == [EXPECTED, "( We/Pronoun"]


def test_penn_words_whose_tags_disagree_leave_their_sentence_out(tmp_path):
    text = "the/DT running/NN|VBG dog/NN\nthe/DT dogs/NNS|NNPS\n"
    assert [tagged(sentence) for sentence in pos.read_penn(written(tmp_path, text))] == ["the dogs/Noun"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("the/DT dog/NN\nbarked ./.\n", "line 2: expected word/TAG, found 'barked'"),
        ("the/DT dog/\n", "line 1: expected word/TAG, found 'dog/'"),
        ("the/DT /NN\n", "line 1: expected word/TAG, found '/NN'"),
        ("\n(S (NN dog)\n(VBD barked)\n", "line 2: this bracket is never closed"),
        ("(S (NN dog))\n)\n", "line 2: expected an opening bracket, found '[)]'"),
        ("(S (NN dog))\nbarked\n", "line 2: expected an opening bracket, found 'barked'"),
        ("(S\n (NN hot dog))", r"line 2: expected [(]TAG word[)], found [(]NN hot dog[)]"),
    ],
)
def test_malformed_penn_text_is_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=f"text.mrg, {message}"):
        pos.read_penn(written(tmp_path, text))


def test_conllu_without_its_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "conllu.parser", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxconcepts\[prompts\]'"):
        pos.read_conllu(SAMPLE)
