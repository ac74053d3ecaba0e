"""Responses that follow IFEval's instructions, or break one, made by rule: they prove the rules, and say nothing."""

import json
from collections.abc import Callable, Iterable, Sequence

from aftershock.bench.suites.ifeval_rules import CONSTRAINED, Args, follows

Instruction = tuple[str, Args]

# What fills a response: plain English without commas, so that the language is told; some sparing of common letters.
_FILLERS = (
    "This is what we think about it and we hope that it helps you.",
    "All of you can look at this and find a good bit of joy in it.",
    "You may go on and say so to all of your old pals.",
    "Only Tom and Amy know how this could go on.",
    "Ruth sees the green trees here.",
    "It is fun.",
)
_SENTENCES = {
    "ar": "هذا النص مكتوب باللغة العربية وهو قصير جدا ومفهوم للجميع",
    "bg": "Този текст е написан на български език и е много кратък и разбираем за всички",
    "bn": "এই লেখাটি বাংলা ভাষায় লেখা হয়েছে এবং এটি খুব ছোট ও সহজ",
    "de": "Dieser Text ist auf Deutsch geschrieben und er ist sehr kurz und für alle verständlich",
    "fa": "این متن به زبان فارسی نوشته شده است و بسیار کوتاه و ساده است",
    "fi": "Tämä teksti on kirjoitettu suomeksi ja se on hyvin lyhyt ja helppo ymmärtää",
    "gu": "આ લખાણ ગુજરાતી ભાષામાં લખાયેલું છે અને તે ખૂબ ટૂંકું છે",
    "hi": "यह लेख हिंदी भाषा में लिखा गया है और यह बहुत छोटा और सरल है",
    "it": "Questo testo è scritto in italiano ed è molto breve e comprensibile per tutti",
    "kn": "ಈ ಪಠ್ಯವನ್ನು ಕನ್ನಡ ಭಾಷೆಯಲ್ಲಿ ಬರೆಯಲಾಗಿದೆ ಮತ್ತು ಇದು ತುಂಬಾ ಚಿಕ್ಕದಾಗಿದೆ",
    "ko": "이 글은 한국어로 쓰여 있으며 매우 짧고 이해하기 쉽습니다",
    "mr": "हा मजकूर मराठी भाषेत लिहिलेला आहे आणि तो खूप लहान आणि सोपा आहे",
    "ne": "यो लेख नेपाली भाषामा लेखिएको छ र यो धेरै छोटो र सरल छ",
    "pa": "ਇਹ ਲਿਖਤ ਪੰਜਾਬੀ ਭਾਸ਼ਾ ਵਿੱਚ ਲਿਖੀ ਗਈ ਹੈ ਅਤੇ ਇਹ ਬਹੁਤ ਛੋਟੀ ਹੈ",
    "pt": "Este texto está escrito em português e não é muito longo nem difícil de entender",
    "ru": "Этот текст написан на русском языке и он очень короткий и понятный для всех",
    "sw": "Maandishi haya yameandikwa kwa lugha ya Kiswahili na ni mafupi sana kwa watu wote",
    "ta": "இந்த உரை தமிழ் மொழியில் எழுதப்பட்டுள்ளது மேலும் இது மிகவும் சிறியது",
    "te": "ఈ వచనం తెలుగు భాషలో వ్రాయబడింది మరియు ఇది చాలా చిన్నది",
    "th": "ข้อความนี้เขียนเป็นภาษาไทยและสั้นมากเข้าใจง่ายสำหรับทุกคน",
    "ur": "یہ تحریر اردو زبان میں لکھی گئی ہے اور یہ بہت مختصر اور آسان ہے",
    "vi": "Văn bản này được viết bằng tiếng Việt và nó rất ngắn gọn và dễ hiểu với mọi người",
}


def compose(instructions: Sequence[Instruction]) -> str:
    """Return a response that follows all of the instructions, or the last one tried where none is found."""
    response = ""
    for filler in _fillers(instructions):
        for length in (0, 1, 2, 3, 5, 8, 12, 16, 24, 30, 48, 64, 96, 128, 192, 256, 512):
            for gathered in (True, False):
                response = _written(instructions, [filler] * length, gathered)
                if all(follows(kind, args, response) for kind, args in instructions):
                    return response
    return response


def disobey(instructions: Sequence[Instruction]) -> str:
    """Return a response that breaks at least one of the instructions."""
    banned = [word for kind, args in instructions for word in args.get("forbidden_words", [])]
    wanting = [args["keyword"] for _, args in instructions if args.get("relation") == "less than" and "keyword" in args]
    crammed = " ".join([*banned, *wanting * 50, "ABC. Abcdefghijklmnopqrstuvwxyz!" * 200])
    candidates = ("I can, but I will not.", crammed, "")
    return next(c for c in candidates if not all(follows(kind, args, c) for kind, args in instructions))


def _fillers(instructions: Sequence[Instruction]) -> Iterable[str]:
    languages = [f"{_SENTENCES[args['language']]}." for kind, args in instructions if kind.startswith("language:")]
    plain = languages or _FILLERS
    return [f"{one.removesuffix(left_out)} " for left_out in ("never", ".") for one in plain]


def _written(instructions: Sequence[Instruction], fill: list[str], gathered: bool) -> str:
    """Write all that is asked for; `gathered` puts what can stand in one sentence on one line, without full stops."""
    parts: list[str] = []
    for kind, args in instructions:
        parts += _ADDED.get(kind, lambda args: [])(args)
    text = (" ".join if gathered else "\n".join)(parts) if parts else ""
    text = f"{text} {''.join(fill)}".strip()
    for kind, args in sorted(instructions, key=lambda one: _ORDER.index(one[0]) if one[0] in _ORDER else -1):
        text = _SHAPED.get(kind, lambda text, args: text)(text, args)
    return text


def _least(args: Args, relation: str, count: str) -> int:
    return args[count] if args[relation] == "at least" else 0


_ADDED: dict[str, Callable[[Args], list[str]]] = {
    "change_case:capital_word_frequency": lambda args: ["OK"] * _least(args, "capital_relation", "capital_frequency"),
    "detectable_content:number_placeholders": lambda args: ["[name]"] * args["num_placeholders"],
    "detectable_format:constrained_response": lambda args: [CONSTRAINED[0]],
    "detectable_format:number_highlighted_sections": lambda args: ["see *this*"] * args["num_highlights"],
    "detectable_format:title": lambda args: ["<<title>>"],
    "keywords:existence": lambda args: list(args["keywords"]),
    "keywords:frequency": lambda args: [args["keyword"]] * _least(args, "relation", "frequency"),
    "keywords:letter_frequency": lambda args: [args["letter"] * _least(args, "let_relation", "let_frequency")],
}


def _bulleted(text: str, args: Args) -> str:
    return "\n".join([text, *["- one more"] * args["num_bullets"]])


def _sectioned(text: str, args: Args) -> str:
    return "\n".join([text, *(f"{args['section_spliter']} {n + 1}" for n in range(args["num_sections"]))])


def _in_paragraphs(text: str, args: Args) -> str:
    return "\n***\n".join([text or "First", *["And so on"] * (args["num_paragraphs"] - 1)])


def _begun(text: str, args: Args) -> str:
    paragraphs = [text or "First", *["And so on"] * (args["num_paragraphs"] - 1)]
    paragraphs[args["nth_paragraph"] - 1] = f"{args['first_word']} {paragraphs[args['nth_paragraph'] - 1]}"
    return "\n\n".join(paragraphs)


_SHAPED: dict[str, Callable[[str, Args], str]] = {
    "detectable_format:number_bullet_lists": _bulleted,
    "detectable_format:multiple_sections": _sectioned,
    "length_constraints:number_paragraphs": _in_paragraphs,
    "length_constraints:nth_paragraph_first_word": _begun,
    "detectable_content:postscript": lambda text, args: f"{text}\n{args['postscript_marker']} bye",
    "combination:repeat_prompt": lambda text, args: f"{args['prompt_to_repeat']}\n{text}",
    "combination:two_responses": lambda text, args: f"{text}\n******\n{text} {text or 'Hello'}",
    "startend:end_checker": lambda text, args: f"{text}\n{args['end_phrase']}",
    "detectable_format:json_format": lambda text, args: json.dumps({"text": text}, ensure_ascii=False),
    "change_case:english_capital": lambda text, args: text.upper(),
    "change_case:english_lowercase": lambda text, args: text.lower(),
    "startend:quotation": lambda text, args: f'"{text}"',
}
_ORDER = list(_SHAPED)
