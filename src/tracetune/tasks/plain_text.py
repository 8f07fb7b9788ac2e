"""Mathematical text in one spelling: LaTeX, Markdown, Unicode signs and fractions become plain characters.

Meant for short pieces (an answer, a sentence). Every pattern is linear: bounded repeats, no nesting.
"""

import re

_CHARACTERS = str.maketrans(
    {
        **dict.fromkeys("\u2212\u2010\u2011\u2013\ufe63\uff0d", "-"),  # minus, hyphens, en dash
        **dict.fromkeys("\u00a0\u2007\u2009\u202f", "\u00a0"),  # spaces that may group thousands
        **dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹", (f"^{digit}" for digit in range(10)), strict=True)),
        **dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True)),
        "½": " 1/2",
        "⅓": " 1/3",
        "⅔": " 2/3",
        "¼": " 1/4",
        "¾": " 3/4",
        "⅕": " 1/5",
        "⅛": " 1/8",
        "⁄": "/",
        "：": ":",
        "＝": "=",
        "，": ",",
        "。": ".",
        "≈": "=",
        "≅": "=",
        "·": "×",
        "∙": "×",
        "‘": "'",
        "’": "'",
    }
)
_COMMANDS = (
    (re.compile(r"<<[^<>\n]{0,200}>>"), ""),  # GSM8K's calculator notes
    (re.compile(r"\\(?:left|right|displaystyle|bigl?|bigr)(?![a-zA-Z])|\\[!,;: ]|\\[()\[\]]|\$\$"), ""),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\(?:times|cdot)(?![a-zA-Z])"), "×"),
    (re.compile(r"\\div(?![a-zA-Z])"), "÷"),
    (re.compile(r"\\approx(?![a-zA-Z])"), "="),
    (re.compile(r"\\pi(?![a-zA-Z])"), "π"),
    (re.compile(r"\^\{?\\circ\}?|\\degree(?![a-zA-Z])"), "°"),
    (re.compile(r"(?<=\d)\\[dt]?frac\{([^{}]{1,60})\}\{([^{}]{1,60})\}"), r" \1/\2"),  # 1\frac{1}{2} is mixed
    (re.compile(r"\\[dt]?frac\{([^{}]{1,60})\}\{([^{}]{1,60})\}"), r"\1/\2"),
    (re.compile(r"\\[dt]?frac(\d)(\d)"), r"\1/\2"),
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf|boxed|mbox|operatorname)\s?\{([^{}]{0,200})\}"), r"\1"),
    (re.compile(r"\$([^\s$](?:[^$\n]{0,200}[^\s$\\])?)\$(?!\d)"), r"\1"),  # $x$ is maths, $5 and $6 is money
    (re.compile(r"\\([$%#&_{}])"), r"\1"),
    (re.compile(r"(?<!\d)\*\*|\*\*(?!\d)|__|`"), ""),  # Markdown; 2**3 stays
    (re.compile(r"(?<=\d)\u00a0(?=\d{3}(?!\d))"), ""),
    (re.compile(r"[ \t\u00a0]{1,400}"), " "),
)


def plain(text: str) -> str:
    """`text` with one spelling for signs, fractions, powers and units, and without markup.

    >>> plain("$-1\\\\frac{1}{2}$"), plain("**1½ cm²**"), plain("\\\\$1{,}000"), plain("50\\\\%")
    ('-1 1/2', '1 1/2 cm^2', '$1,000', '50%')
    """
    text = text.translate(_CHARACTERS)
    for pattern, replacement in _COMMANDS:
        text = pattern.sub(replacement, text)
    return text.strip()
