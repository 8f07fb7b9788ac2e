"""An optimizer's state that rests on the host: the same steps, and its place is kept."""

import jax
import numpy as np
import pytest
from tests.engine.test_step import ARCH, batch, params

from tracetune.config.schema import OptimizerSettings
from tracetune.core.errors import InputError
from tracetune.engine.offload import rest, resting
from tracetune.engine.optimizer import make_optimizer
from tracetune.engine.step import init_state, make_train_step, stack_batches
from tracetune.models import remat


def kinds(opt_state) -> set[str]:
    return {leaf.sharding.memory_kind for leaf in jax.tree.leaves(opt_state) if leaf.ndim}


@pytest.mark.slow
def test_steps_are_those_of_a_state_on_the_device_to_the_last_bit():
    after = []
    for offload in (False, True):
        optimizer = make_optimizer(OptimizerSettings(learning_rate=1e-2, offload=offload), 10)
        state = init_state(params(), optimizer)
        if offload:
            state = state._replace(opt_state=rest(state.opt_state))
            assert kinds(state.opt_state) == {"pinned_host"}
        step = make_train_step(ARCH, optimizer)
        for seed in range(3):
            state, _ = step(state, None, stack_batches([batch(2, seed=seed)]))
        assert kinds(state.opt_state) == ({"pinned_host"} if offload else {jax.devices()[0].default_memory().kind})
        after.append(jax.device_get(state))
    jax.tree.map(np.testing.assert_array_equal, *after)


def test_a_device_without_pinned_memory_is_refused_before_anything_moves(monkeypatch):
    opt_state = make_optimizer(OptimizerSettings(), 1).init(params())
    assert kinds(resting(opt_state)) == {"pinned_host"}
    monkeypatch.setattr(remat, "_memories", lambda: ["device"])
    for place in (rest, resting):
        with pytest.raises(InputError, match=r"optimizer\.offload: needs pinned host memory"):
            place(opt_state)
