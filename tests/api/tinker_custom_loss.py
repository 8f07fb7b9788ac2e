"""Run in the cookbook's environment, which has torch: losses of one's own against the built-in ones, by what they lead
to. Prints the largest difference of the log-probs after a step, and how far the step went."""

import asyncio
import json
import sys
import warnings
from functools import partial
from typing import NamedTuple

import numpy as np
import tinker
import torch
from tinker import types

ROWS = [[5, 9, 17, 200, 33], [7, 8, 300, 41, 12, 77]]


def datum(row, place):
    draw = np.random.default_rng(place)
    size = len(row) - 1
    inputs = {"logprobs": draw.normal(-2, 1, size), "advantages": draw.normal(0, 1, size)}
    told = {name: types.TensorData.from_numpy(values.astype(np.float32)) for name, values in inputs.items()}
    told["target_tokens"] = types.TensorData.from_numpy(np.asarray(row[1:]))
    return types.Datum(model_input=types.ModelInput.from_ints(row[:-1]), loss_fn_inputs=told)


DATA = [datum(row, place) for place, row in enumerate(ROWS)]


def sampled(data, logprobs):
    total = 0.0
    for each, lp in zip(data, logprobs, strict=True):
        q = each.loss_fn_inputs["logprobs"].to_torch()
        total = total - (torch.exp(lp - q) * each.loss_fn_inputs["advantages"].to_torch()).sum()
    return total, {"mine:sum": float(total)}


def likelihood(data, logprobs):
    total = -sum(lp.sum() for lp in logprobs)
    return total, {"mine:sum": float(total)}


def after(service, train):
    client = service.create_lora_training_client(sys.argv[1], rank=4, seed=1).result()
    before = np.concatenate([told["logprobs"].to_numpy() for told in look(client)])
    loss = train(client).result().metrics["loss:sum"]
    client.optim_step(types.AdamParams(learning_rate=1e-3)).result()
    return loss, before, np.concatenate([told["logprobs"].to_numpy() for told in look(client)])


def bare(datum):
    """Only what cross-entropy and a loss of one's own read."""
    inputs = {"target_tokens": datum.loss_fn_inputs["target_tokens"]}
    return types.Datum(model_input=datum.model_input, loss_fn_inputs=inputs)


def look(client):
    return client.forward([bare(each) for each in DATA], "cross_entropy").result().loss_fn_outputs


def of_one(logprobs):
    loss = -logprobs.sum()
    return loss, {"custom/of_one:sum": loss}


def awaited(client, data, loss_fn):
    async def both():
        return await (await client.forward_backward_custom_async(data, loss_fn)).result_async()

    return Future(asyncio.run(both()))


class Future(NamedTuple):
    """What is there already, asked for as everything else here."""

    answer: object

    def result(self):
        return self.answer


def main():
    warnings.simplefilter("ignore")
    service, told = tinker.ServiceClient(), {}
    plain = [bare(each) for each in DATA]
    handle = service.create_custom_loss(of_one, {"logprobs": 1}).result()
    by_call = tinker.TrainingClient.forward_backward_custom
    for name, data, own_way, mine in (
        ("importance_sampling", DATA, by_call, sampled),
        ("cross_entropy", plain, by_call, likelihood),
        ("cross_entropy awaited", plain, awaited, likelihood),
        ("cross_entropy by a handle", plain, by_call, handle),
    ):
        built_in = partial(tinker.TrainingClient.forward_backward, data=data, loss_fn=name.split()[0])
        loss, before, led = after(service, built_in)
        own, _, custom = after(service, partial(own_way, data=data, loss_fn=mine))
        difference, moved = np.abs(custom - led).max(), np.abs(led - before).max()
        told[name] = {"losses": [loss, own], "difference": float(difference), "moved": float(moved)}
    print(json.dumps(told))


main()
