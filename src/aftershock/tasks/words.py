"""The words of the nano world, each in English and Chinese: few, so that a small vocabulary holds them all."""

Pair = tuple[str, str]  # (English, Chinese)


def pairs(text: str) -> tuple[Pair, ...]:
    """Return the pairs of "a cat 猫; a dog 狗": English, a space, Chinese."""
    return tuple((english, chinese) for english, chinese in (part.strip().rsplit(" ", 1) for part in text.split(";")))


COLUMN = {"en": 0, "zh": 1}
KINDS: dict[str, tuple[Pair, ...]] = {
    "animal": pairs("cat 猫; dog 狗; bird 鸟; fish 鱼; horse 马; cow 牛; sheep 羊; bear 熊"),
    "colour": pairs("red 红; blue 蓝; green 绿; white 白; black 黑; gold 金; pink 粉; grey 灰"),
    "food": pairs("bread 饼; rice 米; cake 糕; soup 汤; milk 奶; honey 蜜; tea 茶; plum 梅"),
    "town": pairs("Hill 山; Lake 湖; Sun 日; Moon 月; Star 星; Wind 风; Stone 石; Snow 雪"),
}
KIND_NAMES: dict[str, Pair] = {"animal": ("animal", "动物"), "colour": ("colour", "颜色"), "food": ("food", "食物")}


def word(kind: str, index: int, language: str) -> str:
    """Return word number `index` of a kind, in "en" or "zh"."""
    return KINDS[kind][index][COLUMN[language]]


def sentence(words: list[str], language: str) -> str:
    """Join words as the language writes them: with spaces, or without."""
    return (" " if language == "en" else "").join(words)
