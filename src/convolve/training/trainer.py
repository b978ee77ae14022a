"""The training step: forward, backward and optimizer as one program that Python enters once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from convolve.errors import ConvolveError
from convolve.execution import Executable
from convolve.graph import Graph, Leaf, Value, differentiate, leaf
from convolve.network import Forward, Network
from convolve.passes import sink
from convolve.training import losses
from convolve.training.losses import LossFunction
from convolve.training.optim import Optimizer, Role, Updates, clipped

AVERAGE = "average/"
"""What the names of averages begin with, among the optimizer's state."""
SLOW = 9
"""Steps that the average of the weights is behind at first, when it keeps less than it is told to."""


class Trainer:
    """Steps of one optimizer on one loss, on batches of any size; a partial one has its true mean.

    With `average`, each step also moves an exponential average of all parameters that learn, and of all statistics:
    average = d * average + (1 - d) * new, with d = min(`average`, t / (t + 9)) at step t, from 0. Other than that of
    Polyak and Juditsky (1992) it forgets; it usually classifies better than the parameters of any single step.
    """

    def __init__(
        self,
        network: Network,
        loss: str | LossFunction,
        optimizer: Optimizer,
        seed: int = 0,
        average: float | None = None,
    ) -> None:
        if not network.specs:
            raise ConvolveError("this net has no parameters: there is nothing to train. Add a Conv or a Dense layer")
        if not network.trained:
            raise ConvolveError("all parameters of this net are frozen: there is nothing to train. See Model.freeze")
        if average is not None and not 0 < average < 1:
            raise ConvolveError(f"average must be between 0 and 1, or None. Received: average={average!r}")
        self.network, self.optimizer, self.seed, self.average = network, optimizer, seed, average
        self.loss = losses.resolve(loss)
        optimizer.check(network.specs)
        self.steps = 0
        network.reset("state")
        network.user = self

    def step(self, x: np.ndarray, y: np.ndarray, rate: float | None = None) -> tuple[float, np.ndarray]:
        """One optimizer step on a batch.

        Args:
            x: (n, *input_shape), float32 or uint8, contiguous.
            y: what `losses.targets` says: labels int32, or else float32; contiguous.
            rate: learning rate of this step; the optimizer's own by default.

        Returns:
            The loss before the step, and the net's output for the batch.
        """
        network, executable = self.network, self.executable(x, y)
        if network.user is not self:
            raise ConvolveError(
                "a newer trainer has taken this model over, and the optimizer's state with it: use that one"
            )
        numbers = self._rates(self.optimizer.rate if rate is None else rate) | self._numbers(self.steps)
        with network.lock:
            for name, value in numbers.items():
                if f"number:{name}" in network.stores:  # not where no parameter's step needs it
                    network.stores[f"number:{name}"][0] = value
            if "random:random" in network.stores:
                network.stores["random:random"][:2] = self.seed, self.steps
            made = network.run(executable, {"x": x, "y": y}, ("loss", "output"))
        self.steps += 1
        return float(made["loss"]), made["output"]

    def executable(self, x: np.ndarray, y: np.ndarray) -> Executable:
        """The program of a step on such a batch."""
        dtype = "u1" if x.dtype == np.uint8 else "f4"
        key = ("train", len(x), dtype, y.shape, y.dtype, self.loss, self.optimizer, self.average is not None)
        return self.network.executable(key, lambda: self._graph(len(x), dtype, y))

    @property
    def state(self) -> dict[str, np.ndarray]:
        """Copies of what the optimizer keeps from step to step, by name."""
        return {name: self.network[f"state:{name}"] for name in self.network.keys("state")}

    def resume(self, state: Mapping[str, np.ndarray], steps: int, x: np.ndarray, y: np.ndarray) -> None:
        """Go on where a trainer of the same net, loss and optimizer stopped, after `steps` steps and with its `state`.

        Args:
            state: as the property of that name gave it.
            steps: how many were made.
            x, y: a batch as `step` will get it: it settles which arrays there are.

        Raises:
            ConvolveError: the state is another optimizer's or another net's.
        """
        self.executable(x, y)
        known = set(self.network.keys("state"))
        if known != set(state):
            raise ConvolveError(
                f"the optimizer's state does not fit: only one side has {', '.join(sorted(known ^ set(state))[:4])}"
            )
        for name, array in state.items():
            self.network[f"state:{name}"] = array
        self.steps = steps

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the block the network has the averages in place of its arrays: to measure or save it, not to train."""
        averages = self._averages()
        with self.network.lock:
            own = {key: self.network[key] for key in averages}
            try:
                self._assign(averages)
                yield
            finally:
                self._assign(own)

    def settle(self) -> None:
        """Leave the averages as the network's parameters and statistics: the end of training."""
        self._assign(self._averages())

    def _averages(self) -> dict[str, np.ndarray]:
        if not self.steps:
            return {}
        return {name.removeprefix(AVERAGE): array for name, array in self.state.items() if name.startswith(AVERAGE)}

    def _assign(self, arrays: Mapping[str, np.ndarray]) -> None:
        for key, array in arrays.items():
            self.network[key] = array

    def _rates(self, rate: float) -> dict[str, float]:
        """The rate, and its multiples by the factors that the optimizer has for some parameters, by name."""
        factors = dict.fromkeys(self.optimizer.factor(name) for name in self.network.trained)
        return {_rate_name(factor): rate * factor for factor in factors}

    def _numbers(self, step: int) -> dict[str, float]:
        """Numbers of a step other than the rate."""
        numbers = self.optimizer.numbers(step)
        return numbers if self.average is None else numbers | {"keep": min(self.average, step / (step + SLOW))}

    def _roles(self) -> dict[str, Role]:
        specs = self.network.specs
        roles: dict[str, Role] = {name: "weight" if spec.decay else "other" for name, spec in specs.items()}
        weights = [name for name, spec in specs.items() if spec.decay and len(spec.shape) > 1]
        if len(weights) > 1:
            roles[weights[-1]] = "head"
        return roles

    def _graph(self, batch: int, dtype: str, y: np.ndarray) -> Graph:
        forward = self.network.forward(batch, dtype, training=True)
        graph, gradients, leaves = with_gradients(self.network, forward, self.loss, y)
        if self.optimizer.clip is not None:
            gradients = clipped(gradients, self.optimizer.clip)
        numbers, roles = {name: leaf("number", name, ()) for name in self._numbers(0)}, self._roles()
        for (name, parameter), gradient in zip(leaves.items(), gradients, strict=True):

            def state(kind: str, name: str = name, parameter: Value = parameter) -> Value:
                return leaf("state", f"{kind}/{name}", parameter.shape)

            rate = leaf("number", _rate_name(self.optimizer.factor(name)), ())
            graph.updates += self.optimizer.update(parameter, gradient, rate, state, numbers, roles[name])
        if self.average is not None:
            graph.updates += _averages(graph, numbers["keep"])
        return graph


def _rate_name(factor: float) -> str:
    return "rate" if factor == 1 else f"rate*{factor!r}"


def _averages(graph: Graph, keep: Value) -> Updates:
    """Averages of whatever a step gives new values: parameters and statistics."""
    result: Updates = []
    for target, value in graph.updates:
        assert isinstance(target.op, Leaf)
        if target.op.kind in ("parameter", "statistic"):
            old = leaf("state", f"{AVERAGE}{target.op.kind}:{target.op.key}", target.shape)
            result.append((old, old * keep + value * (1.0 - keep)))
    return result


def with_gradients(
    network: Network, forward: Forward, loss: LossFunction, y: np.ndarray
) -> tuple[Graph, list[Value], dict[str, Value]]:
    """A graph of loss, output and statistics' updates; the gradients of the parameters that learn, and these."""
    target = losses.target_leaf(y)
    construction = forward.construction
    graph = Graph({"loss": loss(forward.logits, target), "output": forward.output}, list(construction.updates))
    graph = sink(graph)
    leaves = {name: construction.leaves[name] for name in network.trained}
    gradients = differentiate(graph.outputs["loss"], list(leaves.values()))
    return graph, gradients, leaves


def gradients(
    network: Network, x: np.ndarray, y: np.ndarray, loss: str | LossFunction
) -> tuple[float, dict[str, np.ndarray]]:
    """The loss of a batch and its gradient by each parameter, as in training (batch norm by the batch's moments)."""
    chosen = losses.resolve(loss)
    dtype = "u1" if x.dtype == np.uint8 else "f4"

    def build() -> Graph:
        graph, found, leaves = with_gradients(network, network.forward(len(x), dtype, True), chosen, y)
        outputs = {"loss": graph.outputs["loss"]}
        return Graph(outputs | {f"gradient:{name}": g for name, g in zip(leaves, found, strict=True)})

    executable = network.executable(("gradients", len(x), dtype, y.shape, y.dtype, chosen), build)
    made = network.run(executable, {"x": x, "y": y}, executable.outputs)
    return float(made.pop("loss")), {key.split(":", 1)[1]: value for key, value in made.items()}
