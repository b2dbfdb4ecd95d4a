"""Detection and cropping for a GPU, run on torch's CPU device: the same code, so everything but CUDA itself."""

import logging
import weakref
from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from torch import nn

from featray.config import DecodeConfig, DetectConfig, EveryNth
from featray.errors import ModelError
from featray.faces.crop import crop_squares, cut_chip
from featray.faces.detector import DetectorFiles
from featray.faces.detectors import open_cutter, open_detector
from featray.faces.mnv1_network import load_mnv1
from featray.faces.on_gpu import BatchedNetwork, GpuCutter, GpuDetector
from featray.faces.retinaface import decode_outputs
from featray.faces.retinaface_mnv1 import network_by_size, read_weights
from featray.faces.retinaface_r34 import input_picture, open_torch
from featray.faces.weights import find_weights
from featray.model.gpu import STAND_IN
from featray.video.decode import DecodeAccount, decode_pyav
from featray.video.frame import Frame
from featray.video.units import WHOLE_VIDEO
from tests.fixtures.r34_weights import write_r34_weights

CPU = torch.device("cpu")


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setenv(STAND_IN, "cpu")


@pytest.fixture(scope="module")
def frames(face_clip, clips):
    """Return frames of two clips in two sizes, and one with three faces: faces of the first clip side by side."""
    settings, found = DecodeConfig(sample=EveryNth(every=48)), []
    for path in (face_clip, clips / "no_face.mp4"):
        with path.open("rb") as file:
            found += list(decode_pyav(file, WHOLE_VIDEO[0], settings, DecodeAccount()))[:4]
    wide = np.concatenate([found[i].rgb()[:, 160:480] for i in (0, 1, 3)], axis=1)
    return [*found, Frame.of(av.VideoFrame.from_ndarray(wide, format="rgb24"), index=0, pts_us=0)]


def difference_px(found, expected):
    """Return the largest difference of boxes and landmarks; infinite if the number of faces differs."""
    if [len(faces) for faces in found] != [len(faces) for faces in expected]:
        return np.inf
    pairs = zip(found, expected, strict=True)
    return max(
        np.abs(np.subtract(getattr(a, name), getattr(b, name))).max(initial=0)
        for a, b in pairs
        for name in ("box_xyxy", "landmarks5")
    )


def same(found, expected):
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for a, b in zip(found, expected, strict=True)
        for name in ("box_xyxy", "score", "landmarks5")
    )


@pytest.mark.parametrize("every", [1, 5])
def test_faces_are_those_of_the_cpu(stand_in, frames, every, report):
    expected = open_detector(DetectConfig())(frames)
    assert sum(map(len, expected)) == 7 and max(map(len, expected)) == 3
    detector = open_detector(DetectConfig(device="gpu", every=every))
    assert isinstance(detector, GpuDetector)
    found = detector(frames)
    difference = difference_px(found, expected)
    report(f"detector in torch, batches of {detector.batch_frames}: {difference:.1e} px from OpenVINO")
    assert difference < 1e-3
    scores = [np.abs(a.score - b.score).max(initial=0) for a, b in zip(found, expected, strict=True)]
    assert max(scores) < 1e-5


@pytest.mark.parametrize("every", [1, 5])
def test_which_frames_share_a_batch_changes_no_bit(stand_in, frames, every):
    detector = open_detector(DetectConfig(device="gpu", every=every, input_px=192))
    together = detector(frames)
    assert sum(map(len, together)) >= 4
    assert same([detector([frame])[0] for frame in frames], together)
    assert same(detector(frames[::-1])[::-1], together)
    assert same(detector(frames[:1] * 17 + frames[1:])[16:], together)


@pytest.mark.parametrize("height_px, width_px", [(101, 77), (9, 640), (1, 1)])
def test_the_network_is_the_files(height_px, width_px):
    picture = np.random.default_rng(0).integers(0, 256, (height_px, width_px, 3), np.uint8)
    (found,) = BatchedNetwork(load_mnv1(read_weights()), CPU, 1)([picture])
    for raw, expected in zip(found, network_by_size(read_weights())(height_px, width_px)(picture), strict=True):
        assert raw.shape == expected.shape
        np.testing.assert_allclose(raw, expected, rtol=0, atol=5e-5)


def test_another_file_is_no_network_of_ours():
    data = read_weights().replace(b"/fx/stage1/stage1.1/stage1.1.0/stage1.1.0.0/Conv", b"x" * 48)  # no special name
    assert load_mnv1(data) is not None
    with pytest.raises(ModelError, match="another network"):
        load_mnv1(read_weights().replace(b"Conv", b"Covn"))


def test_r34_sees_the_frame_that_it_sees_on_a_cpu(stand_in, frames, tmp_path):
    weights = write_r34_weights(tmp_path / "model.safetensors", seed=21, face_bias=-0.5)
    settings = DetectConfig(
        detector="retinaface-r34", weights=str(weights), input_px=192, min_size_px=1, device="gpu", every=2
    )
    network = open_torch(find_weights(settings, tmp_path))  # compared with OpenVINO and py-feat in tests/parity
    (found,) = open_detector(settings, DetectorFiles(tmp_path))(frames[:1])
    picture = input_picture(frames[0], 192)
    sizes = {"input_hw_px": picture.shape[:2], "frame_wh_px": (640, 360)}
    expected = decode_outputs(*network(picture), **sizes, settings=settings)
    assert len(expected) > 2 and difference_px([found], [expected]) < 1e-3


class _Hungry(nn.Module):
    """A network that runs out of memory for more than `most` pictures; stands in for a GPU without free memory.

    It cannot show how a GPU's allocator behaves then: `make gpu-check` fills the memory of a real one.
    """

    def __init__(self, most):
        super().__init__()
        self.most, self.seen, self.held = most, [], []

    def forward(self, pictures):
        self.seen.append(len(pictures))
        activations = pictures.float()
        if len(pictures) > self.most:
            self.held.append(weakref.ref(activations))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        mean = activations.mean(dim=(1, 2, 3))
        return (
            mean.view(-1, 1, 1).expand(-1, 2, 4),
            mean.view(-1, 1).expand(-1, 2),
            mean.view(-1, 1, 1).expand(-1, 2, 10),
        )


def test_running_out_of_memory_halves_the_batch_and_lets_go_of_it(caplog, monkeypatch):
    network, freed = _Hungry(2), []
    alive = lambda device: freed.append([held() for held in network.held])  # noqa: E731
    monkeypatch.setattr("featray.faces.on_gpu.free_unused", alive)
    pictures = [np.full((5, 7, 3), i, np.uint8) for i in range(5)]
    batched = BatchedNetwork(network, CPU, 8)
    with caplog.at_level(logging.WARNING):
        found = batched(pictures)
    assert network.seen == [8, 4, 2, 2, 2] and batched.batch_frames == 2
    assert [raw[1].tolist() for raw in found] == [[i, i] for i in range(5)]
    assert freed == [[None], [None, None]], "activations of the failed batch are still held"
    assert len(caplog.records) == 2
    with pytest.raises(ModelError, match="too small for the detector and one frame"):
        BatchedNetwork(_Hungry(0), CPU, 2)(pictures)


def test_other_errors_of_the_gpu_name_it(stand_in, frames):
    detector = open_detector(DetectConfig(device="gpu"))

    def fails(module, inputs):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    detector._network._network.register_forward_pre_hook(fails)
    with pytest.raises(ModelError, match=r"failed on the GPU .*illegal memory access"):
        detector(frames[:1])


SQUARES = [(-5000.0, -3000.0, 400.0), (90.0, 40.0, 2000.0), (0.0, 0.0, 1.0), (3.3, 4.7, 60.1), (-20.5, 70.2, 31.7)]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("square", SQUARES)
def test_chips_are_those_of_the_cpu_to_the_bit(square, dtype):
    frame = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (83, 131, 3), dtype, endpoint=True)
    for picture in (frame, frame[:, ::-1]):  # contiguous in memory, and not
        chip = cut_chip(picture, np.asarray(square), GpuCutter(CPU))
        assert chip.dtype == dtype
        np.testing.assert_array_equal(chip, cut_chip(picture, np.asarray(square)))


def test_chips_of_faces_are_those_of_the_cpu(stand_in, frames):
    cut = open_cutter(DetectConfig(device="gpu"))
    for frame, faces in zip(frames, open_detector(DetectConfig())(frames), strict=True):
        for square in crop_squares(faces.box_xyxy):
            np.testing.assert_array_equal(cut_chip(frame.rgb(), square, cut), cut_chip(frame.rgb(), square))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_where_there_is_no_gpu_one_line_says_so():
    for opened in (lambda: open_detector(DetectConfig(device="gpu")), lambda: open_cutter(DetectConfig(device="gpu"))):
        with pytest.raises(ModelError, match=r"^detect.device: gpu, but torch .* sees no CUDA device on .*: cpu$"):
            opened()


def test_frames_of_many_sizes(stand_in, frames):
    detector = open_detector(DetectConfig(device="gpu", every=2))
    frame = frames[0]
    narrower = [replace(frame, picture=frame.picture.reformat(width=640 - 8 * i, height=360)) for i in range(5)]
    assert [len(faces) for faces in detector(narrower)] == [1] * 5  # more sizes than are kept
