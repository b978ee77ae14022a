"""What filters look for, measured in the background while the page goes on, and kept beside the model."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convolve.errors import ConvolveError
from convolve.network import Network
from convolve.view.excitation import Excitation, beside, measure


class Ended(Exception):
    """Nobody looks any more."""


@dataclass
class Study:
    """How far the measurement of one layer is."""

    found: Excitation | None = None
    part: float = 0.0
    """From 0 to 1."""
    done: bool = False
    failed: str = ""

    @classmethod
    def whole(cls, found: Excitation) -> Study:
        """One that is done."""
        return cls(found, 1.0, True)


class Studies:
    """Measurements of a network's layers on samples, each begun when it is first asked for, one after the other."""

    def __init__(self, network: Network, samples: np.ndarray, labels: np.ndarray | None, file: Path | None) -> None:
        self._network, self._samples, self._labels, self._file = network, samples, labels, file
        self._known: dict[str, Study] = {}
        self._turn = threading.Lock()
        self._ended = threading.Event()

    def begun(self, layer: str) -> Study:
        """The measurement of a layer, which is begun where nobody has asked before."""
        if layer not in self._known:
            study = self._known[layer] = Study()
            threading.Thread(target=self._run, args=(layer, study), daemon=True).start()
        return self._known[layer]

    def end(self) -> None:
        """Let what is measured now be left."""
        self._ended.set()

    def _run(self, layer: str, study: Study) -> None:
        def progress(done: int, of: int) -> None:
            study.part = done / of
            if self._ended.is_set():
                raise Ended

        with self._turn:
            try:
                study.found = self.kept(layer)
                if study.found is None:
                    for study.found in measure(self._network, layer, self._samples, self._labels, progress=progress):
                        pass
                    self._keep(layer, study)
                study.part = 1.0
            except Ended:
                return
            except ConvolveError as error:
                study.failed = str(error)
            study.done = True

    def kept(self, layer: str) -> Excitation | None:
        """What an earlier page measured of this very model on these samples."""
        path = self._file and beside(self._file, layer)
        if path is None or not path.is_file():
            return None
        try:
            found = Excitation.load(path)
        except ConvolveError:  # damaged: it is measured anew
            return None
        return found if found.fits(self._network, self._samples) else None

    def _keep(self, layer: str, study: Study) -> None:
        """Beside the model, unless its folder takes no files: then the page measures again next time."""
        if self._file is None or study.found is None:
            return
        try:
            study.found.save(beside(self._file, layer))
        except ConvolveError:
            return
