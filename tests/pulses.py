"""What a command printed, without its signs of life: those come on a slow machine alone, so no test expects them."""

import re

SIGN_OF_LIFE = re.compile(r"^  … .*\n", re.MULTILINE)


def without_pulses(printed: str) -> str:
    return SIGN_OF_LIFE.sub("", printed)
