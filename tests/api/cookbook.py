"""What tinker-cookbook's recipes find where they run: a model of ours under a hub's name, and small data sets.

`tiny` with ChatML's two control tokens, taught so little and so much that rewards differ between its answers: it
knows every sum that `math_rl` will ask, and says 0 more often than it says what it knows.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tokenizers

from tracetune.core.values import Message
from tracetune.data.render import render_prompt
from tracetune.engine.scoring import score_tokens
from tracetune.models.hf import save_full
from tracetune.models.model import Model, make_model
from tracetune.models.tiny import tiny_arch, tiny_tokenizer
from tracetune.models.tokenizer import Tokenizer
from tracetune.models.transformer import init_params

ENVIRONMENT = Path(__file__).parents[2] / ".bench" / "cookbook"
STUDENT, TEACHER = "Qwen/Qwen3-8B", "Qwen/Qwen3-14B"
CONTROLS = ["<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Sums of a batch of math_rl, and its batches.
SUMS, BATCHES = 3, 8
LESSONS = 48
BOXED = " Provide a numerical answer without units, written inside \\boxed{}."
SPELLED = (
    "Let's spell the word out and number all the letters: 1) s 2) t 3) r 4) a 5) w 6) b 7) e 8) r 9) r 10) y. "
    "We have r's at positions 3, 8, and 9. \\boxed{3}"
)
STORIES = [f"Ana has {n} apples and gets {9 - n} more. How many now?" for n in range(1, 9)]


def sums(batch: int) -> list[tuple[int, int]]:
    """What `math_rl env=arithmetic` asks in a batch: the recipe draws it from the batch's number alone."""
    draw = np.random.RandomState(batch)
    return [(int(draw.randint(0, 101)), int(draw.randint(0, 101))) for _ in range(SUMS)]


def asked(pair: tuple[int, int]) -> list[Message]:
    """The recipe's prompt: one sum that is answered, and the one that is not."""
    told = [Message("user", "What is 4 + 5?"), Message("assistant", "9")]
    return [*told, Message("user", f"What is {pair[0]} + {pair[1]}?")]


def boxed(story: str) -> list[Message]:
    """The prompt of `rl_loop`."""
    told = [Message("user", f"How many r's are in strawberry?{BOXED}"), Message("assistant", SPELLED)]
    return [*told, Message("user", story + BOXED)]


def make_untaught(folder: Path) -> None:
    """`tiny` as it is drawn, with a tokenizer that has ChatML's control tokens too."""
    draft = folder.with_suffix(".draft")
    tiny_tokenizer().save(draft)
    source = tokenizers.Tokenizer.from_file(str(draft / "tokenizer.json"))
    source.add_special_tokens(CONTROLS)
    settings = json.loads((draft / "tokenizer_config.json").read_text())
    settings |= {"eos_token": CONTROLS[1], "chat_template": CHATML}
    tokenizer = Tokenizer.from_json(source.to_str(), settings=settings)
    arch = replace(tiny_arch(), vocab_size=tokenizer.vocab_size)
    params = jax.jit(init_params, static_argnums=1)(jax.random.key(0), arch)
    save_full(make_model("tiny", arch, params, tokenizer), folder)


def teach(untaught: Path, root: Path) -> Path:
    """The folder of the model that knows what it was taught: first what is right, then to say 0 more often."""
    draw = np.random.default_rng(1)
    pairs = [pair for batch in range(BATCHES) for pair in sums(batch)]
    rows = []
    for lesson in range(LESSONS):
        right = 1.0 if lesson < LESSONS * 0.45 else 0.4
        rows += [
            _row(asked(pairs[place]), str(sum(pairs[place]) if draw.random() < right else 0))
            for place in draw.permutation(len(pairs))
        ]
        # Not before it knows what an answer is, and not so late that too little of it is learnt.
        if lesson >= LESSONS // 4:
            rows.append(_row(boxed(STORIES[lesson % len(STORIES)]), "\\boxed{9}"))
    data = root / "lessons.jsonl"
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    # By a process of its own, compiled as users do: of so many steps most of the time is computing.
    settings = f"model={untaught} model.max_length=352 training.num_epochs=1 batch_size=2 training.save_every=0 "
    settings += "learning_rate=3e-3 optimizer.schedule=cosine training.warmup_steps=10 data.shuffle=false"
    words = [sys.executable, "-m", "tracetune", "sft", *settings.split(), "--data", data, "--output", root / "taught"]
    skipped = ("JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in skipped}
    subprocess.run(words, env=environment, check=True)
    return root / "taught" / "checkpoint-final"


def _row(prompt: Sequence[Message], answer: str) -> dict[str, Any]:
    said = [*prompt, Message("assistant", answer)]
    return {"messages": [{"role": turn.role, "content": turn.content} for turn in said]}


def right_by_itself(model: Model, batch: int) -> float:
    """How probable it is that the model, as it was served, answers a sum of the batch rightly."""
    prompts = [render_prompt(asked(pair), model.tokenizer) for pair in sums(batch)]
    answers = [[*model.tokenizer.encode_text(str(sum(pair))), min(model.tokenizer.stop_ids)] for pair in sums(batch)]
    scored = score_tokens(model, [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)])
    return float(np.mean([np.exp(row[-len(answer) :].sum()) for row, answer in zip(scored, answers, strict=True)]))


def make_workplace(folder: Path, model: Path) -> None:
    """Where recipes run: what they ask the hub for by name is here as a folder of that name."""
    for name in (STUDENT, TEACHER):
        shutil.copytree(model, folder / name, ignore=shutil.ignore_patterns("*.safetensors", "checkpoint.json"))
    talks = [_row([Message("user", f"What is {n} + 2?")], str(n + 2)) for n in range(16)]
    _dataset(folder / "HuggingFaceH4/no_robots", train=talks, test=talks[:2])
    stories = [{"question": story, "answer": "They are added.\n#### 9"} for story in STORIES]
    _dataset(folder / "openai/gsm8k", config="main", train=stories, test=stories[:2])
    pair = "\n\nHuman: What is {0} + 2?\n\nAssistant: {1}"
    pairs = [{"chosen": pair.format(n, n + 2), "rejected": pair.format(n, "What")} for n in range(16)]
    _dataset(folder / "Anthropic/hh-rlhf", train=pairs, test=pairs[:4])
    _dataset(folder / "zwhe99/DeepMath-103K", train=[{"question": story} for story in STORIES])


def _dataset(folder: Path, *, config: str = "default", **splits: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True)
    files = [{"split": name, "path": f"{name}.jsonl"} for name in splits]
    # JSON is YAML.
    card = json.dumps({"configs": [{"config_name": config, "data_files": files}]})
    (folder / "README.md").write_text(f"---\n{card}\n---\n")
    for name, rows in splits.items():
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@contextmanager
def tinker_server(home: Path, aliases: dict[str, Path]) -> Iterator[str]:
    """The URL of `tracetune serve --tinker`, a process of its own."""
    named = [word for name, folder in aliases.items() for word in ("--alias", f"{name}={folder}")]
    command = [sys.executable, "-m", "tracetune", "serve", "--tinker", "--port", "0", "--data-dir", str(home), *named]
    log = home.with_suffix(".log")
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file) as server:
        try:
            deadline = time.monotonic() + 120
            while not (greeting := re.search(r"Tinker at (\S+) with ", log.read_text())):
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.1)
            yield greeting.group(1)
        finally:
            server.terminate()


def run_recipe(recipe: str, settings: Sequence[str], *, url: str, workplace: Path, log: Path) -> tuple[int, str]:
    """Run one of the cookbook's programs to its end; its exit code and what it said."""
    words = ["-m", f"tinker_cookbook.recipes.{recipe}", *settings]
    words += [f"model_name={STUDENT}", f"base_url={url}", f"log_path={log}"]
    done = run_program(words, url=url, workplace=workplace)
    return done.returncode, done.stdout + done.stderr


def run_program(words: Sequence[str], *, url: str, workplace: Path) -> subprocess.CompletedProcess[str]:
    """Run a program by the environment's Python, offline."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TINKER", "HF_"))}
    offline = {"HF_HOME": str(workplace / ".hub"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    ours = {"TINKER_BASE_URL": url, "TINKER_API_KEY": "tml-local", "TINKER_TELEMETRY": "0", "OMP_NUM_THREADS": "1"}
    command = [str(ENVIRONMENT / "bin" / "python"), *words]
    environment = kept | offline | ours
    return subprocess.run(command, cwd=workplace, env=environment, capture_output=True, text=True, timeout=600)
