"""`tiny` and `tiny-2x`: Qwen3-shaped models and their tokenizer, made from nothing in seconds, the same bytes on every
call.

Digits are read one by one; the words of the built-in tasks are one token each, so that sequences stay short;
anything else is spelled in bytes, so any text survives.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from tracetune.models.templates import TINY
from tracetune.models.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tracetune.models.arch import Arch
    from tracetune.models.model import Model

PAD = "<pad>"
# Cut in this order: a digit; an operator with its spaces; a mark and the space before a number; a word, or
# another character, with the space before it; what is left is white space.
CUTS = r"[0-9]| [+\-−×÷=<>] |[.,:;] (?=[0-9])| ?[A-Za-z]+| ?[^\sA-Za-z0-9]|\s"
OPERATORS = "+-−×÷=<>"
MARKS = ".,:;?!'\"()[]{}/\\*+-−×÷=<>%$&@#^_|~°²³√π€£½¼¾—–…’"

# The words of the built-in tasks and eval set, and the commonest of school mathematics.
WORDS = """
Reasoning Answer High Card Duel player Player hidden Action reveal Legal moves My hand Unseen cards chosen Who wins
Ace is high higher lower than equal to ten jack queen king ace Suits suit never break ties tie So Say why or it
if win loss you You know only unknown could be has have had What How many much Which When Where Why Find Solve Write
the The a A an An of in In and And with for For on at by from From as are there There that this This these they them
their his her he He she She its do does did gets get got gives give gave loses lose lost keeps keep sells sell sold
buys buy bought puts put packs pack shares share shared makes make takes take uses use needs need holds hold starts
ends costs cost earns earn pays pay saves save spends spend eats eat runs run walks walk drives travels reads works
more less fewer left now then Then so all each Each every Every one One two three four five six seven eight nine both
other others another rest away together equally among between into out up after before over under per same first
second third last next no not yes any some half double twice times total sum difference product quotient remainder
number numbers whole digit digits even odd prime factor factors multiple divided multiplied plus minus average mean
median mode percent fraction decimal ratio rate speed distance time hour hours minute minutes seconds day days week
weeks month months year years dollar dollars cent cents price money box boxes bag bags group groups row rows page
pages people person students student class teacher friend friends children child apples apple oranges books book
coins coin eggs marbles marble pens pencils shells stamps toys balls ball cookies candies cakes flowers trees red
blue green white black length width height area perimeter volume radius side sides square rectangle triangle circle
cube angle angles degrees meters metres meter metre kilometers kilometres km cm mm m kg g grams gram liters litres
inches feet miles pattern sequence term probability chance random die dice roll rolled drawn card deck answer
reasoning step steps calculate value x y n r equals because since must can will would was were if
filled item items Ana Ben Chen Dara Eli Fay Gus Hana Ivan Jo Kofi Lena
"""

CHAT_TEMPLATE = (
    "{{ '<bos>' }}{% for message in messages %}"
    "{{ '<model>' if message['role'] == 'assistant' else '<' + message['role'] + '>' }}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<end>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<model>' }}{% endif %}"
)
SETTINGS: dict[str, Any] = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<bos>",
    "eos_token": TINY.stop,
    "pad_token": PAD,
    "clean_up_tokenization_spaces": False,
    "chat_template": CHAT_TEMPLATE,
}


@cache
def tiny_tokenizer() -> Tokenizer:
    """The tokenizer of `tiny`: bytes, digits, words and marks, then the control tokens of its chat format."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *map(_spelled, _pieces())]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    # No merges: a cut that is in the vocabulary is one token, every other is spelled in bytes.
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(CUTS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([PAD, *sorted(TINY.controls)])
    return Tokenizer.from_json(tokenizer.to_str(), settings=SETTINGS)


def _pieces() -> list[str]:
    """Whole pieces of text, most of them with and without the space before them."""
    words = list(dict.fromkeys(WORDS.split()))
    spaced = [f" {operator} " for operator in OPERATORS] + [f"{mark} " for mark in ".,:;"]
    return [*spaced, *MARKS, *(f" {mark}" for mark in MARKS), *words, *(f" {word}" for word in words)]


def _spelled(text: str) -> str:
    """Text in the byte alphabet that byte-level tokenizers write their vocabulary in."""
    ((piece, _),) = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return piece


# Width, width of the layer's inner product, and query heads.
_SIZES = {"tiny": (128, 512, 4), "tiny-2x": (192, 640, 6)}


def tiny_arch(size: str = "tiny") -> "Arch":
    """The shape of Qwen 3 (query and key norms, grouped heads, tied embeddings) with about 1.1 million parameters, or
    2.1 million as `tiny-2x`."""
    from tracetune.models.arch import arch_from_hf

    width, inner, heads = _SIZES[size]

    return arch_from_hf(
        {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "vocab_size": tiny_tokenizer().vocab_size,
            "hidden_size": width,
            "intermediate_size": inner,
            "num_hidden_layers": 4,
            "num_attention_heads": heads,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "hidden_act": "silu",
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10_000.0,
            "attention_bias": False,
            "tie_word_embeddings": True,
        }
    )


def tiny_model(seed: int = 0, *, size: str = "tiny") -> "Model":
    """Freshly drawn weights; equal seeds give equal bytes."""
    import jax

    from tracetune.models.model import make_model
    from tracetune.models.transformer import init_params

    arch = tiny_arch(size)
    # One compilation instead of one for each shape drawn.
    params = jax.jit(init_params, static_argnums=1)(jax.random.key(seed), arch)
    return make_model(size, arch, params, tiny_tokenizer())
