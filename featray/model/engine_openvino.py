"""Model. The OpenVINO engine for CPUs; it needs no torch once the converted network is in the cache.

Chips run in batches of one small fixed shape, whatever the configured batch size; the last batch
is padded. This is as fast on a CPU as large batches, and the choice of kernels does not depend on
the number of faces. A row is bit for bit the same whatever its position and neighbours.

The cache holds the converted network, not the compiled one: compiling takes as long as importing
a compiled blob, and the converted network suits every CPU and both precisions.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featray.errors import ConfigError, ModelError, one_line
from featray.model.checkpoint import Checkpoint
from featray.model.engines import EngineSettings, check_chips
from featray.model.outputs import RawOutputs, flat_widths, split_flat
from featray.model.streams import Streams
from featray.names import CHIP_PX
from featray.weights import ir_cache
from featray.weights.openvino_cpu import compile_model, has_bf16, import_openvino

_log = logging.getLogger(__name__)

_PARTS: Final = ("trunk", "heads")
_CODE_FILES: Final = (
    "action_units.py",
    "backbone.py",
    "config.py",
    "engine_openvino.py",
    "gaze.py",
    "heads.py",
    "layout.py",
    "network.py",
    "outputs.py",
    "recipes.py",
)

CHIPS_PER_INFERENCE: Final = 4
"""Fixed batch size: throughput on one thread is flat from 4 to 16, and at most 3 chips are padding."""


class OpenVinoEngine:
    """`Engine` on OpenVINO's CPU plugin. Use `open_openvino`."""

    name = "openvino"
    device = "cpu"

    def __init__(self, parts: list[Any], checkpoint: Checkpoint, precision: str, num_streams: int) -> None:
        self.precision = precision
        self._config = checkpoint.config
        self._width = sum(flat_widths(checkpoint.config).values())
        _fill_type_tables()
        self._streams = Streams([_Stream(parts) for _ in range(num_streams)])

    def __call__(self, chips: NDArray[np.uint8]) -> RawOutputs:
        """Run the network on chips `[N, 256, 256, 3]` uint8 RGB, any N >= 0.

        Raises:
            ModelError: OpenVINO fails on a batch.
        """
        check_chips(chips)
        flat = np.empty((len(chips), self._width), np.float32)

        def run(stream: _Stream, start: int) -> None:
            batch = chips[start : start + CHIPS_PER_INFERENCE]
            flat[start : start + len(batch)] = stream(batch)

        self._streams.run(run, range(0, len(chips), CHIPS_PER_INFERENCE))
        return split_flat(flat, self._config)

    def stop(self) -> None:
        """See `Engine`."""
        self._streams.stop()

    def is_usable(self) -> bool:
        """See `Engine`. Always true: a failed request leaves no broken state."""
        return True


def _fill_type_tables() -> None:
    """Make OpenVINO fill its type tables in this thread, before several streams need them at once.

    Seen with 2026.4: the first thread that needs the tables fills them. If it releases the GIL meanwhile and another
    thread needs them, the two deadlock.
    """
    ov = import_openvino()
    ov.Tensor(np.zeros(1, np.uint8)).element_type.to_dtype()


class _Stream:
    """One inference request per part, and the staging memory for chips."""

    def __init__(self, parts: list[Any]) -> None:
        self._requests = [part.create_infer_request() for part in parts]
        self._staging = np.zeros(tuple(parts[0].input(0).shape), np.uint8)

    def __call__(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run a batch, padded to the fixed size; return one row per chip."""
        self._staging[: len(chips)] = chips
        arrays: list[Any] = [self._staging]
        try:
            for request in self._requests:
                results = request.infer(arrays, share_inputs=True, share_outputs=True)
                arrays = [results[index] for index in range(len(results))]
        except RuntimeError as error:
            raise ModelError(f"OpenVINO failed on a batch ({one_line(error)})") from error
        flat: NDArray[np.float32] = arrays[0]
        return flat[: len(chips)]


def open_openvino(checkpoint: Checkpoint, settings: EngineSettings) -> OpenVinoEngine:
    """Open the OpenVINO engine; convert the network first if it is not in the cache.

    With bf16 only the trunk runs in bfloat16, as in the torch engine.

    Raises:
        ConfigError: bf16 on a CPU without bf16 instructions.
        ModelError: the network cannot be converted or compiled.
    """
    try:
        parts = compile_parts(checkpoint, settings)
    except RuntimeError as error:
        raise ModelError(f"{checkpoint.path}: OpenVINO cannot compile it ({one_line(error)})") from error
    return OpenVinoEngine(parts, checkpoint, settings.precision, settings.num_threads)


def compile_parts(checkpoint: Checkpoint, settings: EngineSettings) -> list[Any]:
    """Compile trunk and heads; RuntimeError if OpenVINO cannot."""
    ov = import_openvino()
    core = ov.Core()
    is_bf16 = settings.precision == "bf16"
    if is_bf16 and not has_bf16(core):
        raise ConfigError("model.precision: this CPU has no bf16 instructions; use fp32")
    hints = ("bf16" if is_bf16 else "f32", "f32")
    models = _load_models(ov, core, checkpoint, settings)
    return [
        compile_model(core, model, streams=settings.num_threads, precision=hint)
        for model, hint in zip(models, hints, strict=True)
    ]


def _load_models(ov: ModuleType, core: Any, checkpoint: Checkpoint, settings: EngineSettings) -> list[Any]:
    """Read trunk and heads from the cache, or convert them."""

    def read(files: Mapping[str, bytes]) -> list[Any]:
        return [core.read_model(files[f"{part}.xml"], files[f"{part}.bin"]) for part in _PARTS]

    def make(folder: Path) -> None:
        _convert(ov, checkpoint, settings, folder)

    if settings.cache_dir is None:
        with tempfile.TemporaryDirectory() as temporary:
            make(Path(temporary))
            return read({path.name: path.read_bytes() for path in Path(temporary).iterdir()})
    key = ir_key(checkpoint, recipe=settings.recipe, batch=CHIPS_PER_INFERENCE, openvino_version=ov.__version__)
    return ir_cache.IrCache(settings.cache_dir / "openvino").load_or_make(key, read=read, make=make)


def ir_key(checkpoint: Checkpoint, *, recipe: str, batch: int, openvino_version: str) -> str:
    """Return the name of the converted network in the cache."""
    here = Path(__file__).parent
    return ir_cache.ir_key(
        f"{checkpoint.sha256[:12]}-{recipe}-b{batch}",
        (checkpoint.sha256, recipe, str(batch), openvino_version),
        [here / name for name in _CODE_FILES],
    )


def _convert(ov: ModuleType, checkpoint: Checkpoint, settings: EngineSettings, folder: Path) -> None:
    """Convert trunk and heads and save them in `folder`. Only this function of the engine needs torch."""
    import torch

    from featray.model.network import ChipTrunk, FlatHeads, load_network
    from featray.model.recipes import make_recipe

    _log.info("converting %s for OpenVINO", checkpoint.name)
    torch.set_num_threads(1)
    network = load_network(checkpoint, pointwise_convs=True)
    modules = (ChipTrunk(make_recipe(settings.recipe), network), FlatHeads(network))
    inputs = [torch.zeros((CHIPS_PER_INFERENCE, CHIP_PX, CHIP_PX, 3), dtype=torch.uint8)]
    for part, module in zip(_PARTS, modules, strict=True):
        with torch.no_grad():
            model = ov.convert_model(torch.export.export(module.eval(), tuple(inputs)))
        # Conversion drops the batch size.
        for port, example in zip(model.inputs, inputs, strict=True):
            port.get_node().set_partial_shape(ov.PartialShape(list(example.shape)))
        model.validate_nodes_and_infer_types()
        ov.save_model(model, str(folder / f"{part}.xml"), compress_to_fp16=False)
        inputs = [torch.zeros(list(port.shape)) for port in model.outputs]
