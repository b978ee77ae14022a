"""What the page asks of a model, and the answers: structure once, then only what is on the screen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from convolve.errors import ConvolveError, DataError
from convolve.ops.softmax import Softmax
from convolve.page.message import Message
from convolve.page.outline import Node
from convolve.page.pictures import flat, quantised, shrunk, sliced
from convolve.page.study import Study
from convolve.page.subject import Subject
from convolve.page.upload import drawn, sample_of
from convolve.page.watch import Watched
from convolve.view.excitation import crop
from convolve.view.filters import Filters, filters
from convolve.view.made import Shares
from convolve.view.pixel import Traced
from convolve.view.saliency import grad_cam, occlusion

MOST_THUMBNAILS, THUMBNAIL = 8, 48
"""Maps of a layer that the net's view shows, and positions along each dimension of one."""
MOST_MAPS, MAP = 64, 128
"""Likewise in the view of a layer, at a time."""
MOST_FILTER_CHANNELS = 16
"""Channels of a filter that the view of a layer shows."""
MOST_CLASSES = 12
"""Classes that the answer lists."""
MOST_SAMPLES = 48
MOST_COMPARED = 24
"""Filters that are shown beside another checkpoint's at a time."""
MOST_EXCITED = 16
"""Filters of which it is shown at a time what excites them."""
RELU, BATCH_NORM = ("ReLU", "Relu"), ("BatchNorm", "BatchNormalization")
"""What layers and operators of ONNX are called."""


def _silenced(found: Sequence[Node], node: Node) -> bool:
    """Whether nothing but a ReLU (behind a norm, perhaps) reads the layer, so that a map without positives is lost."""
    place = found.index(node)
    readers = [n for n in found if place in n.inputs]
    if len(readers) != 1:
        return False
    return readers[0].kind in RELU or (readers[0].kind in BATCH_NORM and _silenced(found, readers[0]))


class Session:
    """One visitor: the picture at hand, and every layer's activations for it."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.pictures = [np.asarray(samples[:1]) for samples in subject.given]
        """What each input of the net is given."""
        self._traced: Traced | None = None
        self._other: Traced | None = None
        self._asked: dict[str, Callable[[Message], Message]] = {
            "net": self._net,
            "look": self._look,
            "samples": self._samples,
            "thumbnails": self._thumbnails,
            "layer": self._layer,
            "map": self._map,
            "pixel": self._pixel,
            "heat": self._heat,
            "compare": self._compare,
            "training": self._training,
            "moment": self._moment,
            "excitation": self._excitation,
        }

    def answer(self, message: Message) -> Message:
        """The answer to a question; what a person can mend becomes a sentence under "error"."""
        header = message.header
        ask = header.get("ask")
        try:
            if ask not in self._asked:
                raise DataError(f"the page asks for {ask!r}, which is not known here")
            made = self._asked[ask](message)
        except ConvolveError as error:
            made = Message({"error": str(error)})
        return Message({"ask": ask, "id": header.get("id")} | made.header, made.arrays)

    @property
    def traced(self) -> Traced:
        """The activations for the picture at hand, computed when somebody asks."""
        if self._traced is None:
            first = self.subject.first
            known = first.version == self.subject.network.version and all(
                map(np.array_equal, first.given.values(), self.pictures)
            )
            self._traced = first if known else Traced(self.subject.network, self.pictures, self.subject.anatomy)
        return self._traced

    # the whole net, and the picture

    def _net(self, message: Message) -> Message:
        return Message(self.subject.outline)

    def _samples(self, message: Message) -> Message:
        """Pictures of the samples from `from` on."""
        start = _whole(message.header, "from", 0, len(self.subject.samples) - 1)
        most = _whole(message.header, "most", 1, MOST_SAMPLES, MOST_SAMPLES)
        shown = self.subject.samples[start : start + most]
        middle = np.stack([sliced(sample, 0.5) for sample in shown])
        return Message({"from": start}, {"pictures": self._as_bytes(shrunk(middle, THUMBNAIL))})

    def _input(self, header: Mapping[str, Any]) -> int:
        """Which of the net's inputs is meant: the first, unless the page says another."""
        return _whole(header, "input", 0, len(self.pictures) - 1)

    def _look(self, message: Message) -> Message:
        """Take a sample, a drawing or a file as the picture at hand, and say what the net makes of it."""
        header, label = message.header, None
        number = self._input(header)
        if "sample" in header:
            sample = _whole(header, "sample", 0, len(self.subject.samples) - 1)
            self.pictures = [np.asarray(samples[sample : sample + 1]) for samples in self.subject.given]
            label = None if self.subject.labels is None else int(self.subject.labels[sample])
        elif "file" in message.arrays:
            content, name = message.arrays["file"].tobytes(), str(header.get("name", "the file"))
            self.pictures[number] = sample_of(self.subject, number, content, name)
        elif "drawing" in message.arrays:
            self.pictures[number] = drawn(self.subject, number, message.arrays["drawing"])
        elif header.get("again") is not True:
            raise DataError(f"expected a sample, a drawing or a file. Received: {sorted(header)}")
        self._traced = self._other = None
        arrays = {f"picture{i}": picture[0] for i, picture in enumerate(self.pictures)}
        return Message({"label": label} | self._answered(), arrays)

    def _answered(self) -> dict[str, Any]:
        """The net's prediction: the most probable classes, each label's probability, or values."""
        made, task = self._made(), self.subject.task
        if made.ndim != 1 or (task == "classify" and len(made) < 2):
            return {"answer": None, "shape": made.shape}
        shares = made
        if task == "labels":
            shares = np.exp(-np.logaddexp(0, -made))
        elif task == "classify" and not isinstance(self.subject.anatomy.forward.output.op, Softmax):
            grown = np.exp(made - made.max())
            shares = grown / grown.sum()
        best = np.argsort(-shares, kind="stable")[:MOST_CLASSES]
        if len(made) <= MOST_CLASSES:
            best = np.arange(len(made))
        listed = [{"class": int(i), "name": self.subject.class_name(int(i)), "share": float(shares[i])} for i in best]
        return {"answer": listed, "task": task, "best": int(shares.argmax()), "shape": made.shape}

    def _made(self) -> np.ndarray:
        """The net's output, as the trace has it, in float64."""
        output = self.subject.anatomy.forward.output.serial
        for node in self.subject.nodes:
            if node.value.serial == output:
                return np.asarray(self.traced.results[node.path][0], np.float64)
        return np.asarray(next(iter(self.subject.network.predict(*self.pictures).values()))[0], np.float64)

    def _as_bytes(self, pictures: np.ndarray) -> np.ndarray:
        """Samples as bytes from black to white."""
        low, high = self.subject.ranges[0]
        return np.asarray(np.clip((pictures - low) * (255 / (high - low)) + 0.5, 0, 255), np.uint8)

    # another checkpoint

    @property
    def other(self) -> Traced:
        """The other checkpoint's activations for the picture at hand."""
        if self.subject.other is None:
            raise DataError("there is no other checkpoint to compare with")
        if self._other is None:
            self._other = Traced(self.subject.other, self.pictures)
        return self._other

    def _compare(self, message: Message) -> Message:
        """A layer's filters and maps beside those of the other checkpoint, what changed most first."""
        node, other = self._node(message.header), self.other
        if node.path not in self.subject.changes:
            raise DataError(f"{node.path}: has no filters to compare")
        change = self.subject.changes[node.path]
        start = _whole(message.header, "from", 0, len(change.order) - 1)
        chosen = change.order[start : start + MOST_COMPARED]
        depth = _part(message.header, "depth")
        pair = [self.maps(node, message.header), sliced(flat(other.results[node.path][0]), depth)]
        scale = float(max(np.nanmax(np.abs(maps)) for maps in pair))
        arrays = {"channels": chosen.astype(np.int32)}
        for name, traced, maps in zip(("a", "b"), (self.traced, other), pair, strict=True):
            weights = filters(traced.network, node.path, traced.anatomy).weights
            arrays[f"filters_{name}"] = weights[chosen][..., :MOST_FILTER_CHANNELS].astype(np.float32)
            if len(node.shape) > 1:
                small = shrunk(maps[..., chosen][None], THUMBNAIL)[0]
                arrays[f"maps_{name}"] = quantised(np.moveaxis(small, -1, 0), scale)
        arrays["distance"] = change.distance[chosen].astype(np.float32)
        arrays["cosine"] = change.cosine[chosen].astype(np.float32)
        return Message({"node": message.header["node"], "from": start, "count": len(change.order)}, arrays)

    # training

    def _watched(self) -> Watched:
        if self.subject.watched is None:
            raise DataError("nothing is known of this net's training")
        return self.subject.watched

    def _training(self, message: Message) -> Message:
        """Curves, and where training stands."""
        watched = self._watched()
        at = watched.progress
        stands = None if at is None else {"epoch": at.epoch, "epochs": at.epochs, "left": at.seconds_left}
        metrics = [moment.metrics for moment in watched.moments]
        kept = {"layer": watched.layer, "beside": watched.beside}
        return Message({"epochs": metrics, "losses": watched.losses, "stands": stands} | kept)

    def _moment(self, message: Message) -> Message:
        """The first layer's filters after an epoch, and mistakes as pictures."""
        moments = self._watched().moments
        if not moments:
            raise DataError("no epoch is done yet")
        moment = moments[_whole(message.header, "epoch", 0, len(moments) - 1)]
        arrays = {"filters": moment.filters.astype(np.float32), "pictures": self._as_bytes(moment.pictures)}
        arrays["beside"] = self._as_bytes(moment.beside)
        return Message({"epoch": message.header.get("epoch", 0), "mistakes": moment.mistakes}, arrays)

    # layers

    def _node(self, header: Mapping[str, Any]) -> Node:
        return self.subject.nodes[_whole(header, "node", 0, len(self.subject.nodes) - 1)]

    def maps(self, node: Node, header: Mapping[str, Any]) -> np.ndarray:
        """A layer's activations as maps: (rows, columns, channels), or (length, channels) of a signal.

        A row of values becomes one map, of a volume the slice is taken that lies at the part `depth` of it.
        """
        return sliced(flat(self.traced.results[node.path][0]), _part(header, "depth"))

    def _thumbnails(self, message: Message) -> Message:
        """Small pictures of some layers' first maps."""
        listed = message.header.get("nodes")
        if not isinstance(listed, list):
            raise DataError(f"expected a list of nodes. Received: {listed!r}")
        scales, arrays = [], {}
        for place in listed:
            maps = self.maps(self._node({"node": place}), message.header)
            scale = float(np.nanmax(np.abs(maps)))
            shown = shrunk(maps[..., :MOST_THUMBNAILS][None], THUMBNAIL)[0]
            arrays[str(place)] = quantised(np.moveaxis(shown, -1, 0), scale)
            scales.append(scale)
        return Message({"nodes": listed, "scales": scales}, arrays)

    def _layer(self, message: Message) -> Message:
        """A layer's maps and filters, some at a time, in the order that is asked for."""
        node = self._node(message.header)
        maps = self.maps(node, message.header)
        found = self._filters(node)
        strengths = np.nanmean(np.abs(maps).reshape(-1, maps.shape[-1]), 0)
        # Maps without filters of their own are told apart by what they show.
        likened = found or Filters(node.path, np.nan_to_num(maps.reshape(-1, maps.shape[-1]).T))
        order = likened.order(str(message.header.get("order", "index")))
        start = _whole(message.header, "from", 0, len(order) - 1)
        chosen = order[start : start + _whole(message.header, "most", 1, MOST_MAPS, MOST_MAPS)]
        size = _whole(message.header, "size", 1, MAP, MAP)
        scale = float(np.nanmax(np.abs(maps)))
        arrays = {"maps": quantised(np.moveaxis(shrunk(maps[..., chosen][None], size)[0], -1, 0), scale)}
        arrays["channels"] = chosen.astype(np.int32)
        arrays["strengths"] = strengths[chosen].astype(np.float32)
        header = {"node": message.header["node"], "count": len(order), "from": start, "scale": scale}
        silent = self._silent(node, len(order))
        if found is not None:
            arrays["filters"] = found.weights[chosen][..., :MOST_FILTER_CHANNELS].astype(np.float32)
            header["filter_shape"] = found.weights.shape[1:]
            silent = silent | found.dead
        arrays["silent"] = silent[chosen].astype(np.uint8)
        arrays |= self._seen(node, self._input(message.header))
        return Message(header, arrays)

    def _silent(self, node: Node, maps: int) -> np.ndarray:
        """Which maps have nothing above zero for this picture, where nothing else passes the ReLU behind them."""
        if len(node.shape) < 2 or not _silenced(self.subject.nodes, node):
            return np.zeros(maps, bool)
        passed = self.traced.results[self._rectifier(node).path] > 0
        return np.logical_not(passed.any(tuple(range(passed.ndim - 1))))

    def _rectifier(self, node: Node) -> Node:
        """The ReLU that reads a layer, through a norm perhaps."""
        place = self.subject.nodes.index(node)
        reader = next(n for n in self.subject.nodes if place in n.inputs)
        return reader if reader.kind in RELU else self._rectifier(reader)

    def _filters(self, node: Node) -> Filters | None:
        """A convolution's filters, where they are an array of the net."""
        if len(node.shape) < 2 or node.path not in self.subject.filtered:
            return None
        return filters(self.subject.network, node.path, self.subject.anatomy)

    def _heat(self, message: Message) -> Message:
        """Which part of the picture an answer comes from, from -1 (against it) to 1."""
        network, method, number = self.subject.network, message.header.get("method"), self._input(message.header)
        target = _whole(message.header, "target", 0, network.output_shape[-1] - 1)
        if method == "grad_cam":
            found = grad_cam(network, self.pictures, target, anatomy=self.subject.anatomy, number=number)
        elif method == "occlusion":
            found = occlusion(network, self.pictures, target, anatomy=self.subject.anatomy, number=number)
        else:
            raise DataError(f"method: expected grad_cam or occlusion. Received: {method!r}")
        largest = float(np.abs(found.map).max())
        heat = np.asarray(found.map / (largest or 1), np.float32)
        told = {"method": found.method, "target": target, "layer": found.layer, "largest": largest}
        return Message(told, {"heat": heat})

    def _excitation(self, message: Message) -> Message:
        """What some filters of a layer look for, as far as it is measured; the first question begins to measure."""
        node = self._node(message.header)
        if node.path not in self.subject.filtered:
            raise DataError(f"{node.path}: has no filters")
        listed = message.header.get("filters")
        if not isinstance(listed, list) or len(listed) > MOST_EXCITED:
            raise DataError(f"expected a list of at most {MOST_EXCITED} filters. Received: {listed!r}")
        chosen = [_whole({"filter": f}, "filter", 0, node.shape[-1] - 1) for f in listed]
        known = self.subject.studies.begun(node.path)
        if known.failed:
            raise DataError(known.failed)
        return self.excited(message.header["node"], known, chosen)

    def excited(self, place: int, known: Study, chosen: Sequence[int]) -> Message:
        """What is known of some filters of the layer at a place."""
        header: dict[str, Any] = {"ask": "excitation", "node": place, "filters": chosen}
        header |= {"part": known.part, "done": known.done}
        found = known.found
        if found is None or not chosen:
            return Message(header)
        crops = self._crops(
            [
                [
                    crop(self.subject.samples[i], found.box(f, k), self.subject.ranges[0][0])
                    for k, i in enumerate(found.samples[f])
                ]
                for f in chosen
            ]
        )
        header |= {"samples": found.done, "accuracy": found.accuracy, "heard": found.heard}
        arrays = {"crops": crops, "values": found.values[chosen].astype(np.float32)}
        arrays["dead"] = found.dead[chosen].astype(np.uint8)
        if found.means.shape[1]:
            arrays["favourite"] = found.favourite[chosen].astype(np.int32)
            arrays["selectivity"] = found.selectivity[chosen].astype(np.float32)
        if found.accuracy_without is not None:
            arrays["accuracy_without"] = found.accuracy_without[chosen].astype(np.float32)
        return Message(header, arrays)

    def _crops(self, crops: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
        """Crops of samples as bytes, (filters, top, rows, columns, channels), the small ones in the middle."""
        shown = [[shrunk(sliced(c, 0.5)[None], THUMBNAIL)[0] for c in row] for row in crops]
        size = np.max([c.shape for row in shown for c in row], 0)
        made = np.full((len(shown), len(shown[0]), *size), self.subject.ranges[0][0], np.float32)
        for f, row in enumerate(shown):
            for k, c in enumerate(row):
                inner = tuple(slice((n - m) // 2, (n + m) // 2) for n, m in zip(size, c.shape, strict=True))
                made[f, k][inner] = c
        return self._as_bytes(made)

    def _seen(self, node: Node, number: int) -> dict[str, np.ndarray]:
        """First and last position of an input that each position of a layer sees, a pair of rows a dimension."""
        sees = self.subject.fields[number].get(node.value.serial, ())
        if len(sees) != len(node.shape) - 1:
            return {}
        made = {}
        for dim, (interval, count) in enumerate(zip(sees, node.shape[:-1], strict=True)):
            made[f"sees{dim}"] = np.stack(interval.at(np.arange(count))).astype(np.int32)
        return made

    def _map(self, message: Message) -> Message:
        """One channel of a layer's activations, every number of it."""
        node = self._node(message.header)
        maps = self.maps(node, message.header)
        channel = _whole(message.header, "channel", 0, maps.shape[-1] - 1)
        scale = float(np.nanmax(np.abs(maps)))
        header = {"node": message.header["node"], "channel": channel, "scale": scale}
        return Message(header, {"map": np.ascontiguousarray(maps[..., channel], np.float32)})

    def _pixel(self, message: Message) -> Message:
        """What one value is made of."""
        node = self._node(message.header)
        position = message.header.get("position")
        if not isinstance(position, list) or not all(isinstance(i, int) for i in position):
            raise DataError(f"expected a position. Received: {position!r}")
        pixel = self.traced.pixel(node.path, position)
        told = pixel.as_dict()
        made = vars(pixel.made)
        arrays = {name: _numbers(a) for name, a in made.items() if isinstance(a, np.ndarray)}
        if isinstance(pixel.made, Shares):
            arrays["shares"] = pixel.made.shares
        told["made"] = {name: v for name, v in told["made"].items() if name not in arrays} | {"scale": pixel.made.scale}
        return Message({"node": message.header["node"], "pixel": told}, arrays)


def _numbers(array: np.ndarray) -> np.ndarray:
    """As messages take it: whole numbers, or all digits."""
    return array.astype(np.uint8 if array.dtype == bool else np.int32 if array.dtype.kind == "i" else np.float64)


def _whole(header: Mapping[str, Any], name: str, least: int, most: int, default: int = 0) -> int:
    value = header.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise DataError(f"{name}: expected a whole number from {least} to {most}. Received: {value!r}")
    return value


def _part(header: Mapping[str, Any], name: str) -> float | None:
    if name not in header:
        return None
    value = header[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise DataError(f"{name}: expected a number from 0 to 1. Received: {value!r}")
    return float(value)
