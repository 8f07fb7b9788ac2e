"""Every key that a distillation file may have beside those of supervised fine-tuning, and which method reads it."""

from tracetune.config.check import Dial
from tracetune.config.dials import DIALS
from tracetune.config.kinds import FLAG, TEXT, number, one_of, optional, share_below_one, whole

_COUNT = whole(1)

OWN_DIALS = (
    Dial(
        "method",
        "method",
        one_of("sequence", "logit", "on_policy"),
        "what of the teacher is learnt: its answers, its log-probs on the rows' responses, or its judgement of the "
        "student's own answers",
    ),
    Dial(
        "teacher.model",
        "teacher.model",
        TEXT,
        "the teacher: an alias, a folder, `tiny` or `tiny-2x`; its name there with `teacher.url` or on Tinker",
    ),
    Dial("teacher.base_model", "teacher.model", TEXT),
    Dial("teacher.backend", "teacher.backend", one_of("local", "tinker"), "where the teacher is, without a `url`"),
    Dial("teacher.url", "teacher.url", optional(TEXT), "an OpenAI-compatible address that serves the teacher"),
    Dial(
        "teacher.tokenizer",
        "teacher.tokenizer",
        optional(TEXT),
        "a model or folder with the tokenizer of a teacher that is elsewhere; unset, that of a model here of its name",
    ),
    Dial(
        "teacher.key_variable",
        "teacher.key_variable",
        optional(TEXT),
        "the environment variable that holds the key for `teacher.url`; unset, `OPENAI_API_KEY`",
    ),
    Dial(
        "teacher.top_k",
        "teacher.top_k",
        _COUNT,
        "how many of the likeliest tokens of each position are told apart; all others are one bucket. With `on_policy` "
        "1 scores the sampled token alone",
    ),
    Dial(
        "teacher.temperature",
        "teacher.temperature",
        number(0),
        "the temperature of the teacher's answers; 0 takes the likeliest tokens",
    ),
    Dial("teacher.max_tokens", "teacher.max_tokens", _COUNT, "the longest answer of the teacher"),
    Dial("teacher.num_samples", "teacher.num_samples", _COUNT, "answers of the teacher to each prompt"),
    Dial("teacher.batch_size", "teacher.batch_size", _COUNT, "answers that a local teacher writes side by side"),
    Dial(
        "teacher.verify",
        "teacher.verify",
        FLAG,
        "leave out answers of the teacher that the verifier finds wrong, of rows that have a gold answer",
    ),
    Dial(
        "teacher.cache",
        "teacher.cache",
        FLAG,
        "keep what the teacher said under `TRACETUNE_HOME`, where another run finds it and asks nothing",
    ),
    Dial("student.max_tokens", "student.max_tokens", _COUNT, "the longest answer of the student"),
    Dial("student.num_samples", "student.num_samples", _COUNT, "answers of the student to each prompt of a step"),
    Dial(
        "distillation.loss",
        "distillation.loss",
        one_of("forward_kl", "reverse_kl", "jsd"),
        "how far the student is from the teacher at a position",
    ),
    Dial(
        "distillation.beta",
        "distillation.beta",
        number(0, 1, above=True),
        "the teacher's share of the mixture that `jsd` compares both with",
    ),
    Dial(
        "distillation.temperature",
        "distillation.temperature",
        number(0, above=True),
        "what the logits of both are divided by before they are compared; the loss is multiplied by its square",
    ),
    Dial(
        "distillation.alpha",
        "distillation.alpha",
        share_below_one(),
        "the share of the cross-entropy with the rows' own tokens in the loss",
    ),
)
DISTILL_DIALS = (*OWN_DIALS, *DIALS)

# What a method has no use for: written, it would be ignored in silence.
_ANSWERING = ("temperature", "max_tokens", "num_samples", "verify", "batch_size")
UNUSED = {
    # The rows are the teacher's answers: nothing of the data's is held out or of a format, and prompts are one file.
    "sequence": (
        *("distillation.", "student.", "teacher.top_k"),
        *("data.eval_fraction", "data.format", "data.train_files"),
    ),
    "logit": ("student.", *(f"teacher.{name}" for name in _ANSWERING)),
    "on_policy": (
        *(f"teacher.{name}" for name in (*_ANSWERING, "cache")),
        *("distillation.alpha", "data.eval_file", "data.eval_fraction", "training.eval_every"),
        *("data.shuffle", "data.format", "data.min_tokens", "data.max_tokens", "data.train_files", "model.packing"),
    ),
}
