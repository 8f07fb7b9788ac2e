"""`tracetune export`: a trained model in the form that others load."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    model: Annotated[
        str,
        typer.Argument(help="A run folder, a model's or adapter's folder, run:<id>, model:<id>, or any model's name."),
    ],
    to: Annotated[Path, typer.Option(help="The folder to write; it must not be there yet.")],
    *,
    format: Annotated[
        Literal["adapter", "merged", "gguf"] | None,
        typer.Option(
            help="PEFT adapter, whole Hugging Face weights, or GGUF; by default the adapter where there is one."
        ),
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16"] | None, typer.Option(help="Type of the weights; by default as they are stored.")
    ] = None,
    max_shard_size: Annotated[str, typer.Option(help="Largest weights file, as 5GB or 500MiB.")] = "5GB",
) -> None:
    """Write a model for PEFT, transformers, Ollama or llama.cpp, with a model card; read back before it counts."""
    from tracetune.app.export import export_model

    done = export_model(model, to, format=format, dtype=dtype, max_shard_size=max_shard_size)
    typer.echo(f"{done.format}, {done.dtype}, {done.num_bytes / 1e6:,.1f} MB\n{done.folder}")
