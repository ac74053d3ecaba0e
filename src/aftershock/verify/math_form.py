"""The written form of an answer, read without algebra: its parts, its number, its unit."""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

DEEPEST = 40  # brackets within brackets

_CHARACTERS = str.maketrans(
    {
        "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "÷": "/", "π": r"\pi ", "∞": r"\infty ", "°": r"^\circ ",
        "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
        "²": "^2", "³": "^3", "√": r"\sqrt ", "θ": r"\theta ", "，": ",", "（": "(", "）": ")", "％": "%",
    }
)  # fmt: skip
_GROUP = r"\{(?:[^{}]|\{[^{}]*\})*\}"
_TIDY = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle)(?![A-Za-z])\s*\.?", ""),
        (r"\\!\s*", ""),
        (r"(?<=\d)(?:\\[,; ]|\{,\})(?=\d{3}(?!\d))", ","),
        (r"(?<!\\)\\[,;: ]|~|\\q?quad(?![A-Za-z])", " "),
        (r"\\[dtc]frac", r"\\frac"),
        (r"\\(?:mbox|hbox|mathrm|text(?:bf|it|rm|sf|normal)?)\s*(?=\{)", r"\\text"),
        (r"\\(?:mathbf|mathit|boldsymbol)\s*\{([^{}]*)\}", r"\1"),
        (r"\\([lr])brace(?![A-Za-z])", lambda match: "\\{" if match[1] == "l" else "\\}"),
        (r"\\langle(?![A-Za-z])", "("),
        (r"\\rangle(?![A-Za-z])", ")"),
        (r"\\(?:\$|textdollar(?![A-Za-z]))", r"\\dollar "),
        (r"^\s*(?:\$(.*)\$|\\\((.*)\\\)|\\\[(.*)\\\])\s*\.?\s*$", r"\1\2\3"),
        (r"\$", r"\\dollar "),
        (r"\\%|\\text\{\s*(?:percent|\\?%)\s*\}|(?<=[\d} ])percent$", "%"),
        (r"\^?\\degree(?![A-Za-z])|\^\s*\{\s*\\circ\s*\}|\^\s*\\circ(?![A-Za-z])", r"^\\circ"),
        (r"\\text\{\s*(-?[\d.,]+)\s*", r"\1 \\text{"),
        (r"\\text\{\s*\}", ""),
        (r"\\begin\{array\}\s*(?:\{[^{}]*\})?", r"\\begin{matrix}"),
        (r"\\end\{array\}", r"\\end{matrix}"),
        (r"[(\[]\s*\\begin\{matrix\}(.*?)\\end\{matrix\}\s*[)\]]", r"\\begin{pmatrix}\1\\end{pmatrix}"),
        (r"\*\*", "^"),
        (r"\\varnothing(?![A-Za-z])|^\\\{\s*\\\}$", r"\\emptyset"),
        (r"^\s*\\boxed\s*\{(.*)\}\s*$", r"\1"),
        (r"(?<![\\A-Za-z])((?:pi|sin|cos|tan|cot|log|ln|exp)(?![A-Za-z])|sqrt(?=[\s(]))", r"\\\1"),
        (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\\sqrt\s*(\d|[a-z](?![a-z]))", r"\\sqrt{\1}"),
        (rf"\\frac\s*(\d|{_GROUP})\s*(\d|{_GROUP})", lambda match: f"\\frac{_braced(match[1])}{_braced(match[2])}"),
        (r"(?<=\d)i(?![A-Za-z])", " i"),
        (r"\s+", " "),
    )
]
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d|,\d)")
_NUMBER = r"(?:\d++(?:\.\d*+)?|\.\d++)"  # possessive: or a thousand digits take quadratic time
_EXACT = re.compile(
    rf"(?P<sign>[+-]?)\s*(?:(?P<whole>\d+)\s*(?:\\frac\{{(?P<up>\d+)\}}\{{(?P<low>\d+)\}}|\s(?P<up_>\d+)/(?P<low_>\d+))|"
    rf"\\frac\{{\s*(?P<top>[+-]?{_NUMBER})\s*\}}\{{\s*(?P<bottom>[+-]?{_NUMBER})\s*\}}|"
    rf"(?P<above>{_NUMBER})\s*/\s*(?P<below>{_NUMBER})|"
    rf"(?:(?P<factor>{_NUMBER})\s*(?:\\times|\\cdot|\*|x)\s*)?10\s*\^\s*(?:\{{\s*(?P<power>[+-]?\d{{1,3}})\s*\}}|(?P<digit>\d))|"
    rf"(?P<plain>{_NUMBER}(?:[eE][+-]?\d{{1,3}})?))"
)
_TOKEN = re.compile(
    r"(?P<part>[,;]?\s*(?:\\text\{\s*(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))|[,;])|"
    r"(?P<open>\\begin|\\\{|[(\[{])|(?P<close>\\end|\\\}|[)\]}])|\\."
)
_ORDER_BRACKETS = re.compile(r"[(\[]|\\\{")


class TooDeep(ValueError):
    """More than DEEPEST brackets within brackets."""


def _braced(text: str) -> str:
    return text if text[0] == "{" else f"{{{text}}}"


@lru_cache(maxsize=4096)
def tidy(text: str) -> str:
    r"""Return `text` with one way of writing for what has several: `\dfrac12` -> `\frac{1}{2}`, `10\,\%` -> `10 %`."""
    text = text.translate(_CHARACTERS)
    for pattern, replacement in _TIDY:
        text = pattern.sub(replacement, text)
    return text.strip().removesuffix(".").rstrip()


@dataclass(frozen=True)
class Shape:
    """An answer's parts, and the two brackets around them: "()", "[)", "{}" ...; "" for a bare list or one value."""

    brackets: str
    parts: tuple[str, ...]

    @property
    def ordered(self) -> bool:
        return self.brackets not in ("", "{}")


@lru_cache(maxsize=4096)
def shape(text: str) -> Shape:
    r"""Return the parts of tidy text: `(1, 2]` -> "(]" and 1, 2; `1 \pm \sqrt{2}` -> "" and two; `(a+1)(b+2)` -> one.

    Commas, semicolons, "and" and "or" part; commas between groups of three digits don't, outside brackets.
    """
    brackets, pieces = _pieces(text)
    if brackets in ("()", "{}") and len(pieces) == 1:
        return shape(pieces[0])
    if not brackets and not _ORDER_BRACKETS.search(text):
        _, pieces = _pieces(_THOUSANDS.sub(lambda match: match[0].replace(",", ""), text))
    if brackets in ("", "{}"):
        pieces = [signed for piece in pieces for signed in _both_signs(piece)]
    return Shape(brackets, tuple(pieces))


def _pieces(text: str) -> tuple[str, list[str]]:
    """Split at the separators outside all brackets, or within the one pair that encloses everything."""
    depth, first_end = 0, 0
    cuts: list[tuple[int, int, int]] = []  # depth, start, end
    for token in _TOKEN.finditer(text):
        if token["open"]:
            depth += 1
        elif token["close"]:
            depth -= 1
            first_end = first_end or (token.end() if depth == 0 else 0)
        elif token["part"]:
            cuts.append((depth, token.start(), token.end()))
        if depth > DEEPEST:
            raise TooDeep(f"more than {DEEPEST} brackets within brackets")
    start, level, end, brackets = 0, 0, len(text), ""
    if first_end == len(text) and (opening := re.match(r"\\?\{|[(\[]", text)):
        start, level, end = opening.end(), 1, len(text) - (2 if text.endswith("\\}") else 1)
        brackets = opening[0][-1] + text[-1]
    edges = [start, *(edge for cut in cuts if cut[0] == level for edge in cut[1:]), end]
    return brackets, [text[left:right].strip() for left, right in zip(edges[::2], edges[1::2])]


def _both_signs(text: str) -> list[str]:
    if len(re.findall(r"\\(?:pm|mp)(?![A-Za-z])", text)) != 1:
        return [text]
    return [re.sub(r"\\(?:pm|mp)(?![A-Za-z])", sign, text) for sign in "+-"]


def exact(text: str) -> Fraction | None:
    r"""Return the value of a plainly written number: integer, decimal, fraction, mixed, scientific; None for all else.

    >>> exact(r"1\frac{4}{5}")
    Fraction(9, 5)
    """
    found = _EXACT.fullmatch(text)
    if not found:
        return None
    part = {name.rstrip("_"): value for name, value in found.groupdict().items() if value is not None}
    try:
        value = _magnitude(part)
    except ZeroDivisionError:
        return None
    return value if value is None or part["sign"] != "-" else -value


def _magnitude(part: dict[str, str]) -> Fraction | None:
    if "whole" in part:
        mixed = Fraction(int(part["up"]), int(part["low"]))
        return int(part["whole"]) + mixed if mixed < 1 else None
    if "top" in part:
        return Fraction(part["top"]) / Fraction(part["bottom"])
    if "above" in part:
        return Fraction(part["above"]) / Fraction(part["below"])
    if "plain" in part:
        return Fraction(part["plain"])
    return Fraction(part.get("factor", "1")) * Fraction(10) ** int(part.get("power") or part["digit"])


@dataclass(frozen=True)
class Quantity:
    """A `body` with its `unit` in one spelling ("" for none) and its `base` (0 for none written)."""

    body: str
    unit: str = ""
    base: int = 0


_WORD = r"\\text\{[^{}\d\\]*(?:\^[23])?\}"
_UNIT = re.compile(
    rf"(?P<body>.*?[\w}})\]])\s*(?P<unit>%|\^\\circ(?:\s*(?:\\text\{{\s*[CF]\s*\}}|[CF]))?|"
    rf"{_WORD}(?:\s*/\s*{_WORD})?(?:\s*\^\s*\{{?[23]\}}?)?|"
    r"(?<=[\d} )])[A-Za-z]{2,}(?:[ /][A-Za-z]+){0,2}(?:\s*\^\s*\{?[23]\}?)?)"
)
_BASED = re.compile(r"\(?([0-9A-Z]+)\)?\s*_\s*\{?(?:\\text\{|\()?([0-9]{1,2}|[a-z]+)\)?\}{0,2}")
_BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_UNITS = (
    "dollar usd|degree deg ^\\circ|mm millimeter millimetre|cm centimeter centimetre|m meter metre|"
    "km kilometer kilometre|in inch inche|ft foot feet|yd yard|mi mile|s second sec|min minute|h hour hr|g gram|"
    "kg kilogram|lb pound|l liter litre"
)
_SPELLINGS = {spelling: names.split()[0] for names in _UNITS.split("|") for spelling in names.split()}
# Words after a number that make it another number, or no answer at all.
_NO_UNITS = re.compile(
    r"\b(?:or|and|not?|nor|maybe|perhaps|about|approximately|around|roughly|if|is|are|was|than|less|more|over|under|plus|"
    r"minus|times|(?:hundred|thousand|million|billion|trillion|dozen|half|third|quarter)s?|pi|mod|base|to|so|which|but|"
    r"either|unless|at|least|most|up)\b"
)


def quantity(text: str) -> Quantity:
    r"""Return a value's body, unit and base.

    >>> quantity(r"15\text{ cm}^2")
    Quantity(body='15', unit='cm^2', base=0)
    """
    based = _BASED.fullmatch(text)
    base = (_BASES.get(based[2]) or int(based[2] if based[2].isdigit() else 0)) if based else 0
    if based and max(int(digit, 36) for digit in based[1]) < base <= 36:
        return Quantity(based[1], "", 0 if base == 10 else base)
    money = re.fullmatch(r"(-?)\s*\\dollar\s*(.+)", text)
    if money and not _UNIT.fullmatch(money[2]):
        return Quantity(money[1] + money[2], "dollar")
    found = _UNIT.fullmatch(text)
    unit = _unit(found["unit"], text[found.start("unit") - 1] == " ") if found else ""
    return Quantity(found["body"].strip(), unit) if found and unit else Quantity(text)


def _unit(text: str, spaced: bool) -> str:
    """Return the unit in its one spelling; "" for what isn't a unit."""
    plain = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text.replace("^\\circ", " ^\\circ ")).replace("/", " per ").lower()
    power = re.search(r"\^\s*\{?([23])\}?\s*$", plain)
    names = (plain[: power.start()] if power else plain).replace("-", " ").split()
    if not names or len(names) > 4 or _NO_UNITS.search(plain):
        return ""
    exponent = power[1] if power else ""
    if not power and len(names) > 1 and names[0] in ("square", "sq", "cubic"):
        exponent = "3" if names.pop(0) == "cubic" else "2"
    one = [
        _SPELLINGS.get(name, name)
        for name in (name[:-1] if len(name) > 2 and name[-1] == "s" else name for name in names)
    ]
    if text[0].isalpha() and one[0] not in _SPELLINGS and (len(names[0]) < 3 or not spaced):
        return ""  # bare letters that may as well be a product of variables
    return " ".join(one) + (f"^{exponent}" if exponent else "")


def words(text: str) -> str:
    r"""Return what a text answer says, without case, article or wrapping: `\text{An Ellipse}` -> "ellipse"; else "".

    One letter keeps its case. Bare letters are words from three on: two may be a product of variables.
    """
    wrapped = re.fullmatch(r"\\text\{([^{}\\]*)\}", text)
    inner = wrapped[1] if wrapped else text
    said = " ".join(re.sub(r"[().,:!'\"]", " ", inner).split())
    if not re.search(r"[A-Za-z]", said) or (
        not wrapped and not re.fullmatch(r"[A-Za-z](?:[A-Za-z -]*[A-Za-z]{2})?", said)
    ):
        return ""
    if not wrapped and len(said) == 2:
        return ""
    said = re.sub(r"^(?:an?|the) ", "", said, flags=re.IGNORECASE)
    return said if len(said) == 1 else said.lower()
