"""Model. The gaze head in all published forms, and the eye patches that some of them use."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from featray.model.config import IMAGE_SIDE_PX, CheckpointConfig
from featray.model.layout import EYE_CHANNELS, gaze_input_dim, gaze_output_dim

_EYE_CORNERS = ((33, 133), (362, 263))
_C4_STRIDE_PX = 16
_SMALLEST_ANGLE_RAD = 1e-8


def rotation_matrix(rotation_vector: Tensor) -> Tensor:
    """Convert rotation vectors `[N, 3]` (rad) to matrices `[N, 3, 3]` with Rodrigues' formula."""
    angle = rotation_vector.norm(dim=1, keepdim=True)
    x, y, z = (rotation_vector / angle.clamp(min=_SMALLEST_ANGLE_RAD)).split(1, dim=1)
    sin, cos = torch.sin(angle), torch.cos(angle)
    rest = 1.0 - cos
    rows = (
        torch.cat((cos + x * x * rest, x * y * rest - z * sin, x * z * rest + y * sin), dim=1),
        torch.cat((x * y * rest + z * sin, cos + y * y * rest, y * z * rest - x * sin), dim=1),
        torch.cat((x * z * rest - y * sin, y * z * rest + x * sin, cos + z * z * rest), dim=1),
    )
    return torch.stack(rows, dim=1)


def eye_centers(mesh: Tensor, *, normalized: bool) -> tuple[Tensor, Tensor]:
    """Return the centres of both eyes, each `[N, 2]` as x, y in pixels of the 224-pixel image."""
    scale = float(IMAGE_SIDE_PX) if normalized else 1.0
    first, second = ((mesh[:, a, :2] + mesh[:, b, :2]) * (0.5 * scale) for a, b in _EYE_CORNERS)
    return first, second


class RoiAlign(nn.Module):
    """torchvision's aligned `roi_align` for square boxes of one fixed size, as two matrix products.

    Bilinear sampling is separable, and so is the mean over a bin's samples: along each axis
    the patch is a `[size, cells]` matrix times the map. Every backend can convert and
    vectorise that, and a test compares it with torchvision's op.
    """

    positions: Tensor
    cells: Tensor

    def __init__(self, *, box_side_px: float, size: int, num_cells: int) -> None:
        super().__init__()
        self.num_cells = num_cells
        side = box_side_px / _C4_STRIDE_PX
        self.half_px = box_side_px / 2
        num_samples = max(1, math.ceil(side / size))
        steps = (torch.arange(size * num_samples, dtype=torch.float64) + 0.5) * (side / (size * num_samples))
        self.register_buffer("positions", steps.float().view(1, size, num_samples), persistent=False)
        self.register_buffer("cells", torch.arange(num_cells).float(), persistent=False)

    def forward(self, features: Tensor, centers_px: Tensor) -> Tensor:
        """Cut patches `[N, C, size, size]` from features `[N, C, H, H]` at box centres `[N, 2]` in image pixels."""
        along_x = self._weights(centers_px[:, :1])
        along_y = self._weights(centers_px[:, 1:])
        rows = torch.matmul(along_y.unsqueeze(1), features)
        return torch.matmul(rows, along_x.transpose(1, 2).unsqueeze(1))

    def _weights(self, center_px: Tensor) -> Tensor:
        """Return the bilinear weights `[N, size, cells]` of each bin on each cell of one axis, for `[N, 1]` centres."""
        start = (center_px - self.half_px) / _C4_STRIDE_PX - 0.5
        position = start.unsqueeze(-1) + self.positions
        inside = ((position >= -1.0) & (position <= float(self.num_cells))).to(position.dtype)
        clamped = position.clamp(0.0, float(self.num_cells - 1))
        weights = (1.0 - (clamped.unsqueeze(-1) - self.cells).abs()).clamp(min=0.0)
        return (weights * inside.unsqueeze(-1)).mean(dim=2)


class EyeEncoder(nn.Module):
    """Encodes the stride-16 map around each eye as a vector."""

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__()
        self.normalized = config.mesh_normalized
        size = config.gaze_eye_roi_size
        self.roi_align = RoiAlign(
            box_side_px=config.gaze_eye_box_frac * IMAGE_SIDE_PX,
            size=size,
            num_cells=IMAGE_SIDE_PX // _C4_STRIDE_PX,
        )
        self.enc = nn.Sequential(
            nn.Conv2d(config.backbone_shape.channels[-2], EYE_CHANNELS, 3, padding=1, bias=False),
            nn.GroupNorm(8, EYE_CHANNELS),
            nn.GELU(),
            nn.Conv2d(EYE_CHANNELS, EYE_CHANNELS, 3, padding=1, bias=False),
            nn.GroupNorm(8, EYE_CHANNELS),
            nn.GELU(),
        )
        self.proj = nn.Linear(EYE_CHANNELS * size * size, config.gaze_eye_dim)
        self.norm = nn.LayerNorm(config.gaze_eye_dim)

    def forward(self, c4: Tensor, mesh: Tensor) -> tuple[Tensor, Tensor]:
        """Return a vector `[N, gaze_eye_dim]` for each eye, from C4 `[N, C, 14, 14]` and the mesh."""
        first, second = (self._encode(c4, c) for c in eye_centers(mesh, normalized=self.normalized))
        return first, second

    def _encode(self, c4: Tensor, centers_px: Tensor) -> Tensor:
        encoded: Tensor = self.norm(self.proj(self.enc(self.roi_align(c4, centers_px)).flatten(1)))
        return encoded


class Gaze(nn.Module):
    """Yaw and pitch of the gaze, `[N, 2]` in radians; signs depend on the checkpoint, see `conventions.py`."""

    centers: Tensor

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__()
        self.bins = config.gaze_bins
        self.head_frame = config.gaze_head_frame
        self.pose_6d = config.gaze_pose_6d
        inputs, outputs = gaze_input_dim(config), gaze_output_dim(config)
        self.scalar_heads = outputs == 0
        for side in ("left", "right"):
            if self.scalar_heads:
                self.add_module(f"{side}_yaw", nn.Linear(inputs, 1))
                self.add_module(f"{side}_pitch", nn.Linear(inputs, 1))
            else:
                self.add_module(side, _side_head(inputs, config.gaze_hidden, outputs))
        if self.bins:
            low, high = math.radians(config.gaze_bin_lo_deg), math.radians(config.gaze_bin_hi_deg)
            index = torch.arange(self.bins, dtype=torch.float64)
            centers = low + (index + 0.5) * ((high - low) / self.bins)
            self.register_buffer("centers", centers.float(), persistent=False)

    def forward(self, unified: Tensor, eyes: tuple[Tensor, ...], pose: Tensor) -> Tensor:
        """Return `[N, 2]` from the shared vector `[N, D]`, per-eye vectors (none or two) and pose `[N, 6]`."""
        pose_6d = (rotation_matrix(pose[:, :3])[:, :, :2].flatten(1),) if self.pose_6d else ()
        left, right = (torch.cat((unified, *eyes[i : i + 1], *pose_6d), dim=1) for i in (0, 1))
        out = 0.5 * (self._side("left", left) + self._side("right", right))
        if self.bins:
            return torch.matmul(torch.unflatten(out, 1, (2, self.bins)).softmax(dim=-1), self.centers)
        if self.head_frame:
            return _angles_from_head_frame(out, pose)
        return out

    def _side(self, side: str, inputs: Tensor) -> Tensor:
        if self.scalar_heads:
            angles = [self.get_submodule(f"{side}_{axis}")(inputs) for axis in ("yaw", "pitch")]
            return torch.cat(angles, dim=1)
        out: Tensor = self.get_submodule(side)(inputs)
        return out


def _side_head(inputs: int, hidden: int, outputs: int) -> nn.Module:
    if not hidden:
        return nn.Linear(inputs, outputs)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))


def _angles_from_head_frame(direction: Tensor, pose: Tensor) -> Tensor:
    """Convert directions `[N, 3]` in the head's frame to yaw and pitch `[N, 2]` in the camera's frame."""
    unit = nn.functional.normalize(direction, dim=1)
    rotated = torch.matmul(rotation_matrix(pose[:, :3]), unit.unsqueeze(-1)).squeeze(-1)
    x, y, z = torch.unbind(rotated, dim=1)
    return torch.stack((torch.atan2(x, -z), torch.asin(y.clamp(-1.0, 1.0))), dim=1)
