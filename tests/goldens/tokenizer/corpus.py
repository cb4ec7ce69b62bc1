"""Texts and tokenizers for compare.py and make_goldens.py."""

import json
import random
import sysconfig
import unicodedata
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

GPT2 = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+"
    r"|\s+(?!\S)|\s+"
)
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_OTHER = r"[^\r\n\p{L}\p{N}]?"

# Families that split by patterns which the engine runs through PCRE2: the
# steps (pattern, behavior, invert). The first ones are models' own.
SPLITS = {
    "tekken": [(f"{_OTHER}{_UPPER}*{_LOWER}+|{_OTHER}{_UPPER}+{_LOWER}*|\\p{{N}}"
                + _REST, "isolated", False)],
    "o200k": [(f"{_OTHER}{_UPPER}*{_LOWER}+{_SUFFIX}|{_OTHER}{_UPPER}+{_LOWER}*"
               f"{_SUFFIX}|\\p{{N}}{{1,3}}" + _REST, "isolated", False)],
    "llama3_removed": [(LLAMA3, "removed", True)],
    "qwen35": [(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
        r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "isolated", False)],
    "deepseek3": [
        (r"\p{N}{1,3}", "isolated", False),
        ("[一-龥\u3040-ゟ゠-ヿ]+", "isolated", False),
        (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"
         r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+", "isolated", False)],
    "deepseek_coder": [
        ("[\r\n]", "isolated", False), (r"\s?\p{L}+", "isolated", False),
        (r"\s?\p{P}+", "isolated", False),
        ("[一-龥ࠀ-一가-퟿]+", "isolated", False),
        (r"\p{N}", "isolated", False)],
    "bailing": [(
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
        "isolated", False)],
    "superbpe": [(r"\p{N}+", "isolated", False),
                 (r"(?=(\d{3})+(?!\d))", "isolated", False)],
    "aya": [(r"\d{1,3}(?=(?:\d{3})*\b)", "isolated", False)],
    "viking": [(r" ?[^(\s|.,!?…。，、।۔،)]+", "isolated", False)],
    "words": [(r"\w+|[^\w\s]+", "removed", True)],
    "not_words": [(r"\W+", "contiguous", False)],
    "boundaries": [(r"\b", "isolated", False)],
    "lines": [(r"$", "isolated", False), (r"^\s+", "merged_with_next", False)],
    "hex": [(r"0x\h+|\H\H", "merged_with_previous", False)],
    "nobody": [(r"(ab|[^c])+", "isolated", False)],
    "before": [(r"[\u0020\t]", "merged_with_next", False)],
    "literal": [("e", "merged_with_previous", True), ("th", "contiguous", True)],
}

# Families for compare.py alone: their goldens would add little to the others.
ONLY_COMPARED = {"bailing", "superbpe", "aya", "viking", "words", "not_words",
                 "hex", "before", "boundaries"}  # fmt: skip

# Article 1 of the Universal Declaration of Human Rights.
LANGUAGES = {
    "en": "All human beings are born free and equal in dignity and rights. "
    "They are endowed with reason and conscience and should act towards one "
    "another in a spirit of brotherhood. It's theirs; we've 1,234.50 of it.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en "
    "droits. Ils sont doués de raison et de conscience et doivent agir les "
    "uns envers les autres dans un esprit de fraternité.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. "
    "Sie sind mit Vernunft und Gewissen begabt und sollen einander im Geiste "
    "der Brüderlichkeit begegnen.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y "
    "derechos y, dotados como están de razón y conciencia, deben comportarse "
    "fraternalmente los unos con los otros.",
    "vi": "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm "
    "và quyền lợi. Mọi con người đều được tạo hóa ban cho lý trí và lương tâm.",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и "
    "правах. Они наделены разумом и совестью и должны поступать в отношении "
    "друг друга в духе братства.",
    "el": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια "
    "και τα δικαιώματα. Είναι προικισμένοι με λογική και συνείδηση.",
    "ar": "يولد جميع الناس أحراراً متساوين في الكرامة والحقوق، وقد وهبوا عقلاً "
    "وضميراً وعليهم أن يعامل بعضهم بعضاً بروح الإخاء ١٢٣.",
    "he": "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. כולם חוננו "
    "בתבונה ובמצפון, לפיכך חובה עליהם לנהוג איש ברעהו ברוח של אחוה.",
    "hi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और "
    "समानता प्राप्त है। उन्हें बुद्धि और अन्तरात्मा की देन प्राप्त है १२३।",
    "bn": "সমস্ত মানুষ স্বাধীনভাবে সমান মর্যাদা এবং অধিকার নিয়ে জন্মগ্রহণ করে।",
    "ta": "மனிதப் பிறவியினர் சகலரும் சுதந்திரமாகவே பிறக்கின்றனர்.",
    "th": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "zh": "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系"
    "的精神相对待。２０２４年",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて"
    "平等である。人間は、理性と良心とを授けられている。",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. "
    "인간은 천부적으로 이성과 양심을 부여받았다.",
    "ka": "ყველა ადამიანი იბადება თავისუფალი და თანასწორი თავისი ღირსებითა.",
    "am": "የሰው ልጅ ሁሉ ሲወለድ ነጻና በክብርና በመብትም እኩልነት ያለው ነው።",
}

WHITESPACE = [
    " ", "  ", "   ", "    ", "\t", "\n", "\r\n", "\n\n", "\r", "\v", "\f",
    "\x1c", "\x1f", "\x85", "\xa0", "\u1680", "\u2003", "\u2028", "\u202f",
    "\u3000", "\u200b", "\u180e", "\ufeff",
]  # fmt: skip
EMOJI = [
    "😀", "👍🏽", "👨‍👩‍👧‍👦", "🇫🇷", "❤️", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "1️⃣", "©", "🫠", "⚧",
]  # fmt: skip
CONTRACTIONS = [
    "'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'T", "'RE", "'Ve",
    "'M", "'lL", "'D", "'ſ", "'r", "'v", "'l", "'K", "’s", "''s", "'",
]  # fmt: skip
MARKS = [0x0300, 0x0301, 0x0307, 0x0308, 0x0315, 0x031B, 0x0323, 0x0327,
         0x0334, 0x0345, 0x05B0, 0x064B, 0x0651, 0x093C, 0x09BE, 0x0E38,
         0x1161, 0x11A8, 0x200D, 0x20DD, 0x3099, 0xFE0F]  # fmt: skip
BASES = list("aeiouAEIOUncsyzq") + ["\u1100", "\u1102", "\uac00", "\u0915",
         "\u09c7", "\u304b", "\u212b", "\u1e0b", "\u0344", "\uf900"]  # fmt: skip
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|eot_id|>",
            "<|begin_of_text|>", "<|im_", "|>", "<|", "<added>", "<strip>",
            "[word]", "Å", "A\u030a"]  # fmt: skip


def python_sources():
    folder = Path(sysconfig.get_paths()["stdlib"])
    return [p.read_text("utf-8", "replace") for p in sorted(folder.glob("*.py"))]


class Texts:
    """Makes random strings, the same for the same seed."""

    def __init__(self, seed, specials=None):
        self.random = random.Random(seed)
        self.sources = python_sources()
        self.parts = [
            self.language, self.language, self.language, self.code,
            self.whitespace, self.any_unicode, self.bmp, self.digits,
            self.from_list(EMOJI), self.from_list(CONTRACTIONS), self.marks,
            self.from_list(specials or SPECIALS), self.ascii, self.controls, self.run,
            self.long_word,
        ]  # fmt: skip

    def slice(self, text, longest):
        begin = self.random.randrange(len(text))
        return text[begin : begin + self.random.randint(1, longest)]

    def language(self):
        return self.slice(self.random.choice(list(LANGUAGES.values())), 40)

    def code(self):
        return self.slice(self.random.choice(self.sources), 80)

    def from_list(self, strings):
        def some():
            return "".join(self.random.choices(strings, k=self.random.randint(1, 3)))

        return some

    def whitespace(self):
        return "".join(self.random.choices(WHITESPACE, k=self.random.randint(1, 6)))

    def point(self, last):
        c = self.random.randint(0, last)
        return "\ufffd" if 0xD800 <= c < 0xE000 else chr(c)

    def any_unicode(self):
        return "".join(self.point(0x10FFFF) for _ in range(self.random.randint(1, 6)))

    def bmp(self):
        return "".join(self.point(0xFFFF) for _ in range(self.random.randint(1, 8)))

    def digits(self):
        sets = ["0123456789", "٠١٢٣", "０１２", "½Ⅷ²", "𝟘𝟙", "0123456789.,"]
        return "".join(self.random.choices(self.random.choice(sets), k=self.random.randint(1, 9)))

    def marks(self):
        text = self.random.choice(BASES)
        for c in self.random.choices(MARKS, k=self.random.randint(0, 6)):
            text += chr(c)
        return text

    def ascii(self):
        return "".join(chr(self.random.randint(32, 126)) for _ in range(self.random.randint(1, 12)))

    def controls(self):
        return "".join(chr(self.random.randint(0, 160)) for _ in range(self.random.randint(1, 4)))

    def run(self):
        units = [*"a ^\n1é日.", "ab", "the", "0.", self.language()[:9]]
        return self.random.choice(units) * self.random.randint(1, 70)

    def long_word(self):
        size = self.random.randint(20, 200)
        return "".join(self.random.choices("etaoinshrdlu", k=size))

    def next(self):
        count = self.random.randint(1, 6)
        return "".join(part() for part in self.random.choices(self.parts, k=count))


def every_code_point():
    """Yields each code point once, among neighbours that show its classes."""
    points = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    for i in range(0, len(points), 12):
        yield "".join(f"a{c}a1{c}1 {c} !{c}!" for c in points[i : i + 12])


def every_mark():
    """Yields each code point, and decomposed, between marks to reorder."""
    points = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    for i in range(0, len(points), 12):
        yield "".join(
            f"e\u0345{c}\u0334a\u0315{unicodedata.normalize('NFD', c)}x"
            for c in points[i : i + 12]
        )


def byte_alphabet():
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def added_tokens(family):
    if family == "opt":
        # As AutoTokenizer has them.
        return [AddedToken(name, special=True, normalized=True)
                for name in ("<s>", "<pad>", "</s>", "<unk>")]  # fmt: skip
    if family == "neox":
        names = ["<|endoftext|>", "<|padding|>"]
        runs = [AddedToken(" " * n, normalized=True) for n in range(24, 1, -1)]
        return runs + [
            AddedToken(name, special=True, normalized=False) for name in names
        ]
    if family == "llama3":
        names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
                 "<|end_header_id|>", "<|eot_id|>"]  # fmt: skip
    else:
        names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [AddedToken(name, special=True, normalized=False) for name in names]
    if family == "flags":
        tokens += [
            AddedToken("<strip>", lstrip=True, rstrip=True, normalized=False),
            AddedToken("<left>", lstrip=True, normalized=False),
            AddedToken("[word]", single_word=True, normalized=False),
            AddedToken("Å", normalized=True),
            AddedToken("<added>", special=False, normalized=True),
            AddedToken("<add", special=False, normalized=False),
        ]
    return tokens


def pipeline(family, tokenizer):
    """Gives the tokenizer the family's steps."""
    byte_level = pre_tokenizers.ByteLevel
    after = processors.ByteLevel(trim_offsets=False)
    if family in ("gpt2", "unknown", "neox", "opt"):
        steps = byte_level(add_prefix_space=False)
    elif family == "prefix":
        steps = byte_level(add_prefix_space=True)
    elif family == "smollm":
        steps = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True),
             byte_level(add_prefix_space=False)]
        )  # fmt: skip
    elif family == "digit_runs":
        steps = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(), byte_level(add_prefix_space=True)]
        )
    elif family in SPLITS:
        steps = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(
                pattern if family == "literal" else Regex(pattern), *how)
             for pattern, *how in SPLITS[family]]
            + [byte_level(add_prefix_space=False, use_regex=False)]
        )  # fmt: skip
    else:
        pattern = LLAMA3 if family == "llama3" else QWEN2
        steps = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(pattern), "isolated"),
             byte_level(add_prefix_space=False, use_regex=False)]
        )  # fmt: skip
        if family != "llama3":
            tokenizer.normalizer = normalizers.NFC()
    if family == "neox":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = steps
    tokenizer.decoder = decoders.ByteLevel()
    if family == "opt" and tokenizer.token_to_id("</s>") is not None:
        after = processors.TemplateProcessing(
            single="</s> $A", pair="</s> $A </s> $B",
            special_tokens=[("</s>", tokenizer.token_to_id("</s>"))],
        )  # fmt: skip
    if family == "llama3":
        begin = "<|begin_of_text|>"
        after = processors.Sequence(
            [after,
             processors.TemplateProcessing(
                 single=f"{begin} $A", pair=f"{begin} $A {begin} $B",
                 special_tokens=[(begin, tokenizer.token_to_id(begin))])]
        )  # fmt: skip
    tokenizer.post_processor = after


FAMILIES = ["gpt2", "prefix", "smollm", "digit_runs", "llama3", "qwen2",
            "flags", "unknown", "neox", "opt", *SPLITS]  # fmt: skip


def train(family, vocab_size, source_files):
    """Trains a small tokenizer of the family, always the same one."""
    unknown = family == "unknown"
    tokenizer = Tokenizer(
        models.BPE(
            unk_token="<unk>" if unknown else None,
            fuse_unk=unknown,
            ignore_merges=family == "llama3",
        )
    )
    if family == "llama3":
        # The template needs the id, but the tokenizer is trained without it.
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
             pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )  # fmt: skip
    else:
        pipeline(family, tokenizer)
    alphabet = (
        {"limit_alphabet": 90, "special_tokens": ["<unk>"]}
        if unknown
        else {"initial_alphabet": byte_alphabet()}
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, show_progress=False, **alphabet
    )
    texts = list(LANGUAGES.values()) + python_sources()[:source_files]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens(added_tokens(family))
    pipeline(family, tokenizer)
    return tokenizer


def from_gguf(family, path):
    """Loads the tokenizer of a GGUF file, with the family's steps."""
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    merges = fields["tokenizer.ggml.merges"].contents()
    # Adding the tokens in this order gives them the same ids again.
    ordinary = {t: i for i, t in enumerate(tokens) if types[i] == 1}
    in_front = min(i for i, t in enumerate(types) if t != 1) == 0
    vocab = {t: i for i, t in enumerate(tokens)} if in_front else ordinary
    model = models.BPE(
        vocab,
        [tuple(m.split(" ")) for m in merges],
        ignore_merges=family == "llama3",
    )
    tokenizer = Tokenizer(model)
    added = [
        AddedToken(t, special=types[i] == 3, normalized=False)
        for i, t in enumerate(tokens)
        if types[i] in (3, 4)
    ]
    tokenizer.add_tokens(added)
    for token in added:
        assert tokens[tokenizer.token_to_id(token.content)] == token.content
    pipeline(family, tokenizer)
    return tokenizer


def missing_bytes(tokenizer):
    """Returns the bytes that no token of the vocabulary spells."""
    vocab = json.loads(tokenizer.to_str())["model"]["vocab"]
    inverse = dict(zip(byte_order(), range(256)))
    return {inverse[c] for c in byte_alphabet() if c not in vocab}


def byte_order():
    """Returns the characters of the alphabet in the order of their bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    chars = {b: chr(b) for b in printable}
    chars.update({b: chr(256 + i) for i, b in enumerate(others)})
    return [chars[b] for b in range(256)]
