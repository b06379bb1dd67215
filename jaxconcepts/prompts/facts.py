"""Public facts with an order (months, letters, number words, elements ...), asked forwards, backwards and by parity.

The questions of `tasks.biographies_questions` for a model that was trained on text: what it can recite it may fail to
say backwards, and it may know an item's number and yet not whether that is even, unless it writes the number first
(arXiv 2309.14402). `family` asks about one item, `pairs` compares two.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from jaxconcepts.prompts.family import Example, Family

_CIRCLES = {
    "months": "January February March April May June July August September October November December",
    "weekdays": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "zodiac": "Aries Taurus Gemini Cancer Leo Virgo Libra Scorpio Sagittarius Capricorn Aquarius Pisces",
}
_LINES = {
    "letters": "a b c d e f g h i j k l m n o p q r s t u v w x y z",
    "number words": (
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
        "eighteen nineteen twenty twenty-one twenty-two twenty-three twenty-four twenty-five twenty-six twenty-seven "
        "twenty-eight twenty-nine thirty thirty-one thirty-two thirty-three thirty-four thirty-five thirty-six "
        "thirty-seven thirty-eight thirty-nine forty forty-one forty-two forty-three forty-four forty-five forty-six "
        "forty-seven forty-eight forty-nine"
    ),
    "Roman numerals": (
        "I II III IV V VI VII VIII IX X XI XII XIII XIV XV XVI XVII XVIII XIX XX XXI XXII XXIII XXIV XXV XXVI XXVII "
        "XXVIII XXIX XXX XXXI XXXII XXXIII XXXIV XXXV XXXVI XXXVII XXXVIII XXXIX"
    ),
    "planets": "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune",
    "Greek letters": (
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau upsilon phi "
        "chi psi omega"
    ),
    "elements": (
        "hydrogen helium lithium beryllium boron carbon nitrogen oxygen fluorine neon sodium magnesium aluminium "
        "silicon phosphorus sulfur chlorine argon potassium calcium scandium titanium vanadium chromium manganese iron "
        "cobalt nickel copper zinc gallium germanium arsenic selenium bromine krypton"
    ),
}
# Lists that begin again after their last item, and lists that end.
CIRCLES = {name: tuple(text.split()) for name, text in _CIRCLES.items()}
LINES = {name: tuple(text.split()) for name, text in _LINES.items()}
LISTS = CIRCLES | LINES
RULES = {
    "Next": "Write what comes next in its list.",
    "Previous": "Write what comes before it in its list.",
    "Number": "Write its number in its list.",
    "Parity": "Write whether its number in its list is even or odd.",
    "Number, parity": "Write its number in its list, and then whether that is even or odd.",
}
PAIR_RULES = {
    "Later": "Write the one of the two that comes later in their list.",
    "Earlier": "Write the one of the two that comes earlier in their list.",
    "Compare": "Write yes if the first of the two comes later in their list, and no otherwise.",
    "Numbers, compare": "Write both numbers in their list, and then yes if the first is larger, and no otherwise.",
    "Difference": "Write the number of the first in their list minus that of the second.",
    "Numbers, difference": "Write both numbers in their list, and then the first minus the second.",
}
TEST_SHARE = 0.2


def family(seed: int = 0, lists: tuple[str, ...] = tuple(LISTS)) -> Family:
    """Questions about one item: what is next, previous, its number (from 1), its parity, and number and parity.

    lists: names out of `LISTS`. Items with no next or previous one are not asked about. A fifth of the items, drawn
    from the seed, are for test. There is no Null.

    Raises ValueError for a list that is not known, named twice, or where none is named.
    """
    _check(lists)
    answered = {}
    for name in lists:
        items = LISTS[name]
        ends = 0 if name in CIRCLES else 1
        for i in range(ends, len(items) - ends):
            parity = ("odd", "even")[i % 2]
            answered[items[i]] = {
                "Next": items[(i + 1) % len(items)],
                "Previous": items[i - 1],
                "Number": str(i + 1),
                "Parity": parity,
                "Number, parity": f"{i + 1}, {parity}",
            }
    return _family("facts", answered, list(answered), RULES, np.random.default_rng(seed))


def pairs(seed: int = 0, count: int = 1000, lists: tuple[str, ...] = tuple(LISTS)) -> Family:
    """Questions about two items of one list, "March, June": which is later, earlier, is the first later, differences.

    count: how many pairs there are, each in one order; fewer where the lists have fewer. They are spread over the lists
        as evenly as these allow, and drawn from the seed as their order is. A fifth are for test.

    Raises ValueError as `family` does, and where count is below 5.
    """
    _check(lists)
    if not isinstance(count, int) or isinstance(count, bool) or count < 5:
        raise ValueError(f"fact_pairs.count must be an integer of at least 5, got {count!r}")
    rng = np.random.default_rng(seed)
    drawn = {name: list(combinations(range(len(LISTS[name])), 2)) for name in lists}
    for name, of_list in drawn.items():
        drawn[name] = [of_list[i] for i in rng.permutation(len(of_list))]
    # One of each list in turn, until there are enough.
    longest = max(map(len, drawn.values()))
    turns = [(name, drawn[name][i]) for i in range(longest) for name in lists if i < len(drawn[name])][:count]
    answered = {}
    for name, pair in turns:
        a, b = (pair[i] for i in rng.permutation(2))
        first, second = LISTS[name][a], LISTS[name][b]
        larger = "yes" if a > b else "no"
        answered[f"{first}, {second}"] = {
            "Later": first if a > b else second,
            "Earlier": second if a > b else first,
            "Compare": larger,
            "Numbers, compare": f"{a + 1}, {b + 1}, {larger}",
            "Difference": str(a - b),
            "Numbers, difference": f"{a + 1}, {b + 1}, {a - b}",
        }
    return _family("fact_pairs", answered, list(answered), PAIR_RULES, rng)


FAMILIES = {"facts": family, "fact_pairs": pairs}


def _check(lists):
    unknown = [name for name in lists if name not in LISTS]
    if unknown or not lists or len(set(lists)) != len(lists):
        raise ValueError(f"facts.lists must be distinct names out of {', '.join(LISTS)}; got {tuple(lists)!r}")


def _family(name, answered, texts, rules, rng):
    order = [texts[i] for i in rng.permutation(len(texts))]
    asked = max(1, int(TEST_SHARE * len(order)))

    def pools(group):
        return {concept: tuple(Example(text, answered[text][concept], concept) for text in group) for concept in rules}

    return Family(
        name=name,
        concepts=tuple(rules),
        null=None,
        train=pools(order[asked:]),
        test=pools(order[:asked]),
        rules=rules,
        names={concept: concept for concept in rules},
        answers=lambda text: dict(answered.get(text, {})),
    )
