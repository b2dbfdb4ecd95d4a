from dataclasses import replace

import numpy as np
import pytest

from featray.config import DecodeConfig, DetectConfig, EveryNth
from featray.faces.detectors import open_detector
from featray.faces.overlap import iou_matrix
from featray.faces.retinaface import non_maximum_suppression, priors_px
from featray.faces.retinaface_mnv1 import WEIGHTS, network_by_size
from featray.video.decode import DecodeAccount, decode_pyav
from featray.video.units import WHOLE_VIDEO

pytestmark = pytest.mark.slow


def detect(frame, **settings):
    (faces,) = open_detector(DetectConfig(**settings))([frame])
    return faces


def frames(path, every):
    with path.open("rb") as file:
        yield from decode_pyav(file, WHOLE_VIDEO[0], DecodeConfig(sample=EveryNth(every=every)), DecodeAccount())


def test_one_face_in_every_frame_of_the_face_clip(face_clip):
    found = [detect(frame) for frame in frames(face_clip, 24)]
    assert len(found) == 20
    assert [len(faces) for faces in found] == [1] * 20


def test_no_face_where_there_is_none(clips):
    assert all(len(detect(frame)) == 0 for frame in frames(clips / "no_face.mp4", 8))


def test_landmarks_lie_in_the_box_and_the_right_eye_is_on_the_viewers_left(face_clip):
    faces = detect(next(frames(face_clip, 1)))
    x1, y1, x2, y2 = faces.box_xyxy[0]
    right_eye, left_eye, nose, right_mouth, left_mouth = faces.landmarks5[0]
    assert right_eye[0] < left_eye[0] and right_mouth[0] < left_mouth[0]
    assert max(right_eye[1], left_eye[1]) < nose[1] < min(right_mouth[1], left_mouth[1])
    assert all(x1 < x < x2 and y1 < y < y2 for x, y in faces.landmarks5[0])


def test_boxes_are_in_frame_pixels_whatever_the_input_size(face_clip):
    frame = next(frames(face_clip, 1))
    small = detect(frame, input_px=320)
    full = detect(frame)
    assert iou_matrix(small.box_xyxy, full.box_xyxy)[0, 0] > 0.85


@pytest.mark.parametrize("setting", [{"min_score": 0.99999}, {"min_size_px": 400}])
def test_thresholds_drop_faces(face_clip, setting):
    assert len(detect(next(frames(face_clip, 1)), **setting)) == 0


@pytest.mark.parametrize("height_px, width_px", [(360, 640), (640, 480), (101, 77), (9, 640), (1, 1)])
def test_openvino_gives_what_onnxruntime_does(height_px, width_px):
    onnxruntime = pytest.importorskip("onnxruntime")
    image = np.random.default_rng(0).integers(0, 256, (height_px, width_px, 3), np.uint8)
    floats = (image.astype(np.float32) - np.asarray([104, 117, 127], np.float32)).transpose(2, 0, 1)[None]
    session = onnxruntime.InferenceSession(WEIGHTS.read_bytes(), providers=["CPUExecutionProvider"])
    loc, confidence, landmarks = session.run(["loc", "conf", "landmarks"], {"input": floats})
    found = network_by_size(WEIGHTS.read_bytes())(height_px, width_px)(image)
    for raw, expected in zip(found, (loc[0], confidence[0, :, 1], landmarks[0]), strict=True):
        assert raw.shape == expected.shape
        np.testing.assert_allclose(raw, expected, rtol=0, atol=5e-5)


def test_frames_of_many_sizes(face_clip):
    (frame,) = frames(face_clip, 1000)
    detector = open_detector(DetectConfig())
    expected = detector([frame])[0]
    narrower = [replace(frame, picture=frame.picture.reformat(width=640 - 8 * i, height=360)) for i in range(6)]
    assert [len(faces) for faces in detector(narrower)] == [1] * 6  # more sizes than are kept
    np.testing.assert_array_equal(detector([frame])[0].box_xyxy, expected.box_xyxy)


def test_priors_cover_the_cells_of_three_strides():
    priors = priors_px(100, 60)  # strides 8, 16, 32: 13x8, 7x4, 4x2 cells, two anchors each
    assert priors.shape == (2 * (13 * 8 + 7 * 4 + 4 * 2), 4)
    assert priors[0].tolist() == [4, 4, 16, 16]
    assert priors[-1].tolist() == [48, 112, 512, 512]


def test_iou_and_suppression_by_hand():
    boxes = np.asarray([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [5, 5, 5, 5]], float)
    iou = iou_matrix(boxes, boxes)
    assert iou[0, 1] == pytest.approx(90 / 110)
    assert iou[0, 2] == 0 and iou[3, 3] == 0
    assert non_maximum_suppression(boxes, 0.4).tolist() == [0, 2, 3]
